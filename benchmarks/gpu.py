"""What a GPU gives: a whole body beside MONAI on the same GPU, training steps, and the share of the matrix rate.

``python -m benchmarks gpu``. Where PyTorch sees no GPU it says so and measures nothing.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figures import Figure, at_least, at_most
from training.data.sampling import Sampler
from training.fit.batches import Batch, Cut, batches
from training.fit.config import ComputeConfig, NetworkConfig, OptimiserConfig, PackageConfig, TrainConfig
from training.fit.device_pairs import DevicePairs
from training.fit.fit import STEPS
from training.fit.phantom_pairs import make_pairs
from training.fit.state import TrainState, fresh_state
from twin_scanner.imaging.district_labels import DISTRICT_LABELS
from twin_scanner.imaging.volume import FloatArray, LabelArray, Shape
from twin_scanner.models.card import Architecture, Card
from twin_scanner.models.compute import Compute, ComputePrecision
from twin_scanner.models.device import AUTOCAST, placed
from twin_scanner.models.networks import WINDOW
from twin_scanner.models.package import ModelPackage, build_network
from twin_scanner.models.partition import DISTRICTS
from twin_scanner.models.plan import Plan
from twin_scanner.synthesis.translate import GPU_BATCH_WINDOWS, exact_convolutions, translate, windows_touching

NAME: Final = "gpu"
ABSENT: Final = "The benchmark gpu was not run: PyTorch sees no GPU on this machine."
SHAPE: Final = (326, 400, 400)
FEATURES: Final = (32, 64)
SECONDS_GOAL: Final = {64: 5.0}
"""For a whole body, by the network's features."""
AGAINST_MONAI: Final = 10.0
MATRIX: Final = 8192
"""Edge of the matrices whose product gives the GPU's rate."""
MATRIX_SHARE: Final = 0.3
PAPERS_BATCH, LARGE_BATCH = 1, 64
TRAINED: Final = "trunk"
ROUNDS: Final = 3
STEPS_A_TURN: Final = 50
PRECISIONS: Final[tuple[ComputePrecision, ...]] = ("float32", "float16")

Progress = Callable[[int, int], None]


def measure(
    progress: Progress | None = None,
    device: str = "cuda",
    shape: Shape = SHAPE,
    features: tuple[int, ...] = FEATURES,
    steps: int = STEPS_A_TURN,
    matrix: int = MATRIX,
) -> list[Figure]:
    """Everything, on one device; the sizes are smaller where only the code is to be run."""
    channels, labels = body(shape)
    figures, parts = list[Figure](), len(features) * (len(PRECISIONS) + 1) + 2
    rate = matrix_rate(device, matrix)
    done = 0

    def one_more(found: list[Figure]) -> None:
        nonlocal done
        figures.extend(found)
        done += 1
        if progress is not None:
            progress(done, parts)

    for width in features:
        package = untrained(width)
        seconds = {precision: _seconds(_on(package, device, precision), channels, labels) for precision in PRECISIONS}
        one_more([_share_of_rate(package, labels, width, seconds["float16"], rate)])
        monai = _monai_seconds(_on(package, device, "float16"), channels, labels)
        for precision in PRECISIONS:
            one_more(_translation(width, precision, seconds[precision], monai))
    for batch_size in (PAPERS_BATCH, LARGE_BATCH):
        one_more(_training(device, batch_size, steps, features[-1]))
    return figures


def body(shape: Shape) -> tuple[FloatArray, LabelArray]:
    """A CT in model space (1, D, H, W): noise in an ellipsoid a quarter as large as the image; districts from the top.

    A whole body's share of its image, and of its districts'.
    """
    axes = np.meshgrid(
        *(np.linspace(-1.0, 1.0, length, dtype=np.float32) for length in shape), indexing="ij", sparse=True
    )
    inside = axes[0] ** 2 + (axes[1] / 0.6) ** 2 + (axes[2] / 0.8) ** 2 < 1.0
    depth = np.broadcast_to(axes[0], shape)
    labels = np.where(depth > 0.75, 1, np.where(depth < -0.1, 4, 2)).astype(np.uint8)
    labels[(np.abs(np.broadcast_to(axes[2], shape)) > 0.55) & (depth > -0.1) & (depth < 0.7)] = 3
    ct = np.random.default_rng(0).random(shape, np.float32)
    return (ct * inside)[None], labels * inside


def untrained(features: int) -> ModelPackage:
    """The paper's districts, each with a U-Net of so many features."""
    architecture = Architecture("unet", features)
    networks = {}
    for name in DISTRICTS.networks:
        network = build_network(architecture).eval().requires_grad_(False)
        networks[name] = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return ModelPackage(Card("measured", "0" * 64, Plan(), DISTRICTS, architecture), networks)


def _on(package: ModelPackage, device: str, precision: ComputePrecision) -> ModelPackage:
    """In any precision, whether or not a site may choose it on this device."""
    return replace(placed(package, Compute(device)), computes_in=precision)


