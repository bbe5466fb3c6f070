"""The arms: parts that lie apart from the trunk and the long bones in them, up to the glenohumeral joint."""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage, signal

from twin_scanner.districts.axial_skeleton import CENTRAL_MM, IS_BONE, Levels, off_midline_mm
from twin_scanner.districts.coarse_grid import CoarseCt
from twin_scanner.districts.morphology import BoolArray, ball, depth_mm, section_holes
from twin_scanner.volume import FloatArray, Triple

IntArray: TypeAlias = npt.NDArray[np.int32]
Point: TypeAlias = tuple[float, float, float]
"""(d, h, w) indices of the coarse grid, fractional."""

SKIN_CONTACT_MM: Final = 6.0
"""Arms that touch trunk or head touch it with less than twice this depth of skin in an axial slice."""
SMALLEST_ARM_ML: Final = 60.0
"""A piece of forearm or hand; a nose, an ear or a fold of skin is smaller."""
LEAST_ARM_BONE: Final = 0.01
"""Share of bone: 5 to 10 % in an arm; none in a fold of skin or a cushion."""
ARM_ASIDE_MM: Final = 70.0
"""The middle of an arm's piece lies farther from the midline; a chin or a nose that hangs free does not."""
SHAFT_MM2: Final = (340.0, 3200.0)
"""Cross-section of the humerus on the coarse grid, marrow included: 400 to 700 mm2, more where it is cut obliquely."""
SHAFT_MEAN_MM2: Final = 420.0
"""A chain of sections of a rib or of the scapula's edge has 200 to 350 mm2 in the mean."""
SHAFT_ASIDE_MM: Final = 95.0
"""The humerus lies farther from the midline than this; vertebrae, clavicle's inner half and mandible do not."""
SHAFT_SOLID: Final = 0.92
"""Area over the area of the ellipse of the same moments: measured 0.93 to 0.98 for humeri, 0.6 to 0.9 for scapula, hip
and pelvis."""
SHAFT_SLENDER: Final = 3.0
"""Long over short axis of that ellipse: a shaft 70 degrees oblique to the slices has 2.9."""
SHAFT_LENGTH_MM: Final = 25.0
"""A chain of round sections this long is a long bone; the tip of the scapula or the coracoid is shorter."""
CUT_SHAFT: Final = (10.0, 800.0)
"""Length in mm and mean area in mm2 that are enough where the field of view cuts the humerus near its head."""
BELOW_LUNGS_MM: Final = 60.0
"""The elbow of an arm that hangs down is at most this far below the lungs; a round section farther down is a femur."""
HEAD_SHELL_MM: Final = (18.0, 27.0)
"""Radii between which the cortex of the humeral head lies: 21 to 26 mm in women and men."""
HEAD_SHELL_BONE: Final = 0.22
"""Mean share of bone in that shell: 0.35 and more around a humeral head, half of it covered by the glenoid or not."""
HEAD_REACH_MM: Final = 65.0
"""From the last free section of the shaft, near the deltoid tuberosity, the head's centre is at most this far."""
HEAD_MM: Final = 27.0
"""The ball around the head's centre that is the arm's: the head and its cartilage."""
SHOULDER_MM: Final = 105.0
"""Half side of the cube around the humeral head in which the joint divides arm and trunk."""
BEHIND_HEAD_MM: Final = 34.0
"""Capsule and deltoid reach this far past the head's centre (radius 24 mm), away from the elbow."""
LUNG_HU: Final = (-940.0, -500.0)
"""Block means of lung; gas in the bowel lies below, fat and consolidation above."""
LUNG_MM2: Final = 800.0
"""Lung in one slice; trachea and main bronchi have 300 mm2, and partial volume at bowel gas less."""
REACH_VOXELS: Final = 25
"""Soft tissue farther from the arm's bones than this (100 mm) is not the arm's."""
TRUNK_DEPTH_MM: Final = 65.0
"""Deeper than this below the skin lies no arm, not even a muscular one cut obliquely."""
SKIN_MM: Final = 6.0
"""Skin and fat over a bone."""
AIR_RELIEF: Final = 255
"""Air is flooded last, after the farthest voxel of the body (254 mm)."""
BOLD: Final = ndimage.generate_binary_structure(3, 3)


@dataclass(frozen=True)
class Humerus:
    """A humerus as far as it was found, in indices of the coarse grid: shaft's far and near end, centre of its head."""

    elbow_end: Point
    shoulder_end: Point
    head: Point


