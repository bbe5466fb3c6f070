"""Windows, batched inference, averaging and stitching: a CT in model space becomes a PET in model space.

Volume, masks and sums lie where the networks compute: on a GPU nothing but the finished PET comes back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn import functional

from twin_scanner.imaging.district_labels import DISTRICT_NAMES, label_name
from twin_scanner.imaging.volume import FloatArray, LabelArray, Shape, label_counts
from twin_scanner.models.card import Stitching
from twin_scanner.models.compute import ComputePrecision
from twin_scanner.models.device import AUTOCAST, gpu_memory_spent, quickest
from twin_scanner.models.inputs import Surroundings, context_cells, surroundings
from twin_scanner.models.networks import WINDOW
from twin_scanner.models.package import ModelPackage
from twin_scanner.models.partition import Partition
from twin_scanner.progress import Progress

STRIDE = 16
"""Distance between windows: an overlap of 16 voxels (paper section III-B)."""
BATCH_WINDOWS = 16
"""Windows a forward pass: more brings no speed on a processor, only memory."""
GPU_BATCH_WINDOWS: Final = 128
"""A GPU wants more; where its memory does not suffice for so many, it gets half of them, and so on."""
GAUSSIAN_SIGMA: Final = 0.125
"""Standard deviation of the weights of ``gaussian`` as a share of the window's edge: MONAI's ``sigma_scale``."""
SMALLEST_WEIGHT: Final = 1e-3
"""MONAI's too: no voxel of a window counts less."""

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Start: TypeAlias = Shape


@dataclass(frozen=True, eq=False)
class _Work:
    """One network, where it may write, and the windows there."""

    network: nn.Module
    mask: Tensor
    starts: Sequence[Start]


def missing_districts(
    labels: LabelArray, partition: Partition, names: Mapping[int, str] = DISTRICT_NAMES
) -> tuple[str, ...]:
    """Names of the districts that a label map (D, H, W) contains and no network of the partition covers."""
    if partition.whole_volume:
        return ()
    present = np.flatnonzero(label_counts(labels))
    uncovered = sorted({int(label) for label in present} - {0} - partition.labels)
    return tuple(label_name(label, names) for label in uncovered)


def translate(
    channels: FloatArray,
    labels: LabelArray,
    package: ModelPackage,
    *,
    stitching: Stitching | None = None,
    batch_windows: int | None = None,
    progress: Progress | None = None,
) -> FloatArray:
    """The PET (D, H, W) in model space of a CT and its district map (D, H, W) (paper eq. 7, 12-15).

    ``channels`` (C, D, H, W) are the CT in model space as ``ct_channels`` makes them for the package's architecture.
    Voxels of no network are 0: outside the body, and in districts that ``missing_districts`` names; whether those may
    be delivered is the caller's decision. A network without labels (whole-volume) translates every voxel. The
    ``stitching`` is the package's unless another is asked for.
    ``progress`` receives (windows done, windows in all). Raises Transient where a GPU's memory does not suffice.
    """
    if channels.shape != (package.architecture.channels, *labels.shape):
        raise ValueError(f"the labels {labels.shape} do not lie on the CT {channels.shape}")
    device = package.device
    windows = batch_windows or (GPU_BATCH_WINDOWS if device.type == "cuda" else BATCH_WINDOWS)
    try:
        with torch.inference_mode(), exact_convolutions():
            return _translated(channels, labels, package, stitching or package.card.stitching, windows, progress)
    except torch.OutOfMemoryError as error:
        raise gpu_memory_spent(device) from error


def exact_convolutions() -> AbstractContextManager[None]:
    """In which a GPU convolves float32 as float32 (cuDNN would take TF32, 10 bits) and repeats itself to the bit."""
    return cudnn.flags(enabled=True, deterministic=True, allow_tf32=False, fp32_precision="ieee")


