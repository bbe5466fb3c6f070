"""The patient's midline, and the level on the axial skeleton where the legs begin."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from twin_scanner.districts.coarse_grid import CoarseCt
from twin_scanner.districts.morphology import SECTION, BoolArray, IntArray
from twin_scanner.imaging.volume import FloatArray, Triple

IS_BONE: Final = 0.3
"""A coarse voxel counts as bone from this share on: thin cortex keeps it, calcified vessels and noise do not."""
CORE_DEPTH_MM: Final = 45.0
"""Deeper than this below the skin lie only trunk, head and thighs; arms are thinner (radius 35 to 55 mm)."""
NEAR_MIDLINE_MM: Final = 90.0
"""The middle of trunk, neck and head moves by less from one slice to the next; the arms' middles lie farther out."""
FOLLOWING: Final = 0.05
"""How much of its error the line makes good for each mm of height; a tilted neck is followed within 20 mm."""
CENTRAL_MM: Final = 62.0
"""Half width of the strip that holds spine, sacrum, pubis and ischia, but not the femora (shafts at 80 to 110)."""
MEDIAN_MM: Final = 15.0
"""Here lie spine, sacrum and symphysis; between knees and feet, which reach into the central strip, is a gap."""
OUTER_MM: Final = (75.0, 160.0)
"""Here lie the femora beside the ischia; beside a knee lies no other bone."""
LEAST_FEMUR_MM2: Final = 300.0
"""A femur shows 500 mm2 or more; a fibula, which may lie that far out, 150."""
LIMB_MM2: Final = 33000.0
"""A limb's section is smaller; a trunk's is smaller only in children, and it holds gas."""
LIMB_GAS_ML: Final = 2.0
"""No limb holds more gas; every neck, chest and belly does."""
PELVIS_MM: Final = 100.0
"""From the coccyx down to pubis and ischia is less; from the ischia down to bone in the midline again, more."""
HIPS_MM: Final = 90.0
"""Femoral heads and necks lie at most this far above the lowest point of the ischia."""
HIP_MM: Final = (45.0, 190.0)
LEAST_HIP_MM2: Final = 600.0
"""Hip bone with the femoral head: 1500 mm2 and more; of ribs and transverse processes one section has 300."""
THIGH_MM: Final = (35.0, 190.0)
"""Here lie the femora's shafts below the ischia; what ends the spine's bone at the image's end is a disc."""
LEAST_CENTRAL_BONE_MM2: Final = 150.0
"""A vertebra shows 500 mm2 or more in a slice, the last of the ischial tuberosities about this."""
LARGEST_GAP_MM: Final = 45.0
"""Osteoporotic discs and the soft tissue between coccyx and pubis interrupt the bone of the midline for less."""


LegsView: TypeAlias = Literal["border seen", "no legs", "legs only"]


@dataclass(frozen=True)
class LegsLevel:
    """``first_trunk_slice`` of the coarse grid: what lies below is legs (0: no legs; all slices: legs alone).

    ``gap_mm`` is how far down from the level no bone lies at the midline, as far as the image shows.
    """

    first_trunk_slice: int
    view: LegsView
    gap_mm: float = 0.0


def midline(depth: FloatArray, spacing_mm: Triple) -> FloatArray:
    """Column (W index) of the patient's median plane in every slice, from the parts deepest below the skin.

    ``depth`` is the distance to the skin in mm (D, H, W), 0 outside. The line starts in the slice that has most of
    them and follows the middle of their extent up and down as long as it lies in them: neither a thick arm beside the
    neck nor one of two legs draws it aside.
    """
    core = (depth > min(CORE_DEPTH_MM, 0.7 * float(depth.max()))).sum(axis=1).astype(np.float64)
    columns = np.arange(depth.shape[2])
    start = int(np.argmax(core.sum(axis=1)))
    line = np.full(len(core), float(core[start] @ columns / core[start].sum()))
    for order in (range(start + 1, len(core)), range(start - 1, -1, -1)):
        here = line[start]
        for k in order:
            if core[k, round(here)] > 0:
                near = np.flatnonzero((core[k] > 0) & (np.abs(columns - here) * spacing_mm[2] < NEAR_MIDLINE_MM))
                here += min(1.0, FOLLOWING * spacing_mm[0]) * ((float(near[0]) + float(near[-1])) / 2.0 - here)
            line[k] = here
    return np.asarray(ndimage.gaussian_filter1d(line, 30.0 / spacing_mm[0], mode="nearest"), dtype=np.float32)


def off_midline_mm(ct: CoarseCt, middle: FloatArray) -> FloatArray:
    """Distance of every column from the midline in mm (D, 1, W); negative on the patient's right."""
    columns = np.arange(ct.hu.shape[2], dtype=np.float32)
    return ((columns[None, :] - middle[:, None]) * np.float32(ct.spacing_mm[2]))[:, None, :]


