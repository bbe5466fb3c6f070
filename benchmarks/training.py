"""How fast training steps are: with the data pipeline, on one batch held in memory, and in a plain loop over MONAI."""

import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from monai.data.dataloader import DataLoader
from monai.data.dataset import CacheDataset
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import RandCropByPosNegLabeld
from monai.transforms.intensity.dictionary import RandGaussianNoised
from monai.transforms.spatial.dictionary import RandAffined, RandFlipd
from monai.transforms.utility.dictionary import FgBgToIndicesd
from rich.table import Table

from benchmarks.figures import Figure, at_least, at_most
from training.data.pairs import Pair
from training.data.sampling import Sampler, windowed
from training.fit.batches import Batch, batches, sample_batch
from training.fit.config import (
    ComputeConfig,
    NetworkConfig,
    OptimiserConfig,
    PackageConfig,
    SamplingConfig,
    TrainConfig,
)
from training.fit.fit import STEPS
from training.fit.phantom_pairs import make_pairs
from training.fit.state import TrainState, fresh_state
from twin_scanner.imaging.district_labels import DISTRICT_LABELS
from twin_scanner.models.networks import WINDOW
from twin_scanner.models.plan import ct_to_model, suv_to_model

NAME: Final = "training"
NETWORK: Final = "trunk"
FEATURES: Final = (8, 32)
PIPELINE_GOAL: Final = 0.95
"""Of the speed on a fixed batch."""
ROUNDS: Final = 5
"""Ours and the peers take turns, so that whoever else uses the machine slows all of them; medians are compared."""
SECONDS_A_TURN: Final = 4.0
PATCHES: Final = 10_000
GROWTH_LIMIT_MB: Final = 8.0
"""Of the process over all patches: the allocator's own rounding."""
PHANTOMS: Final = 3
FIRST_SEED: Final = 7000
MONAI: Final = "MONAI"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Row:
    """Steps a second at one width: on a fixed batch, with the pipeline, over MONAI's loader as it is and tuned."""

    features: int
    method: str
    fixed: float
    pipeline: float
    monai: float
    monai_tuned: float


@dataclass(frozen=True)
class Memory:
    """Resident memory of the process in MB before and after so many patches, and the most it ever held."""

    patches: int
    before_mb: float
    after_mb: float
    peak_mb: float


def measure(
    progress: Progress | None = None,
    threads: int = 1,
    rounds: int = ROUNDS,
    seconds: float = SECONDS_A_TURN,
    patches: int = PATCHES,
) -> tuple[list[Row], Memory]:
    """Draw phantoms on autoPET's grid and train on them, in as many threads as are free for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            config = _config(Path(folder))
            pairs = make_pairs(config.data, config.plan, keep_air=False)
            cases = [(features, "pix2pix") for features in FEATURES] + [(FEATURES[0], "cyclegan")]
            rows = []
            for number, (features, method) in enumerate(cases, start=1):
                rows.append(_row(_sized(config, features, method), pairs, rounds, seconds))
                if progress is not None:
                    progress(number, len(cases) + 1)
            memory = _memory(config, pairs, patches)
    finally:
        torch.set_num_threads(before)
    if progress is not None:
        progress(len(cases) + 1, len(cases) + 1)
    return rows, memory


def figures(rows: Sequence[Row], memory: Memory) -> list[Figure]:
    """The pipeline's share of the fixed batch's speed against the goal, our speed against MONAI's, and memory."""
    results = []
    for row in rows:
        what = f"{row.method}, {row.features} features"
        results.append(at_least(NAME, f"pipeline / fixed batch, {what}", row.pipeline / row.fixed, PIPELINE_GOAL, ""))
        for peer, speed in ((f"{MONAI}, plain loop", row.monai), (f"{MONAI}, tuned", row.monai_tuned)):
            ratio = row.pipeline / speed
            results.append(Figure(NAME, f"speed, {what}", row.pipeline, "steps/s", peer, speed, ratio))
    growth = memory.after_mb - memory.before_mb
    results.append(at_most(NAME, f"growth over {memory.patches:,} patches", growth, GROWTH_LIMIT_MB, "MB"))
    return results


def table_of(rows: Sequence[Row], memory: Memory) -> Table:
    """Steps a second, as text."""
    peers = f"{MONAI}, plain loop", f"{MONAI}, tuned"
    title = f"Training steps a second (batch 1); {memory.peak_mb:,.0f} MB at most"
    table = Table("Method", "Features", "Fixed batch", "Pipeline", *peers, title=title)
    for row in rows:
        speeds = (row.fixed, row.pipeline, row.monai, row.monai_tuned)
        table.add_row(row.method, str(row.features), *(f"{speed:.2f}" for speed in speeds))
    return table


def _config(folder: Path) -> TrainConfig:
    """The paper's settings on the trunk of a few phantoms, with every augmentation."""
    config = TrainConfig(
        NAME, folder, PackageConfig("Benchmark.", "Apache-2.0"), compute=ComputeConfig("cpu"), sampling=SamplingConfig()
    )
    data = replace(config.data, count=PHANTOMS, held_out=1, seed=FIRST_SEED, segmenter="truth")
    return replace(config, data=data, optimiser=OptimiserConfig(batch_size=1))


