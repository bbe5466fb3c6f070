"""Translation on a processor: beside MONAI and a plain loop, the networks' share of it and of the matrix rate, inputs.

All seconds are of processor time in one thread, so who else uses the machine hardly matters.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figures import Figure, at_least, at_most
from benchmarks.gpu import body
from twin_scanner.dicom.read.ct_series import read_ct_series
from twin_scanner.districts.landmarks.segmenter import LandmarkSegmenter
from twin_scanner.imaging.volume import FloatArray, LabelArray, Shape, Triple, canonical_labels, resample_labels
from twin_scanner.models.card import Architecture, Card
from twin_scanner.models.inputs import ct_channels
from twin_scanner.models.networks import WINDOW, UNetGenerator
from twin_scanner.models.package import ModelPackage, build_network
from twin_scanner.models.partition import Partition
from twin_scanner.models.plan import Plan, ct_on_grid
from twin_scanner.models.unet_arithmetic import UNetArithmetic
from twin_scanner.synthesis.translate import BATCH_WINDOWS, BoolArray, cube, translate, window_starts, windows_touching

NAME: Final = "translation"
INPUTS: Final = {
    "the paper's input": {},
    "soft-tissue channel": {"soft_tissue": True},
    "context": {"context": True},
    "soft-tissue channel and context": {"soft_tissue": True, "context": True},
}
LIMIT: Final = 1.25
"""Of the time of a window with the paper's input."""
ROUNDS: Final = {8: 8, 16: 6, 32: 4}
"""By the network's features. The inputs take turns, and the quickest counts."""
RATE_GOALS: Final = {8: None, 16: 0.45, 32: 0.6}
"""The network's operations a second as a share of a matrix product's."""
MATRIX: Final = 1024
CHANNELS, SIDE = 64, 18
"""Of a convolution as wide as those of the middle levels."""
SHAPE: Final = (64, 64, 64)
BODIES: Final[dict[str, Shape]] = {"a whole body at 4 mm": (245, 200, 200), "a whole body at 2 mm": (326, 400, 400)}
GRIDS_MM: Final[dict[str, Triple]] = {"4 mm": (4.0, 4.08, 4.08), "2 mm": (3.0, 2.04, 2.04)}
TRUNK: Final = 2
FEATURES: Final = 8
"""Of the network that whole images are translated with: of the demonstration's width."""
OF_SKIPPED: Final = 0.9
"""Of (all windows / touched windows), which is what skipping the empty ones can give."""
AGAINST_LOOP: Final = 1.3
NETWORKS: Final = 0.85
COVERED: Final = Partition("trunk", MappingProxyType({"trunk": (TRUNK,)}))

Progress = Callable[[int, int], None]


def measure(
    progress: Progress | None = None,
    ct: Path | None = None,
    bodies: MappingProxyType[str, Shape] = MappingProxyType(BODIES),
    rounds: MappingProxyType[int, int] = MappingProxyType(ROUNDS),
) -> list[Figure]:
    """All figures; those of a CT series too where its folder is given, on both grids."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    figures, parts, done = list[Figure](), len(bodies) + (0 if ct is None else len(GRIDS_MM)) + len(rounds), 0
    try:
        works = [*_of_images(bodies, ct), *(partial(_of_width, *one) for one in rounds.items())]
        for work in works:
            figures += work()
            done += 1
            if progress is not None:
                progress(done, parts)
    finally:
        torch.set_num_threads(before)
    return figures


def _of_images(bodies: MappingProxyType[str, Shape], ct: Path | None) -> Iterator[partial[list[Figure]]]:
    for name, shape in bodies.items():
        yield partial(_of_phantom, name, shape)
    if ct is not None:
        for grid, spacing_mm in GRIDS_MM.items():
            yield partial(_of_series, ct, grid, spacing_mm)


def _of_phantom(name: str, shape: Shape) -> list[Figure]:
    return _whole_image(name, *body(shape))


def _of_series(folder: Path, grid: str, spacing_mm: Triple) -> list[Figure]:
    """Of a CT in model space and its districts, as service makes them."""
    ct, plan = read_ct_series(folder).volume, replace(Plan(), spacing_mm=spacing_mm)
    found, upright = LandmarkSegmenter().segment(ct), ct.canonical()
    on_grid = ct_on_grid(upright, plan)
    labels = resample_labels(canonical_labels(found.labels, found.geometry), upright.geometry, on_grid.geometry)
    channels = ct_channels(on_grid.array, plan, Architecture("unet", FEATURES))
    return _whole_image(f"{folder.resolve().parent.name} at {grid}", channels, labels)


class _Timed(nn.Module):
    """A generator's arithmetic, and the processor time that it took."""

    def __init__(self, generator: UNetGenerator) -> None:
        super().__init__()
        self.generator, self.network, self.seconds = generator, UNetArithmetic(generator), 0.0

    def forward(self, *inputs: Tensor) -> Tensor:
        begun = time.process_time()
        pet: Tensor = self.network(*inputs)
        self.seconds += time.process_time() - begun
        return pet


