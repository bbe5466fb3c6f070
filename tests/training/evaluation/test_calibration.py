"""Calibration of uncertainty; the oracle is a world whose error has a known standard deviation."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from tests.samples.known_networks import TRUNK, unet_package, with_plan
from training.evaluation.calibration import (
    LEVELS,
    SMALLEST_BIN,
    SUV_EDGES,
    VOXELS_A_BIN,
    Sample,
    check_coverage,
    coverage_table,
    fit_calibration,
    sample_voxels,
)
from training.evaluation.case import Case
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import FloatArray, Geometry
from twin_scanner.models.partition import DISTRICTS
from twin_scanner.models.plan import Plan
from twin_scanner.synthesis.calibration import FLIPS, Calibration, CalibrationBin

pytestmark = pytest.mark.unit

PACKAGE = unet_package(DISTRICTS)
SHAPE = (30, 40, 25)


def true_deviation(raw: FloatArray) -> FloatArray:
    """What a fit should find: monotone, no line, and far from the raw deviation itself."""
    return 0.1 + 3.0 * raw + 0.4 * (raw > 0.2)


def world(patient: int, *, voxels: int = 4000, heavy_tails: bool = False, study: str = "") -> Sample:
    """A study whose error is drawn with ``true_deviation``; patients differ a little, predicted SUV reaches 20."""
    random = np.random.default_rng([11, patient, len(study)])
    predicted = (20.0 * random.random(voxels) ** 3).astype(np.float32)
    raw = random.gamma(2.0, 0.08, voxels).astype(np.float32)
    noise = random.standard_t(3, voxels) / np.sqrt(3.0) if heavy_tails else random.standard_normal(voxels)
    error = noise * true_deviation(raw) * random.uniform(0.9, 1.1)
    name = study or f"study-{patient}"
    real = (predicted + error).astype(np.float32)
    return Sample(name, f"patient-{patient}", "", 20.0, predicted, real, raw, np.ones(voxels, np.float32))


def worlds(first: int, count: int, *, heavy_tails: bool = False) -> list[Sample]:
    return [world(patient, heavy_tails=heavy_tails) for patient in range(first, first + count)]


def small_case(seed: int = 0, suv_max: float = 20.0) -> Case:
    """A random study; half of the body is trunk, half head, and the first planes are air."""
    random = np.random.default_rng(seed)
    real, synthetic = ((30.0 * random.random(SHAPE) ** 4).astype(np.float32) for _ in range(2))
    synthetic = np.minimum(synthetic, np.float32(suv_max))
    labels = np.full(SHAPE, 2, np.uint8)
    labels[20:], labels[:3] = 1, 0
    geometry = Geometry(SHAPE, (3.0, 2.04, 2.04), (0.0, 0.0, 0.0))
    plan = Plan(suv_max=suv_max)
    return Case(f"s{seed}", f"p{seed}", "", real, synthetic, labels, None, geometry, plan, geometry)


def test_the_standard_deviation_is_found_at_every_raw_deviation_and_never_falls() -> None:
    calibration = fit_calibration(worlds(0, 12), PACKAGE, FLIPS)
    assert [one.suv_low for one in calibration.bins] == list(SUV_EDGES)
    raw = np.linspace(0.05, 0.4, 50, dtype=np.float32)
    for suv in (0.2, 3.0, 15.0):
        found = calibration.standard_deviation(raw, np.full(raw.shape, suv, np.float32))
        assert (np.diff(found) >= 0).all()
        smooth = np.abs(raw - 0.2) > 0.04
        np.testing.assert_allclose(found[smooth], true_deviation(raw)[smooth], rtol=0.25)


def test_normal_errors_get_the_factors_of_the_normal_distribution() -> None:
    calibration = fit_calibration(worlds(0, 12), PACKAGE, FLIPS)
    for one in calibration.bins:
        np.testing.assert_allclose(one.factors, norm.ppf((1 + np.array(LEVELS)) / 2), rtol=0.12)


@pytest.mark.parametrize("heavy_tails", [False, True])
def test_stated_intervals_cover_on_other_patients_where_the_raw_deviation_does_not(heavy_tails: bool) -> None:
    calibration = fit_calibration(worlds(0, 10, heavy_tails=heavy_tails), PACKAGE, FLIPS)
    found = check_coverage(calibration, worlds(100, 10, heavy_tails=heavy_tails))
    predicted = [one for one in found if one.binned_by in ("body", "predicted")]
    assert len(predicted) == (1 + len(SUV_EDGES)) * len(LEVELS)
    for one in predicted:
        assert abs(one.coverage - one.level) < 0.035, one
        assert one.lowest <= one.coverage and one.patients == 10
        assert one.raw_coverage < one.level - 0.1


def test_coverage_is_counted_in_each_patient_and_averaged_over_patients() -> None:
    """By hand: a standard deviation of 1 and a factor of 1, so what errs by 1 or less is covered."""
    flat = CalibrationBin(0.0, 20.0, (1.0,), (1.0,), (1.0,), 3, 9)
    plan = PACKAGE.plan.plan_hash
    calibration = Calibration(PACKAGE.model_hash, plan, FLIPS, 20.0, (0.9,), (flat,), ("x",))
    errors = {"p1": [0.5, 0.9, 1.5, 3.0], "p2": [0.1]}
    samples = [
        Sample(
            f"s-{patient}",
            patient,
            "LYMPHOMA",
            20.0,
            np.full(len(of), 3.0, np.float32),
            np.asarray(of, np.float32) + 3.0,
            np.full(len(of), 1.0, np.float32),
            np.ones(len(of), np.float32),
        )
        for patient, of in errors.items()
    ]
    body, predicted = (
        next(o for o in check_coverage(calibration, samples) if o.binned_by == b) for b in ("body", "predicted")
    )
    assert (body.coverage, body.lowest, body.patients, body.voxels) == (0.75, 0.5, 2, 5)
    assert (predicted.suv_low, predicted.suv_high, predicted.coverage) == (2.0, 4.0, 0.75)
    assert body.half_width_suv == 1.0 and body.raw_coverage == 0.875, "1.645 times the raw deviation of 1"
    real = {(one.suv_low, one.coverage) for one in check_coverage(calibration, samples) if one.binned_by == "real"}
    assert real == {(2.0, 1.0), (4.0, 0.0)}, "what a reader cannot know is shown apart"


def test_an_intervals_factor_is_of_maps_that_did_not_see_the_patient() -> None:
    """By hand: patient p errs by p everywhere, so the map of the others states the root mean square of theirs."""
    errors = np.arange(1.0, 6.0)
    samples = [
        Sample(f"s{n}", f"p{n}", "", 20.0, *(np.full(200, of, np.float32) for of in (0.2, 0.2 + error, 1.0, 1.0)))
        for n, error in enumerate(errors)
    ]
    others = [np.sqrt(np.delete(errors**2, n).mean()) for n in range(5)]
    (only,) = fit_calibration(samples, PACKAGE, FLIPS).bins
    assert only.deviation == pytest.approx([np.sqrt((errors**2).mean())])
    assert only.factors == pytest.approx([(errors / others)[n] for n in (2, 3, 4, 4)], rel=1e-5)


def test_voxels_that_stand_for_more_weigh_more() -> None:
    flat = CalibrationBin(0.0, 20.0, (1.0,), (1.0,), (1.0,), 3, 9)
    calibration = Calibration("m", "p", FLIPS, 20.0, (0.9,), (flat,), ("x",))
    values = [np.asarray(of, np.float32) for of in ((3.0, 3.0), (3.0, 5.5), (1.0, 1.0), (1.0, 3.0))]
    body = check_coverage(calibration, [Sample("s", "p1", "", 20.0, *values)])[0]
    assert body.coverage == 0.25


def test_a_patient_who_was_calibrated_on_is_refused_in_the_check() -> None:
    calibration = fit_calibration(worlds(0, 5), PACKAGE, FLIPS)
    again = world(3, study="another-study-of-patient-3")
    with pytest.raises(Rejected, match="1 of 2 patients were calibrated on"):
        check_coverage(calibration, [world(50), again])


def test_a_calibration_names_no_patient() -> None:
    calibration = fit_calibration(worlds(0, 5), PACKAGE, FLIPS)
    assert len(set(calibration.patients)) == 5
    assert "patient-" not in str(calibration.as_json())


@pytest.mark.parametrize(
    ("samples", "trained_on", "sentence"),
    [
        (worlds(0, 2), (), "needs 3 patients or more, not 2"),
        ([world(0), world(1), world(0, study="b")], (), "not 2"),
        (worlds(0, 5), ("patient-4",), "Patients of the training"),
        ([world(0), world(1), world(2, voxels=3), replace(world(3), suv_max=10.0)], (), "not translated to SUV 20"),
        ([world(patient, voxels=20) for patient in range(4)], (), f"fewer than {SMALLEST_BIN} voxels"),
    ],
)
def test_what_cannot_be_calibrated_on_is_refused(
    samples: list[Sample], trained_on: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(Rejected, match=sentence):
        fit_calibration(samples, PACKAGE, FLIPS, trained_on=trained_on)


def test_bins_with_few_voxels_join_their_neighbours_and_still_meet() -> None:
    """A Calibration itself refuses bins with gaps; nothing is predicted above SUV 2 here."""
    low = [replace(one, predicted=one.predicted / np.float32(10)) for one in worlds(0, 5)]
    calibration = fit_calibration(low, PACKAGE, FLIPS)
    assert len(calibration.bins) < len(SUV_EDGES) and calibration.bins[-1].suv_high == 20.0
    assert all(one.voxels >= SMALLEST_BIN and one.patients >= 3 for one in calibration.bins)


@pytest.mark.parametrize("suv_max", [4.0, 8.0])
def test_what_is_clipped_belongs_to_the_last_bin_where_the_range_ends_at_a_bins_edge(suv_max: float) -> None:
    package = with_plan(PACKAGE, Plan(suv_max=suv_max))
    clipped = [
        replace(one, suv_max=suv_max, predicted=np.minimum(one.predicted, suv_max), real=np.minimum(one.real, suv_max))
        for one in worlds(0, 10)
    ]
    calibration = fit_calibration(clipped[:5], package, FLIPS)
    assert sum(one.voxels for one in calibration.bins) == sum(one.raw.size for one in clipped[:5])
    found = [one for one in check_coverage(calibration, clipped[5:]) if one.level == LEVELS[0]]
    for binned_by in ("body", "predicted", "real"):
        counted = sum(one.voxels for one in found if one.binned_by == binned_by)
        assert counted == sum(one.raw.size for one in clipped[5:]), binned_by


def test_a_raw_deviation_that_never_varies_still_calibrates() -> None:
    """A network that knows no sides: the standard deviation is then the error's in each bin."""
    flat = [replace(one, raw=np.zeros_like(one.raw)) for one in worlds(0, 5)]
    calibration = fit_calibration(flat, PACKAGE, FLIPS)
    top = np.concatenate([(one.predicted - one.real)[one.predicted >= 8.0] for one in flat])
    found = calibration.standard_deviation(np.zeros(1, np.float32), np.full(1, 12.0, np.float32))
    assert found[0] == pytest.approx(np.sqrt(np.square(top).mean()), rel=0.02)


