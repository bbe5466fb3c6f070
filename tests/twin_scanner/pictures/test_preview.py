"""The pictures; the oracle is the pixels: where a known mark, colour or length must be, and what must not be there."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from tests.samples.cases import quick_and_long
from training.phantom.phantom import Phantom, PhantomOptions, make_phantom
from twin_scanner.errors import Defect, Transient
from twin_scanner.imaging.district_labels import DISTRICT_COLOURS
from twin_scanner.imaging.volume import Geometry, Volume
from twin_scanner.pictures import panels
from twin_scanner.pictures import preview as preview_pictures
from twin_scanner.pictures.preview import (
    BANNER_COLOURS,
    KEY_IMAGE_DPI,
    LARGEST_INCH_A_MM,
    Scene,
    key_image,
    write_preview,
)
from twin_scanner.pictures.projections import MARGIN_MM, project

pytestmark = pytest.mark.unit

Picture = npt.NDArray[np.uint8]
BLOCK_GRID = Geometry((40, 24, 30), (5.0, 4.0, 3.0), (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(3, PhantomOptions(spacing_mm=(10.0, 8.0, 8.0)))


def scene(phantom: Phantom, missing: tuple[str, ...] = ()) -> Scene:
    return Scene(phantom.ct, phantom.districts, phantom.pet, missing=missing)


def block(grid: Geometry = BLOCK_GRID) -> Scene:
    """A trunk with one hot spot at the patient's upper left front, a head above, and an arm before the belly."""
    labels = np.zeros(grid.shape, np.uint8)
    labels[:32, 4:20, 5:25] = 2
    labels[32:, 8:16, 10:20] = 1
    labels[5:10, 4:7, 8:22] = 3
    suv = np.where(labels > 0, np.float32(1), np.float32(0))
    suv[28, 6, 22] = 9.0
    ct = np.where(labels > 0, np.float32(40), np.float32(-1000))
    return Scene(Volume(ct, grid), labels, Volume(suv, grid))


def pixels(path: Path) -> Picture:
    return np.asarray((imread(path)[..., :3] * 255).round().astype(np.uint8))


def has(picture: Picture, colour: str) -> bool:
    """Whether more than a few pixels have the colour itself."""
    wanted = np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)
    return int((np.abs(picture.astype(int) - wanted).max(axis=2) <= 4).sum()) > 20


def preview(one: Scene, tmp_path: Path) -> Picture:
    write_preview(tmp_path / "preview.png", one)
    return pixels(tmp_path / "preview.png")


def test_the_views_are_numpys_projections_of_the_volume() -> None:
    one = block()
    views = project(one.ct, one.districts, one.suv)
    for view, sight in ((views.coronal, 1), (views.sagittal, 2)):
        first = int(np.flatnonzero((one.districts > 0).any(axis=(0, sight)))[0])
        first = max(0, first - int(np.ceil(MARGIN_MM / view.spacing_mm[1])))
        across = slice(first, first + view.suv.shape[1])
        assert np.array_equal(view.suv, one.suv.array.max(axis=sight)[:, across])
        assert np.array_equal(view.ct_hu, one.ct.array.max(axis=sight)[:, across])
        for label in (1, 2, 3):
            expected = (one.districts == label).any(axis=sight)[:, across]
            assert np.array_equal(view.silhouettes[label], expected)
        counts = np.stack([(one.districts == label).sum(axis=sight) for label in (1, 2, 3)])[:, :, across]
        expected_label = np.where(counts.any(axis=0), counts.argmax(axis=0) + 1, 0)
        assert np.array_equal(view.prevailing, expected_label)
    assert views.voxels == {label: int((one.districts == label).sum()) for label in (1, 2, 3)}


def test_the_patients_right_is_on_the_left_and_the_front_on_the_left() -> None:
    """DICOM's LPS: W runs to the patient's left, H to the back, D to the head; the hot spot is upper left front."""
    views = block().projections
    assert views.coronal.markers == ("R", "L", "H", "F")
    assert views.sagittal.markers == ("A", "P", "H", "F")
    row, column = np.unravel_index(int(views.coronal.suv.argmax()), views.coronal.suv.shape)
    assert row == 28
    assert column > views.coronal.suv.shape[1] / 2
    row, column = np.unravel_index(int(views.sagittal.suv.argmax()), views.sagittal.suv.shape)
    assert row == 28
    assert column < views.sagittal.suv.shape[1] / 2


