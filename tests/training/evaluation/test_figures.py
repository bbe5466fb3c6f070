"""Figures of an evaluation: what lies where in a study's pictures, histograms and differences with known answers."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import ndimage

from tests.samples.known_cases import GEOMETRY, body_pet, case_of, districts, spot_label, with_spot
from training.evaluation.case import BODY, LESION, Case, Row
from training.evaluation.figures import (
    BINS,
    POINTS,
    PRINT_WIDTH_INCH,
    _cuts,
    _districts,
    _projections,
    bland_altman,
    forest,
    joint_histogram,
    plot_joint_histograms,
    plot_study,
    png,
    study_pictures,
)
from training.evaluation.rows_table import table_of
from training.evaluation.statistics import Comparison
from twin_scanner.errors import Transient
from twin_scanner.imaging.district_labels import DISTRICT_NAMES
from twin_scanner.imaging.volume import Geometry
from twin_scanner.pictures.panels import SUV_WINDOW

pytestmark = pytest.mark.unit

RIGHT_OF_HEAD = (36, 20, 8)
"""The first voxel of a spot near the head and at the patient's right: W runs to the left."""
Pixels = npt.NDArray[np.float32]


def seen(content: bytes) -> Pixels:
    """Brightness of a PNG, (rows, columns) from 0 to 1."""
    pixels: Pixels = matplotlib.image.imread(io.BytesIO(content), format="png")[..., :3].mean(axis=2)
    return pixels


def drawn(cases: Mapping[str, Case], folder: Path) -> dict[str, Pixels]:
    plot_study(cases, folder)
    study = next(iter(cases.values())).study
    projections, slices = study_pictures(study, list(cases), folder)
    return {"projections": seen(projections.image), "districts": seen(slices.image)}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def check_texts(figure: Figure) -> None:
    """No text is below POINTS, and none leaves the figure: the renderer's own boxes."""
    png(figure)
    width, height = figure.get_size_inches() * figure.dpi
    shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert shown
    for text in shown:
        box = text.get_window_extent()
        assert text.get_fontsize() >= POINTS, text.get_text()
        assert min(box.x0, box.y0) >= -1, text.get_text()
        assert box.x1 <= width + 1, text.get_text()
        assert box.y1 <= height + 1, text.get_text()


def panels(figure: Figure) -> Iterator[Axes]:
    return (axis for axis in figure.axes if axis.images)


def lesion_rows(
    model: str, found: Sequence[tuple[str, float, float]], study: str = "study", region: str = LESION
) -> list[Row]:
    """A row pair a lesion: patient, real and synthetic SUVmax."""
    rows = []
    for item, (patient, real, synthetic) in enumerate(found, start=1):
        for metric, value in (("suv_max_real", real), ("suv_max_bias", synthetic - real)):
            rows.append(Row(model, f"{study}-{patient}", patient, "LYMPHOMA", region, item, metric, "g/ml", value, 10))
    return rows


def compared(region: str, difference: float, low: float | None, high: float | None) -> Comparison:
    return Comparison(region, "mae", "base", difference, low, high, 0.01, 0.02, None, None, 7, 6, 0)


@pytest.fixture(scope="module")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pixels]:
    """One spot in the real PET, also in the model's; the baseline misses it."""
    real = with_spot(np.where(districts() > 0, np.float32(1.0), np.float32(0.0)), RIGHT_OF_HEAD, 15.0)
    plain = np.where(districts() > 0, np.float32(1.0), np.float32(0.0))
    cases = {"model": case_of(real, real, spot_label(RIGHT_OF_HEAD)), "baseline": case_of(real, plain)}
    return drawn(cases, tmp_path_factory.mktemp("pictures"))


