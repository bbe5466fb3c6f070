"""Deviation over flips and ensembles, and its calibration; the oracle is NumPy over whole translations by hand."""

import json
import tracemalloc
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from tests.samples.known_networks import TRUNK, Displaced, package_of, small_study, unet_package, with_plan
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import FloatArray, LabelArray, Volume, read_nifti
from twin_scanner.models.package import ModelPackage
from twin_scanner.models.partition import DISTRICTS, WHOLE_BODY, WHOLE_VOLUME
from twin_scanner.models.plan import Plan, ct_to_model, model_to_suv
from twin_scanner.models.store import ModelStore
from twin_scanner.synthesis.translate import translate
from twin_scanner.synthesis.uncertainty import (
    FLIPS,
    Calibration,
    CalibrationBin,
    Coverage,
    SpreadMethod,
    calibration_file,
    raw_deviation,
    read_calibration,
    spread_method,
    stored_calibration,
    uncertainty,
    write_calibration,
    write_uncertainty,
)

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]

SHAPE = (35, 40, 33)
LOW = CalibrationBin(0.0, 1.0, (0.1, 0.3), (0.2, 0.4), (1.0, 2.0), 5, 900)
HIGH = CalibrationBin(1.0, 20.0, (0.5,), (2.0,), (0.5, 3.0), 5, 900)


def calibration_of(package: ModelPackage, method: SpreadMethod = FLIPS) -> Calibration:
    """Two bins that meet at SUV 1, levels of 68.3 and 95 %."""
    return Calibration(
        package.model_hash, package.plan.plan_hash, method, 20.0, (0.683, 0.95), (LOW, HIGH), ("ab", "cd", "ef")
    )


def served(ct: Volume, labels: LabelArray, package: ModelPackage) -> Volume:
    made = translate(ct_to_model(ct.array, package.plan), labels, package)
    return Volume(model_to_suv(made, package.plan), ct.geometry)


def mirrored(ct: Volume, labels: LabelArray, package: ModelPackage, axes: tuple[int, ...]) -> FloatArray:
    """The SUV of the mirrored study, mirrored back."""
    turned = Volume(np.flip(ct.array, axes).copy(), ct.geometry)
    return np.flip(served(turned, np.flip(labels, axes).copy(), package).array, axes)


@pytest.mark.parametrize(("axes", "chosen"), [("DHW", (0, 1, 2)), ("W", (2,)), ("DW", (0, 2))])
def test_the_deviation_over_flips_is_numpys_over_all_mirrored_translations(axes: str, chosen: tuple[int, ...]) -> None:
    (ct, labels), package = small_study(SHAPE), unet_package()
    combinations = [
        tuple(axis for axis, flip in zip(chosen, flips, strict=True) if flip)
        for flips in product((False, True), repeat=len(chosen))
    ]
    oracle = np.std([mirrored(ct, labels, package, each) for each in combinations], axis=0, ddof=1, dtype=np.float64)
    raw = raw_deviation(ct, labels, served(ct, labels, package), package, axes=axes)
    assert raw.dtype == np.float32 and oracle[labels > 0].mean() > 1e-3
    np.testing.assert_allclose(raw, oracle, rtol=0, atol=2e-5)
    assert not raw[labels == 0].any()


def test_a_network_that_knows_no_sides_has_no_deviation() -> None:
    """A voxelwise network gives the same PET for the mirrored CT, so the flips agree to rounding."""
    ct, labels = small_study(SHAPE)
    package = package_of({"trunk": Displaced((0, 0, 0), torch.square)}, TRUNK)
    suv = served(ct, labels, package)
    assert suv.array.max() > 1.0
    assert raw_deviation(ct, labels, suv, package).max() < 1e-5


