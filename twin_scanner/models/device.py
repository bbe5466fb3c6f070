"""The device that a configuration names, as PyTorch knows it, and the networks of a package on it."""

import re
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import torch
from torch import nn

from twin_scanner.errors import Misconfigured, Transient
from twin_scanner.models.compute import DEVICES, Compute, ComputePrecision, processor_has_bfloat16
from twin_scanner.models.networks import UNetGenerator
from twin_scanner.models.package import ModelPackage
from twin_scanner.models.unet_arithmetic import UNetArithmetic

AUTOCAST: Final = MappingProxyType[ComputePrecision, torch.dtype](
    {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
)


def find_device(name: str) -> torch.device:
    """The device of this name; raises Misconfigured where there is none, or this machine does not have it."""
    if re.fullmatch(DEVICES, name) is None:
        raise Misconfigured(f"There is no device '{name}': choose 'auto', 'cpu', 'cuda' or, of several GPUs, 'cuda:1'.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if index < count:
        return torch.device("cuda", index)
    if not count:
        raise Misconfigured(
            f"The device '{name}' is not there, for PyTorch sees no GPU: load the GPU's driver and install PyTorch's "
            "CUDA build, or choose 'cpu' or 'auto'."
        )
    raise Misconfigured(
        f"The device '{name}' is not there, for PyTorch sees {count} of them: choose 'cuda:{count - 1}' or one before."
    )


def check_compute(compute: Compute) -> torch.device:
    """The device, which can compute in this precision; raises Misconfigured where it is not there or cannot."""
    device = find_device(compute.device)
    if device.type == "cpu" and compute.precision == "float16":
        raise Misconfigured("The precision 'float16' needs a GPU, and networks run on the processor: choose 'float32'.")
    if device.type == "cpu" and compute.precision == "bfloat16" and not processor_has_bfloat16():
        raise Misconfigured(
            "This processor has no bfloat16, and networks run on it: choose the precision 'float32', or a GPU."
        )
    if device.type == "cuda" and compute.precision == "bfloat16" and not torch.cuda.is_bf16_supported(False):
        raise Misconfigured("This GPU has no bfloat16: choose the precision 'float16' or 'float32'.")
    return device


def placed(package: ModelPackage, compute: Compute) -> ModelPackage:
    """The package's networks on a device, computing in a precision, their quickest arithmetic with them.

    Raises Misconfigured as ``check_compute`` does, and Transient where the GPU has no memory left for them.
    """
    device = check_compute(compute)
    try:
        for network in package.networks.values():
            network.to(device)
    except torch.OutOfMemoryError as error:
        raise gpu_memory_spent(device) from error
    resident = replace(package, computes_in=compute.precision)
    for name, network in resident.networks.items():
        resident.arithmetic[name] = quickest(network, device, compute.precision)
    return resident


def quickest(network: nn.Module, device: torch.device, precision: ComputePrecision) -> nn.Module:
    """The network as this device computes it in the least time; the same numbers to a hundred thousandth."""
    if isinstance(network, UNetGenerator) and device.type == "cpu" and precision == "float32":
        return UNetArithmetic(network)
    return network


def gpu_memory_spent(device: torch.device) -> Transient:
    """What to raise where the GPU has no memory left: another program has it, and may give it back."""
    return Transient(
        f"The memory of {device} does not suffice: end what else runs on that GPU, or set model.device to another "
        "device; the job is tried again."
    )
