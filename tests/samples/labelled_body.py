"""A small body with a skeleton for the tests of label maps: where it lies is a formula, so nothing is segmented."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from twin_scanner.imaging.volume import Geometry, LabelArray, Volume, geometry_of, to_sitk

GRID: Final = Geometry((40, 50, 60), (6.0, 5.0, 4.5), (-130.0, -120.0, 300.0))
"""No two spacings and no two sizes alike."""
ORGANS: Final = 7


def body(grid: Geometry = GRID) -> npt.NDArray[np.bool_]:
    """An upright cylinder, elliptic in the axial slices, that begins and ends inside the field of view."""
    d, h, w = ((np.arange(n) + 0.5) / n for n in grid.shape)
    ellipse = ((h[:, None] - 0.48) / 0.34) ** 2 + ((w[None, :] - 0.52) / 0.41) ** 2 < 1
    return ellipse[None] & ((d > 0.06) & (d < 0.93))[:, None, None]


def ct_of(inside: npt.NDArray[np.bool_], grid: Geometry = GRID) -> Volume:
    """Soft tissue inside with a spine of bone, air outside."""
    hu = np.where(inside, np.float32(40.0), np.float32(-1000.0))
    _, rows, columns = grid.shape
    spine = np.zeros(grid.shape, np.bool_)
    spine[:, int(0.58 * rows) : int(0.72 * rows), int(0.44 * columns) : int(0.58 * columns)] = True
    hu[spine & inside] = 600.0
    return Volume(hu, grid)


def four_districts(inside: npt.NDArray[np.bool_]) -> LabelArray:
    """The whole body: legs below, head above, arms at one side of the trunk; no two axes are symmetric."""
    labels = np.full(inside.shape, 2, np.uint8)
    labels[:, :, : inside.shape[2] // 4] = 3
    labels[: inside.shape[0] // 3] = 4
    labels[3 * inside.shape[0] // 4 :] = 1
    labels[~inside] = 0
    return labels


def seven_organs(inside: npt.NDArray[np.bool_]) -> LabelArray:
    """Seven boxes of different sizes inside the body; most of the body belongs to none of them."""
    labels = np.zeros(inside.shape, np.uint8)
    d, h, w = (n // 10 for n in inside.shape)
    for organ in range(1, ORGANS + 1):
        start = (organ % 5 + 1) * d, (3 + organ % 2 * 2) * h, (2 + organ % 3 * 2) * w
        box = tuple(slice(s, s + size) for s, size in zip(start, (2 * d - organ % 2, 2 * h, 2 * w - 1), strict=True))
        labels[box] = organ
    labels[~inside] = 0
    return labels


def turned(
    labels: npt.NDArray[np.generic], grid: Geometry, orientation: str
) -> tuple[npt.NDArray[np.generic], Geometry]:
    """The same voxels in another axis order, in SimpleITK's letters; nothing is resampled."""
    image = sitk.DICOMOrient(to_sitk(labels, grid), orientation)
    return sitk.GetArrayFromImage(image), geometry_of(image)


def oblique(grid: Geometry = GRID) -> Geometry:
    """The grid turned by 20 degrees about z and then by 10 about x: a patient who lies askew, with two axes flipped."""
    a, b = np.deg2rad([20.0, 10.0])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    axes = [about_x @ about_z @ axis for axis in ([0, 0, 1], [0, -1, 0], [-1, 0, 0])]
    return replace(grid, direction=tuple(tuple(float(c) for c in axis) for axis in axes))  # type: ignore[arg-type]


def saved(path: Path, array: npt.NDArray[np.generic], grid: Geometry) -> Path:
    """A NIfTI file of whatever type the array has."""
    sitk.WriteImage(to_sitk(array, grid), str(path))
    return path
