"""The three planes through a patient: which way they are seen, how large a pixel is, and what lies under one.

Axial slices are seen from the feet, coronal ones from the front and sagittal ones from the left, as radiologists look
at them: the patient's right is on the left of the picture, and the head is up.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from twin_scanner.console.viewer.images import Voxels
from twin_scanner.imaging.volume import FloatArray, Geometry, Triple

SMALLEST_EDGE_PX: Final = 512
"""The longer edge of no picture is shorter: the letters and the warning must be legible."""
LARGEST_EDGE_PX: Final = 1024
"""Nor longer: two metres of coronal slice would be 3000 pixels of a sharp CT."""
NOT_SLANTED: Final = 0.1
"""A cosine below it is not named in the letters at an edge."""
LETTERS: Final = (("R", "L"), ("A", "P"), ("F", "H"))
"""Along x, y and z of DICOM's patient coordinates: where they run from, and where to (PS3.3 C.7.6.2.1.1)."""
Index: TypeAlias = npt.NDArray[np.float64]


class Plane(StrEnum):
    """Which slices are seen."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"


_AXES: Final = {Plane.AXIAL: (0, 1, 2), Plane.CORONAL: (1, 0, 2), Plane.SAGITTAL: (2, 0, 1)}
"""Of (D, H, W) in canonical axes: the one through the slices, the one down the picture, the one across it."""


@dataclass(frozen=True)
class Edges:
    """The letters at a picture's edges, such as R for the patient's right, or LA where the axis is slanted."""

    left: str
    right: str
    top: str
    bottom: str


@dataclass(frozen=True)
class Sight:
    """All slices of one plane through a grid in canonical axes, in square pixels of ``pixel_mm``, edge to edge."""

    plane: Plane
    grid: Geometry

    @property
    def axes(self) -> tuple[int, int, int]:
        """Of (D, H, W): through, down, across."""
        return _AXES[self.plane]

    @property
    def head_up(self) -> bool:
        """Whether the axis down the picture runs against the picture: D runs to the head, and the head is up."""
        return self.axes[1] == 0

    @property
    def count(self) -> int:
        """How many slices there are."""
        return self.grid.shape[self.axes[0]]

    @property
    def pixel_mm(self) -> float:
        """The edge of a pixel: the finer of the grid's two spacings, within the bounds on a picture's longer edge."""
        _, down, across = self.axes
        finest = min(self.grid.spacing_mm[down], self.grid.spacing_mm[across])
        longer = max(self.grid.extent_mm[down], self.grid.extent_mm[across])
        return min(max(finest, longer / LARGEST_EDGE_PX), longer / SMALLEST_EDGE_PX)

    @property
    def size_px(self) -> tuple[int, int]:
        """Rows and columns of a picture."""
        _, down, across = self.axes
        rows, columns = (max(1, round(self.grid.extent_mm[axis] / self.pixel_mm)) for axis in (down, across))
        return rows, columns

    @property
    def edges(self) -> Edges:
        """The letters at the four edges, from the grid's own directions."""
        _, down, across = self.axes
        left, right = _letters(self.grid.direction[across])
        top, bottom = _letters(self.grid.direction[down])
        return Edges(left, right, bottom, top) if self.head_up else Edges(left, right, top, bottom)

    def indices(self, slice_index: int) -> tuple[Index, Index, Index]:
        """The fractional indices along D, H and W of the slice and of its pixels' rows and columns."""
        through, down, across = self.axes
        found: list[Index] = [np.empty(0)] * 3
        found[through] = np.array([float(slice_index)])
        for axis, size, backwards in zip((down, across), self.size_px, (self.head_up, False), strict=True):
            along: Index = (np.arange(size, dtype=np.float64) + 0.5) * (
                self.grid.extent_mm[axis] / size
            ) / self.grid.spacing_mm[axis] - 0.5
            found[axis] = along[::-1] if backwards else along
        return found[0], found[1], found[2]

    def position_lps_mm(self, slice_index: int, row: int, column: int) -> Triple:
        """Where in the patient the centre of a pixel lies."""
        through, down, across = self.axes
        indices = self.indices(slice_index)
        place = {through: indices[through][0], down: indices[down][row], across: indices[across][column]}
        return self.grid.position_lps_mm((place[0], place[1], place[2]))

    def linear(self, image: Voxels, slice_index: int, outside: float) -> FloatArray:
        """The image's values (rows, columns) in a slice, trilinear; ``outside`` where it has none."""
        places = self._in(image, slice_index)
        part, places = _within(image.array, places)
        result = part.astype(np.float32, copy=False)
        for axis in range(3):
            result = _interpolated(result, np.clip(places[axis], 0, result.shape[axis] - 1), axis)
        whole = self._blank(result, image, slice_index, np.float32(outside))
        return self._turned(whole).astype(np.float32, copy=False)

    def nearest(self, image: Voxels, slice_index: int) -> npt.NDArray[np.generic]:
        """The image's values (rows, columns) in a slice, of the nearest voxel; 0 where it has none."""
        places = self._in(image, slice_index)
        rounded = [
            np.clip(np.rint(along), 0, n - 1).astype(np.intp)
            for along, n in zip(places, image.array.shape, strict=True)
        ]
        return self._turned(self._blank(image.array[np.ix_(*rounded)], image, slice_index, 0))

    def _in(self, image: Voxels, slice_index: int) -> tuple[Index, Index, Index]:
        """The fractional indices in another grid with the same axes."""
        found = []
        for axis, along in enumerate(self.indices(slice_index)):
            if image.geometry is self.grid:
                found.append(along)
                continue
            offset = np.subtract(self.grid.origin_lps_mm, image.geometry.origin_lps_mm)
            offset_mm = float(offset @ np.asarray(image.geometry.direction[axis]))
            found.append((along * self.grid.spacing_mm[axis] + offset_mm) / image.geometry.spacing_mm[axis])
        return found[0], found[1], found[2]

    def _blank(
        self, part: npt.NDArray[np.generic], image: Voxels, slice_index: int, outside: np.float32 | int
    ) -> npt.NDArray[np.generic]:
        """The part with ``outside`` where the image has no voxel."""
        for axis, along in enumerate(self._in(image, slice_index)):
            beyond = (along < -0.5) | (along > image.array.shape[axis] - 0.5)
            if beyond.any():
                part = part.copy()
                part[(slice(None),) * axis + (beyond,)] = outside
        return part

    def _turned(self, part: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """A part of one slice's thickness as rows and columns; of D, H and W what is down comes first already."""
        return part.reshape(self.size_px)


def nearest_value(image: Voxels, position_lps_mm: Triple) -> np.generic | None:
    """The voxel in which a place lies; None outside the image."""
    place = np.linalg.inv(image.geometry.affine) @ np.array([*position_lps_mm, 1.0])
    d, h, w = (int(index) for index in np.rint(place[:3]))
    if not all(0 <= index < n for index, n in zip((d, h, w), image.array.shape, strict=True)):
        return None
    value: np.generic = image.array[d, h, w]
    return value


def _letters(direction: Triple) -> tuple[str, str]:
    """The letters where an axis begins and where it ends, the larger part of a slanted one first."""
    named = [axis for axis in np.argsort(np.abs(direction))[::-1] if abs(direction[axis]) > NOT_SLANTED]
    ends = [LETTERS[axis] if direction[axis] > 0 else LETTERS[axis][::-1] for axis in named]
    return "".join(begin for begin, _ in ends), "".join(end for _, end in ends)


def _within(
    array: npt.NDArray[np.generic], places: tuple[Index, Index, Index]
) -> tuple[npt.NDArray[np.generic], tuple[Index, Index, Index]]:
    """The smallest box of the array in which the places lie, and the places in it."""
    box, moved = [], []
    for along, n in zip(places, array.shape, strict=True):
        first = int(np.clip(np.floor(along.min()), 0, n - 1))
        last = int(np.clip(np.ceil(along.max()), 0, n - 1))
        box.append(slice(first, last + 1))
        moved.append(along - first)
    return array[tuple(box)], (moved[0], moved[1], moved[2])


def _interpolated(array: FloatArray, places: Index, axis: int) -> FloatArray:
    """Linear interpolation along one axis; no copy where the places are the voxels themselves."""
    low = np.floor(places + 1e-9).astype(np.intp)
    part = (places - low).astype(np.float32)
    if np.abs(part).max(initial=0.0) < 1e-6:
        whole = len(low) == array.shape[axis] and bool((low == np.arange(len(low))).all())
        return array if whole else array.take(low, axis)
    high = np.minimum(low + 1, array.shape[axis] - 1)
    weight = part.reshape([-1 if one == axis else 1 for one in range(3)])
    begin = array.take(low, axis)
    return begin + (array.take(high, axis) - begin) * weight