def find_arms(ct: CoarseCt, body: BoolArray, depth: FloatArray, middle: FloatArray, levels: Levels) -> BoolArray:
    """The arms on the coarse grid (D, H, W), up or down, from the glenohumeral joint outward; empty if none is seen."""
    aside = np.abs(off_midline_mm(ct, middle))
    bone = filled_bone(ct, body)
    lung = _lung_slices(ct, body)
    if not lung.size and levels.head.any():
        lung = np.zeros(1, np.intp)
    shafts = _shafts(ct, bone, aside, lung)
    arm = (shafts > 0) | _parts_aside(ct, body, aside, levels.legs_below)
    behind = np.zeros_like(arm)
    for humerus in _humeri(ct, body, shafts, lung):
        arm |= _capsule(humerus, ct) & body
        behind |= _behind_the_joint(humerus, ct)
    if not arm.any():
        return arm
    trunk = _trunk_marks(ct, body, depth, bone, aside) & ~ndimage.binary_dilation(arm, BOLD)
    return _nearer(arm & ~behind, trunk | (behind & body), body, ct.spacing_mm)


def _nearer(arm: BoolArray, trunk: BoolArray, body: BoolArray, spacing_mm: Triple) -> BoolArray:
    """What of the body is nearer to the arm's marks than to the trunk's, on paths inside the body.

    Meyer's watershed floods from all marks at once, in the order of the distance (mm) to the nearest of them; it
    stays inside the body, so that an arm beside the head loses no muscle to the jaw across the air.
    """
    box = _box_around(arm, margin=REACH_VOXELS)
    marks = np.zeros(body[box].shape, np.uint8)
    marks[trunk[box]] = 2
    marks[arm[box]] = 1
    distance = depth_mm(marks == 0, spacing_mm)
    relief = np.where(body[box], np.minimum(distance, AIR_RELIEF - 1), AIR_RELIEF).astype(np.uint8)
    sources = sitk.GetImageFromArray(marks)
    flood = sitk.MorphologicalWatershedFromMarkers(sitk.GetImageFromArray(relief), sources, markWatershedLine=False)
    result = np.zeros_like(arm)
    result[box] = (sitk.GetArrayFromImage(flood) == 1) & body[box]
    return result


def _box_around(mask: BoolArray, margin: int) -> tuple[slice, slice, slice]:
    d, h, w = ndimage.find_objects(mask.astype(np.uint8))[0]
    low, high = (max(0, s.start - margin) for s in (d, h, w)), (s.stop + margin for s in (d, h, w))
    a, b, c = (slice(x, y) for x, y in zip(low, high, strict=True))
    return a, b, c


def filled_bone(ct: CoarseCt, body: BoolArray) -> BoolArray:
    """Bone with the marrow inside it, filled slice by slice."""
    bone = (ct.bone >= IS_BONE) & body
    return bone | section_holes(bone)


def _parts_aside(ct: CoarseCt, body: BoolArray, aside: FloatArray, legs_below: int) -> BoolArray:
    """Pieces that axial slices show apart from the trunk, the head or the legs, and that hold bone."""
    lean = ndimage.binary_erosion(body, _disc(SKIN_CONTACT_MM, ct), border_value=1)
    core = _core(lean, aside, legs_below)
    loose = lean & ~core
    loose[:legs_below] = False
    labels, count = ndimage.label(loose)
    if not count:
        return loose
    parts = labels[loose]
    voxels = np.maximum(np.bincount(parts, minlength=count + 1), 1)
    bony = np.bincount(parts, weights=ct.bone[loose], minlength=count + 1) > LEAST_ARM_BONE * voxels
    far = np.bincount(parts, weights=np.broadcast_to(aside, body.shape)[loose], minlength=count + 1) / voxels
    arm = (voxels * ct.voxel_ml > SMALLEST_ARM_ML) & bony & (far > ARM_ASIDE_MM)
    kept = _down_beside_the_legs(np.isin(labels, np.flatnonzero(arm)), lean, legs_below)
    return ndimage.binary_dilation(kept, _disc(SKIN_CONTACT_MM, ct)) & body


def _core(lean: BoolArray, aside: FloatArray, legs_below: int) -> BoolArray:
    """Trunk, neck and head: from the largest slice on, the piece that overlaps the last one most in the middle."""
    core = np.zeros_like(lean)
    if legs_below >= lean.shape[0]:
        return core
    start = legs_below + int(np.argmax((lean & (aside < CENTRAL_MM))[legs_below:].sum(axis=(1, 2))))
    for step in (1, -1):
        before = lean[start] & (aside[start] < CENTRAL_MM)
        for k in range(start, lean.shape[0] if step > 0 else legs_below - 1, step):
            labels, _ = ndimage.label(lean[k])
            shared = np.bincount(labels[before & (aside[k] < CENTRAL_MM)], minlength=2)[1:]
            if not shared.any():
                break
            core[k] = labels == 1 + int(np.argmax(shared))
            before = core[k]
    return core


