"""The phantom's image: its grid, what of the painted patient the field of view shows, and which way the axes run."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from training.phantom.anatomy import REFERENCE_HEIGHT_MM, Figure
from training.phantom.options import PatientPosition, PhantomOptions
from training.phantom.shapes import BoolArray, Box, Canvas
from twin_scanner.imaging.volume import FloatArray, Geometry, Triple

Scalar = TypeVar("Scalar", bound=np.generic)
Axis: TypeAlias = tuple[int, int]
"""Axis of the patient's grid (0: z, 1: y, 2: x) and the sign with which an image axis runs along it."""

MID_THIGH_MM: Final = 640.0
SKULL_BASE_MM: Final = 1640.0
"""Ends of the usual field of view in reference mm: autoPET's show the orbits and half of the thighs."""
SOLES_MM: Final = -60.0
MARGIN_MM: Final = 24.0
"""Air around the body."""
TABLE_MM: Final = 46.0
"""From the table's top to the end of the image."""
COVER_MM: Final = 24.0
"""Room for the folds of a blanket above the body."""
DOWN: Final[MappingProxyType[PatientPosition, Axis]] = MappingProxyType({
    "HFS": (1, 1), "FFS": (1, 1), "HFP": (1, -1), "FFP": (1, -1), "HFDL": (2, 1), "HFDR": (2, -1),
})  # fmt: skip
"""The patient's direction that points at the table: back, front, left or right."""
GANTRY_AXES: Final[MappingProxyType[PatientPosition, tuple[Axis, Axis, Axis]]] = MappingProxyType({
    "HFS": ((0, 1), (1, 1), (2, 1)), "HFP": ((0, 1), (1, -1), (2, -1)),
    "FFS": ((0, -1), (1, 1), (2, -1)), "FFP": ((0, -1), (1, -1), (2, 1)),
    "HFDL": ((0, 1), (2, 1), (1, -1)), "HFDR": ((0, 1), (2, -1), (1, 1)),
})  # fmt: skip
"""(D, H, W) as the gantry has them: into the table's travel, down, and to the right of who looks at the screen."""


@dataclass(frozen=True, eq=False)
class Frame:
    """The patient's grid that is painted on (D to the head, H to the back, W to the left) and what of it is imaged."""

    geometry: Geometry
    canvas: Canvas
    box: Box
    """The slices, rows and columns that the image shows."""
    beyond: BoolArray | None
    """(h, w) inside the box: outside the circular field of view, where the image is padded."""


def frame_of(options: PhantomOptions, figure: Figure) -> Frame:
    """Where a figure is painted: around all of it, or around a field of view that has one of the usual names."""
    across, deep, tall = scales(options)
    low, high = _limits(options, figure)
    spacing = _patient_spacing(options)
    shape = tuple(max(1, int(np.ceil((b - a) / s))) for a, b, s in zip(low, high, spacing, strict=True))
    origin = [a + s / 2 for a, s in zip(low, spacing, strict=True)]
    geometry = Geometry((shape[0], shape[1], shape[2]), spacing, (origin[2], origin[1], origin[0]))
    z, y, x = (
        ((o + np.arange(n) * s) / scale).astype(np.float32)
        for o, n, s, scale in zip(origin, shape, spacing, (tall, deep, across), strict=True)
    )
    box, beyond = _shown(options, geometry, tall)
    return Frame(geometry, Canvas(x, y, z), box, beyond)


def scales(options: PhantomOptions) -> Triple:
    """Real over reference mm along x, y and z: tall people are less broad in proportion."""
    ratio = options.height_mm / REFERENCE_HEIGHT_MM
    slender = 1.0 if options.sex == "M" else 0.96
    return ratio**0.6 * slender, ratio**0.6 * slender, ratio


def turned_to_gravity(canvas: Canvas, position: PatientPosition) -> Canvas:
    """The same voxels with rows that run down to the table, whichever side the patient lies on; painting it paints
    the patient's canvas. For a patient on the side, columns run from front to back."""
    axis, sign = DOWN[position]
    down, other = (canvas.y, canvas.x) if axis == 1 else (canvas.x, canvas.y)
    tissue = canvas.tissue if axis == 1 else canvas.tissue.transpose(0, 2, 1)
    return Canvas(other, down if sign > 0 else -down[::-1], canvas.z, tissue[:, ::sign])


def image_axes(options: PhantomOptions) -> tuple[Axis, Axis, Axis]:
    """Along which of the patient's axes, and which way, the image's axes D, H and W run."""
    d, h, w = GANTRY_AXES[options.position]
    if options.axes == "patient":
        h, w = (1, 1), (2, 1)
    return (0, -d[1] if options.reversed_scan else d[1]), h, w


