"""The rows of a study: phantoms whose every number is known beforehand."""

from dataclasses import replace

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from tests.samples.known_cases import (
    GEOMETRY,
    PLAN,
    SHAPE,
    body_pet,
    case_of,
    districts,
    of_patient,
    spot_label,
    with_spot,
)
from training.evaluation.case import Case, Row, Translated
from training.evaluation.lesion_metrics import false_uptake
from training.evaluation.metrics import ms_ssim
from training.evaluation.score import DEFINITIONS, score
from twin_scanner.imaging.district_labels import DISTRICT_NAMES
from twin_scanner.imaging.volume import Geometry, LabelArray, Volume, resample

pytestmark = pytest.mark.unit

ONE, TWO = (20, 12, 12), (26, 24, 20)
VOXEL_ML = 0.064
BODY = districts() > 0


def rows_of(case: Case) -> dict[tuple[str, str, int], Row]:
    rows = score(case, "m")
    named = {(row.region, row.metric, row.item): row for row in rows}
    assert len(named) == len(rows), "each number has one row"
    return named


def test_equal_images_have_no_error_no_bias_and_no_seam() -> None:
    real = with_spot(body_pet(), ONE, 9.0)
    rows = rows_of(case_of(real, real.copy(), spot_label(ONE)))
    for region in ("body", "head", "trunk", "arms", "legs", "lesion"):
        assert rows[region, "mae", 0].value == 0 and rows[region, "ssim", 0].value == pytest.approx(1.0, abs=1e-5)
        assert (region, "psnr", 0) not in rows, "an error of 0 has no ratio"
    for metric in ("suv_mean_bias", "suv_max_bias", "suv_peak_bias", "tlg_bias"):
        assert rows["lesion", metric, 1].value == 0
    assert rows["body", "seam_excess", 0].value == 0 and rows["body", "false_positives", 0].value == 0
    assert rows["lesion", "detection_recall", 0].value == 1


def test_a_constant_offset_is_found_everywhere_in_its_own_unit() -> None:
    real = body_pet()
    made = np.where(BODY, real + np.float32(0.5), real).astype(np.float32)
    rows = rows_of(case_of(real, made))
    for region, mask in (("body", BODY), ("arms", districts() == 3)):
        assert rows[region, "mae_suv", 0].value == pytest.approx(0.5, rel=1e-4)
        assert rows[region, "mae", 0].value == pytest.approx(0.5 / PLAN.suv_max, rel=1e-4)
        assert rows[region, "psnr", 0].value == pytest.approx(20 * np.log10(40.0), rel=1e-4)
        assert rows[region, "mae", 0].n == np.count_nonzero(mask)
    assert not any(region == "lesion" for region, _, _ in rows), "nobody annotated"


def test_a_lesion_that_was_missed_lacks_its_uptake_and_is_not_detected() -> None:
    background = np.where(BODY, np.float32(1.0), np.float32(0.0))
    real = with_spot(with_spot(background, ONE, 10.0), TWO, 8.0)
    made = with_spot(background, TWO, 6.0)
    rows = rows_of(case_of(real, made, spot_label(ONE, TWO)))
    volume = 64 * VOXEL_ML
    for item, was, became in ((1, 10.0, 1.0), (2, 8.0, 6.0)):
        assert rows["lesion", "suv_mean_bias", item].value == pytest.approx(became - was)
        assert rows["lesion", "suv_max_bias", item].value == pytest.approx(became - was)
        assert rows["lesion", "tlg_bias", item].value == pytest.approx((became - was) * volume)
        assert rows["lesion", "suv_max_real", item].value == pytest.approx(was)
        assert rows["lesion", "suv_max_synthetic", item].value == pytest.approx(became)
        assert rows["lesion", "volume_41_real", item].value == pytest.approx(volume)
    assert rows["lesion", "volume_41_synthetic", 1].value == 0
    assert rows["lesion", "volume_41_synthetic", 2].value == pytest.approx(volume)
    assert [rows["lesion", "detected", item].value for item in (1, 2)] == [0.0, 1.0]
    assert rows["lesion", "detection_recall", 0].value == 0.5 and rows["lesion", "detection_recall", 0].n == 2
    assert rows["body", "false_positives", 0].value == 0