def test_the_deviation_over_an_ensemble_is_numpys_over_its_models() -> None:
    ct, labels = small_study(SHAPE)
    packages = [unet_package(seed=seed) for seed in range(3)]
    oracle = np.std([served(ct, labels, package).array for package in packages], axis=0, ddof=1, dtype=np.float64)
    raw = raw_deviation(ct, labels, served(ct, labels, packages[0]), packages[0], members=packages[1:])
    np.testing.assert_allclose(raw, oracle, rtol=0, atol=2e-5)


def test_eight_flips_take_no_more_memory_than_two() -> None:
    (ct, labels), package = small_study((64, 64, 64)), unet_package()
    suv, peaks = served(ct, labels, package), []
    for axes in ("W", "DHW"):
        tracemalloc.start()
        raw_deviation(ct, labels, suv, package, axes=axes)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_progress_rises_to_the_whole() -> None:
    (ct, labels), package = small_study(SHAPE), unet_package()
    calls: list[tuple[int, int]] = []
    raw_deviation(
        ct, labels, served(ct, labels, package), package, axes="HW", progress=lambda *call: calls.append(call)
    )
    assert calls == sorted(calls) and calls[-1] == (3000, 3000)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (unet_package(seed=0), "already in its ensemble"),
        (with_plan(unet_package(seed=1), Plan(suv_max=10.0)), "another Plan"),
        (unet_package(WHOLE_VOLUME, seed=1), "mask differently"),
        (unet_package(TRUNK, seed=1), "cover other districts"),
    ],
)
def test_models_that_form_no_ensemble_are_refused(other: ModelPackage, sentence: str) -> None:
    (ct, labels), package = small_study(SHAPE), unet_package()
    with pytest.raises(Rejected, match=sentence):
        raw_deviation(ct, labels, ct, package, members=[other])


def test_models_of_other_partitions_that_cover_the_same_districts_form_an_ensemble() -> None:
    (ct, labels), package = small_study(SHAPE), unet_package(DISTRICTS)
    raw = raw_deviation(ct, labels, served(ct, labels, package), package, members=[unet_package(WHOLE_BODY, seed=5)])
    assert raw[labels > 0].min() >= 0 and raw.max() > 0


@pytest.mark.parametrize("axes", ["", "X", "WD", "DD"])
def test_axes_that_are_none_are_refused(axes: str) -> None:
    with pytest.raises(Rejected, match="Flips go along"):
        spread_method(axes=axes)


def test_each_method_has_a_name_of_its_own() -> None:
    first, second = unet_package(seed=1), unet_package(seed=2)
    both = spread_method([first, second])
    assert both == spread_method([second, first])
    names = {FLIPS.name, spread_method(axes="W").name, both.name, spread_method([first]).name}
    assert len(names) == 4 and {"flips-DHW", "flips-W"} < names


def test_a_standard_deviation_is_interpolated_in_its_bin_level_below_and_in_proportion_beyond() -> None:
    calibration = calibration_of(unet_package())
    raw = np.array([0.0, 0.2, 0.6, 0.25, 1.0], np.float32)
    predicted = np.array([0.5, 0.5, 0.5, 3.0, 20.0], np.float32)
    deviation = calibration.standard_deviation(raw, predicted)
    np.testing.assert_allclose(deviation, [0.2, 0.3, 0.8, 2.0, 4.0], rtol=1e-6)
    np.testing.assert_allclose(calibration.half_width(raw, predicted, 0.95), [0.4, 0.6, 1.6, 6.0, 12.0], rtol=1e-6)
    with pytest.raises(Rejected, match=r"intervals of 0\.683, 0\.95, not of 0\.8"):
        calibration.half_width(raw, predicted, 0.8)