def test_a_sample_is_drawn_evenly_from_each_bin_and_stands_for_all_voxels() -> None:
    case, raw = small_case(), np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    drawn = sample_voxels(case, raw, PACKAGE)
    body = case.labels > 0
    expected, _ = np.histogram(case.synthetic[body], [*SUV_EDGES, np.inf])
    counts, _ = np.histogram(drawn.predicted, [*SUV_EDGES, np.inf])
    np.testing.assert_array_equal(counts, np.minimum(expected, VOXELS_A_BIN))
    assert expected.max() > VOXELS_A_BIN, "something must have been left out"
    assert drawn.weight.sum() == pytest.approx(body.sum(), rel=1e-5)
    places = drawn.raw.astype(int)
    assert body.ravel()[places].all() and len(set(places)) == len(places)
    np.testing.assert_array_equal(drawn.predicted, case.synthetic.ravel()[places])
    np.testing.assert_allclose(drawn.real, np.minimum(case.real.ravel()[places], 20.0), rtol=1e-5)


def test_only_what_the_model_covers_is_sampled_and_the_same_seed_draws_the_same() -> None:
    case, raw = small_case(), np.ones(SHAPE, np.float32)
    trunk = sample_voxels(case, raw, unet_package(TRUNK))
    assert trunk.weight.sum() == pytest.approx((case.labels == 2).sum(), rel=1e-5)
    one, same, other = (sample_voxels(case, raw, PACKAGE, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.predicted, same.predicted)
    assert not np.array_equal(one.predicted, other.predicted)
    with pytest.raises(ValueError, match="does not lie on the case"):
        sample_voxels(case, raw[1:], PACKAGE)


def test_the_table_prints_every_bin_level_and_n() -> None:
    calibration = fit_calibration(worlds(0, 5), PACKAGE, FLIPS)
    found = check_coverage(calibration, worlds(50, 3))
    lines = coverage_table(found).splitlines()
    assert len(lines) == 2 + len(found)
    assert lines[2].startswith("| body | 0 to 20 | 50 % | ") and lines[2].endswith("| 3 | 12000 |")
