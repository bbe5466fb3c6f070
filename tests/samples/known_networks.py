"""Packages of networks whose answer is known, and a small CT with districts to run them on."""

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from twin_scanner.imaging.volume import Geometry, LabelArray, Shape, Volume
from twin_scanner.models.card import Architecture, Card, Stitching
from twin_scanner.models.package import ModelPackage, build_network
from twin_scanner.models.partition import DISTRICTS, Partition
from twin_scanner.models.plan import Plan

TRUNK = Partition("trunk-only", MappingProxyType({"trunk": (2,)}))


class Displaced(nn.Module):
    """Each voxel says what a function makes of the CT ``offset`` voxels (D, H, W, none negative) after it.

    Where that place is outside the window, the CT counts as 0.
    """

    def __init__(self, offset: Shape, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1), requires_grad=False)
        self.offset, self.function = offset, function

    def forward(self, ct: Tensor) -> Tensor:
        d, h, w = self.offset
        seen = nn.functional.pad(ct, (0, w, 0, h, 0, d))[..., d:, h:, w:]
        return self.gain * self.function(seen)


def package_of(networks: dict[str, nn.Module], partition: Partition, model_hash: str = "a" * 64) -> ModelPackage:
    """A package in memory."""
    return ModelPackage(Card("known", model_hash, Plan(), partition, Architecture("unet", 4)), networks)


SEEING = Architecture("unet", 4, soft_tissue=True, context=True)
"""A U-Net that is given everything that there is."""


def unet_package(
    partition: Partition = DISTRICTS, seed: int = 0, architecture: Architecture | None = None
) -> ModelPackage:
    """Untrained U-Nets, the paper's by default, spread out so that they say more than one value."""
    built = architecture or Architecture("unet", 4)
    networks: dict[str, nn.Module] = {}
    for number, name in enumerate(partition.networks):
        torch.manual_seed(100 * seed + number)
        network = build_network(built, initial_logit=-1.0).eval().requires_grad_(False)
        for parameter in network.parameters():
            if parameter.dim() == 5:
                parameter.mul_(8.0)
        networks[name] = network
    package = package_of(networks, partition, f"{seed:064x}")
    return replace(package, card=replace(package.card, architecture=built))


def stitched(package: ModelPackage, stitching: Stitching) -> ModelPackage:
    """The same networks, made for another stitching."""
    return replace(package, card=replace(package.card, stitching=stitching))


def with_plan(package: ModelPackage, plan: Plan) -> ModelPackage:
    """The same networks under another Plan."""
    return replace(package, card=replace(package.card, plan=plan))


def small_study(shape: Shape, seed: int = 3) -> tuple[Volume, LabelArray]:
    """A noisy CT in HU on unequal spacing and, one voxel from its faces, a body of trunk with some head above."""
    random = np.random.default_rng(seed)
    coarse = random.normal(40.0, 250.0, tuple(-(-n // 4) for n in shape)).astype(np.float32)
    hu = np.kron(coarse, np.ones((4, 4, 4), np.float32))[: shape[0], : shape[1], : shape[2]]
    labels = np.zeros(shape, np.uint8)
    labels[1:-1, 1:-1, 1:-1] = 2
    labels[3 * shape[0] // 4 : -1, 1:-1, 1:-1] = 1
    geometry = Geometry(shape, (3.0, 2.04, 2.04), (-31.0, 12.0, 400.0))
    return Volume(np.ascontiguousarray(np.clip(hu, -1000.0, 1000.0)), geometry), labels
