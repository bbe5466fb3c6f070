"""A stack sheared by a tilted gantry, put upright: each slice is shifted within its own plane, and nothing else."""

import math
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from twin_scanner.imaging.volume import AIR_HU, FloatArray, Geometry

GantryTilt: TypeAlias = Literal["reject", "resample"]
"""What becomes of a sheared stack: nothing, or an upright one."""
LARGEST_TILT_DEGREES: Final = 35.0
"""No gantry tilts further: 30 degrees is the most that any scanner offers."""
TILT_TOLERANCE_DEGREES: Final = 2.0
"""GantryDetectorTilt is written in whole or half degrees; where it differs from the shear by more, one is wrong."""
_EDGE_PX: Final = 1e-6
"""A pixel this little outside a slice is at its edge: rounding."""


@dataclass(frozen=True)
class Tilt:
    """How the slices of a sheared stack come to lie on an upright grid.

    ``geometry`` has the slices' own planes, pixels and distance, its D axis along their normal; it holds every pixel
    of every slice. Pixel (r, c) of slice d lies at (d, r + shifts_px[d][0], c + shifts_px[d][1]) of it.
    """

    degrees: float
    geometry: Geometry
    shifts_px: tuple[tuple[float, float], ...]

    def sentence(self) -> str:
        """What was done to the CT, for reports and DICOM objects."""
        slices, rows, columns = self.geometry.shape
        slice_mm, row_mm, column_mm = self.geometry.spacing_mm
        down, right = (max(moves) - min(moves) for moves in zip(*self.shifts_px, strict=True))
        return (
            f"The gantry was tilted by {self.degrees:.1f} degrees: the CT was resampled (linear) to an upright grid of "
            f"{slices} x {rows} x {columns} voxels of {slice_mm:.3g} x {row_mm:.3g} x {column_mm:.3g} mm, each slice "
            f"shifted within its own plane by up to {math.hypot(down * row_mm, right * column_mm):.1f} mm."
        )


def upright(offsets_mm: npt.NDArray[np.float64], sheared: Geometry, degrees: float) -> Tilt:
    """The upright grid of slices that lie at ``offsets_mm`` (D, x y z in LPS) from the first one.

    ``sheared`` is the grid that they would form straight above the first. The new one continues the first slice's
    pixels to every side as far as any slice reaches, so only shifts between whole pixels are interpolated.
    """
    _, down, right = np.asarray(sheared.direction)
    shifts = np.stack([offsets_mm @ down / sheared.spacing_mm[1], offsets_mm @ right / sheared.spacing_mm[2]], axis=1)
    low = np.floor(shifts.min(axis=0) + _EDGE_PX)
    rows, columns = (int(n) for n in np.ceil(shifts.max(axis=0) - _EDGE_PX) - low)
    slices, height, width = sheared.shape
    geometry = replace(
        sheared,
        shape=(slices, height + rows, width + columns),
        origin_lps_mm=sheared.position_lps_mm((0.0, float(low[0]), float(low[1]))),
    )
    return Tilt(degrees, geometry, tuple((float(row), float(column)) for row, column in shifts - low))


def upright_slice(hounsfield: FloatArray, tilt: Tilt, place: int) -> FloatArray:
    """Slice ``place`` (rows, columns) in HU on its plane of the upright grid, linear; AIR_HU outside of it."""
    _, rows, columns = tilt.geometry.shape
    shift_rows, shift_columns = tilt.shifts_px[place]
    return _shifted(_shifted(hounsfield, shift_rows, rows).T, shift_columns, columns).T


def _shifted(image: FloatArray, shift: float, length: int) -> FloatArray:
    """The image moved ``shift`` pixels down its first axis into one of ``length``, linear between its pixels."""
    last = image.shape[0] - 1
    wanted = np.arange(length) - shift
    outside = (wanted < -_EDGE_PX) | (wanted > last + _EDGE_PX)
    below = np.clip(np.floor(wanted).astype(np.intp), 0, max(0, last - 1))
    part = np.clip(wanted - below, 0.0, 1.0).astype(np.float32)[:, None]
    moved = (1 - part) * image[below] + part * image[np.minimum(below + 1, last)]
    moved[outside] = AIR_HU
    return np.asarray(moved, dtype=np.float32)
