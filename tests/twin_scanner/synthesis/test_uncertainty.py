"""Deviation over flips and ensembles, and its calibration; the oracle is NumPy over whole translations by hand."""

import json
import tracemalloc
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from tests.fakes.full_disk import files_end_at
from tests.samples.calibrations import calibration_of
from tests.samples.known_networks import (
    SEEING,
    TRUNK,
    Displaced,
    package_of,
    small_study,
    stitched,
    unet_package,
    with_plan,
)
from twin_scanner.errors import Rejected, Transient
from twin_scanner.imaging.volume import FloatArray, LabelArray, Volume, read_nifti
from twin_scanner.models.card import Architecture, Stitching
from twin_scanner.models.inputs import ct_channels
from twin_scanner.models.package import ModelPackage
from twin_scanner.models.partition import DISTRICTS, WHOLE_BODY, WHOLE_VOLUME
from twin_scanner.models.plan import Plan, model_to_suv
from twin_scanner.synthesis.calibration import (
    FLIPS,
)
from twin_scanner.synthesis.translate import translate
from twin_scanner.synthesis.uncertainty import Uncertainty, raw_deviation, spread_method, uncertainty, write_uncertainty

pytestmark = pytest.mark.unit

SHAPE = (35, 40, 33)


def served(ct: Volume, labels: LabelArray, package: ModelPackage) -> Volume:
    made = translate(ct_channels(ct.array, package.plan, package.architecture), labels, package)
    return Volume(model_to_suv(made, package.plan), ct.geometry)


def mirrored(ct: Volume, labels: LabelArray, package: ModelPackage, axes: tuple[int, ...]) -> FloatArray:
    """The SUV of the mirrored study, mirrored back."""
    turned = Volume(np.flip(ct.array, axes).copy(), ct.geometry)
    return np.flip(served(turned, np.flip(labels, axes).copy(), package).array, axes)


@pytest.mark.parametrize(
    ("axes", "chosen", "architecture", "stitching"),
    [
        ("DHW", (0, 1, 2), None, "uniform"),
        ("W", (2,), None, "uniform"),
        ("DW", (0, 2), None, "uniform"),
        ("W", (2,), SEEING, "gaussian"),
    ],
)
def test_the_deviation_over_flips_is_numpys_over_all_mirrored_translations(
    axes: str, chosen: tuple[int, ...], architecture: Architecture | None, stitching: Stitching
) -> None:
    (ct, labels), package = small_study(SHAPE), stitched(unet_package(architecture=architecture), stitching)
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


def test_a_calibration_of_another_model_plan_or_method_is_refused() -> None:
    (ct, labels), package = small_study(SHAPE), unet_package()
    for calibration, sentence in (
        (calibration_of(unet_package(seed=1)), "is of model 000000000000, not of"),
        (calibration_of(with_plan(package, Plan(hu_high=500.0))), "is of model"),
        (calibration_of(package, spread_method(axes="W")), "'flips-W', not of 'flips-DHW'"),
    ):
        with pytest.raises(Rejected, match=sentence):
            uncertainty(ct, labels, ct, package, calibration=calibration)


def test_an_uncertainty_that_does_not_fit_on_the_disk_is_transient(tmp_path: Path) -> None:
    (ct, _), package = small_study(SHAPE), unet_package(TRUNK)
    deviation = Volume(np.random.default_rng(0).random(SHAPE, np.float32), ct.geometry)
    with files_end_at(2000), pytest.raises(Transient, match=r"uncertainty.*\.nii\.gz cannot be written to"):
        write_uncertainty(tmp_path, Uncertainty(deviation, package.model_hash, FLIPS, None))
    assert not list(tmp_path.iterdir())