def _down_beside_the_legs(arm: BoolArray, lean: BoolArray, legs_below: int) -> BoolArray:
    """The arms followed below the trunk's end: a hand is the piece that lies under the forearm's last slice."""
    for k in range(legs_below - 1, -1, -1):
        labels, count = ndimage.label(lean[k])
        if not arm[k + 1].any() or not count:
            break
        over = np.bincount(labels[arm[k + 1]], minlength=count + 1)[1:]
        area = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        arm[k] = np.isin(labels, 1 + np.flatnonzero((over > 0) & (area < 2.0 * max(1, int(arm[k + 1].sum())))))
    return arm


def _shafts(ct: CoarseCt, bone: BoolArray, aside: FloatArray, lung: npt.NDArray[np.intp]) -> IntArray:
    """Sections of the humerus: round, of a long bone's size, far from the midline; every chain of them has a number."""
    round_ones = np.zeros_like(bone)
    if not lung.size:
        return np.zeros(bone.shape, np.int32)
    free = ndimage.binary_opening(bone, ndimage.generate_binary_structure(2, 1)[None])
    for k in range(max(0, int(lung[0]) - round(BELOW_LUNGS_MM / ct.spacing_mm[0])), bone.shape[0]):
        labels, _ = ndimage.label(free[k])
        for i, box in enumerate(ndimage.find_objects(labels), start=1):
            piece = labels[box] == i
            if float(aside[k, 0, box[1]].mean()) > SHAFT_ASIDE_MM and _is_round(piece, ct):
                round_ones[k][box] |= piece
    labels, count = ndimage.label(ndimage.binary_dilation(round_ones, np.ones((5, 1, 1), np.bool_)))
    labels[~round_ones] = 0
    boxes = ndimage.find_objects(labels)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * ct.voxel_ml * 1000.0
    lengths = np.array([(box[0].stop - box[0].start) * ct.spacing_mm[0] for box in boxes], np.float64)
    cut = np.array([box[0].start == 0 or box[0].stop == len(bone) for box in boxes], np.bool_)
    long = (lengths >= SHAFT_LENGTH_MM) & (sizes >= SHAFT_MEAN_MM2 * lengths)
    long |= cut & (lengths >= CUT_SHAFT[0]) & (sizes >= CUT_SHAFT[1] * lengths)
    chains = np.zeros(count + 1, np.int32)
    chains[1:][long] = np.arange(1, int(long.sum()) + 1)
    return np.asarray(chains[labels])


def _is_round(piece: BoolArray, ct: CoarseCt) -> bool:
    """Whether one section has the size and the solid ellipse of a long bone."""
    side = np.asarray(ct.spacing_mm[1:])
    area = float(piece.sum()) * float(side.prod())
    if not SHAFT_MM2[0] <= area <= SHAFT_MM2[1]:
        return False
    points = np.stack(np.nonzero(piece)) * side[:, None]
    moments = np.cov(points) + np.diag(side**2 / 12.0)
    short, long = 4.0 * np.sqrt(np.linalg.eigvalsh(moments))
    return bool(area > SHAFT_SOLID * np.pi / 4.0 * short * long and long < SHAFT_SLENDER * short)


def _lung_slices(ct: CoarseCt, body: BoolArray) -> npt.NDArray[np.intp]:
    """Slices that show lung, lowest first; bowel gas is darker, the trachea smaller."""
    lung = body & (ct.hu > LUNG_HU[0]) & (ct.hu < LUNG_HU[1])
    area = ndimage.binary_opening(lung, ndimage.generate_binary_structure(3, 1)).sum(axis=(1, 2))
    return np.flatnonzero(area * ct.spacing_mm[1] * ct.spacing_mm[2] > LUNG_MM2)


def _humeri(ct: CoarseCt, body: BoolArray, shafts: IntArray, lung: npt.NDArray[np.intp]) -> list[Humerus]:
    """Every shaft with the head it ends in: at the end nearer to the lungs' apex, where most bone lies in a shell."""
    shell = _shell(ct)
    bone = np.where(body, ct.bone, np.float32(0))
    humeri = []
    for i, box in enumerate(ndimage.find_objects(shafts), 1):
        near, far = sorted(_ends(shafts[box] == i, box), key=lambda one: abs(one[0] - lung[-1]))
        score, head = _head_near(bone, shell, near, ct)
        if score >= HEAD_SHELL_BONE:
            humeri.append(Humerus(far, near, head))
    return humeri


