"""What a precision or a device may change: on the processor, which emulates bfloat16, and on a GPU where one is.

Bounds: of float32 on a GPU 1e-4 of model space; of half precision, in SUV against float32, the 99.9th percentile at
most the larger of 0.03 and 2 %, and 0.5 % of a district's mean.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.samples.known_networks import SEEING, small_study, unet_package
from twin_scanner.imaging.volume import FloatArray, LabelArray
from twin_scanner.models.card import Architecture
from twin_scanner.models.compute import Compute
from twin_scanner.models.device import placed
from twin_scanner.models.inputs import ct_channels
from twin_scanner.models.package import ModelPackage, load_package
from twin_scanner.models.store import ModelStore
from twin_scanner.synthesis.translate import translate

SUV, SHARE, PERCENT = 0.03, 0.02, 99.9
MEAN_SHARE = 0.005
GPU_FLOAT32 = 1e-4


def demonstration(folder: Path) -> ModelPackage:
    """The package that was trained: what an untrained network says is no measure of an error."""
    return load_package(ModelStore(folder).resolve("demonstration"))


def translated(package: ModelPackage) -> tuple[FloatArray, LabelArray]:
    """A study's PET in SUV, and its districts."""
    ct, labels = small_study((34, 40, 48))
    channels = ct_channels(ct.array, package.plan, package.architecture)
    return translate(channels, labels, package) * np.float32(package.plan.suv_max), labels


def check_error(exact: FloatArray, found: FloatArray, labels: LabelArray) -> None:
    body = labels > 0
    allowed = np.maximum(SUV, SHARE * exact[body])
    assert np.percentile(np.abs(found - exact)[body] / allowed, PERCENT) <= 1.0
    for label in (1, 2):
        assert abs(found[labels == label].mean() / exact[labels == label].mean() - 1.0) <= MEAN_SHARE


@pytest.mark.unit
def test_bfloat16_keeps_within_the_bounds(tmp_path: Path) -> None:
    """The processor's bfloat16 is emulated where it has none: slower, and rounded alike."""
    package = demonstration(tmp_path)
    exact, labels = translated(package)
    found, _ = translated(replace(package, computes_in="bfloat16"))
    assert np.abs(found - exact).max() > 1e-4, "it was computed in bfloat16"
    check_error(exact, found, labels)


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", [Architecture("unet", 4), SEEING, Architecture("resnet9", 4)])
def test_float32_on_a_gpu_is_the_processors(gpu: str, architecture: Architecture) -> None:
    package = unet_package(architecture=architecture)
    exact, _ = translated(package)
    found, _ = translated(placed(package, Compute(gpu)))
    np.testing.assert_allclose(found, exact, rtol=0, atol=GPU_FLOAT32 * package.plan.suv_max)
    again, _ = translated(package)
    np.testing.assert_array_equal(again, found, "the networks stay where they were placed, and repeat themselves")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_on_a_gpu_keeps_within_the_bounds(gpu: str, precision: str, tmp_path: Path) -> None:
    exact, labels = translated(demonstration(tmp_path))
    found, _ = translated(placed(demonstration(tmp_path), Compute(gpu, precision)))
    check_error(exact, found, labels)


@pytest.mark.gpu
def test_a_gpu_too_small_for_a_batch_takes_smaller_ones(gpu: str, tmp_path: Path) -> None:
    """PyTorch is kept from more than what the package and two dozen windows take."""
    package = demonstration(tmp_path)
    exact, _ = translated(package)
    device = torch.device(gpu, 0)
    on_gpu = placed(package, Compute(gpu))
    translated(on_gpu)
    torch.cuda.empty_cache()
    share = (torch.cuda.memory_reserved(device) + 64 * 2**20) / torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(share, device)
    try:
        found, _ = translated(on_gpu)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    np.testing.assert_allclose(found, exact, rtol=0, atol=GPU_FLOAT32 * package.plan.suv_max)
