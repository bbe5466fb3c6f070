"""Solids on a voxel grid: ellipsoids, tapered tubes, plates and lofts, each evaluated only inside its bounding box."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from twin_scanner.imaging.volume import FloatArray, LabelArray, Shape

Point: TypeAlias = tuple[float, float, float]
"""(x, y, z) in the reference body's millimetres: x to the left, y to the back, z to the head, as in DICOM's LPS."""
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Box: TypeAlias = tuple[slice, slice, slice]

LONGEST_END_MM: Final = 8.0
"""A loft's ends are flat: thick fat would make them a block."""


@dataclass(frozen=True, eq=False)
class Region:
    """Some voxels: a mask (d, h, w) and the box of the canvas that it fills."""

    box: Box
    mask: BoolArray

    def keep(self, mask: BoolArray) -> "Region":
        """The voxels that also lie in ``mask`` (broadcast over the region's box)."""
        return Region(self.box, self.mask & mask)


@dataclass(frozen=True, eq=False)
class Loft:
    """A vertical solid whose axial sections are superellipses, given at some heights and linear in between.

    ``sections`` are rows (z, half width, half depth, centre y), from the feet up; ``centre_x`` is the same for all.
    """

    sections: tuple[tuple[float, float, float, float], ...]
    power: float = 2.0
    centre_x: float = 0.0

    def at(self, z: FloatArray, shrink_mm: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Half width, half depth and centre y at heights ``z``, the solid made smaller by ``shrink_mm``."""
        rows = np.asarray(self.sections, dtype=np.float32).T
        width, depth, middle = (np.interp(z, rows[0], row).astype(np.float32) for row in rows[1:])
        return np.maximum(width - shrink_mm, 1e-3), np.maximum(depth - shrink_mm, 1e-3), middle


class Canvas:
    """A label map (D, H, W) and its voxels' positions in the reference body; solids are painted over each other."""

    def __init__(self, x: FloatArray, y: FloatArray, z: FloatArray, tissue: LabelArray | None = None) -> None:
        """``x`` (W), ``y`` (H) and ``z`` (D) ascend; they are the voxels' reference coordinates in mm.

        ``tissue`` is painted on where given: a view of another canvas seen from another side.
        """
        self.x, self.y, self.z = x, y, z
        self.tissue: LabelArray = np.zeros((z.size, y.size, x.size), np.uint8) if tissue is None else tissue

    @property
    def shape(self) -> Shape:
        """(D, H, W)."""
        return self.z.size, self.y.size, self.x.size

    def paint(self, region: Region, tissue: int, only: Sequence[int] = ()) -> Region:
        """Set the region's voxels (of the tissues ``only``, where given) to ``tissue``; returns what was set."""
        view = self.tissue[region.box]
        if only:
            region = region.keep(np.isin(view, only))
        view[region.mask] = tissue
        return region

    def box(self, low: Point, high: Point) -> Box:
        """The voxels between two corners."""
        limits = [
            np.searchsorted(axis, (a, b))
            for axis, a, b in zip((self.z, self.y, self.x), low[::-1], high[::-1], strict=True)
        ]
        return (slice(*map(int, limits[0])), slice(*map(int, limits[1])), slice(*map(int, limits[2])))

    def axes(self, box: Box) -> tuple[FloatArray, FloatArray, FloatArray]:
        """x (1, 1, w), y (1, h, 1) and z (d, 1, 1) of a box."""
        return self.x[box[2]][None, None, :], self.y[box[1]][None, :, None], self.z[box[0]][:, None, None]

    def everywhere(self, low: Point, high: Point) -> Region:
        """All voxels between two corners."""
        box = self.box(low, high)
        return Region(box, np.ones(self.tissue[box].shape, np.bool_))

    def ellipsoid(self, centre: Point, radii: Point, shrink_mm: float = 0.0) -> Region:
        """An ellipsoid with axes along x, y and z."""
        rx, ry, rz = (max(r - shrink_mm, 1e-3) for r in radii)
        box = self._around([centre], (rx, ry, rz))
        x, y, z = self.axes(box)
        mask = ((x - centre[0]) / rx) ** 2 + ((y - centre[1]) / ry) ** 2 + ((z - centre[2]) / rz) ** 2 <= 1.0
        return Region(box, mask)

    def spheroid(self, centre: Point, axis: Point, along: float, across: float) -> Region:
        """An ellipsoid of revolution with its long half axis ``along`` the given direction."""
        box = self._around([centre], (max(along, across),) * 3)
        x, y, z = (values - c for values, c in zip(self.axes(box), centre, strict=True))
        unit = np.asarray(axis, np.float32) / np.float32(np.linalg.norm(axis))
        on_axis = x * unit[0] + y * unit[1] + z * unit[2]
        off_axis = x**2 + y**2 + z**2 - on_axis**2
        return Region(box, on_axis**2 / np.float32(along**2) + off_axis / np.float32(across**2) <= 1.0)

    def cone(self, start: Point, end: Point, start_mm: float, end_mm: float) -> Region:
        """A tube with round ends whose radius goes from ``start_mm`` to ``end_mm``."""
        largest = max(start_mm, end_mm, 1e-3)
        box = self._around([start, end], (largest,) * 3)
        x, y, z = (values - np.float32(s) for values, s in zip(self.axes(box), start, strict=True))
        step = np.asarray(end, np.float32) - np.asarray(start, np.float32)
        length = max(float(step @ step), 1e-6)
        along = np.clip((x * step[0] + y * step[1] + z * step[2]) / np.float32(length), 0.0, 1.0)
        distance = (x - along * step[0]) ** 2 + (y - along * step[1]) ** 2 + (z - along * step[2]) ** 2
        radius = np.float32(max(start_mm, 0.0)) + along * np.float32(max(end_mm, 0.0) - max(start_mm, 0.0))
        return Region(box, distance <= radius**2)

    def plate(self, corners: tuple[Point, Point, Point], thickness_mm: float) -> Region:
        """A triangle of even thickness with square edges."""
        a, b, c = (np.asarray(p, np.float64) for p in corners)
        normal = np.cross(b - a, c - a)
        normal /= np.linalg.norm(normal)
        box = self._around(corners, (thickness_mm,) * 3)
        x, y, z = self.axes(box)
        mask = np.abs(_plane(x, y, z, a, normal)) <= thickness_mm / 2.0
        for p, q in ((a, b), (b, c), (c, a)):
            inward = np.cross(normal, q - p)
            mask &= _plane(x, y, z, p, inward / np.linalg.norm(inward)) >= -thickness_mm / 2.0
        return Region(box, mask)

    def loft(self, loft: Loft, shrink_mm: float = 0.0) -> Region:
        """A Loft, made smaller by ``shrink_mm`` all round; it grows at its ends by LONGEST_END_MM at most."""
        end = max(shrink_mm, -LONGEST_END_MM)
        bottom, top = loft.sections[0][0] + end, loft.sections[-1][0] - end
        widest = max(row[1] for row in loft.sections) - min(shrink_mm, 0.0)
        front = min(row[3] - row[2] for row in loft.sections) + min(shrink_mm, 0.0)
        back = max(row[3] + row[2] for row in loft.sections) - min(shrink_mm, 0.0)
        box = self.box((loft.centre_x - widest, front, bottom), (loft.centre_x + widest, back, top))
        width, depth, middle = (values[:, None] for values in loft.at(self.z[box[0]], shrink_mm))
        across = (np.abs(self.x[box[2]] - np.float32(loft.centre_x)) / width) ** np.float32(loft.power)
        front_back = (np.abs(self.y[box[1]] - middle) / depth) ** np.float32(loft.power)
        return Region(box, front_back[:, :, None] <= 1.0 - across[:, None, :])

    def _around(self, points: Sequence[Point], margin: Point) -> Box:
        low = tuple(min(p[i] for p in points) - margin[i] for i in range(3))
        high = tuple(max(p[i] for p in points) + margin[i] for i in range(3))
        return self.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def _plane(
    x: FloatArray, y: FloatArray, z: FloatArray, point: npt.NDArray[np.float64], normal: npt.NDArray[np.float64]
) -> FloatArray:
    """Signed distance in mm from a plane."""
    n = normal.astype(np.float32)
    return x * n[0] + y * n[1] + z * n[2] - np.float32(point @ normal)