def test_a_lesion_that_was_invented_is_a_false_positive_and_one_beside_a_real_one_is_not() -> None:
    real = with_spot(body_pet(), ONE, 10.0)
    made = with_spot(real, TWO, 7.0)
    rows = rows_of(of_patient(case_of(real, made, spot_label(ONE)), "p", "NEGATIVE"))
    assert rows["body", "false_positives", 0].value == 1
    assert rows["body", "false_uptake_ml", 0].value == pytest.approx(64 * VOXEL_ML)
    assert ("body", "false_uptake_ml", 0) not in rows_of(case_of(real, made))
    for steps, expected in ((2, 0), (3, 1)):
        beside = with_spot(body_pet(), (ONE[0] + 3 + steps, ONE[1], ONE[2]), 7.0)
        found = false_uptake(real, beside, BODY, GEOMETRY)
        assert found.components == expected, "8 mm between the nearest voxels, then 12"


def test_a_lesion_below_suv_4_is_measured_and_not_asked_for() -> None:
    real = with_spot(body_pet(), ONE, 3.0)
    rows = rows_of(case_of(real, real.copy(), spot_label(ONE)))
    assert rows["lesion", "suv_mean_real", 1].value == pytest.approx(3.0)
    assert ("lesion", "detected", 1) not in rows and ("lesion", "detection_recall", 0) not in rows


def test_lesion_uptake_is_of_the_unclipped_pet_and_voxel_errors_of_the_clipped_one() -> None:
    """The real maximum is 50; the model can say 20 at most."""
    real, made = with_spot(body_pet(), ONE, 50.0), with_spot(body_pet(), ONE, 20.0)
    rows = rows_of(case_of(real, made, spot_label(ONE)))
    assert rows["lesion", "suv_max_real", 1].value == 50.0 and rows["lesion", "suv_max_bias", 1].value == -30.0
    assert rows["lesion", "suv_max_bias", 1].n == 4**3
    assert rows["lesion", "tlg_real", 1].value == pytest.approx(50.0 * 4**3 * VOXEL_ML)
    assert rows["lesion", "lesions_above_suv20", 0].value == 1
    assert rows["lesion", "mae_suv", 0].value == 0, "both are clipped to 20 there"


@pytest.mark.parametrize(("highest", "above"), [(20.0, 0), (20.01, 1)])
def test_a_lesion_is_beyond_suv_20_where_its_maximum_is_more(highest: float, above: int) -> None:
    real = with_spot(body_pet(), ONE, highest)
    rows = rows_of(case_of(real, real, spot_label(ONE)))
    assert rows["lesion", "lesions_above_suv20", 0].value == above


def test_voxels_of_a_lesion_outside_the_body_are_no_part_of_its_error() -> None:
    """The annotation reaches two voxels out of the body, where the two PETs differ."""
    labels = spot_label((20, 34, 12), edge=6)
    real = body_pet()
    made = np.where(BODY, real, np.float32(3.0))
    row = rows_of(case_of(real, made, labels))["lesion", "mae_suv", 0]
    assert (row.value, row.n) == (0, np.count_nonzero((labels > 0) & BODY))


@pytest.mark.parametrize("suv_max", [10.0, 25.0])
def test_1_is_suv_20_in_every_error_whatever_the_range_of_the_models_plan(suv_max: float) -> None:
    """Else two models would be compared in different units. Uptake of 30 beside 22 is clipped to 20 in both."""
    real = with_spot(body_pet(), ONE, 30.0)
    made = with_spot(np.where(BODY, real + np.float32(0.5), real).astype(np.float32), ONE, 22.0)
    usual, other = (rows_of(replace(case_of(real, made), plan=plan)) for plan in (PLAN, replace(PLAN, suv_max=suv_max)))
    assert usual["body", "mae_suv", 0].value == pytest.approx(0.5 * (1 - 64 / np.count_nonzero(BODY)), rel=1e-4)
    for region, metric in ((r, m) for r, m, item in usual if not item):
        assert other[region, metric, 0].value == usual[region, metric, 0].value, metric
    assert usual["body", "mae", 0].value == pytest.approx(usual["body", "mae_suv", 0].value / 20.0)