def test_a_calibrated_uncertainty_is_the_calibrations_map_of_the_raw_one_and_zero_outside() -> None:
    (ct, labels), package = small_study(SHAPE), unet_package(TRUNK)
    suv, calibration = served(ct, labels, package), calibration_of(package)
    raw = raw_deviation(ct, labels, suv, package, axes="DHW")
    made = uncertainty(ct, labels, suv, package, calibration=calibration)
    trunk = labels == 2
    np.testing.assert_array_equal(
        made.deviation.array[trunk], calibration.standard_deviation(raw[trunk], suv.array[trunk])
    )
    assert not made.deviation.array[~trunk].any(), "no network covers the head"
    assert made.deviation.array[trunk].min() > 0


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_file_its_header_and_the_report_say_whether_it_is_calibrated(tmp_path: Path, calibrated: bool) -> None:
    (ct, labels), package = small_study(SHAPE), unet_package(TRUNK)
    calibration = calibration_of(package, spread_method(axes="W")) if calibrated else None
    made = uncertainty(ct, labels, served(ct, labels, package), package, axes="W", calibration=calibration)
    path = write_uncertainty(tmp_path / "out", made)
    assert path.name == ("uncertainty.nii.gz" if calibrated else "uncertainty-not-calibrated-flips-W.nii.gz")
    described = str(sitk.ReadImage(str(path)).GetMetaData("ITK_FileNotes"))  # type: ignore[no-untyped-call]
    assert described == made.description and len(described) < 80
    assert described.startswith("calibrated SD" if calibrated else "NOT CALIBRATED")
    entry = json.loads(json.dumps(made.as_json()))
    assert (entry["calibrated"], entry["file"], entry["method"]) == (calibrated, path.name, "flips-W")
    assert ("factors" in entry) is calibrated
    stored = read_nifti(path)
    assert stored.geometry.same_grid(ct.geometry)
    np.testing.assert_array_equal(stored.array, made.deviation.array)


def test_a_calibration_is_kept_beside_the_packages_and_disturbs_none(tmp_path: Path) -> None:
    package = unet_package()
    assert stored_calibration(tmp_path, package) is None
    coverage = Coverage("predicted", 0.0, 1.0, 0.95, 0.94, 0.9, 0.4, 0.6, 3, 800)
    calibration = replace(calibration_of(package), coverage=(coverage,))
    before = ModelStore(tmp_path).list()
    write_calibration(calibration_file(tmp_path, package.model_hash), calibration)
    assert stored_calibration(tmp_path, package) == calibration
    assert ModelStore(tmp_path).list() == before
    assert stored_calibration(tmp_path, package, spread_method(axes="W")) is None


def test_a_calibration_of_another_model_plan_or_method_is_refused() -> None:
    (ct, labels), package = small_study(SHAPE), unet_package()
    for calibration, sentence in (
        (calibration_of(unet_package(seed=1)), "is of model 000000000000, not of"),
        (calibration_of(with_plan(package, Plan(hu_high=500.0))), "is of model"),
        (calibration_of(package, spread_method(axes="W")), "'flips-W', not of 'flips-DHW'"),
    ):
        with pytest.raises(Rejected, match=sentence):
            uncertainty(ct, labels, ct, package, calibration=calibration)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"bins": []},
        {"levels": [1.5, 0.9]},
        {"patients": []},
        {"suv_max": 15.0},
        {"bins": [{**LOW.__dict__, "suv_high": 20.0, "deviation": [0.4, 0.2]}]},
        {"bins": [{**LOW.__dict__, "suv_high": 20.0, "factors": [1.0]}]},
        {"bins": [{**LOW.__dict__, "suv_high": 20.0, "raw": [0.1, float("nan")]}]},
        {"method": {"kind": "flips", "axes": "Q", "members": []}},
        {"colour": "red"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_damaged_calibration_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "flips-DHW.json"
    write_calibration(path, calibration_of(unet_package()))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(Rejected, match="calibrate the model again"):
        read_calibration(path)


def test_a_calibration_that_is_no_json_or_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flips-DHW.json").write_text("[1,")
    with pytest.raises(Rejected, match="calibrate the model again"):
        read_calibration(tmp_path / "flips-DHW.json")
    with pytest.raises(Rejected, match="does not exist"):
        read_calibration(tmp_path / "none.json")
