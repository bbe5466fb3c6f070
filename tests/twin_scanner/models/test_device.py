"""Devices by name: what is not there is one sentence; which precisions a processor computes in."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.samples.known_networks import unet_package
from twin_scanner.errors import Misconfigured, Transient
from twin_scanner.models import device
from twin_scanner.models.compute import Compute, processor_has_bfloat16
from twin_scanner.models.device import check_compute, find_device, placed
from twin_scanner.models.unet_arithmetic import UNetArithmetic

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("gpus", "name", "sentence"),
    [
        (0, "cuda", "The device 'cuda' is not there, for PyTorch sees no GPU"),
        (2, "cuda:2", "sees 2 of them: choose 'cuda:1' or one before"),
        (2, "gpu", "There is no device 'gpu': choose"),
    ],
)
def test_a_device_that_is_not_there_is_named(
    gpus: int, name: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(Misconfigured, match=sentence):
        find_device(name)
    assert find_device("auto") == torch.device("cuda:0" if gpus else "cpu")
    assert find_device("cpu") == torch.device("cpu")


def test_half_precision_needs_a_device_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "processor_has_bfloat16", lambda: False)
    with pytest.raises(Misconfigured, match="'float16' needs a GPU"):
        check_compute(Compute("cpu", "float16"))
    with pytest.raises(Misconfigured, match="This processor has no bfloat16"):
        check_compute(Compute("cpu", "bfloat16"))
    monkeypatch.setattr(device, "processor_has_bfloat16", lambda: True)
    assert placed(unet_package(), Compute("cpu", "bfloat16")).computes_in == "bfloat16"


def test_networks_on_a_processor_keep_their_arithmetic_as_long_as_they_keep_their_weights_and_precision() -> None:
    """It was built anew for each translation."""
    package = unet_package()
    assert not package.arithmetic
    resident = placed(package, Compute())
    assert {name: type(network) for name, network in resident.arithmetic.items()} == dict.fromkeys(
        package.networks, UNetArithmetic
    )
    assert not replace(resident, networks=unet_package(seed=1).networks).arithmetic
    assert not replace(resident, computes_in="bfloat16").arithmetic


def test_linux_says_whether_a_processor_has_bfloat16(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t\t: avx2 avx512f avx512_bf16 amx_tile\n")
    assert processor_has_bfloat16(cpuinfo)
    cpuinfo.write_text("flags\t\t: avx2 avx512f\n")
    assert not processor_has_bfloat16(cpuinfo)
    assert not processor_has_bfloat16(tmp_path / "nothing")


def test_networks_that_find_no_room_on_a_gpu_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", no_room)
    with pytest.raises(Transient, match="The memory of cpu does not suffice"):
        placed(unet_package(), Compute())
