"""Shafts of long bones by their shape alone, whichever way they run, and the heads of the humeri at their ends."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from twin_scanner.districts.coarse_grid import CoarseCt
from twin_scanner.districts.landmarks.axial_skeleton import IS_BONE
from twin_scanner.districts.morphology import (
    SECTION,
    BoolArray,
    IntArray,
    Point,
    box_around,
    distance_mm,
    eroded,
    points_mm,
    section_holes,
)
from twin_scanner.imaging.volume import FloatArray, Triple

ROUND_MM2: Final = (150.0, 3200.0)
"""Cross-section of a shaft on the coarse grid, marrow included: 300 to 900 mm2, more where it is cut obliquely."""
ROUND_SOLID: Final = 0.88
"""Area over the area of the ellipse of the same moments: 0.93 to 0.98 for shafts, 0.6 to 0.85 for scapula or pelvis."""
ROUND_SLENDER: Final = 3.0
"""Long over short axis of that ellipse: of three planes at right angles one cuts every shaft less obliquely."""
SHAFT_MM: Final = 35.0
"""A chain of round sections this long is a long bone; the tip of the scapula or the coracoid is shorter."""
STUB_MM: Final = 10.0
"""Enough where the field of view cuts the bone and the section is a large one (STUB_MM2)."""
SHAFT_MM2: Final = 220.0
"""Volume over length: 430 mm2 in a humerus of a man, 310 in a small woman; a rib has 70 to 150, a clavicle 200."""
STUB_MM2: Final = 300.0
ALONE_MM: Final = (6.0, 26.0)
"""Around the middle of a shaft lies flesh alone from here to there; by ribs, scapula and clavicle lie other bones."""
OTHER_BONE: Final = 0.04
"""Share of that shell: none beside a humerus, 0.05 to 0.3 beside the other bones."""
OTHER_GAS: Final = 0.03
"""Lung or bowel gas in that shell; beside a rib lies the lung."""
TRUNCATION_MM: Final = 8.0
"""Where the circle of the field of view cuts the body, a rim this wide is as bright as bone."""
GAS_HU: Final = -500.0
"""Lung and bowel gas are darker."""
ASIDE_MM: Final = 55.0
"""The middle of a shaft lies farther from the midline; vertebrae, sternum and mandible do not."""
SHAFT_HU: Final = 400.0
"""One in five of a shaft's coarse voxels is brighter: cortex; a kidney with contrast medium has 200 to 350 HU."""


@dataclass(frozen=True, eq=False)
class Shaft:
    """A chain of round sections: its voxels (D, H, W), its two ends in mm, and how long and thick it is."""

    voxels: BoolArray
    ends: tuple[Point, Point]
    length_mm: float
    section_mm2: float

    @property
    def middle(self) -> Point:
        """Half-way between the ends, in mm."""
        return (self.ends[0] + self.ends[1]) / 2.0


def filled_bone(ct: CoarseCt, body: BoolArray) -> BoolArray:
    """Bone with its marrow, filled in axial, coronal and sagittal slices; not the bright rim of a body that is cut."""
    bone = (ct.bone >= IS_BONE) & body & eroded(ct.seen[None], TRUNCATION_MM, ct.spacing_mm)
    filled = bone.copy()
    for axis in range(3):
        filled |= np.moveaxis(section_holes(np.moveaxis(bone, axis, 0)), 0, axis)
    return filled


def find_shafts(ct: CoarseCt, body: BoolArray, bone: BoolArray, lateral: FloatArray) -> list[Shaft]:
    """Every long bone that lies aside of the midline with flesh alone around it, the longest first.

    ``bone`` is filled; ``lateral`` (D, 1, W) the signed distance from the midline in mm.
    """
    gas = body & (ct.hu < GAS_HU)
    aside = bone & (np.abs(lateral) > ASIDE_MM / 2)
    shafts: list[Shaft] = []
    for axis in range(3):
        labels, _ = ndimage.label(_round_parts(aside, axis, ct.spacing_mm))
        for number, part in enumerate(ndimage.find_objects(labels), 1):
            piece = labels[part] == number
            if float(piece.sum()) * ct.voxel_ml * 1000.0 < STUB_MM * STUB_MM2:
                continue
            if float(np.percentile(ct.hu[part][piece], 80)) < SHAFT_HU:
                continue
            shaft = _shaft(piece, part, bone.shape, ct.spacing_mm)
            if _is_long(shaft, part, bone.shape[0]) and _lies_alone(shaft, bone, gas, lateral, ct):
                shafts.append(shaft)
    return _merged(shafts, ct.spacing_mm)