def _translated(
    channels: FloatArray,
    labels: LabelArray,
    package: ModelPackage,
    stitching: Stitching,
    batch_windows: int,
    progress: Progress | None,
) -> FloatArray:
    inner, padded_ct, padded_labels = padded(channels, labels)
    device = package.device
    around = Around(surroundings(padded_ct, padded_labels), device) if package.architecture.context else None
    works = []
    for name, covered in package.partition.networks.items():
        mask = region_of(padded_labels, covered, inner)
        network = package.arithmetic.get(name) or quickest(package.networks[name], device, package.computes_in)
        works.append(_Work(network, torch.from_numpy(mask).to(device), windows_touching(mask)))
    ct = torch.from_numpy(padded_ct).to(device)
    pet = torch.zeros(padded_labels.shape, device=device)
    weights = window_weights(stitching)
    batches = _Batches(package.computes_in, batch_windows, sum(len(work.starts) for work in works), progress)
    for work in works:
        _translate_region(ct, around, work, weights, batches, pet)
    return np.ascontiguousarray(pet[inner].cpu().numpy())


def window_starts(length: int) -> list[int]:
    """The voxels at which windows start along an axis of ``length`` >= 32 voxels: every 16, the last one at the edge.

    The placement of MONAI's ``dense_patch_slices`` with an overlap of one half.
    """
    last = length - WINDOW
    return [*range(0, last, STRIDE), last]


def windows_touching(mask: BoolArray) -> list[Start]:
    """First voxels (d, h, w) of the windows of a volume that hold at least one voxel of the mask, in scanning order."""
    starts: list[Start] = []
    for d in window_starts(mask.shape[0]):
        plane: BoolArray = np.logical_or.reduce(mask[d : d + WINDOW], axis=0)
        for h in window_starts(mask.shape[1]):
            line: BoolArray = np.logical_or.reduce(plane[h : h + WINDOW], axis=0)
            starts += [(d, h, w) for w in window_starts(mask.shape[2]) if line[w : w + WINDOW].any()]
    return starts