def find_legs_level(ct: CoarseCt, body: BoolArray, lateral: FloatArray, has_skull: bool) -> LegsLevel:
    """First slice of the trunk: down from the spine the midline's bone ends with the ischial tuberosities.

    ``lateral`` is the signed distance from the midline (D, 1, W) in mm.
    """
    bone = np.where(body, ct.bone, np.float32(0))
    slices = bone.shape[0]
    if not has_skull and _is_limb(ct, body):
        return LegsLevel(slices, "legs only")
    area = (bone * (np.abs(lateral) < CENTRAL_MM)).sum(axis=(1, 2)) * ct.voxel_mm2
    central = area >= LEAST_CENTRAL_BONE_MM2
    axial = _median(bone, lateral, ct) | _between_femora(bone, lateral, ct)
    if not (central & axial).any():
        return LegsLevel(0, "no legs") if has_skull else LegsLevel(slices, "legs only")
    gap = max(1, round(LARGEST_GAP_MM / ct.spacing_mm[0]))
    runs, count = ndimage.label(ndimage.binary_closing(np.pad(central, gap), np.ones(gap + 1, np.bool_))[gap:-gap])
    mass = ndimage.sum_labels(area * axial, runs, np.arange(1, count + 1))
    lowest = _with_the_pelvis(int(np.flatnonzero(runs == 1 + int(np.argmax(mass)))[0]), central & axial, ct)
    hips = slice(lowest, lowest + round(HIPS_MM / ct.spacing_mm[0]))
    if lowest <= 1 or not (
        _shows_beside(bone[:lowest], lateral[:lowest], ct, THIGH_MM, LEAST_FEMUR_MM2)
        and _shows_beside(bone[hips], lateral[hips], ct, HIP_MM, LEAST_HIP_MM2)
    ):
        return LegsLevel(0, "no legs")
    below = np.flatnonzero(central[:lowest])
    return LegsLevel(lowest, "border seen", (lowest - (int(below[-1]) + 1 if below.size else 0)) * ct.spacing_mm[0])


def _with_the_pelvis(lowest: int, axial: npt.NDArray[np.bool_], ct: CoarseCt) -> int:
    """The lowest slice of the axial skeleton, with pubis and ischia where they lie well below sacrum and coccyx."""
    reach = round(PELVIS_MM / ct.spacing_mm[0])
    while True:
        below = np.flatnonzero(axial[max(0, lowest - reach) : lowest])
        if not below.size:
            return lowest
        lowest = max(0, lowest - reach) + int(below[0])


def _median(bone: FloatArray, lateral: FloatArray, ct: CoarseCt) -> npt.NDArray[np.bool_]:
    """Slices with bone in the median plane."""
    area = (bone * (np.abs(lateral) < MEDIAN_MM)).sum(axis=(1, 2)) * ct.voxel_mm2
    return np.asarray(area >= LEAST_CENTRAL_BONE_MM2)


def _shows_beside(
    bone: FloatArray, lateral: FloatArray, ct: CoarseCt, aside_mm: tuple[float, float], least_mm2: float
) -> bool:
    """Whether any of the slices shows a bone of that size so far from the midline."""
    aside, area, labels = _sections(bone, lateral, ct)
    chosen = (aside > aside_mm[0]) & (aside < aside_mm[1]) & (area >= least_mm2)
    return bool(_slices_with(chosen, labels).any())


def _between_femora(bone: FloatArray, lateral: FloatArray, ct: CoarseCt) -> npt.NDArray[np.bool_]:
    """Slices with a bone in the central strip and another one farther out: ischium and femur."""
    aside, area, labels = _sections(bone, lateral, ct)
    inner = (aside < CENTRAL_MM) & (area >= LEAST_CENTRAL_BONE_MM2)
    outer = (aside > OUTER_MM[0]) & (aside < OUTER_MM[1]) & (area >= LEAST_FEMUR_MM2)
    return _slices_with(inner, labels) & _slices_with(outer, labels)


def _sections(
    bone: FloatArray, lateral: FloatArray, ct: CoarseCt
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating], IntArray]:
    """Mean distance from the midline (mm) and area (mm2) of each section of bone, and the map of their numbers."""
    labels, count = ndimage.label(bone >= IS_BONE, SECTION)
    where = np.nonzero(labels)
    number = labels[where]
    voxels = np.bincount(number, minlength=count + 1)
    aside = np.bincount(number, weights=np.abs(lateral[where[0], 0, where[2]]), minlength=count + 1)
    return aside / np.maximum(voxels, 1), voxels * ct.voxel_mm2, labels


def _slices_with(chosen: npt.NDArray[np.bool_], labels: IntArray) -> npt.NDArray[np.bool_]:
    chosen[0] = False
    return np.asarray(chosen[labels].any(axis=(1, 2)))


def _is_limb(ct: CoarseCt, body: BoolArray) -> bool:
    """Whether the image shows nothing but limbs: thin, without gas and without a skull."""
    inner = ndimage.binary_erosion(body, SECTION, iterations=2)
    if float((inner & (ct.hu < -400.0)).sum()) * ct.voxel_ml > LIMB_GAS_ML:
        return False
    labels, count = ndimage.label(body, SECTION)
    largest = int(np.bincount(labels.ravel(), minlength=count + 1)[1:].max(initial=0))
    return largest * ct.voxel_mm2 < LIMB_MM2