def turned_geometry(geometry: Geometry, axes: tuple[Axis, Axis, Axis]) -> Geometry:
    """The grid of the image whose axes run along the patient's grid as given."""
    corner = [0, 0, 0]
    for axis, sign in axes:
        corner[axis] = 0 if sign > 0 else geometry.shape[axis] - 1
    shape = [geometry.shape[axis] for axis, _ in axes]
    spacing = [geometry.spacing_mm[axis] for axis, _ in axes]
    direction = []
    for axis, sign in axes:
        x, y, z = geometry.direction[axis]
        direction.append((x, y, z) if sign > 0 else (0.0 - x, 0.0 - y, 0.0 - z))
    return Geometry(
        (shape[0], shape[1], shape[2]),
        (spacing[0], spacing[1], spacing[2]),
        geometry.position_lps_mm((corner[0], corner[1], corner[2])),
        (direction[0], direction[1], direction[2]),
    )


def turned(array: npt.NDArray[Scalar], axes: tuple[Axis, Axis, Axis]) -> npt.NDArray[Scalar]:
    """An array on the patient's grid with its axes turned to the image's."""
    flips = tuple(slice(None, None, sign) for _, sign in axes)
    return np.ascontiguousarray(array.transpose([axis for axis, _ in axes])[flips])


def padded(image: FloatArray, beyond: BoolArray | None, value: float) -> FloatArray:
    """The image (D, h, w) with ``value`` outside the circular field of view; changes it."""
    if beyond is not None:
        image[:, beyond] = np.float32(value)
    return image


def _patient_spacing(options: PhantomOptions) -> Triple:
    """Along the patient's z, y and x."""
    spacing = [0.0, 0.0, 0.0]
    for (axis, _), mm in zip(image_axes(options), options.spacing_mm, strict=True):
        spacing[axis] = mm
    return spacing[0], spacing[1], spacing[2]


def _limits(options: PhantomOptions, figure: Figure) -> tuple[Triple, Triple]:
    """Corners of the grid along z, y and x, in real mm."""
    across, deep, tall = scales(options)
    more = max(figure.fat_mm, 0.0)
    reach = max(
        185.0 + more, *(p.elbow[0] + 44.0 + 0.5 * more for p in (figure.left, figure.right)), 232.0 + 0.5 * more
    )
    joints = [j for p in (figure.left, figure.right) for j in (p.elbow, p.wrist, p.palm, p.fingers)]
    front, back = min(-134.0 - 1.3 * more, *(j[1] - 44.0 - 0.3 * more for j in joints)), 112.0 + more
    top = max(1757.0, *(p.fingers[2] + 34.0 for p in (figure.left, figure.right))) + MARGIN_MM / 2
    ends = (MID_THIGH_MM, SKULL_BASE_MM) if options.field_of_view == "skull-base-to-mid-thigh" else (SOLES_MM, top)
    below = TABLE_MM if options.table else MARGIN_MM
    above = MARGIN_MM if options.blanket is None else MARGIN_MM + COVER_MM
    axis, sign = DOWN[options.position]
    before, after = [MARGIN_MM] * 3, [MARGIN_MM] * 3
    before[axis], after[axis] = (above, below) if sign > 0 else (below, above)
    low = (ends[0] * tall, front * deep - before[1], -reach * across - before[2])
    high = (ends[1] * tall, back * deep + after[1], reach * across + after[2])
    return low, high


def _shown(options: PhantomOptions, geometry: Geometry, tall: float) -> tuple[Box, BoolArray | None]:
    """The part of the grid inside the field of view, and what of it lies outside its circle."""
    box = [slice(0, n) for n in geometry.shape]
    x, y, z = (
        o + np.arange(n) * s
        for o, n, s in zip(geometry.origin_lps_mm, geometry.shape[::-1], geometry.spacing_mm[::-1], strict=True)
    )
    if isinstance(options.field_of_view, tuple):
        low, high = (edge * tall for edge in options.field_of_view)
        box[0] = _between(z, low, high)
    if options.diameter_mm is None:
        return (box[0], box[1], box[2]), None
    radius = options.diameter_mm / 2.0
    (cx, cy) = options.centre_mm
    box[1], box[2] = _between(y, cy - radius, cy + radius), _between(x, cx - radius, cx + radius)
    beyond = (y[box[1], None] - cy) ** 2 + (x[None, box[2]] - cx) ** 2 > radius**2
    return (box[0], box[1], box[2]), beyond


def _between(places: npt.NDArray[np.floating], low: float, high: float) -> slice:
    first, last = np.searchsorted(places, (low, high))
    return slice(int(first), max(int(last), int(first) + 1))