def _sized(config: TrainConfig, features: int, method: str) -> TrainConfig:
    changed: dict[str, Any] = {"network": NetworkConfig(features, features), "method": method}
    return replace(config, **changed)


def _row(config: TrainConfig, pairs: Sequence[Pair], rounds: int, seconds: float) -> Row:
    """Everyone's turn, several times."""
    sampler = Sampler(pairs, (DISTRICT_LABELS[NETWORK],), config.plan)
    state = fresh_state(config, NETWORK, {})
    fixed = repeat(sample_batch(config, NETWORK, sampler, 0))
    own = batches(config, NETWORK, sampler, range(1_000_000))
    plain, tuned = (_monai_batches(config, pairs, workers) for workers in (0, 1))
    with closing(own), closing(plain), closing(tuned):
        sources: list[Iterator[Batch]] = [fixed, own, plain, tuned]
        for source in sources:
            _steps_per_second(config, state, source, 0.0)
        turns = [[_steps_per_second(config, state, source, seconds) for source in sources] for _ in range(rounds)]
    speeds = [statistics.median(column) for column in zip(*turns, strict=True)]
    return Row(config.network.features, config.method, *speeds)


def _steps_per_second(config: TrainConfig, state: TrainState, source: Iterator[Batch], seconds: float) -> float:
    """Whole steps, data included, for about so many seconds; two at least."""
    begun = time.perf_counter()
    for done in count(1):
        STEPS[config.method](config, state, next(source))
        elapsed = time.perf_counter() - begun
        if done >= 2 and elapsed >= seconds:
            return done / elapsed
    raise AssertionError


def _monai_batches(config: TrainConfig, pairs: Sequence[Pair], workers: int) -> Generator[Batch, None, None]:
    """What a MONAI user would write: volumes in model space in a CacheDataset, crops in the mask, the paper's changes.

    The indices of the mask are cached too, or each crop would search its whole volume. With workers the cached volumes
    are not copied for each crop either, which is not MONAI's default. As in our pipeline, a CycleGAN's PET is of
    another crop than its CT.
    """
    dataset = CacheDataset(
        [_cached(config, pair) for pair in pairs], _monai_transforms(config), progress=False, copy_cache=workers == 0
    )
    loader = DataLoader(dataset, batch_size=1, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    return _endless(loader, config.method == "cyclegan")


def _endless(loader: Any, unpaired: bool) -> Generator[Batch, None, None]:
    items = (item for _ in count() for item in loader)
    for item in items:
        other = next(items) if unpaired else item
        ct_mask, pet_mask = _plain(item["mask"] > 0), _plain(other["mask"] > 0)
        yield Batch(_plain(item["ct"] * ct_mask), _plain(other["pet"] * pet_mask), ct_mask, pet_mask, ())


def _plain(image: Any) -> torch.Tensor:
    tensor: torch.Tensor = image.as_tensor() if hasattr(image, "as_tensor") else image
    return tensor


def _cached(config: TrainConfig, pair: Pair) -> dict[str, Any]:
    """One channel each; the mask is the network's region."""
    mask = (pair.labels == DISTRICT_LABELS[NETWORK]).astype(np.float32)
    ct = ct_to_model(pair.ct.astype(np.float32), windowed(pair, config.plan))
    pet = suv_to_model(pair.pet.astype(np.float32), config.plan)
    return {"ct": (ct * mask)[None], "pet": (pet * mask)[None], "mask": mask[None]}


def _monai_transforms(config: TrainConfig) -> Any:
    changes, keys = config.augmentation, ["ct", "pet", "mask"]
    largest = float(np.deg2rad(changes.rotation_deg))
    crop = RandCropByPosNegLabeld(
        keys,
        label_key="mask",
        spatial_size=(WINDOW,) * 3,
        pos=1,
        neg=0,
        num_samples=1,
        fg_indices_key="mask_fg_indices",
        bg_indices_key="mask_bg_indices",
    )
    return Compose(
        [
            FgBgToIndicesd("mask"),
            crop,
            *(RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
            RandAffined(
                keys,
                prob=1.0,
                rotate_range=(largest,) * 3,
                mode=("bilinear", "bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandGaussianNoised(["ct"], prob=1.0, std=changes.noise_sigma),
        ]
    )


def _memory(config: TrainConfig, pairs: Sequence[Pair], patches: int) -> Memory:
    """Patches drawn by the pipeline and thrown away; the first hundred fill the allocator's pools."""
    sampler = Sampler(pairs, (DISTRICT_LABELS[NETWORK],), config.plan)
    with closing(batches(config, NETWORK, sampler, range(patches + 100))) as items:
        for _ in range(100):
            next(items)
        before = _resident_mb("VmRSS")
        for _ in items:
            pass
    return Memory(patches, before, _resident_mb("VmRSS"), _resident_mb("VmHWM"))


def _resident_mb(what: str) -> float:
    """Of this process, as Linux counts it."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(f"{what}:"))
