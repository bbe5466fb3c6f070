"""The CT upright on a grid of about 4 mm, where landmarks are sought, and the way back to the CT's own grid."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from twin_scanner.volume import FloatArray, Geometry, LabelArray, Triple, Volume

COARSE_SPACING_MM: Final = 4.0
"""Aim of the coarse grid: the smallest structure sought, the ramus of the ischium, is about 15 mm thick."""
BONE_HU: Final = 200.0
"""Above every enhanced organ, below cortical and most trabecular bone."""


@dataclass(frozen=True, eq=False)
class CoarseCt:
    """A CT with D to the head, H to the back, W to the left, averaged over blocks of whole voxels.

    ``hu`` is the block's mean, ``bone`` the part of the block above BONE_HU (0 to 1), both (D, H, W) float32 on a grid
    of ``spacing_mm``. ``fine`` is the CT itself, upright, as a view without a copy; ``factors`` its voxels a block.
    """

    hu: FloatArray
    bone: FloatArray
    spacing_mm: Triple
    factors: tuple[int, int, int]
    fine: FloatArray

    @property
    def voxel_ml(self) -> float:
        """Volume of one coarse voxel in ml."""
        return float(np.prod(self.spacing_mm)) / 1000.0


def coarse_ct(ct: Volume) -> CoarseCt:
    """Average a CT (HU, any axis order) over blocks of about COARSE_SPACING_MM; the last one may be smaller."""
    axes, flips = _upright_axes(ct.geometry)
    fine = np.flip(ct.array.transpose(axes), flips)
    spacing = upright_spacing_mm(ct.geometry)
    factors = [max(1, min(round(COARSE_SPACING_MM / s), n)) for s, n in zip(spacing, fine.shape, strict=True)]
    hu, bone = _block_means(fine, (factors[0], factors[1], factors[2]))
    d, h, w = (f * s for f, s in zip(factors, spacing, strict=True))
    return CoarseCt(hu, bone, (d, h, w), (factors[0], factors[1], factors[2]), fine)


def to_fine(coarse: npt.NDArray[np.generic], ct: CoarseCt) -> npt.NDArray[np.generic]:
    """Every coarse voxel repeated over its block, on the upright CT's grid."""
    fine: npt.NDArray[np.generic] = coarse
    for axis in (2, 1, 0):
        fine = np.repeat(fine, ct.factors[axis], axis=axis)
        fine = fine[(slice(None),) * axis + (slice(0, ct.fine.shape[axis]),)]
    return fine


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


def _block_means(fine: FloatArray, factors: tuple[int, int, int]) -> tuple[FloatArray, FloatArray]:
    """Mean HU and bone fraction of every block; slab by slab, so that no second full-size array is made."""
    starts = [np.arange(0, n, f) for n, f in zip(fine.shape, factors, strict=True)]
    sizes = [np.diff(np.append(s, n)) for s, n in zip(starts, fine.shape, strict=True)]
    means = np.empty((len(starts[0]), len(starts[1]), len(starts[2])), np.float32)
    bone = np.empty_like(means)
    for k, (start, size) in enumerate(zip(starts[0], sizes[0], strict=True)):
        slab = fine[start : start + size]
        count = (size * sizes[1][:, None] * sizes[2][None, :]).astype(np.float32)
        for target, values in ((means, slab.sum(axis=0)), (bone, (slab > BONE_HU).sum(axis=0, dtype=np.float32))):
            rows = np.add.reduceat(values, starts[1], axis=0)
            target[k] = np.add.reduceat(rows, starts[2], axis=1) / count
    return means, bone