def test_the_patients_right_is_on_the_left_and_the_head_is_up(two_models: dict[str, Pixels]) -> None:
    """Oracle: the spot's place in the body. The letters R, L, H and F are black too: their edges are cut away."""
    picture = two_models["projections"]
    panel = picture[:, : picture.shape[1] // 4]
    height, width = panel.shape
    black = panel[int(0.2 * height) : int(0.62 * height), int(0.16 * width) : -int(0.16 * width)] < 0.1
    rows, columns = black.shape[0] // 2, black.shape[1] // 2
    upper, lower = black[:rows], black[rows:]
    assert upper[:, :columns].sum() > 100
    assert upper[:, columns:].sum() == lower.sum() == 0


def test_a_lesion_that_the_baseline_misses_is_in_the_models_panel_alone(two_models: dict[str, Pixels]) -> None:
    picture = two_models["projections"]
    quarter = picture.shape[1] // 4
    band = picture[int(0.2 * picture.shape[0]) : int(0.4 * picture.shape[0])]
    inner = [band[:, n * quarter + int(0.16 * quarter) : n * quarter + quarter // 2] for n in range(3)]
    counted = [int((part < 0.1).sum()) for part in inner]
    assert counted[0] > 100
    assert counted[1] == pytest.approx(counted[0], rel=0.15)
    assert counted[2] < 0.1 * counted[0]


def test_every_figure_is_as_wide_as_the_page_and_no_letter_is_smaller_than_nine_points() -> None:
    counts = joint_histogram(case_of(body_pet(), body_pet(1)))
    table = table_of(lesion_rows("model", [("p1", 5, 4), ("p2", 9, 10)]))
    found = [
        plot_joint_histograms(counts, "model", 1),
        bland_altman(table, "model"),
        forest({"base": [compared("head", -0.01, -0.02, 0.0)]}, "model"),
    ]
    for figure in found:
        assert figure is not None
        assert figure.get_size_inches()[0] == PRINT_WIDTH_INCH
        check_texts(figure)


def test_no_text_is_cut_at_the_edge_of_a_figure() -> None:
    """Oracle: the renderer's own boxes, with the longest names and numbers that come."""
    regions = (*DISTRICT_NAMES.values(), BODY, LESION)
    worst = [replace(compared(region, -0.12345, -0.2, -0.05), studies=1014, patients=900) for region in regions]
    name = "a-model-with-a-name-that-is-as-long-as-the-names-of-packages-may-be"
    table = table_of(lesion_rows(name, [("p1", 5, 44), ("p2", 39, 10), ("p3", 25, 2)]))
    counts = joint_histogram(case_of(body_pet(), body_pet(1)))
    many = {region: count * 10**6 for region, count in counts.items()}
    joint = plot_joint_histograms(many, name, 1014)
    figures = [forest({name: worst, "other": worst}, name), bland_altman(table, name), joint]
    for figure in figures:
        assert figure is not None
        check_texts(figure)


def test_the_same_study_gives_the_same_bytes(tmp_path: Path) -> None:
    cases = {"model": case_of(body_pet(), body_pet(1))}
    for folder in ("one", "two"):
        plot_study(cases, tmp_path / folder)
    files = sorted((tmp_path / "one").iterdir())
    assert len(files) == 2
    for file in files:
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_studys_name_never_becomes_a_path(tmp_path: Path) -> None:
    """A name from outside that climbs out of the folder if it is taken as a file's name."""
    case = replace(case_of(body_pet(), body_pet(1)), study="../../outside/" + "x" * 400)
    plot_study({"model": case}, tmp_path / "deep" / "pictures")
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["pictures"]
    assert len(study_pictures(case.study, ["model"], tmp_path / "deep" / "pictures")) == 2


def test_pictures_of_other_models_are_not_taken_for_these(tmp_path: Path) -> None:
    plot_study({"model": case_of(body_pet(), body_pet(1))}, tmp_path)
    assert study_pictures("study-1", ["another"], tmp_path) == []
    assert study_pictures("study-1", ["model", "another"], tmp_path) == []
    assert len(study_pictures("study-1", ["model"], tmp_path)) == 2


def test_a_study_is_drawn_for_one_model_or_two(tmp_path: Path) -> None:
    case = case_of(body_pet(), body_pet(1))
    with pytest.raises(ValueError, match="not 3"):
        plot_study({"a": case, "b": case, "c": case}, tmp_path)


def test_every_pet_of_a_study_has_the_same_display_window_however_hot_it_is() -> None:
    """One window for the real PET, a model that is too hot, a baseline that shows little, and what is enlarged."""
    real = with_spot(body_pet(), RIGHT_OF_HEAD, 15.0)
    cases = {"model": case_of(real, real * np.float32(3)), "baseline": case_of(real, real * np.float32(0.1))}
    projections, slices = _projections(cases), _districts("model", cases["model"])
    assert slices is not None
    found = [axis.images[0].get_clim() for figure in (projections, slices) for axis in panels(figure)]
    assert len(found) == 4 + 4 * len(DISTRICT_NAMES)
    assert found[3] == (-5.0, 5.0), "the difference"
    assert set(found[:3] + found[4:]) == {SUV_WINDOW}


def test_a_folder_that_cannot_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Transient, match="pictures cannot be written"):
        plot_study({"model": case_of(body_pet(), body_pet(1))}, tmp_path / "file")


def test_slices_go_through_the_hottest_lesion_and_not_through_the_hotter_bladder() -> None:
    """Oracle: SUV in words, from the spots that were painted."""
    real = with_spot(with_spot(body_pet(noise=0), (30, 12, 12), 9.0), (16, 28, 20), 18.0)
    synthetic = with_spot(body_pet(noise=0), (30, 12, 12), 6.0)
    captions = [cut.caption for cut in _cuts(case_of(real, synthetic, spot_label((30, 12, 12))))]
    assert [line.split(",")[0] for line in captions] == ["Head", "Trunk", "Arms", "Legs"]
    assert captions[1] == "Trunk, coronal: its hottest lesion, SUV 9.0 real, 6.0 synthetic"
    unannotated = [cut.caption for cut in _cuts(case_of(real, synthetic))]
    assert unannotated[1] == "Trunk, coronal: its hottest voxel, SUV 18.0 real, 1.0 synthetic"


def test_the_enlarged_square_holds_the_hottest_place_and_stays_in_the_slice() -> None:
    """Spots in all corners of the body, on a grid of 3 x 5 x 2 mm and in thin districts."""
    geometry = Geometry(GEOMETRY.shape, (3.0, 5.0, 2.0), (0.0, 0.0, 0.0))
    for corner in ((40, 6, 6), (40, 34, 36), (4, 6, 36), (4, 34, 6), (20, 20, 36)):
        real = with_spot(body_pet(noise=0), corner, 18.0)
        for cut in _cuts(replace(case_of(real, real), geometry=geometry)):
            left, top, edge = cut.zoom_mm
            height, width = (n * mm for n, mm in zip(cut.real.shape, cut.spacing_mm, strict=True))
            down, across = ((n + 0.5) * mm for n, mm in zip(cut.place, cut.spacing_mm, strict=True))
            assert cut.real[cut.place] == pytest.approx(float(cut.caption.split("SUV ")[1].split(" ")[0]), abs=0.05)
            assert left <= across <= left + edge <= width + 1e-6
            assert top <= down <= top + edge <= height + 1e-6
            assert edge > 0


def test_a_tall_thin_district_is_cut_across_with_the_front_above() -> None:
    geometry = Geometry(GEOMETRY.shape, (9.0, 4.0, 2.0), (0.0, 0.0, 0.0))
    real = with_spot(body_pet(noise=0), (20, 8, 8), 18.0)
    trunk = list(_cuts(replace(case_of(real, real), geometry=geometry)))[1]
    assert (trunk.markers, trunk.spacing_mm) == ("RLAP", (4.0, 2.0))
    rows, columns = np.nonzero(trunk.real > 10)
    assert rows.mean() < trunk.real.shape[0] / 2
    assert columns.mean() < trunk.real.shape[1] / 2


def test_identical_images_lie_on_the_histograms_diagonal_and_every_voxel_is_counted() -> None:
    pet = with_spot(body_pet(), (30, 12, 12), 33.0)
    found = joint_histogram(case_of(pet, pet))
    for name, label in {name: label for label, name in DISTRICT_NAMES.items()}.items():
        assert found[name].sum() == np.count_nonzero(districts() == label)
        assert found[name].sum() == np.trace(found[name])
    assert found[BODY].sum() == np.count_nonzero(districts())
    assert found[BODY][-1, -1] == 4**3


def test_the_histogram_agrees_with_numpys() -> None:
    real, synthetic = body_pet(0, 0.8), 3 * body_pet(1, 0.8)
    inside = districts() > 0
    edges = np.linspace(0, 20, BINS + 1)
    oracle, *_ = np.histogram2d(real[inside], synthetic[inside], bins=(edges, edges))
    found = joint_histogram(case_of(real, synthetic))[BODY]
    # An SUV within rounding of a bin's edge may fall on either side of it.
    assert np.abs(found - oracle).sum() <= 4
    assert found.sum() == inside.sum()


def test_histograms_of_studies_can_be_added_though_a_district_is_out_of_sight() -> None:
    headless = replace(case_of(body_pet(), body_pet()), labels=np.where(districts() == 1, 0, districts()).astype("u1"))
    first, second = joint_histogram(case_of(body_pet(), body_pet())), joint_histogram(headless)
    assert first.keys() == second.keys()
    assert second["head"].sum() == 0
    total = {region: first[region] + second[region] for region in first}
    shown = texts(plot_joint_histograms(total, "model", 2))
    assert any("model, 2 studies" in text for text in shown)
    voxels = f"{2 * np.count_nonzero(districts() == 2):,}".replace(",", " ")
    assert f"Trunk\nn {voxels}" in shown


def test_a_region_that_no_study_shows_has_no_panel() -> None:
    counts = joint_histogram(case_of(body_pet(), body_pet()))
    counts["head"][:] = 0
    figure = plot_joint_histograms(counts, "model", 1)
    assert not any(text.startswith("Head") for text in texts(figure))
    assert len([axis for axis in panels(figure) if axis.get_title()]) == 4


def test_bland_altman_shows_bias_and_limits_of_agreement() -> None:
    """Oracle: differences 1, 2, 3, 4 have mean 2.5 and standard deviation 1.29099, so limits -0.03 and 5.03."""
    rows = lesion_rows("model", [("p1", 4, 5), ("p1", 5, 7), ("p2", 6, 9), ("p2", 8, 12)])
    figure = bland_altman(table_of(rows), "model")
    assert figure is not None
    shown = texts(figure)
    assert {"bias +2.50", "bias + 1.96 SD +5.03", "bias − 1.96 SD −0.03"} <= set(shown)
    assert "Lesion SUVmax, model: n = 4 lesions of 2 patients" in shown
    points = np.concatenate([np.asarray(found.get_offsets()) for found in figure.axes[0].collections])
    assert sorted(map(tuple, points.tolist())) == [(4.5, 1.0), (6.0, 2.0), (7.5, 3.0), (10.0, 4.0)]
    assert len(figure.axes[0].collections) == 2


def test_seeds_of_a_model_are_one_point_a_lesion() -> None:
    rows = [*lesion_rows("model#1", [("p1", 4, 5)]), *lesion_rows("model#2", [("p1", 4, 9)])]
    figure = bland_altman(table_of([*rows, *lesion_rows("other", [("p1", 4, 4)])]), "model#1")
    assert figure is not None
    assert "Lesion SUVmax, model: n = 1 lesion of 1 patient" in texts(figure)
    assert figure.axes[0].collections[0].get_offsets().tolist() == [[5.5, 3.0]]
    assert not any("1.96" in text for text in texts(figure))


def test_a_table_without_lesions_has_no_bland_altman() -> None:
    rows = [Row("model", "s", "p", "", BODY, 0, "mae", "", 0.1, 10)]
    assert bland_altman(table_of(rows), "model") is None
    assert bland_altman(table_of(lesion_rows("other", [("p", 4.0, 5.0)])), "model") is None


def test_a_forest_has_a_line_a_region_and_baseline_and_a_hollow_marker_without_an_interval() -> None:
    found = [compared("body", -0.004, -0.006, -0.002), compared("head", 0.01, None, None)]
    other = [replace(compared("head", -0.5, -0.6, -0.4), metric="ssim"), compared("head", 0.002, 0.001, 0.003)]
    figure = forest({"base": found, "second": other}, "model")
    assert figure is not None
    axis, shown = figure.axes[0], texts(figure)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["Head", "Head", "Whole body"]
    assert "−0.0040 [−0.0060, −0.0020], 7 / 6" in shown
    assert "+0.0100 no interval, 7 / 6" in shown
    assert {"against base", "against second"} <= set(shown)
    markers = [line for line in axis.lines if line.get_marker() in ("o", "s")]
    assert [str(line.get_markerfacecolor()) for line in markers] == ["white", "black", "black"]
    bars = [sorted(line.get_xdata()) for line in axis.lines if line.get_marker() == "None" and line.get_linewidth() > 1]
    assert bars == [[0.001, 0.003], [-0.006, -0.002]]


def test_without_a_comparison_there_is_no_forest() -> None:
    assert forest({}, "model") is None
    assert forest({"base": [replace(compared("head", 1.0, None, None), metric="ssim")]}, "model") is None


def test_a_models_name_is_shown_as_it_is_and_not_as_mathematics() -> None:
    table = pd.DataFrame(table_of(lesion_rows("$x^2$", [("p1", 4, 5), ("p1", 5, 7)])))
    figure = bland_altman(table, "$x^2$")
    assert figure is not None
    assert png(figure)
    assert any("$x^2$" in text for text in texts(figure))
    title = next(text for text in figure.findobj(Text) if "$x^2$" in text.get_text())
    assert not title.get_parse_math()


def test_a_pixel_is_as_wide_and_as_high_as_the_voxel() -> None:
    """Oracle: a cube of 4 voxels of 6 x 4 x 3 mm is twice as high as wide from the front."""
    geometry = Geometry(GEOMETRY.shape, (6.0, 4.0, 3.0), (0.0, 0.0, 0.0))
    real = with_spot(np.where(districts() > 0, np.float32(0.5), np.float32(0.0)), (14, 20, 14), 15.0)
    pixels = seen(png(_projections({"model": replace(case_of(real, real), geometry=geometry)})))
    found, _ = ndimage.label(pixels[:, : pixels.shape[1] // 3] < 0.3)
    rows, columns = max(ndimage.find_objects(found), key=lambda box: np.count_nonzero(pixels[box] < 0.1))
    assert columns.stop - columns.start > 20
    assert (rows.stop - rows.start) / (columns.stop - columns.start) == pytest.approx(2.0, rel=0.06)


def test_the_difference_is_blue_where_the_synthetic_pet_has_too_little_and_yellow_where_too_much() -> None:
    """Oracle: the ends of cividis; a lesion is missed or invented in a PET that is else the same."""
    plain = np.where(districts() > 0, np.float32(1.0), np.float32(0.0))
    hot = with_spot(plain, RIGHT_OF_HEAD, 15.0)
    for real, synthetic, blue in ((hot, plain, True), (plain, hot, False)):
        figure = _projections({"model": case_of(real, synthetic)})
        image = list(panels(figure))[2].images[0]
        shown = np.asarray(image.to_rgba(image.get_array()))
        changed = np.abs(shown - shown[-1, 0]).sum(axis=2) > 0.2
        assert np.count_nonzero(changed) == 16
        red, _, blueness, _ = shown[changed].mean(axis=0)
        assert bool(blueness > red) is blue


def test_what_the_real_pet_never_measured_is_no_difference() -> None:
    """As where a CT reaches farther than the PET: no district there, the real PET 0 and the synthetic one not."""
    pet = np.where(districts() > 0, np.float32(3.0), np.float32(0.0))
    labels = districts()
    labels[:20] = 0
    real = np.where(labels > 0, pet, np.float32(0.0))
    image = list(panels(_projections({"model": replace(case_of(real, pet), labels=labels)})))[2].images[0]
    assert not np.asarray(image.get_array()).any()


def test_a_studys_pictures_have_no_small_letters_and_no_text_that_is_cut() -> None:
    name = "a-model-with-a-name-that-is-as-long-as-the-names-of-packages-may-be"
    case = case_of(body_pet(), body_pet(1), spot_label((30, 12, 12)))
    for figure in (_projections({name: case, "W" * 80: case}), _districts(name, case)):
        assert figure is not None
        assert figure.get_size_inches()[0] == PRINT_WIDTH_INCH
        check_texts(figure)


def test_the_histogram_has_the_real_suv_across() -> None:
    """Oracle: a synthetic PET that is always too low lies below the diagonal."""
    real = np.where(districts() > 0, np.float32(10.0), np.float32(0.0))
    figure = plot_joint_histograms(joint_histogram(case_of(real, 0.2 * real)), "model", 1)
    for axis in panels(figure):
        image = axis.images[0]
        if axis.get_xlabel() == "real SUV":
            rows, columns = np.nonzero(~np.ma.getmaskarray(image.get_array()))
            assert (rows.tolist(), columns.tolist(), image.origin) == ([10], [50], "lower")