def padded(channels: FloatArray, labels: LabelArray) -> tuple[tuple[slice, slice, slice], FloatArray, LabelArray]:
    """Axes shorter than a window padded with 0 on both sides, as MONAI does, and where the image lies in the result.

    ``channels`` (C, D, H, W) and ``labels`` (D, H, W) come back padded alike.
    """
    before = [max(0, WINDOW - n) // 2 for n in labels.shape]
    d, h, w = (slice(b, b + n) for b, n in zip(before, labels.shape, strict=True))
    if min(labels.shape) >= WINDOW:
        return (d, h, w), channels, labels
    pads = [(b, max(0, WINDOW - n) - b) for b, n in zip(before, labels.shape, strict=True)]
    return (d, h, w), np.pad(channels, [(0, 0), *pads]), np.pad(labels, pads)


def region_of(labels: LabelArray, covered: tuple[int, ...], inner: tuple[slice, slice, slice]) -> BoolArray:
    """The voxels that a network writes: its labels or, without labels, the whole image ``inner`` within the padding."""
    if covered:
        return np.isin(labels, covered)
    everything = np.zeros(labels.shape, np.bool_)
    everything[inner] = True
    return everything


class Around:
    """The contexts of windows, from a body in cells that lies on a device."""

    def __init__(self, body: Surroundings, device: torch.device) -> None:
        """Every cell beyond the image is 0, a window's edge of them on each side."""
        self._cells = functional.pad(torch.from_numpy(body.cells).to(device), (WINDOW,) * 6)
        self._corner = body.corner

    def __call__(self, starts: Sequence[Start]) -> Tensor:
        """The contexts (N, C, 32, 32, 32) of the windows that start at some voxels; as ``Surroundings.around``."""
        first = [
            [cell - corner + WINDOW for cell, corner in zip(context_cells(start), self._corner, strict=True)]
            for start in starts
        ]
        return torch.stack([self._cells[:, *cube(cells)] for cells in first])


def window_inputs(ct: Tensor, mask: Tensor, around: Around | None, starts: Sequence[Start]) -> tuple[Tensor, ...]:
    """What a network is given of some windows: the CT in its mask (N, C, 32, 32, 32) and, where it sees that, context.

    Serving's half of the preprocessing; ``training.data.sampling.patch_at`` gives the same bytes.
    """
    windows = ct.new_empty((len(starts), len(ct), *(WINDOW,) * 3))
    for window, start in zip(windows, starts, strict=True):
        torch.mul(ct[:, *cube(start)], mask[cube(start)], out=window)
    return (windows,) if around is None else (windows, around(starts))


class _Batches:
    """Windows through networks, as many at a time as the device's memory has room for."""

    def __init__(self, precision: ComputePrecision, size: int, windows: int, progress: Progress | None) -> None:
        self._precision, self._size, self._windows, self._progress = precision, size, windows, progress
        self._done = 0

    def run(
        self, work: _Work, inputs_of: Callable[[Sequence[Start]], tuple[Tensor, ...]]
    ) -> Iterator[tuple[Sequence[Start], Tensor]]:
        """Some windows of a work and the PET (N, 32, 32, 32) of each, float32, until all have been run.

        Where the device's memory does not suffice, half as many windows are tried from then on; raises
        torch.OutOfMemoryError where it does not suffice for one.
        """
        at = 0
        while at < len(work.starts):
            starts = work.starts[at : at + self._size]
            try:
                pet = self._predict(work.network, inputs_of(starts))
            except torch.OutOfMemoryError:
                if len(starts) == 1:
                    raise
                self._size = len(starts) // 2
                continue
            yield starts, pet
            at += len(starts)
            self._done += len(starts)
            if self._progress is not None:
                self._progress(self._done, self._windows)

    def _predict(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        dtype = AUTOCAST[self._precision]
        with torch.autocast(inputs[0].device.type, dtype, enabled=dtype != torch.float32):
            pet: Tensor = network(*inputs)
        return pet[:, 0].float()


def _translate_region(
    ct: Tensor, around: Around | None, work: _Work, weights: FloatArray, batches: _Batches, pet: Tensor
) -> None:
    """Write one network's region into ``pet``.

    Windows are added one after the other: a GPU that scatters them at once adds in another order each time.
    """
    if not work.starts:
        return
    first, end = np.min(work.starts, axis=0), np.max(work.starts, axis=0) + WINDOW
    box = tuple(slice(int(a), int(b)) for a, b in zip(first, end, strict=True))
    total = ct.new_zeros(tuple(end - first))
    weight = torch.from_numpy(weights).to(ct.device)
    for starts, values in batches.run(work, lambda starts: window_inputs(ct, work.mask, around, starts)):
        for start, value in zip(starts, values * weight, strict=True):
            total[cube(start - first)].add_(value)
    planes = islice(total_weights(work.mask.shape, weights), box[0].start, box[0].stop)
    for plane, mask, written, whole in zip(total, work.mask[box], pet[box], planes, strict=True):
        plane /= torch.from_numpy(whole[box[1:]]).to(ct.device)
        torch.where(mask, plane, written, out=written)


def window_weights(stitching: Stitching) -> FloatArray:
    """What each voxel of a window (32, 32, 32) counts in the average: 1, or MONAI's ``compute_importance_map``."""
    if stitching == "uniform":
        return np.ones((WINDOW,) * 3, np.float32)
    from_centre = np.arange(WINDOW, dtype=np.float32) - np.float32((WINDOW - 1) / 2)
    along = np.exp(-(from_centre**2) / np.float32(2 * (GAUSSIAN_SIGMA * WINDOW) ** 2), dtype=np.float32)
    weights = along[:, None, None] * along[:, None] * along
    return np.maximum(weights, np.float32(SMALLEST_WEIGHT))


def total_weights(shape: tuple[int, ...], weights: FloatArray) -> Iterator[FloatArray]:
    """The weights of all windows of a volume, summed at each voxel, slice by slice (H, W) (paper eq. 14).

    Every window that covers a voxel of the mask touches the mask, so there none was skipped. Slices that lie alike in
    their windows have the same sums, so no second volume is needed.
    """
    along_d, along_h, along_w = (window_starts(length) for length in shape)
    planes: dict[tuple[int, ...], FloatArray] = {}
    for d in range(shape[0]):
        inside = tuple(d - start for start in along_d if start <= d < start + WINDOW)
        if inside not in planes:
            planes[inside] = np.zeros(shape[1:], np.float32)
            window = weights[list(inside)].sum(axis=0)
            for h in along_h:
                for w in along_w:
                    planes[inside][h : h + WINDOW, w : w + WINDOW] += window
        yield planes[inside]


def cube(start: Sequence[int] | npt.NDArray[np.int64]) -> tuple[slice, slice, slice]:
    """The window whose first voxel is (d, h, w)."""
    d, h, w = (int(s) for s in start)
    return slice(d, d + WINDOW), slice(h, h + WINDOW), slice(w, w + WINDOW)
