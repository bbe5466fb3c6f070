"""Whole volumes translated by the very windows of service and compared with the real PET, in SUV."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from training.data.pairs import Pair
from training.data.sampling import windowed
from training.fit.config import TrainConfig
from training.fit.distributed import process_count, process_rank, sum_over_processes
from training.fit.state import TrainState, architecture
from twin_scanner.imaging.district_labels import DISTRICT_NAMES
from twin_scanner.imaging.volume import FloatArray, LabelArray
from twin_scanner.models.card import Card
from twin_scanner.models.package import ModelPackage, build_network
from twin_scanner.models.partition import Partition
from twin_scanner.models.plan import ct_to_model, model_to_suv, suv_to_model
from twin_scanner.progress import Progress
from twin_scanner.synthesis.translate import translate


@dataclass(frozen=True, eq=False)
class Comparison:
    """Real and made PET (D, H, W) of one pair's cut in SUV, both clipped to the Plan's range, and the districts."""

    real: FloatArray
    made: FloatArray
    labels: LabelArray

    @property
    def error(self) -> FloatArray:
        """Absolute difference in SUV, voxel by voxel."""
        return np.abs(self.made - self.real)


def compare(pair: Pair, package: ModelPackage, on_windows: Progress | None = None) -> Comparison:
    """Translate a pair's CT in its whole field of view, as service would; ``on_windows`` as ``translate`` calls it."""
    plan = package.plan
    box = tuple(slice(c, c + n) for c, n in zip(pair.corner, pair.ct.shape, strict=True))
    ct, labels = np.zeros(pair.shape, np.float32), np.zeros(pair.shape, np.uint8)
    ct[box] = ct_to_model(np.asarray(pair.ct, np.float32), windowed(pair, plan))
    labels[box] = pair.labels
    made = model_to_suv(translate(ct, labels, package, progress=on_windows)[box], plan)
    real = model_to_suv(suv_to_model(np.asarray(pair.pet, np.float32), plan), plan)
    return Comparison(real, made, np.asarray(pair.labels))


def validation_error(
    config: TrainConfig, state: TrainState, pairs: Sequence[Pair], on_windows: Progress | None = None
) -> tuple[float | None, Comparison | None]:
    """Mean absolute error in SUV over all voxels of the network's region in all pairs, None where none shows it.

    Each process translates its share of the pairs. The second value is the first pair of this process that shows the
    region. The generator is copied, so that evaluation neither compiles nor changes the one that learns.
    """
    package = in_training(config, state.network, copied(config, state))
    covered = config.covered.networks[state.network]
    total, count, first = 0.0, 0, None
    for pair in pairs[process_rank() :: process_count()]:
        region = np.isin(pair.labels, covered) if covered else np.ones(pair.labels.shape, np.bool_)
        if not region.any():
            continue
        comparison = compare(pair, package, on_windows)
        errors = comparison.error[region]
        total, count = total + float(errors.sum(dtype=np.float64)), count + errors.size
        first = first or comparison
    total, voxels = sum_over_processes([total, float(count)])
    return (total / voxels if voxels else None), first


def held_out_error(
    package: ModelPackage, pairs: Sequence[Pair], on_windows: Progress | None = None
) -> dict[str, float]:
    """Mean absolute error in SUV over all held-out voxels of each district, and of the body."""
    sums: dict[str, tuple[float, int]] = {}
    for pair in pairs:
        comparison = compare(pair, package, on_windows)
        for name, values in _by_region(comparison.error, comparison.labels, package.partition):
            total, count = sums.get(name, (0.0, 0))
            sums[name] = total + float(values.sum(dtype=np.float64)), count + values.size
    return {name: round(total / count, 4) for name, (total, count) in sums.items() if count}


def in_training(config: TrainConfig, network: str, generator: nn.Module) -> ModelPackage:
    """A package of one network that is still learning, to be translated with and never saved."""
    covered = Partition(config.covered.name, MappingProxyType({network: config.covered.networks[network]}))
    card = Card(f"{config.name} in training", "", config.plan, covered, architecture(config))
    return ModelPackage(card, {network: generator})


def copied(config: TrainConfig, state: TrainState) -> nn.Module:
    """The generator that learns, as it stands, in evaluation mode and without gradients."""
    copy = build_network(architecture(config))
    copy.load_state_dict(state.generator.state_dict())
    copy.to(device=state.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return copy.eval().requires_grad_(False)


def _by_region(error: FloatArray, labels: LabelArray, partition: Partition) -> Iterator[tuple[str, FloatArray]]:
    yield "body", error[labels > 0]
    for label, name in DISTRICT_NAMES.items():
        yield name, error[labels == label]
    for name, covered in partition.networks.items():
        if set(covered) - DISTRICT_NAMES.keys():
            yield name, error[np.isin(labels, covered)]