def test_the_hot_spot_is_drawn_where_it_lies_at_true_proportion() -> None:
    """One voxel of 5 mm by 3 mm, and of 4 mm in the other view; bilinear drawing lets it fade into its neighbours."""
    one = block()
    with_spot = key_image(one, "m").astype(int)
    without = Volume(np.minimum(one.suv.array, np.float32(1)), one.suv.geometry)
    plain = key_image(Scene(one.ct, one.districts, without), "m").astype(int)
    rows, columns = np.nonzero(np.abs(with_spot - plain).max(axis=2) > 60)
    pixels_a_mm = LARGEST_INCH_A_MM * KEY_IMAGE_DPI
    left = columns < (columns.min() + columns.max()) / 2
    assert np.ptp(columns[left]) == pytest.approx(3.0 * pixels_a_mm, abs=1.6 * 3.0 * pixels_a_mm)
    assert np.ptp(rows[left]) == pytest.approx(5.0 * pixels_a_mm, abs=1.6 * 5.0 * pixels_a_mm)
    assert np.ptp(columns[~left]) == pytest.approx(4.0 * pixels_a_mm, abs=1.6 * 4.0 * pixels_a_mm)
    assert rows[left].mean() == pytest.approx(rows[~left].mean(), abs=2.0)


def test_every_district_has_its_border_and_its_name_in_its_colour(phantom: Phantom, tmp_path: Path) -> None:
    picture = preview(scene(phantom), tmp_path)
    assert all(has(picture, colour) for colour in DISTRICT_COLOURS[1:])


def test_an_arm_before_the_belly_keeps_its_outline(tmp_path: Path) -> None:
    """The trunk prevails along every line of sight through it, so only the outline can tell."""
    one = block()
    assert not (one.projections.coronal.prevailing == 3).any()
    green = np.frombuffer(bytes.fromhex(DISTRICT_COLOURS[3][1:]), np.uint8).astype(int)
    picture = preview(one, tmp_path)
    panels_alone = picture[: int(0.9 * len(picture))].astype(int)
    assert (np.abs(panels_alone - green).max(axis=2) <= 30).sum() > 50


def test_a_district_that_is_not_there_is_not_shown(phantom: Phantom, tmp_path: Path) -> None:
    labels = np.where(phantom.districts == 4, 0, phantom.districts).astype(np.uint8)
    assert not has(preview(Scene(phantom.ct, labels, phantom.pet), tmp_path), DISTRICT_COLOURS[4])


