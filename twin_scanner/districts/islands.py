"""Small pieces of a district that lie apart from it: crumbs at the skin, on the table, or inside another district."""

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from twin_scanner.imaging.volume import LabelArray, Triple

LARGEST_ISLAND_ML: Final = 1.0
"""No part of a body is smaller than this where the image shows it apart: a fingertip at the image's end has more."""
Index: TypeAlias = npt.NDArray[np.intp]


def join_islands(labels: LabelArray, spacing_mm: Triple) -> None:
    """Give, in place, every smaller piece of a district to the district around it; what touches none becomes 0.

    Pieces hang together by faces of voxels (D, H, W). A district's largest piece stays, however small.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    found = [
        _islands(labels, label, box, voxel_ml)
        for label, box in enumerate(ndimage.find_objects(labels), start=1)
        if box is not None
    ]
    islands = np.concatenate([np.zeros((0, 3), np.intp), *found])
    labels[tuple(islands.T)] = 0
    while len(islands):
        best = _neighbour(labels, islands)
        labels[tuple(islands.T)] = best
        if not best.any():
            return
        islands = islands[best == 0]


def _islands(labels: LabelArray, label: int, box: tuple[slice, ...], voxel_ml: float) -> Index:
    """Where the small pieces of one label lie: (voxels, 3)."""
    mask = labels[box] == label
    voxels = np.count_nonzero(mask)
    pieces, count = _numbered(mask)
    del mask
    if count == 1:
        return np.zeros((0, 3), np.intp)
    # Most of a district is its first piece: only the others are counted, the first has the rest.
    sizes, numbers = np.zeros(count + 1, np.int64), []
    for plane in pieces:
        others = np.bincount(plane[plane > 1], minlength=count + 1)
        numbers.append(np.flatnonzero(others))
        sizes += others
    sizes[1] = voxels - sizes.sum()
    small = (sizes > 0) & (sizes * voxel_ml < LARGEST_ISLAND_ML) & (sizes < sizes.max())
    start = np.array([side.start for side in box])
    found = [np.zeros((0, 3), np.intp)]
    for depth, plane in enumerate(pieces):
        if small[numbers[depth]].any() or (small[1] and (plane == 1).any()):
            found.append(np.insert(np.argwhere(small[plane]), 0, depth, axis=1) + start)
    return np.concatenate(found)


def _numbered(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.unsignedinteger], int]:
    """The pieces of a mask by number, and how many there are; in half of the memory where 65,535 numbers suffice."""
    pieces: Any = np.empty(mask.shape, np.uint16)  # SciPy's stubs know of no unsigned output
    try:
        return pieces, int(ndimage.label(mask, output=pieces))
    except RuntimeError:
        pieces = np.empty(mask.shape, np.uint32)
        return pieces, int(ndimage.label(mask, output=pieces))


def _neighbour(labels: LabelArray, places: Index) -> LabelArray:
    """The largest label on a face of each voxel, 0 where there is none."""
    best = np.zeros(len(places), np.uint8)
    for axis in range(3):
        for step in (-1, 1):
            beside = places.copy()
            beside[:, axis] = np.clip(beside[:, axis] + step, 0, labels.shape[axis] - 1)
            best = np.maximum(best, labels[tuple(beside.T)])
    return best