def test_organs_have_a_bias_of_their_own() -> None:
    organs: LabelArray = np.zeros(SHAPE, np.uint8)
    organs[20:28, 10:20, 10:20] = 5
    real = body_pet()
    made = np.where(organs == 5, real - np.float32(0.25), real).astype(np.float32)
    case = replace(case_of(real, made), organs=organs, organ_names=((5, "liver"), (6, "spleen")))
    rows = rows_of(case)
    assert rows["organ:liver", "suv_mean_bias", 0].value == pytest.approx(-0.25, rel=1e-4)
    assert not any(region == "organ:spleen" for region, _, _ in rows)


def test_an_organs_ratio_is_of_what_a_model_can_say() -> None:
    """A bladder of SUV 40 beside one of 20 is complete: both PETs are clipped at SUV 20."""
    organs = spot_label(ONE) * np.uint8(1) + spot_label(TWO) * np.uint8(2)
    real = with_spot(with_spot(body_pet(), ONE, 40.0), TWO, 8.0)
    made = with_spot(with_spot(body_pet(), ONE, 20.0), TWO, 6.0)
    rows = rows_of(replace(case_of(real, made), organs=organs, organ_names=((1, "bladder"), (2, "heart"))))
    assert rows["organ:bladder", "suv_mean_ratio", 0].value == pytest.approx(1.0)
    assert rows["organ:heart", "suv_mean_ratio", 0].value == pytest.approx(0.75)


def test_the_mean_above_suv_4_is_that_of_a_plain_loop() -> None:
    """Both PETs are clipped at SUV 20; a region without a real voxel above SUV 4 has no number."""
    random = np.random.default_rng(7)
    real, made = (np.where(BODY, random.uniform(0, 26, SHAPE), 0).astype(np.float32) for _ in range(2))
    real[districts() == 4] = 1.0
    rows = rows_of(case_of(real, made))
    labels, sums, count = districts(), [0.0, 0.0], 0
    for at in np.ndindex(SHAPE):
        if labels[at] == 2 and real[at] > 4:
            sums = [sums[0] + min(float(real[at]), 20.0), sums[1] + min(float(made[at]), 20.0)]
            count += 1
    assert rows["trunk", "hot_ratio", 0].value == pytest.approx(sums[1] / sums[0], rel=1e-5)
    assert rows["trunk", "hot_ratio", 0].n == count and ("legs", "hot_ratio", 0) not in rows


def test_windows_are_looked_for_where_the_model_translated_and_nowhere_else() -> None:
    """A step of SUV 1 where a window begins, on the model's own grid; the case's grid has none."""
    shape = (48, 32, 32)
    made = np.random.default_rng(8).normal(5, 0.1, shape).astype(np.float32)
    made[16:] += 1.0
    case = case_of(body_pet(), body_pet(1))
    rows = rows_of(replace(case, as_translated=Translated(made, np.ones(shape, np.uint8))))
    assert rows["body", "window_edge_ratio", 0].value > 2
    assert rows["body", "window_edge", 0].value == pytest.approx(0.5, abs=0.1), "two planes are edges, one steps"
    assert not any(metric.startswith("window") for _, metric, _ in rows_of(case))


def test_the_voxels_that_were_scored_on_are_named() -> None:
    rows = rows_of(replace(case_of(body_pet(), body_pet(1)), geometry=Geometry(SHAPE, (3.0, 2.04, 2.05), (0, 0, 0))))
    assert [rows["body", f"spacing_{axis}", 0].value for axis in "dhw"] == [3.0, 2.04, 2.05]


def test_what_the_real_pet_does_not_show_is_not_scored() -> None:
    """Labels are 0 where the PET has no value; wild voxels there change nothing."""
    real, labels = body_pet(), districts()
    labels[34:44] = 0
    wild = real.copy()
    wild[36:42, 8:36, 8:36] = 15.0
    rows = rows_of(replace(case_of(real, wild), labels=labels))
    assert rows["body", "mae", 0].value == 0 and rows["body", "false_positives", 0].value == 0
    assert not any(region == "head" for region, _, _ in rows)


