"""Small model packages on disk."""

from pathlib import Path
from typing import Any

import torch

from twin_scanner.models.card import Architecture
from twin_scanner.models.networks import UNetGenerator
from twin_scanner.models.package import save_package
from twin_scanner.models.partition import DISTRICTS
from twin_scanner.models.plan import Plan


def saved_package(
    folder: Path, name: str = "small", seed: int = 0, plan: Plan | None = None, about: dict[str, Any] | None = None
) -> Path:
    """A package of four untrained networks."""
    torch.manual_seed(seed)
    save_package(
        folder,
        name=name,
        plan=plan or Plan(),
        partition=DISTRICTS,
        architecture=Architecture("unet", 2),
        networks={network: UNetGenerator(2) for network in DISTRICTS.networks},
        segmenter="landmarks",
        precision="float32",
        about=about or {"intended_use": "Tests."},
    )
    return folder