def matrix_rate(device: str, edge: int) -> float:
    """Operations a second of a large matrix product in bfloat16, the best of some."""
    left, right = (torch.randn(edge, edge, device=device, dtype=torch.bfloat16) for _ in range(2))
    torch.mm(left, right)
    return max(2.0 * edge**3 / _timed(device, lambda: torch.mm(left, right)) for _ in range(5))


def _seconds(package: ModelPackage, channels: FloatArray, labels: LabelArray) -> float:
    """Of a translation, from the CT in the computer's memory to the PET there; the best of some."""
    device = str(package.device)
    translate(channels, labels, package)
    return min(_timed(device, lambda: translate(channels, labels, package)) for _ in range(ROUNDS))


def _monai_seconds(package: ModelPackage, channels: FloatArray, labels: LabelArray) -> float:
    """The same by MONAI's sliding windows, one district after the other, on the same GPU and in the same precision."""
    device = package.device
    ct, regions = torch.from_numpy(channels)[None].to(device), torch.from_numpy(labels).to(device)

    def whole() -> None:
        pet = torch.zeros_like(ct)
        for name, covered in package.partition.networks.items():
            mask = torch.isin(regions, torch.tensor(covered, device=device))[None, None]
            made = sliding_window_inference(
                ct * mask, (WINDOW,) * 3, GPU_BATCH_WINDOWS, package.networks[name], overlap=0.5, mode="constant"
            )
            pet = torch.where(mask, torch.as_tensor(made), pet)
        pet.cpu()

    dtype = AUTOCAST[package.computes_in]
    with torch.inference_mode(), exact_convolutions(), torch.autocast(device.type, dtype):
        return _timed(str(device), whole)


def _translation(features: int, precision: ComputePrecision, seconds: float, monai_seconds: float) -> list[Figure]:
    what = f"{'x'.join(map(str, reversed(SHAPE)))}, {features} features, {precision}"
    goal = SECONDS_GOAL.get(features)
    found = [] if goal is None else [at_most(NAME, f"whole body, {what}", seconds, goal, "s")]
    if precision != "float32":
        found.append(at_most(NAME, f"whole body, {what}", seconds, monai_seconds, "s", "MONAI"))
        found.append(at_least(NAME, f"MONAI's time / ours, {what}", monai_seconds / seconds, AGAINST_MONAI, ""))
    return found


def _share_of_rate(package: ModelPackage, labels: LabelArray, features: int, seconds: float, rate: float) -> Figure:
    """The networks' operations a second as a share of the matrix product's."""
    windows = sum(len(windows_touching(np.isin(labels, covered))) for covered in package.partition.networks.values())
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        next(iter(package.networks.values()))(torch.zeros(1, 1, WINDOW, WINDOW, WINDOW, device=package.device))
    share = windows * counted.get_total_flops() / seconds / rate
    return at_least(NAME, f"share of the matrix product's rate, {features} features, float16", share, MATRIX_SHARE, "")


def _training(device: str, batch_size: int, steps: int, features: int) -> list[Figure]:
    """Training steps a second of the trunk's Pix2Pix, data and augmentation included: pairs on the host, on the GPU."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            NAME,
            Path(folder),
            PackageConfig("Benchmark.", "Apache-2.0"),
            compute=ComputeConfig(device, "bfloat16", workers=4),
            network=NetworkConfig(features, features),
            optimiser=OptimiserConfig(batch_size=batch_size),
        )
        data = replace(config.data, count=2, held_out=1, seed=7000, segmenter="truth")
        config = replace(config, data=data)
        pairs = make_pairs(config.data, config.plan, keep_air=False)
        sampler = Sampler(pairs, (DISTRICT_LABELS[TRAINED],), config.plan)
        state = fresh_state(config, TRAINED, {})
        host = _steps_per_second(config, state, sampler, None, steps)
        on_device = _steps_per_second(config, state, sampler, DevicePairs(sampler, state.device).cut, steps)
    what = f"training, batch {batch_size}, {features} features, bfloat16"
    return [
        Figure(NAME, f"{what}, pairs on the host", host * batch_size, "patches/s", "steps", host, 1.0),
        Figure(NAME, f"{what}, pairs on the GPU", on_device, "steps/s", "pairs on the host", host, on_device / host),
    ]


def _steps_per_second(config: TrainConfig, state: TrainState, sampler: Sampler, cut: Cut | None, steps: int) -> float:
    pin = state.device.type == "cuda"
    with closing(batches(config, TRAINED, sampler, range(1_000_000), pin=pin, cut=cut)) as source:

        def turn() -> None:
            for batch in _first(source, steps):
                STEPS[config.method](config, state, batch.to(state.device))

        turn()
        return steps / statistics.median(_timed(config.compute.device, turn) for _ in range(ROUNDS))


def _first(source: Iterator[Batch], count: int) -> Iterator[Batch]:
    return (batch for _, batch in zip(range(count), source, strict=False))


def _timed(device: str, work: Callable[[], object]) -> float:
    """Seconds until all that was asked of the device is done."""
    _wait_for(device)
    begun = time.perf_counter()
    work()
    _wait_for(device)
    return time.perf_counter() - begun


def _wait_for(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