def test_every_metric_of_the_report_is_defined() -> None:
    real = with_spot(with_spot(body_pet(), ONE, 9.0), TWO, 5.0)
    made = with_spot(body_pet(1), ONE, 5.0)
    case = of_patient(case_of(real, made, spot_label(ONE, TWO)), "p", "NEGATIVE")
    translated = Translated(np.random.default_rng(1).random(SHAPE, np.float32), districts())
    organs = {"organs": spot_label(ONE), "organ_names": ((1, "liver"),)}
    rows = score(replace(case, as_translated=translated, **organs), "m")  # type: ignore[arg-type]
    plain = {row.metric for row in rows} - DEFINITIONS.keys()
    assert plain == {
        "seam_real", "seam_synthetic",
        *(f"{metric}_{end}" for metric in ("suv_mean", "suv_max", "suv_peak", "tlg") for end in ("real", "synthetic")),
    }  # fmt: skip
    assert {row.unit for row in rows} <= {"", "g/ml", "g", "dB", "ml", "mm"}


def test_a_study_without_a_body_is_a_fault_of_the_caller() -> None:
    real = body_pet()
    with pytest.raises(ValueError, match="shows no body"):
        score(replace(case_of(real, real), labels=np.zeros(SHAPE, np.uint8)), "m")


