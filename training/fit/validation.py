"""Whole volumes of a training store translated by the very windows of service, and their error in SUV."""

from collections import defaultdict
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from training.data.pairs import Pair
from training.data.sampling import covers, windowed
from training.evaluation.case import Case, Row
from training.evaluation.score import EVALUATED, score
from training.fit.config import TrainConfig
from training.fit.distributed import process_count, process_rank, sum_over_processes
from training.fit.state import TrainState, architecture
from twin_scanner.imaging.district_labels import DISTRICT_NAMES
from twin_scanner.imaging.volume import Geometry
from twin_scanner.models.card import Card
from twin_scanner.models.inputs import ct_channels
from twin_scanner.models.package import ModelPackage, build_network
from twin_scanner.models.partition import Partition
from twin_scanner.models.plan import model_to_suv
from twin_scanner.progress import Progress
from twin_scanner.synthesis.translate import translate


def translated_case(pair: Pair, package: ModelPackage, on_windows: Progress | None = None) -> Case:
    """A pair's CT translated in its whole field of view, as service would, beside its real PET on the store's grid.

    The arrays are the pair's cut, whose place in the patient a store does not keep. ``on_windows`` as ``translate``
    calls it.
    """
    plan = package.plan
    box = tuple(slice(c, c + n) for c, n in zip(pair.corner, pair.ct.shape, strict=True))
    inside = ct_channels(np.asarray(pair.ct, np.float32), windowed(pair, plan), package.architecture)
    ct, labels = np.zeros((len(inside), *pair.shape), np.float32), np.zeros(pair.shape, np.uint8)
    ct[:, *box] = inside
    labels[box] = pair.labels
    synthetic = model_to_suv(translate(ct, labels, package, progress=on_windows)[box], plan)
    grid = Geometry(synthetic.shape, plan.spacing_mm, (0.0, 0.0, 0.0))
    return Case(
        study=pair.name,
        patient=pair.patient,
        diagnosis=pair.diagnosis,
        real=np.asarray(pair.pet, np.float32),
        synthetic=synthetic,
        labels=np.asarray(pair.labels),
        lesions=None,
        geometry=grid,
        plan=plan,
        translated=grid,
    )


def validation_error(
    config: TrainConfig, state: TrainState, pairs: Sequence[Pair], on_windows: Progress | None = None
) -> tuple[float | None, Case | None]:
    """Mean absolute error in SUV over all voxels of the network's region in all pairs, None where none shows it.

    Each process translates its share of the pairs. The second value is the first pair of this process that shows the
    region. The generator is copied, so that evaluation neither compiles nor changes the one that is trained.
    """
    package = in_training(config, state.network, copied(config, state))
    regions = {state.network: config.covered.networks[state.network]}
    rows: list[Row] = []
    first = None
    for pair in pairs[process_rank() :: process_count()]:
        if not covers(pair.labels, regions[state.network]).any():
            continue
        case = translated_case(pair, package, on_windows)
        rows += score(case, package.name, metrics="mae_suv", regions=regions)
        first = first or case
    total, voxels = sum_over_processes([sum(row.value * row.n for row in rows), float(sum(row.n for row in rows))])
    return (total / voxels if voxels else None), first


def held_out_error(
    package: ModelPackage,
    pairs: Sequence[Pair],
    on_windows: Progress | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Mean absolute error in SUV over all held-out voxels of each district, and of the body.

    ``progress`` receives (pairs done, pairs in all).
    """
    finer = {name: labels for name, labels in package.partition.networks.items() if set(labels) - DISTRICT_NAMES.keys()}
    found: dict[str, list[Row]] = defaultdict(list)
    for done, pair in enumerate(pairs, start=1):
        case = translated_case(pair, package, on_windows)
        for row in score(case, package.name, metrics="mae_suv", regions={**finer, **EVALUATED}):
            found[row.region].append(row)
        if progress is not None:
            progress(done, len(pairs))
    return {name: round(_over_voxels(found[name]), 4) for name in (*EVALUATED, *finer) if name in found}


def in_training(config: TrainConfig, network: str, generator: nn.Module) -> ModelPackage:
    """A package of one network that is still in training, to be translated with and never saved."""
    covered = Partition(config.covered.name, MappingProxyType({network: config.covered.networks[network]}))
    stitching = config.package.stitching
    card = Card(f"{config.name} in training", "", config.plan, covered, architecture(config), stitching=stitching)
    return ModelPackage(card, {network: generator})


def copied(config: TrainConfig, state: TrainState) -> nn.Module:
    """The generator in training, as it stands, in evaluation mode and without gradients."""
    copy = build_network(architecture(config))
    copy.load_state_dict(state.generator.state_dict())
    copy.to(device=state.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return copy.eval().requires_grad_(False)


def _over_voxels(rows: Sequence[Row]) -> float:
    """The mean over all voxels of several studies."""
    return sum(row.value * row.n for row in rows) / sum(row.n for row in rows)
