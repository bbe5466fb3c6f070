"""What a window's translation costs with a soft-tissue channel and a context, beside the paper's input."""

import time
from collections.abc import Callable
from types import MappingProxyType
from typing import Final

import numpy as np
import torch

from benchmarks.figures import Figure, at_most
from twin_scanner.imaging.volume import FloatArray, LabelArray
from twin_scanner.models.card import Architecture, Card
from twin_scanner.models.inputs import ct_channels
from twin_scanner.models.package import ModelPackage, build_network
from twin_scanner.models.partition import Partition
from twin_scanner.models.plan import Plan
from twin_scanner.synthesis.translate import translate, windows_touching

NAME: Final = "translation"
FEATURES: Final = (8, 16)
INPUTS: Final = {
    "the paper's input": {},
    "soft-tissue channel": {"soft_tissue": True},
    "context": {"context": True},
    "soft-tissue channel and context": {"soft_tissue": True, "context": True},
}
LIMIT: Final = 1.25
"""Of the time of a window with the paper's input."""
SHAPE: Final = (80, 80, 80)
ROUNDS: Final = 15
"""The inputs take turns, and the quickest by processor time counts: who else uses the machine hardly matters."""
BODY: Final = Partition("whole-body", MappingProxyType({"body": (1,)}))

Progress = Callable[[int, int], None]


def measure(progress: Progress | None = None, threads: int = 1) -> list[Figure]:
    """A window's time for each input, with all that a translation does, as a share of that with the paper's input."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    figures = []
    try:
        for number, features in enumerate(FEATURES, start=1):
            figures += _figures(features)
            if progress is not None:
                progress(number, len(FEATURES))
    finally:
        torch.set_num_threads(before)
    return figures


def _figures(features: int) -> list[Figure]:
    hu, labels = _body()
    packages = {name: _package(Architecture("unet", features, **options)) for name, options in INPUTS.items()}
    turns: dict[str, list[float]] = {name: [] for name in packages}
    for _ in range(ROUNDS):
        for name, package in packages.items():
            begun = time.process_time()
            translate(ct_channels(hu, package.plan, package.architecture), labels, package)
            turns[name].append(time.process_time() - begun)
    plain, *others = INPUTS
    windows = len(windows_touching(labels > 0))
    quickest = {name: 1000.0 * min(seconds) / windows for name, seconds in turns.items()}
    return [
        at_most(
            NAME,
            f"{name} / {plain}, {features} features ({quickest[name]:.1f} ms)",
            quickest[name] / quickest[plain],
            LIMIT,
            "",
        )
        for name in others
    ]


def _package(architecture: Architecture) -> ModelPackage:
    network = build_network(architecture).eval().requires_grad_(False)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return ModelPackage(Card("measured", "0" * 64, Plan(), BODY, architecture), {"body": network})


def _body() -> tuple[FloatArray, LabelArray]:
    """An ellipsoid of noise in air."""
    axes = np.meshgrid(*(np.linspace(-1.0, 1.0, length) for length in SHAPE), indexing="ij", sparse=True)
    labels = (sum(axis**2 for axis in axes) < 1.0).astype(np.uint8)
    noise = np.random.default_rng(0).normal(40.0, 100.0, SHAPE).astype(np.float32)
    return np.where(labels > 0, noise, np.float32(-1000.0)), labels
