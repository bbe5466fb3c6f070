"""Windows, batched inference, averaging and stitching: a CT in model space becomes a PET in model space."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from twin_scanner.imaging.district_labels import DISTRICT_NAMES, label_name
from twin_scanner.imaging.volume import FloatArray, LabelArray, Shape, label_counts
from twin_scanner.models.card import Stitching
from twin_scanner.models.inputs import Surroundings, surroundings
from twin_scanner.models.networks import WINDOW
from twin_scanner.models.package import ModelPackage
from twin_scanner.models.partition import Partition
from twin_scanner.progress import Progress

STRIDE = 16
"""Distance between windows: an overlap of 16 voxels (paper section III-B)."""
BATCH_WINDOWS = 16
"""Windows a forward pass: more brings no speed on a processor, only memory."""
GAUSSIAN_SIGMA: Final = 0.125
"""Standard deviation of the weights of ``gaussian`` as a share of the window's edge: MONAI's ``sigma_scale``."""
SMALLEST_WEIGHT: Final = 1e-3
"""MONAI's too: no voxel of a window counts less."""

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Start: TypeAlias = Shape


@dataclass(frozen=True, eq=False)
class _Work:
    """One network, the body around its windows where it sees that, where it may write, and the windows there."""

    network: nn.Module
    around: Surroundings | None
    mask: BoolArray
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
    batch_windows: int = BATCH_WINDOWS,
    progress: Progress | None = None,
) -> FloatArray:
    """The PET (D, H, W) in model space of a CT and its district map (D, H, W) (paper eq. 7, 12-15).

    ``channels`` (C, D, H, W) are the CT in model space as ``ct_channels`` makes them for the package's architecture.
    Voxels of no network are 0: outside the body, and in districts that ``missing_districts`` names; whether those may
    be delivered is the caller's decision. A network without labels (whole-volume) translates every voxel. The
    ``stitching`` is the package's unless another is asked for.
    ``progress`` receives (windows done, windows in all).
    """
    if channels.shape != (package.architecture.channels, *labels.shape):
        raise ValueError(f"the labels {labels.shape} do not lie on the CT {channels.shape}")
    inner, padded_ct, padded_labels = padded(channels, labels)
    around = surroundings(padded_ct, padded_labels) if package.architecture.context else None
    works = [
        _work(package.networks[name], around, region_of(padded_labels, covered, inner))
        for name, covered in package.partition.networks.items()
    ]
    pet = np.zeros(padded_labels.shape, np.float32)
    weights = window_weights(stitching or package.card.stitching)
    done, total = 0, sum(len(work.starts) for work in works)
    for work in works:
        for count in _translate_region(padded_ct, work, weights, batch_windows, pet):
            done += count
            if progress is not None:
                progress(done, total)
    return np.ascontiguousarray(pet[inner])


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


def _work(network: nn.Module, around: Surroundings | None, mask: BoolArray) -> _Work:
    return _Work(network, around, mask, windows_touching(mask))


def window_inputs(
    channels: FloatArray, mask: BoolArray, around: Surroundings | None, starts: Sequence[Start]
) -> tuple[FloatArray, ...]:
    """What a network is given of some windows: the CT in its mask (N, C, 32, 32, 32) and, where it sees that, context.

    Serving's half of the preprocessing; ``training.data.sampling.patch_at`` gives the same bytes.
    """
    windows = np.empty((len(starts), len(channels), *(WINDOW,) * 3), np.float32)
    for window, start in zip(windows, starts, strict=True):
        np.multiply(channels[:, *cube(start)], mask[cube(start)], out=window)
    return (windows,) if around is None else (windows, around.around(starts))


def _translate_region(
    channels: FloatArray, work: _Work, weights: FloatArray, batch_windows: int, pet: FloatArray
) -> Iterator[int]:
    """Write one network's region into ``pet``; yields the number of windows after each batch."""
    if not work.starts:
        return
    first, end = np.min(work.starts, axis=0), np.max(work.starts, axis=0) + WINDOW
    box = tuple(slice(int(a), int(b)) for a, b in zip(first, end, strict=True))
    total = np.zeros(tuple(end - first), np.float32)
    for at in range(0, len(work.starts), batch_windows):
        starts = work.starts[at : at + batch_windows]
        inputs = window_inputs(channels, work.mask, work.around, starts)
        for start, values in zip(starts, _predict(work.network, inputs), strict=True):
            total[cube(start - first)] += values * weights
        yield len(starts)
    planes = islice(total_weights(work.mask.shape, weights), box[0].start, box[0].stop)
    for plane, whole in zip(total, planes, strict=True):
        plane /= whole[box[1:]]
    np.copyto(pet[box], total, where=work.mask[box])


def _predict(network: nn.Module, inputs: tuple[FloatArray, ...]) -> FloatArray:
    """One forward pass to PET (N, 32, 32, 32), float32."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        pet: FloatArray = network(*(torch.from_numpy(given).to(device) for given in inputs))[:, 0].float().cpu().numpy()
    return pet


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
