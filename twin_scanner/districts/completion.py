"""What a backend leaves over: every voxel of the body gets exactly one label, every voxel outside it none."""

from typing import Final

import numpy as np
from scipy import ndimage

from twin_scanner.districts import body
from twin_scanner.districts.coarse_grid import CoarseCt, coarse_ct, to_ct_grid, to_upright
from twin_scanner.districts.morphology import BoolArray
from twin_scanner.errors import Rejected
from twin_scanner.volume import LabelArray, Triple, Volume

NEAREST_BLOCK_MM: Final = 4.0
"""Edge of the blocks between which the nearest district is sought: exact on grids as coarse, else off by less."""


def completed(labels: LabelArray, ct: Volume, rest: int | None = None) -> LabelArray:
    """A backend's labels (D, H, W) on the CT's grid, with one label in every voxel of the body and 0 outside it.

    What the backend left unlabelled inside the body takes the label ``rest``, or that of the nearest labelled voxel.
    Raises Rejected where the CT (HU) shows no human body, or the labels nothing of it.
    """
    coarse = coarse_ct(ct)
    skin = body.refine_body(body.find_body(coarse), coarse)
    upright = to_upright(labels, ct.geometry)
    complete = every_voxel_labelled(upright, skin, spacing_of(coarse), rest)
    return to_ct_grid(complete, ct.geometry)


def spacing_of(ct: CoarseCt) -> Triple:
    """Spacing (mm) of the upright CT's own grid."""
    d, h, w = (s / f for s, f in zip(ct.spacing_mm, ct.factors, strict=True))
    return d, h, w


def every_voxel_labelled(
    labels: LabelArray, inside: BoolArray, spacing_mm: Triple, rest: int | None = None
) -> LabelArray:
    """One label in every voxel of ``inside`` (D, H, W), 0 elsewhere; labels that stand there already stay.

    The nearest label is sought between blocks of NEAREST_BLOCK_MM, each of which stands for its most frequent label.
    Raises Rejected where nothing inside is labelled and ``rest`` is not given.
    """
    complete = np.where(inside, labels, np.uint8(0))
    open_ones = inside & (complete == 0)
    if not open_ones.any():
        return complete
    if rest is not None:
        complete[open_ones] = rest
        return complete
    if not complete.any():
        raise Rejected("No voxel of the body was given a district: check that the label map belongs to this CT.")
    complete[open_ones] = _nearest_block(complete, spacing_mm)[open_ones]
    return complete


def _nearest_block(labels: LabelArray, spacing_mm: Triple) -> LabelArray:
    """For every voxel the label of the nearest block that has one."""
    factors = [max(1, min(round(NEAREST_BLOCK_MM / s), n)) for s, n in zip(spacing_mm, labels.shape, strict=True)]
    blocks = _prevailing(labels, factors)
    block_mm = [f * s for f, s in zip(factors, spacing_mm, strict=True)]
    where = ndimage.distance_transform_edt(blocks == 0, block_mm, return_distances=False, return_indices=True)
    spread = blocks[tuple(where)]
    for axis in (2, 1, 0):
        spread = np.repeat(spread, factors[axis], axis=axis)
        spread = spread[(slice(None),) * axis + (slice(0, labels.shape[axis]),)]
    return np.asarray(spread, dtype=np.uint8)


def _prevailing(labels: LabelArray, factors: list[int]) -> LabelArray:
    """The most frequent label of each block, 0 only where nothing in it is labelled; ties go to the lower number."""
    starts = [np.arange(0, n, f) for n, f in zip(labels.shape, factors, strict=True)]
    best = np.zeros([len(s) for s in starts], np.uint8)
    most = np.zeros(best.shape, np.int32)
    for label in np.flatnonzero(np.bincount(labels.ravel())):
        if label == 0:
            continue
        count = np.add.reduceat(labels == label, starts[2], axis=2, dtype=np.int32)
        for axis in (1, 0):
            count = np.add.reduceat(count, starts[axis], axis=axis)
        best[count > most] = label
        most = np.maximum(most, count)
    return best