def _merged(shafts: list[Shaft], spacing_mm: Triple) -> list[Shaft]:
    """One shaft for all that overlap: the same bone, cut along other planes; the longest first."""
    kept: list[Shaft] = []
    for shaft in sorted(shafts, key=lambda one: -one.length_mm):
        same = next((k for k, other in enumerate(kept) if (other.voxels & shaft.voxels).any()), None)
        if same is None:
            kept.append(shaft)
        else:
            both = kept[same].voxels | shaft.voxels
            kept[same] = _shaft(both, (slice(0, None),) * 3, both.shape, spacing_mm)
    return kept


def _round_parts(bone: BoolArray, axis: int, spacing_mm: Triple) -> BoolArray:
    """Sections across one axis that are round."""
    side = [s for k, s in enumerate(spacing_mm) if k != axis]
    labels, count = ndimage.label(np.moveaxis(bone, axis, 0), SECTION)
    good = _round_sections(labels, count, side[0], side[1])
    return np.moveaxis(good[labels], 0, axis)


def _round_sections(labels: IntArray, count: int, row_mm: float, column_mm: float) -> npt.NDArray[np.bool_]:
    """Which of the numbered sections have a shaft's size and fill the ellipse of their moments; 0 never does."""
    where = np.nonzero(labels)
    number = labels[where]
    rows, columns = where[1] * row_mm, where[2] * column_mm
    voxels = np.maximum(np.bincount(number, minlength=count + 1), 1).astype(np.float64)

    def mean(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        return np.bincount(number, weights=values, minlength=count + 1) / voxels

    row, column = mean(rows), mean(columns)
    a = mean(rows**2) - row**2 + row_mm**2 / 12.0
    b = mean(columns**2) - column**2 + column_mm**2 / 12.0
    half = np.sqrt(((a - b) / 2.0) ** 2 + (mean(rows * columns) - row * column) ** 2)
    long, short = (4.0 * np.sqrt(np.maximum((a + b) / 2.0 + sign * half, 1e-6)) for sign in (1, -1))
    area = voxels * row_mm * column_mm
    good = (area >= ROUND_MM2[0]) & (area <= ROUND_MM2[1])
    good &= (area > ROUND_SOLID * np.pi / 4.0 * long * short) & (long < ROUND_SLENDER * short)
    good[0] = False
    return good


def _shaft(piece: BoolArray, part: tuple[slice, ...], shape: tuple[int, ...], spacing_mm: Triple) -> Shaft:
    """A piece that fills ``part`` of the grid: length and thickness along its main axis; an end is its last 8 mm."""
    voxels = np.zeros(shape, np.bool_)
    voxels[part] = piece
    points = (np.argwhere(piece) + [s.start for s in part]) * np.asarray(spacing_mm)
    axis = np.linalg.eigh(np.cov(points.T) + np.diag(np.square(spacing_mm) / 12.0))[1][:, -1]
    along = (points - points.mean(axis=0)) @ axis
    length = float(np.ptp(along)) + float(np.abs(axis) @ np.asarray(spacing_mm))
    ends = points[along <= along.min() + 8.0].mean(axis=0), points[along >= along.max() - 8.0].mean(axis=0)
    return Shaft(voxels, ends, length, len(points) * float(np.prod(spacing_mm)) / length)


def _is_long(shaft: Shaft, part: tuple[slice, ...], slices: int) -> bool:
    if shaft.length_mm >= SHAFT_MM and shaft.section_mm2 >= SHAFT_MM2:
        return True
    cut = part[0].start <= 1 or part[0].stop >= slices - 1
    return cut and shaft.length_mm >= STUB_MM and shaft.section_mm2 >= STUB_MM2


def _lies_alone(shaft: Shaft, bone: BoolArray, gas: BoolArray, lateral: FloatArray, ct: CoarseCt) -> bool:
    """Whether around the shaft's middle lies neither other bone nor gas, and the midline is far."""
    columns = np.flatnonzero(shaft.voxels.any(axis=(0, 1)))
    slices = np.flatnonzero(shaft.voxels.any(axis=(1, 2)))
    if abs(float(lateral[slices][:, 0, columns].mean())) < ASIDE_MM:
        return False
    box = box_around(shaft.voxels, ALONE_MM[1], ct.spacing_mm)
    inside = shaft.voxels[box]
    distance = distance_mm(inside, ct.spacing_mm)
    axis = (shaft.ends[1] - shaft.ends[0]) / max(1.0, float(np.linalg.norm(shaft.ends[1] - shaft.ends[0])))
    along = (points_mm(box, ct.spacing_mm) - shaft.middle) @ axis
    near = np.abs(along) <= max(0.35 * shaft.length_mm, min(ct.spacing_mm))
    shell = near & (distance > ALONE_MM[0]) & (distance < ALONE_MM[1])
    total = max(1, int(shell.sum()))
    others, air = (int((what[box] & shell).sum()) / total for what in (bone, gas))
    return others <= OTHER_BONE and air <= OTHER_GAS
