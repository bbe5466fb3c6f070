"""What a backend leaves over: every voxel of the body gets exactly one label, every voxel outside it none."""

from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from twin_scanner.districts import body
from twin_scanner.districts.coarse_grid import coarse_ct, to_ct_grid, to_upright, upright_spacing_mm
from twin_scanner.districts.morphology import BoolArray, box_around
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import LabelArray, Triple, Volume

Factors: TypeAlias = tuple[int, int, int]

NEAREST_BLOCK_MM: Final = 4.0
"""Edge of the blocks between which the nearest district is sought: exact on grids as coarse, else off by less."""


def completed(labels: LabelArray, ct: Volume, rest: int | None = None) -> LabelArray:
    """A backend's labels (D, H, W) on the CT's grid, with one label in every voxel of the body and 0 outside it.

    What the backend left unlabelled inside the body takes the label ``rest``, or that of the nearest labelled voxel.
    Raises Rejected where the CT (HU) shows no human body, or the labels nothing of it.
    """
    inside, spacing_mm = upright_body(ct)
    complete = every_voxel_labelled(to_upright(labels, ct.geometry), inside, spacing_mm, rest)
    return to_ct_grid(complete, ct.geometry)


def upright_body(ct: Volume) -> tuple[BoolArray, Triple]:
    """The body (D, H, W), lungs and gas included, on the CT's own voxels stood upright, and their spacing in mm.

    Upright, as ``to_upright`` gives labels too: which of two equally near labels is taken must not depend on the
    order in which a scanner stores slices and rows. Raises Rejected where the CT shows no human body.
    """
    coarse = coarse_ct(ct)
    return body.refine_body(body.find_body(coarse), coarse), upright_spacing_mm(ct.geometry)


def every_voxel_labelled(
    labels: LabelArray, inside: BoolArray, spacing_mm: Triple, rest: int | None = None
) -> LabelArray:
    """One label in every voxel of ``inside`` (D, H, W), 0 elsewhere; labels that stand there already stay.

    The nearest label is sought between blocks of NEAREST_BLOCK_MM, each of which stands for its most frequent label:
    the label that is found lies at most two diagonals of a block farther away than the nearest one; where a voxel is
    a block, none lies nearer. Raises Rejected where nothing inside is labelled and ``rest`` is not given.
    """
    complete = np.where(inside, labels, np.uint8(0))
    if rest is not None:
        complete[inside & (complete == 0)] = rest
    elif np.count_nonzero(complete) < np.count_nonzero(inside):
        if not complete.any():
            raise Rejected("No voxel of the body was given a district: check that the label map belongs to this CT.")
        box = box_around(inside, 0.0, spacing_mm)
        _fill_from_nearest_block(complete[box], inside[box], spacing_mm)
    return complete


def _fill_from_nearest_block(labels: LabelArray, inside: BoolArray, spacing_mm: Triple) -> None:
    """Give every unlabelled voxel of ``inside``, in place, the label of the nearest block that has one.

    Slab by slab: a whole body of 100 million voxels has no room for a second array of its size.
    """
    d, h, w = (max(1, min(round(NEAREST_BLOCK_MM / s), n)) for s, n in zip(spacing_mm, labels.shape, strict=True))
    blocks = np.stack([_prevailing(labels[slab], (d, h, w)) for slab in _slabs(labels.shape[0], d)])
    block_mm = [f * s for f, s in zip((d, h, w), spacing_mm, strict=True)]
    where = ndimage.distance_transform_edt(blocks == 0, block_mm, return_distances=False, return_indices=True)
    for nearest, slab in zip(blocks[tuple(where)], _slabs(labels.shape[0], d), strict=True):
        plane = nearest.repeat(h, axis=0)[: labels.shape[1]].repeat(w, axis=1)[:, : labels.shape[2]]
        np.copyto(labels[slab], plane, where=inside[slab] & (labels[slab] == 0))


def _slabs(length: int, thickness: int) -> Iterator[slice]:
    return (slice(start, start + thickness) for start in range(0, length, thickness))


def _prevailing(slab: LabelArray, factors: Factors) -> LabelArray:
    """The most frequent label of each block of one slab, which is one block thick: (blocks along H, along W).

    0 only where nothing in the block is labelled; ties go to the lower number. Each label is counted only inside its
    own box, so that a hundred organs cost little more than four districts.
    """
    _, h, w = factors
    shape = [-(-n // f) for n, f in zip(slab.shape[1:], (h, w), strict=True)]
    best, most = np.zeros(shape, np.uint8), np.zeros(shape, np.int32)
    for label, box in enumerate(ndimage.find_objects(slab), start=1):
        if not box:
            continue
        rows, columns = _whole_blocks(box[1], h), _whole_blocks(box[2], w)
        count = _block_sums((slab[:, rows, columns] == label).sum(axis=0, dtype=np.int32), h, w)
        part = slice(rows.start // h, rows.stop // h), slice(columns.start // w, columns.stop // w)
        more = count > most[part]
        best[part][more] = label
        most[part][more] = count[more]
    return best


def _whole_blocks(part: slice, factor: int) -> slice:
    """The blocks that a part of an axis touches, in voxels; the last one may reach beyond the image."""
    return slice(part.start // factor * factor, -(-part.stop // factor) * factor)


def _block_sums(counts: npt.NDArray[np.int32], h: int, w: int) -> npt.NDArray[np.int32]:
    rows = np.add.reduceat(counts, np.arange(0, counts.shape[0], h), axis=0)
    return np.add.reduceat(rows, np.arange(0, counts.shape[1], w), axis=1)