def test_similarity_rows_are_scikit_images_map_of_the_whole_clipped_image() -> None:
    """The code looks at the body's box alone; the oracle at everything, uptake above SUV 20 and outside included."""
    random = np.random.default_rng(4)
    real, made = (np.clip(body_pet(seed, 0.5) * 6, 0, None).astype(np.float32) for seed in (1, 2))
    real[:3], made[20:24, 10:14, 10:14] = 30.0, 45.0
    made += random.normal(0, 0.2, SHAPE).astype(np.float32)
    rows = rows_of(case_of(real, made))
    x, y = (np.clip(image.astype(np.float64) / 20.0, 0, 1) for image in (real, made))
    _, expected = structural_similarity(
        x, y, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    for label, region in DISTRICT_NAMES.items():
        assert rows[region, "ssim", 0].value == pytest.approx(expected[districts() == label].mean(), abs=1e-6)
    assert rows["body", "ssim", 0].value == pytest.approx(expected[BODY].mean(), abs=1e-6)
    whole = ms_ssim(x.astype(np.float32), y.astype(np.float32), BODY)
    assert rows["body", "ms_ssim", 0].value == pytest.approx(whole, abs=1e-6)


def test_recall_counts_the_lesions_that_it_asks_for() -> None:
    """Of SUV 10 found, 8 missed and 3 found: one of two at SUV 4, two of three at 41 % of their own."""
    third = (16, 24, 12)
    real = with_spot(with_spot(with_spot(body_pet(), ONE, 10.0), TWO, 8.0), third, 3.0)
    made = with_spot(with_spot(body_pet(), ONE, 9.0), third, 2.0)
    rows = rows_of(case_of(real, made, spot_label(ONE, TWO, third)))
    at_4, at_41 = rows["lesion", "detection_recall", 0], rows["lesion", "detection_recall_41", 0]
    assert (at_4.value, at_4.n) == (0.5, 2)
    assert (at_41.value, at_41.n) == (pytest.approx(2 / 3), 3)
    assert rows["lesion", "lesions_above_suv20", 0].n == 3


def test_recall_is_measured_at_suv_4_and_at_41_percent_of_the_own_maximum() -> None:
    real = with_spot(with_spot(body_pet(), ONE, 10.0), TWO, 6.0)
    made = with_spot(with_spot(body_pet(), ONE, 3.0), TWO, 3.0)
    rows = rows_of(case_of(real, made, spot_label(ONE, TWO)))
    assert [rows["lesion", "detected", item].value for item in (1, 2)] == [0.0, 0.0]
    assert [rows["lesion", "detected_41", item].value for item in (1, 2)] == [0.0, 1.0]
    assert rows["lesion", "detection_recall", 0].value == 0 and rows["lesion", "detection_recall_41", 0].value == 0.5
    assert rows["lesion", "detection_recall_41", 0].n == 2


def test_a_lesion_beyond_the_ct_has_no_row_and_the_others_keep_their_numbers() -> None:
    """The CT begins above the first lesion: no model could have shown it."""
    real = with_spot(with_spot(body_pet(), ONE, 9.0), TWO, 6.0)
    case = case_of(real, real, spot_label(ONE, TWO))
    ct = tuple(slice(24 if axis == 0 else 0, length) for axis, length in enumerate(SHAPE))
    labels = districts()
    labels[:24] = 0
    above = replace(case, labels=labels, translated=GEOMETRY.cropped(ct))
    assert rows_of(case)["lesion", "suv_max_real", 2].value == 6.0
    rows = rows_of(above)
    assert rows["lesion", "suv_max_real", 2].value == 6.0 and ("lesion", "suv_max_real", 1) not in rows
    assert {item for region, _, item in rows if region == "lesion"} == {0, 2}
    assert rows["lesion", "detection_recall", 0].value == 1 and rows["lesion", "suv_mean_bias", 2].value == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("tilt_deg", [0.0, 3.0])
def test_where_the_ct_ends_before_the_pet_equal_images_are_still_perfect(axis: int, tilt_deg: float) -> None:
    """The windows of SSIM reach beyond the CT's end, where nobody translated and the real PET goes on."""
    real = body_pet(noise=0.3) * np.float32(4.0)
    part = tuple(slice(0, 28 if each == axis else length) for each, length in enumerate(SHAPE))
    field = GEOMETRY.cropped(part)
    cos, sin = float(np.cos(np.radians(tilt_deg))), float(np.sin(np.radians(tilt_deg)))
    field = replace(field, direction=((0.0, -sin, cos), (0.0, cos, sin), (1.0, 0.0, 0.0)))
    inside = np.isfinite(resample(Volume(np.ones(field.shape, np.float32), field), GEOMETRY, float("nan")).array)
    made, labels = np.where(inside, real, np.float32(0.0)), np.where(inside, districts(), np.uint8(0))
    rows = rows_of(replace(case_of(real, made), labels=labels, translated=field))
    assert 0 < rows["body", "mae", 0].n < np.count_nonzero(BODY) and rows["body", "mae", 0].value == 0
    for region in {region for region, metric, _ in rows if metric == "ssim"}:
        assert rows[region, "ssim", 0].value == pytest.approx(1.0, abs=1e-6)
    assert rows["body", "ms_ssim", 0].value == pytest.approx(1.0, abs=1e-6)


def test_the_mean_absolute_error_alone_is_the_same_number_in_any_regions() -> None:
    """What validation and gate ask for; oracle: the row of the full score, and NumPy for a region of its own."""
    real, made = body_pet(), body_pet(1)
    made[:2] = 3.0
    case = case_of(real, made, spot_label(ONE))
    alone = {row.region: row for row in score(case, "m", metrics="mae_suv")}
    full = rows_of(case)
    assert alone.keys() == {"body", "head", "trunk", "arms", "legs"}
    for region, row in alone.items():
        assert row == full[region, "mae_suv", 0]
    rows = score(case, "m", metrics="mae_suv", regions={"limbs": (3, 4), "everywhere": ()})
    found = {row.region: row for row in rows}
    error = np.abs(real.astype(np.float64) - made)
    limbs = np.isin(districts(), (3, 4))
    assert found["limbs"].value == pytest.approx(error[limbs].mean(), rel=1e-5)
    assert found["everywhere"].value == pytest.approx(error.mean(), rel=1e-5) and found["everywhere"].n == error.size


def test_an_organ_counts_as_far_as_both_pets_show_it() -> None:
    """Half of the organ lies where the real PET has no value: the labels are 0 there, and so is the real PET."""
    organs, labels, real = np.zeros(SHAPE, np.uint8), districts(), body_pet()
    organs[26:38, 10:20, 10:20] = 255
    labels[32:] = 0
    made = np.where(organs == 255, real + np.float32(0.5), real).astype(np.float32)
    unmeasured = np.where(labels > 0, real, np.float32(0.0))
    case = replace(case_of(unmeasured, made), labels=labels, organs=organs, organ_names=((255, "liver"),))
    row = rows_of(case)["organ:liver", "suv_mean_bias", 0]
    assert row.value == pytest.approx(0.5, rel=1e-4) and row.n == 6 * 10 * 10


def test_measuring_changes_nothing_in_the_case() -> None:
    real, made, lesions = with_spot(body_pet(), ONE, 30.0), body_pet(1), spot_label(ONE)
    case = case_of(real, made, lesions)
    before = [image.copy() for image in (real, made, lesions, case.labels)]
    first = score(case, "m")
    for now, was in zip((real, made, lesions, case.labels), before, strict=True):
        np.testing.assert_array_equal(now, was)
    assert score(case, "m") == first
