"""The CT upright on a grid of about 4 mm, where landmarks are sought, and the way back to the CT's own grid."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from twin_scanner.districts.morphology import BoolArray
from twin_scanner.imaging.volume import FloatArray, Geometry, LabelArray, Triple, Volume

Sizes: TypeAlias = npt.NDArray[np.intp]

CIRCLE_FIT: Final = 0.97
"""Overlap of what is not padding with a circle from which it counts as the scanner's circular field of view."""
COARSE_SPACING_MM: Final = 4.0
"""Aim of the coarse grid: the smallest structure sought, the ramus of the ischium, is about 15 mm thick."""
BONE_HU: Final = 200.0
"""Every enhanced organ has less, cortical and most trabecular bone has more."""


@dataclass(frozen=True, eq=False)
class CoarseCt:
    """A CT with D to the head, H to the back, W to the left, averaged over blocks of whole voxels.

    ``hu`` is the block's mean, ``bone`` the part of the block above BONE_HU (0 to 1), both (D, H, W) float32 on a grid
    of ``spacing_mm``. ``fine`` is the CT itself, upright, as a view without a copy; ``blocks`` the voxels of
    the blocks along each axis.
    """

    hu: FloatArray
    bone: FloatArray
    spacing_mm: Triple
    blocks: tuple[Sizes, Sizes, Sizes]
    fine: FloatArray
    seen: BoolArray

    @property
    def voxel_mm2(self) -> float:
        """Area of one coarse voxel in an axial slice in mm2."""
        return self.spacing_mm[1] * self.spacing_mm[2]

    @property
    def voxel_ml(self) -> float:
        """Volume of one coarse voxel in ml."""
        return float(np.prod(self.spacing_mm)) / 1000.0


def coarse_ct(ct: Volume) -> CoarseCt:
    """Average a CT (HU, any axis order) over blocks of about COARSE_SPACING_MM; the last one may be smaller."""
    axes, flips = _upright_axes(ct.geometry)
    fine = np.flip(ct.array.transpose(axes), flips)
    spacing = upright_spacing_mm(ct.geometry)
    blocks = [_block_sizes(n, s) for n, s in zip(fine.shape, spacing, strict=True)]
    hu, bone = _block_means(fine, blocks)
    d, h, w = (s * n / b.size for s, n, b in zip(spacing, fine.shape, blocks, strict=True))
    return CoarseCt(hu, bone, (d, h, w), (blocks[0], blocks[1], blocks[2]), fine, _field_of_view(hu, (h, w)))


def fine_slabs(coarse: npt.NDArray[np.generic], ct: CoarseCt) -> Iterator[tuple[slice, npt.NDArray[np.generic]]]:
    """Every coarse voxel repeated over its block, on the upright CT's grid: the slices of each block of slices, and the
    plane (H, W) that all of them have."""
    start = 0
    for plane, slices in zip(coarse, ct.blocks[0], strict=True):
        yield slice(start, start + int(slices)), np.repeat(np.repeat(plane, ct.blocks[2], axis=1), ct.blocks[1], axis=0)
        start += int(slices)


def to_ct_grid(upright: LabelArray, geometry: Geometry) -> LabelArray:
    """Labels of the upright CT in the axis order of the CT itself; the same voxels, nothing resampled."""
    axes, flips = _upright_axes(geometry)
    return np.ascontiguousarray(np.flip(upright, flips).transpose(np.argsort(axes)))


def to_upright(labels: LabelArray, geometry: Geometry) -> LabelArray:
    """Labels on a CT's grid, stood upright as ``coarse_ct`` stands the CT: a view, nothing resampled."""
    axes, flips = _upright_axes(geometry)
    return np.flip(labels.transpose(axes), flips)


def upright_spacing_mm(geometry: Geometry) -> Triple:
    """Spacing of a CT's own voxels along head, back and left of the patient."""
    d, h, w = (geometry.spacing_mm[axis] for axis in _upright_axes(geometry)[0])
    return d, h, w


def _upright_axes(geometry: Geometry) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Which array axis points most along z, y, x of the patient (LPS), and which of them then run backwards."""
    cosines = np.asarray(geometry.direction)
    orders = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    axes = max(orders, key=lambda order: sum(abs(cosines[axis, 2 - k]) for k, axis in enumerate(order)))
    flips = tuple(k for k, axis in enumerate(axes) if cosines[axis, 2 - k] < 0)
    return axes, flips


def _block_sizes(voxels: int, spacing_mm: float) -> Sizes:
    """How many voxels each block takes, so that blocks are COARSE_SPACING_MM in the mean; none takes less than one."""
    count = min(voxels, max(1, round(voxels * spacing_mm / COARSE_SPACING_MM)))
    edges = np.round(np.arange(count + 1) * (voxels / count)).astype(np.intp)
    return np.asarray(edges[1:] - edges[:-1])


def _block_means(fine: FloatArray, blocks: Sequence[Sizes]) -> tuple[FloatArray, FloatArray]:
    """Mean HU and bone fraction of every block; slab by slab, so that no second array of full size is needed."""
    starts = [np.concatenate([[0], np.cumsum(sizes)[:-1]]) for sizes in blocks]
    means = np.empty((blocks[0].size, blocks[1].size, blocks[2].size), np.float32)
    bone = np.empty_like(means)
    for k, (start, size) in enumerate(zip(starts[0], blocks[0], strict=True)):
        slab = fine[start : start + size]
        count = (size * blocks[1][:, None] * blocks[2][None, :]).astype(np.float32)
        for target, values in ((means, slab.sum(axis=0)), (bone, (slab > BONE_HU).sum(axis=0, dtype=np.float32))):
            rows = _sums_of_rows(values, starts[1], blocks[1])
            target[k] = np.add.reduceat(rows, starts[2], axis=1) / count
    return means, bone


def _sums_of_rows(values: FloatArray, starts: Sizes, sizes: Sizes) -> FloatArray:
    """What ``np.add.reduceat`` gives along axis 0, five times as fast: whole rows are added, not column by column.

    In its order too, the first row plus the sum of the others, so the float32 sums of blocks up to 8 rows are the same.
    """
    others = np.zeros((starts.size, values.shape[1]), np.float32)
    for step in range(1, int(sizes.max())):
        longer = sizes > step
        others[longer] += values[starts[longer] + step]
    return values[starts] + others


def _field_of_view(hu: FloatArray, spacing_mm: tuple[float, float]) -> BoolArray:
    """What the scanner reconstructed of an axial slice (H, W): a circle where the rest is padding, else all of it.

    Padding is the lowest value of the image, the same in every slice; air is noisy, and what it surrounds in a scan
    without noise is no circle.
    """
    padding = hu.max(axis=0) <= float(hu.min()) + 0.5
    inside = np.nonzero(~padding)
    if not padding.any() or not inside[0].size:
        return np.ones(padding.shape, np.bool_)
    low, high = (np.asarray([f(i) * s for i, s in zip(inside, spacing_mm, strict=True)]) for f in (np.min, np.max))
    rows, columns = np.indices(padding.shape)
    middle, radius = (low + high) / 2.0, float((high - low).max() + min(spacing_mm)) / 2.0
    far = np.hypot(rows * spacing_mm[0] - middle[0], columns * spacing_mm[1] - middle[1])
    circle = far <= radius
    overlap = float((circle & ~padding).sum()) / float((circle | ~padding).sum())
    return np.asarray(~padding if overlap >= CIRCLE_FIT else np.ones_like(padding))