def test_a_limb_that_the_districts_miss_is_still_seen(phantom: Phantom) -> None:
    labels = np.where(phantom.districts == 4, 0, phantom.districts).astype(np.uint8)
    view = Scene(phantom.ct, labels, phantom.pet).projections.coronal
    legs = project(phantom.ct, phantom.districts, phantom.pet).coronal.silhouettes[4]
    rows = np.flatnonzero(legs.any(axis=1))
    assert panels.ct_brightness(view)[rows[len(rows) // 2]].max() > 0.3
    assert panels.ct_brightness(view)[rows[len(rows) // 2]].max() <= panels.SURROUNDINGS


def test_a_district_that_was_not_synthesised_is_greyed_in_both_pictures(phantom: Phantom, tmp_path: Path) -> None:
    assert not has(preview(scene(phantom), tmp_path), panels.UNSYNTHESISED_COLOUR)
    assert has(preview(scene(phantom, ("legs",)), tmp_path), panels.UNSYNTHESISED_COLOUR)
    assert not has(key_image(scene(phantom), "m"), panels.UNSYNTHESISED_COLOUR)
    assert has(key_image(scene(phantom, ("legs",)), "m"), panels.UNSYNTHESISED_COLOUR)


def test_a_missing_district_that_no_label_bears_is_named_all_the_same(phantom: Phantom, tmp_path: Path) -> None:
    known, unknown = (preview(scene(phantom, missing), tmp_path) for missing in ((), ("tail",)))
    assert known.shape != unknown.shape or not np.array_equal(known, unknown)


def test_the_same_scene_is_the_same_bytes_whatever_the_machines_own_style(phantom: Phantom, tmp_path: Path) -> None:
    write_preview(tmp_path / "one.png", scene(phantom))
    picture = key_image(scene(phantom), "m")
    with matplotlib.rc_context({"font.size": 20.0, "axes.facecolor": "red", "savefig.dpi": 30}):
        write_preview(tmp_path / "two.png", scene(phantom))
        assert np.array_equal(picture, key_image(scene(phantom), "m"))
        assert matplotlib.rcParams["font.size"] == 20.0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize(
    "part", quick_and_long([slice(0, 1), slice(150, 178)], [slice(0, 2), slice(0, 30), slice(60, 100)])
)
def test_every_field_of_view_can_be_shown(phantom: Phantom, tmp_path: Path, part: slice) -> None:
    _, h, w = phantom.districts.shape
    box = (part, slice(0, h), slice(0, w))
    some = Scene(phantom.ct.cropped(box), phantom.districts[box], phantom.pet.cropped(box))
    height, width, _ = preview(some, tmp_path).shape
    assert 150 < height < 1300
    assert 800 < width < 1900
    rows, columns, _ = key_image(some, "m").shape
    assert 500 < rows < 1400
    assert 1200 < columns < 1900


def test_a_hundred_labels_and_none_at_all_can_be_shown(phantom: Phantom, tmp_path: Path) -> None:
    many = (np.indices(phantom.districts.shape)[0] % 117 + 1).astype(np.uint8) * (phantom.districts > 0)
    names = {label: f"organ {label} with a name that goes on and on" for label in range(1, 118)}
    height, width, _ = preview(Scene(phantom.ct, many, phantom.pet, names, tuple(names.values())[:60]), tmp_path).shape
    assert height < 1400
    assert width < 1900
    preview(Scene(phantom.ct, np.zeros_like(phantom.districts), phantom.pet), tmp_path)


def test_any_name_can_be_drawn(tmp_path: Path) -> None:
    """Warnings are errors here, and matplotlib warns of every glyph that its font does not have."""
    one, odd, long = block(), "頭部 a$b$_{c} line\nbreak", "x" * 300
    named = Scene(one.ct, one.districts, one.suv, {1: odd, 2: long, 3: ""}, (odd, long, ""))
    preview(named, tmp_path)
    for name in (odd, long, ""):
        key_image(named, name)


def test_the_key_image_warns_above_and_below_and_across_the_pet(phantom: Phantom) -> None:
    picture = key_image(scene(phantom), "demonstration 0123456789ab")
    assert picture.dtype == np.uint8
    band = 70
    assert has(picture[:band], BANNER_COLOURS[0])
    assert has(picture[-band:], BANNER_COLOURS[0])
    assert not has(picture[band + 10 : -band - 10], BANNER_COLOURS[0])
    letters = (picture[:band].max(axis=2) < 60).any(axis=0)
    assert letters.mean() > 0.5, "the warning fills the banner"
    reddish = picture[..., 0].astype(int) - picture[..., 1] > 40
    below_banner = reddish[band + 10 : -band - 10]
    quarters = np.array_split(below_banner, 4)
    assert all(quarter.any() for quarter in quarters)


@pytest.mark.parametrize("phantom_only", [False, True])
def test_the_pictures_of_a_model_of_phantoms_say_so(phantom: Phantom, phantom_only: bool) -> None:
    """Oracle: every piece of text that matplotlib was given."""
    one = replace(scene(phantom), phantom_only=phantom_only)
    for figure in (preview_pictures._preview(one), preview_pictures._key_figure(one, "demonstration 0123456789ab")):
        words = " ".join(text.get_text() for text in figure.findobj(Text))  # type: ignore[attr-defined]
        assert ("MODEL TRAINED ON PHANTOMS ONLY" in words) is phantom_only


def test_parts_that_share_no_upright_grid_are_a_defect(tmp_path: Path) -> None:
    one = block()
    other = Volume(one.suv.array, Geometry(BLOCK_GRID.shape, (5.0, 4.0, 3.1), (0.0, 0.0, 0.0)))
    with pytest.raises(Defect, match="do not share one grid"):
        write_preview(tmp_path / "preview.png", Scene(one.ct, one.districts, other))
    upside_down = Geometry(
        BLOCK_GRID.shape, BLOCK_GRID.spacing_mm, (0.0, 0.0, 0.0), ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    )
    with pytest.raises(Defect, match="do not stand upright"):
        key_image(block(upside_down), "m")


def test_a_folder_that_cannot_be_written_is_transient(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Transient, match=r"preview\.png cannot be written"):
        write_preview(tmp_path / "file" / "preview.png", block())


def test_colours_of_few_labels_differ_and_the_districts_keep_theirs() -> None:
    colours = panels.label_colours(range(1, 15))
    assert tuple(colours[label] for label in range(1, 5)) == DISTRICT_COLOURS[1:]
    assert len(set(colours.values())) == 14


def test_a_panel_lays_out_no_ticks_which_nobody_would_see() -> None:
    one = block()
    axis = Figure().add_axes((0.0, 0.0, 1.0, 1.0))
    panels.prepare(axis, one.projections.coronal, "CT")
    assert not len(axis.get_xticks()) and not len(axis.get_yticks())


def test_a_process_that_has_loaded_what_draws_imports_nothing_for_its_first_pictures() -> None:
    """In a new process: here, other tests have drawn before."""
    program = (
        "import sys; from twin_scanner.pictures import preview; preview.load_drawing(); there = set(sys.modules);"
        "preview.load_drawing(); print(sorted(set(sys.modules) - there), 'contourpy' in there)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert shown.stdout.strip() == "[] True"