def _ends(piece: BoolArray, box: tuple[slice, ...]) -> list[Point]:
    """Centres of the lowest and the highest section of a shaft, as indices of the whole grid."""
    ends = []
    for k in (0, piece.shape[0] - 1):
        row, column = (float(np.mean(x)) for x in np.nonzero(piece[k]))
        ends.append((float(box[0].start + k), box[1].start + row, box[2].start + column))
    return ends


def _head_near(bone: FloatArray, shell: FloatArray, end: Point, ct: CoarseCt) -> tuple[float, Point]:
    """The best centre of a humeral head within HEAD_REACH_MM of a shaft's end, and its share of bone."""
    low = [max(0, int(e - HEAD_REACH_MM / s)) for e, s in zip(end, ct.spacing_mm, strict=True)]
    high = [int(e + HEAD_REACH_MM / s) + 1 for e, s in zip(end, ct.spacing_mm, strict=True)]
    part = bone[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    score = signal.fftconvolve(part, shell, mode="same")
    d, h, w = np.unravel_index(int(np.argmax(score)), score.shape)
    return float(score[d, h, w]), (float(d + low[0]), float(h + low[1]), float(w + low[2]))


def _shell(ct: CoarseCt) -> FloatArray:
    outer = ball(HEAD_SHELL_MM[1], ct.spacing_mm)
    inner = ball(HEAD_SHELL_MM[0], ct.spacing_mm)
    margin = [((a - b) // 2, (a - b) // 2) for a, b in zip(outer.shape, inner.shape, strict=True)]
    shell = (outer & ~np.pad(inner, margin)).astype(np.float32)
    return shell / shell.sum()


def _capsule(humerus: Humerus, ct: CoarseCt) -> BoolArray:
    """What lies within HEAD_MM of the way from the shaft's end to the head's centre: head, tuberosities and neck."""
    spacing = np.asarray(ct.spacing_mm)
    first, last = np.asarray(humerus.shoulder_end) * spacing, np.asarray(humerus.head) * spacing
    box, points = _points_around(np.minimum(first, last) - HEAD_MM, np.maximum(first, last) + HEAD_MM, ct)
    along = np.clip((points - first) @ (last - first) / max(1.0, float((last - first) @ (last - first))), 0, 1)
    inside = np.zeros(ct.hu.shape, np.bool_)
    inside[box] = np.linalg.norm(points - first - along[..., None] * (last - first), axis=-1) <= HEAD_MM
    return inside


def _behind_the_joint(humerus: Humerus, ct: CoarseCt) -> BoolArray:
    """What lies near the shoulder beyond the humeral head, seen from the elbow: chest wall and neck, not the arm."""
    spacing = np.asarray(ct.spacing_mm)
    head, elbow = np.asarray(humerus.head) * spacing, np.asarray(humerus.elbow_end) * spacing
    axis = (elbow - head) / max(1.0, float(np.linalg.norm(elbow - head)))
    box, points = _points_around(head - SHOULDER_MM, head + SHOULDER_MM, ct)
    inside = np.zeros(ct.hu.shape, np.bool_)
    inside[box] = (points - head) @ axis < -BEHIND_HEAD_MM
    return inside


def _points_around(
    low_mm: npt.NDArray[np.float64], high_mm: npt.NDArray[np.float64], ct: CoarseCt
) -> tuple[tuple[slice, ...], npt.NDArray[np.float64]]:
    """The voxels between two corners and where their centres are, in mm from voxel (0, 0, 0) (d, h, w, 3)."""
    spacing = np.asarray(ct.spacing_mm)
    low = np.clip(np.floor(low_mm / spacing), 0, ct.hu.shape).astype(int)
    high = np.clip(np.ceil(high_mm / spacing) + 1, low, ct.hu.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return box, (np.moveaxis(np.indices(high - low), 0, -1) + low) * spacing


def _trunk_marks(ct: CoarseCt, body: BoolArray, depth: FloatArray, bone: BoolArray, aside: FloatArray) -> BoolArray:
    """What is surely not an arm: other bones, the lungs, the midline, and all that lies deep.

    Bone under the skin does not count: streaks where the field of view cuts an arm are as bright.
    """
    gas = body & (ct.hu < LUNG_HU[1])
    return (bone & (depth > SKIN_MM)) | gas | (body & (aside < CENTRAL_MM)) | (depth > TRUNK_DEPTH_MM)


def _disc(radius_mm: float, ct: CoarseCt) -> npt.NDArray[np.bool_]:
    reach = [int(radius_mm // s) for s in ct.spacing_mm[1:]]
    rows, columns = np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    inside = (rows * ct.spacing_mm[1]) ** 2 + (columns * ct.spacing_mm[2]) ** 2 <= radius_mm**2 + 1e-6
    return np.asarray(inside)[None]