def _whole_image(what: str, channels: FloatArray, labels: LabelArray) -> list[Figure]:
    """The trunk's network over one image: ours, MONAI with the same arithmetic and batch, and a plain loop."""
    package = _package(Architecture("unet", FEATURES), COVERED)
    generator = package.networks["trunk"]
    assert isinstance(generator, UNetGenerator)
    networks = _Timed(generator)
    mask = labels == TRUNK
    touched = len(windows_touching(mask))
    all_windows = int(np.prod([len(window_starts(length)) for length in labels.shape]))
    ours = _seconds(partial(translate, channels, labels, ModelPackage(package.card, {"trunk": networks})))
    ct = torch.from_numpy(channels * mask)
    with torch.inference_mode():
        monai = _seconds(
            partial(sliding_window_inference, ct[None], (WINDOW,) * 3, BATCH_WINDOWS, networks.network, overlap=0.5)
        )
        loop = _seconds(partial(_plain_loop, ct, mask, generator))
    skipped = all_windows / touched
    counts = f"{what}, {all_windows:,} windows of which {touched:,} touch the trunk"
    return [
        at_least(NAME, f"MONAI's time / ours, {counts}", monai / ours, OF_SKIPPED * skipped, ""),
        at_least(NAME, f"time of a loop that skips empty windows / ours, {what}", loop / ours, AGAINST_LOOP, ""),
        at_least(NAME, f"networks' share of translation, {what}", networks.seconds / ours, NETWORKS, ""),
    ]


def _plain_loop(ct: Tensor, mask: BoolArray, network: nn.Module) -> Tensor:
    """One window after the other through the generator's own layers, those without a voxel of the region left out."""
    total, count = torch.zeros_like(ct), torch.zeros_like(ct)
    for start in np.ndindex(*(len(window_starts(length)) for length in mask.shape)):
        at = cube([window_starts(length)[k] for k, length in zip(start, mask.shape, strict=True)])
        if mask[at].any():
            total[:, *at] += network(ct[:, *at][None])[0]
            count[:, *at] += 1.0
    return total / count.clamp(min=1.0)


def _of_width(features: int, rounds: int) -> list[Figure]:
    return [*_share_of_rate(features, rounds), *_inputs(features, rounds)]


def _share_of_rate(features: int, rounds: int) -> list[Figure]:
    """The generator's operations a second, as a share of a float32 matrix product's, and of a wide convolution's.

    Where BLAS knows fewer of the processor's instructions than what convolves, the first is above 1, the second not.
    """
    generator = build_network(Architecture("unet", features)).eval().requires_grad_(False)
    assert isinstance(generator, UNetGenerator)
    quick, windows = UNetArithmetic(generator), torch.rand(BATCH_WINDOWS, 1, WINDOW, WINDOW, WINDOW)
    with torch.inference_mode(), FlopCounterMode(display=False) as counted:
        generator(windows[:1])
    left, right = torch.rand(2, MATRIX, MATRIX)
    image, kernels = torch.rand(BATCH_WINDOWS, CHANNELS, SIDE, SIDE, SIDE), torch.rand(CHANNELS, CHANNELS, 3, 3, 3)
    with torch.inference_mode():
        seconds = _quickest(rounds, partial(quick, windows))
        product = _quickest(rounds, partial(torch.mm, left, right))
        convolution = _quickest(rounds, partial(torch.conv3d, image, kernels))
    rate = BATCH_WINDOWS * counted.get_total_flops() / seconds
    width = f"{features} features ({1000.0 * seconds / BATCH_WINDOWS:.1f} ms a window)"
    share, goal = rate / (2.0 * MATRIX**3 / product), RATE_GOALS[features]
    of_product = f"share of the matrix product's rate, {width}"
    of_convolution = f"share of the rate of a convolution of {CHANNELS} channels, {width}"
    operations = 2.0 * BATCH_WINDOWS * 27 * CHANNELS**2 * (SIDE - 2) ** 3
    return [
        _plain(of_product, share) if goal is None else at_least(NAME, of_product, share, goal, ""),
        _plain(of_convolution, rate / (operations / convolution)),
    ]


def _plain(what: str, value: float) -> Figure:
    return Figure(NAME, what, value, "", "", 0.0, 1.0)


def _inputs(features: int, rounds: int) -> list[Figure]:
    """A window's time for each input, with all that a translation does, as a share of that with the paper's input."""
    hu, labels = _noise()
    packages = {name: _package(Architecture("unet", features, **options), COVERED) for name, options in INPUTS.items()}
    turns: dict[str, list[float]] = {name: [] for name in packages}
    for _ in range(rounds):
        for name, package in packages.items():
            channels = ct_channels(hu, package.plan, package.architecture)
            turns[name].append(_seconds(partial(translate, channels, labels, package)))
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


def _package(architecture: Architecture, partition: Partition) -> ModelPackage:
    network = build_network(architecture).eval().requires_grad_(False)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return ModelPackage(Card("measured", "0" * 64, Plan(), partition, architecture), {"trunk": network})


def _noise() -> tuple[FloatArray, LabelArray]:
    """An ellipsoid of noise in air."""
    axes = np.meshgrid(*(np.linspace(-1.0, 1.0, length) for length in SHAPE), indexing="ij", sparse=True)
    labels = np.where(sum(axis**2 for axis in axes) < 1.0, np.uint8(TRUNK), np.uint8(0))
    noise = np.random.default_rng(0).normal(40.0, 100.0, SHAPE).astype(np.float32)
    return np.where(labels > 0, noise, np.float32(-1000.0)), labels


def _quickest(rounds: int, work: Callable[[], object]) -> float:
    return min(_seconds(work) for _ in range(rounds))


def _seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun
