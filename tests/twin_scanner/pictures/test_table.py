"""The key image's table. Oracles: every text that matplotlib was given, where it stands, and the pixels."""

from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from tests.twin_scanner.pictures.test_preview import block
from twin_scanner.dicom.write.measurement_report import DistrictMeasurement
from twin_scanner.imaging.suv import RegionSuv
from twin_scanner.imaging.volume import Geometry
from twin_scanner.pictures import panels
from twin_scanner.pictures.preview import WATERMARK, _key_figure
from twin_scanner.pictures.table import HEADINGS, MOST_ROWS, UNIT, table_inch

pytestmark = pytest.mark.unit


def suv(mean: float, maximum: float, peak: float | None) -> RegionSuv:
    return RegionSuv(0.0, mean, maximum, (0, 0, 0), peak, None if peak is None else (0, 0, 0))


MEASURED = [
    DistrictMeasurement("head", 1, 4301.26, suv(3.5512, 12.0449, 11.4561)),
    DistrictMeasurement("trunk", 2, 38567.0, suv(0.758, 23.85, None)),
    DistrictMeasurement("legs", 3, 19430.4, None),
]


def texts(measured: list[DistrictMeasurement]) -> tuple[list[Text], list[Bbox], Bbox]:
    """All that is written on a key image, aslant stamps aside, the pixels that each text takes, and the picture's."""
    with panels.drawing_style():
        figure = _key_figure(block(), "demonstration 0123456789ab", measured)
        renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        found = [text for text in figure.findobj(Text) if text.get_text() and text.get_text() != WATERMARK]  # type: ignore[attr-defined]
        return found, [text.get_window_extent(renderer) for text in found], figure.bbox


def words(measured: list[DistrictMeasurement]) -> list[str]:
    return [text.get_text() for text in texts(measured)[0]]


def test_each_district_has_its_volume_and_its_suv_as_measured() -> None:
    written = words(MEASURED)
    first = written.index(HEADINGS[0])
    assert written[first : first + 19] == [
        *HEADINGS,
        *("head", "4301", "3.55", "12.04", "11.46"),
        *("trunk", "38567", "0.76", "23.85", "none"),
        *("legs", "19430", panels.NOT_SYNTHESISED, UNIT),
    ]


def test_a_district_that_was_not_synthesised_has_no_number_for_its_suv() -> None:
    written = words([MEASURED[2]])
    assert panels.NOT_SYNTHESISED in written
    assert not [word for word in written if word.startswith("0.")]


def test_without_measurements_there_is_no_table() -> None:
    assert not set(words([])) & set(HEADINGS)
    assert table_inch([]) == 0.0


@pytest.mark.parametrize("count", [1, 40])
def test_no_text_covers_another_or_leaves_the_picture(count: int) -> None:
    """Forty regions with long names: the largest are shown, and how many there are besides."""
    many = [
        DistrictMeasurement(f"organ {number:02d} with a long name", number, 100.0 * number, suv(1.0, 100.0, 99.0))
        for number in range(1, count + 1)
    ]
    found, boxes, picture = texts(many)
    for text, box in zip(found, boxes, strict=True):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= picture.x1 and box.y1 <= picture.y1, text.get_text()
    table = [place for place, text in enumerate(found) if text.get_text() in {*HEADINGS, "1.00", "100.00", "99.00"}]
    for one, other in combinations(table, 2):
        assert not _overlap(boxes[one], boxes[other]), (found[one].get_text(), found[other].get_text())
    named = [text.get_text() for text in found if text.get_text().startswith("organ")]
    assert named == [panels.drawable(one.name) for one in many][-MOST_ROWS:]
    assert (f"and {count - MOST_ROWS} more: see the structured report" in [text.get_text() for text in found]) is (
        count > MOST_ROWS
    )


def _overlap(one: Bbox, other: Bbox) -> bool:
    return one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 - 1 and other.y0 < one.y1 - 1


def test_the_letters_are_large_enough_to_be_read_at_half_the_size() -> None:
    found, boxes, _ = texts(MEASURED)
    heights = {text.get_text(): box.height for text, box in zip(found, boxes, strict=True)}
    assert min(heights[word] for word in ("3.55", "12.04", "11.46", "0.76", "4301")) >= 14


def test_the_table_takes_room_from_the_views_and_not_from_the_screen() -> None:
    """Of a tall body: a block of five feet."""
    tall = Geometry((300, 24, 30), (5.0, 4.0, 3.0), (0.0, 0.0, 0.0))
    plain, tabled = (_key_figure(block(tall), "m", measured).get_size_inches()[1] for measured in ([], MEASURED * 3))
    assert tabled == pytest.approx(plain, abs=0.1)
