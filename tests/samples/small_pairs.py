"""Pairs and runs so small that the real training loop takes seconds."""

from pathlib import Path

import numpy as np

from training.data.pairs import Pair
from training.data.sampling import Sampler
from training.fit.config import (
    AugmentationConfig,
    ComputeConfig,
    DataConfig,
    NetworkConfig,
    OptimiserConfig,
    PackageConfig,
    ScheduleConfig,
    TrainConfig,
    ValidationConfig,
)
from training.fit.run_data import RunData, phantom_data
from twin_scanner.models.card import PAPER, Architecture
from twin_scanner.models.plan import Plan

SHAPE = (40, 48, 44)
PLAN = Plan()


def small_pair(seed: int) -> Pair:
    """Blobs of five brightnesses in four districts whose PET is the CT mirrored in value: easy, and not constant."""
    random = np.random.default_rng(seed)
    brightness = np.kron(random.random((10, 12, 11), np.float32), np.ones((4, 4, 4), np.float32))
    labels = np.ones(SHAPE, np.uint8)
    labels[20:], labels[:, :20], labels[:, :, 35:] = 2, 3, 4
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[30:33, 30:32, 10:14] = 1
    hu = np.rint(PLAN.hu_low + brightness * (PLAN.hu_high - PLAN.hu_low)).astype(np.int16)
    suv = (2.0 * (1.0 - brightness)).astype(np.float16)
    hu_range = (int(hu.min()), int(hu.max()))
    return Pair(f"study-{seed}", f"patient-{seed}", "", hu, suv, labels, lesions, hu_range, SHAPE, (0, 0, 0))


def small_config(out: Path, steps: int = 2, **optimiser: float | str) -> TrainConfig:
    """Batches of two windows, every augmentation, float32 on one processor, one step an epoch."""
    return TrainConfig(
        name="small",
        out=out,
        package=PackageConfig("Tests.", "CC0-1.0", "float32"),
        data=DataConfig(count=2, held_out=1),
        network=NetworkConfig(2, 2, 2),
        optimiser=OptimiserConfig(batch_size=2, **optimiser),  # type: ignore[arg-type]
        schedule=ScheduleConfig(steps, 0, 1),
        augmentation=AugmentationConfig(("W",), 5.0, 0.01),
        validation=ValidationConfig(0, 1),
        compute=ComputeConfig("cpu"),
        checkpoint_steps=1000,
    )


def small_data(config: TrainConfig, count: int = 2) -> RunData:
    """The first ``count`` small pairs, the last of them validated."""
    return phantom_data(config, [small_pair(seed) for seed in range(count)])


def small_sampler(*seeds: int, labels: tuple[int, ...] = (1, 2, 3, 4), architecture: Architecture = PAPER) -> Sampler:
    """A sampler of the small pairs of some seeds."""
    return Sampler([small_pair(seed) for seed in seeds], labels, PLAN, architecture=architecture)
