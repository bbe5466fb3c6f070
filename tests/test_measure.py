"""Lesions, false uptake and the rows of a study: phantoms whose every number is known beforehand."""

from dataclasses import replace

import numpy as np
import pytest

from tests.judged_cases import GEOMETRY, PLAN, SHAPE, body_pet, case_of, districts, of_patient, spot_label, with_spot
from training.evaluation.case import Case, Native, Row
from training.evaluation.lesion_metrics import false_uptake, lesions_of
from training.evaluation.measure import DEFINITIONS, measure
from twin_scanner.volume import Geometry, LabelArray

pytestmark = pytest.mark.unit

ONE, TWO = (20, 12, 12), (26, 24, 20)
VOXEL_ML = 0.064
BODY = districts() > 0


def rows_of(case: Case) -> dict[tuple[str, str, int], Row]:
    rows = measure(case, "m")
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


def test_a_false_spot_must_be_half_a_millilitre_and_in_the_body() -> None:
    real = body_pet()
    small, large = with_spot(real, TWO, 7.0, edge=1), with_spot(real, TWO, 7.0, edge=2)
    assert false_uptake(real, small, BODY, GEOMETRY).components == 0
    assert false_uptake(real, large, BODY, GEOMETRY).components == 1, "0.512 ml"
    outside = with_spot(real, (0, 0, 0), 7.0)
    assert false_uptake(real, outside, BODY, GEOMETRY).components == 0


def test_a_lesion_below_suv_4_is_measured_and_not_asked_for() -> None:
    real = with_spot(body_pet(), ONE, 3.0)
    rows = rows_of(case_of(real, real.copy(), spot_label(ONE)))
    assert rows["lesion", "suv_mean_real", 1].value == pytest.approx(3.0)
    assert ("lesion", "detected", 1) not in rows and ("lesion", "detection_recall", 0) not in rows


def test_lesion_uptake_is_of_the_unclipped_pet_on_its_own_grid_and_voxel_errors_of_the_clipped_one() -> None:
    """The real maximum of 50 lies on a finer grid; the model can say 20 at most."""
    fine_shape = (96, 88, 92)
    fine = Geometry(fine_shape, (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    native_real, native_made = np.ones(fine_shape, np.float32), np.ones(fine_shape, np.float32)
    lesions = np.zeros(fine_shape, np.uint8)
    spot = (slice(40, 48), slice(24, 32), slice(24, 32))
    native_real[spot], native_made[spot], lesions[spot] = 50.0, 20.0, 1
    real, made = with_spot(body_pet(), ONE, 50.0), with_spot(body_pet(), ONE, 20.0)
    case = replace(case_of(real, made), native=Native(native_real, native_made, lesions, fine), lesions=spot_label(ONE))
    rows = rows_of(case)
    assert rows["lesion", "suv_max_real", 1].value == 50.0 and rows["lesion", "suv_max_bias", 1].value == -30.0
    assert rows["lesion", "suv_max_bias", 1].n == 8**3
    assert rows["lesion", "tlg_real", 1].value == pytest.approx(50.0 * 8**3 * 0.008)
    assert rows["lesion", "lesions_above_suv20", 0].value == 1
    assert rows["lesion", "mae_suv", 0].value == 0, "both are clipped to 20 there"


def test_lesions_touch_by_corners_and_are_numbered_from_the_feet_up() -> None:
    labels = spot_label((20, 12, 12), (24, 16, 16), (8, 20, 20))
    real = body_pet()
    found = lesions_of(real, real, labels, GEOMETRY)
    assert [lesion.voxels for lesion in found] == [64, 128]
    assert found[0].real.mean == pytest.approx(real[8:12, 20:24, 20:24].mean(), rel=1e-5)


def test_the_peak_is_the_mean_of_the_1_ml_sphere_around_it() -> None:
    """One voxel of SUV 20 in a lesion of 2: the sphere of 6.2 mm holds 7 voxels of 4 mm and its 12 edge neighbours."""
    real = with_spot(np.where(BODY, np.float32(2.0), np.float32(0.0)), (22, 20, 20), 20.0, edge=1)
    (lesion,) = lesions_of(real, real, spot_label((20, 18, 18), edge=5), GEOMETRY)
    offsets = [np.linalg.norm(at) * 4.0 for at in np.ndindex(5, 5, 5) for at in [np.array(at) - 2]]
    inside = sum(distance <= (3000 / (4 * np.pi)) ** (1 / 3) for distance in offsets)
    assert lesion.real.peak == pytest.approx((20.0 + 2.0 * (inside - 1)) / inside)


def test_organs_have_a_bias_of_their_own() -> None:
    organs: LabelArray = np.zeros(SHAPE, np.uint8)
    organs[20:28, 10:20, 10:20] = 5
    real = body_pet()
    made = np.where(organs == 5, real - np.float32(0.25), real).astype(np.float32)
    case = replace(case_of(real, made), organs=organs, organ_names=((5, "liver"), (6, "spleen")))
    rows = rows_of(case)
    assert rows["organ:liver", "suv_mean_bias", 0].value == pytest.approx(-0.25, rel=1e-4)
    assert not any(region == "organ:spleen" for region, _, _ in rows)


def test_what_the_real_pet_does_not_show_is_not_judged() -> None:
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
    rows = measure(of_patient(case_of(real, made, spot_label(ONE, TWO)), "p", "NEGATIVE"), "m")
    plain = {row.metric for row in rows} - DEFINITIONS.keys()
    assert plain == {
        "seam_real", "seam_synthetic",
        *(f"{metric}_{end}" for metric in ("suv_mean", "suv_max", "suv_peak", "tlg") for end in ("real", "synthetic")),
    }  # fmt: skip
    assert {row.unit for row in rows} <= {"", "g/ml", "g", "dB", "ml"}


def test_a_study_without_a_body_is_a_fault_of_the_caller() -> None:
    real = body_pet()
    with pytest.raises(ValueError, match="shows no body"):
        measure(replace(case_of(real, real), labels=np.zeros(SHAPE, np.uint8)), "m")
