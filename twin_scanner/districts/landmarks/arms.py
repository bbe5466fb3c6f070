"""The arms: what lies apart beside the trunk, the humeri, the bones that hang on them, and the flesh around."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from twin_scanner.districts.body import at_the_side
from twin_scanner.districts.coarse_grid import CoarseCt
from twin_scanner.districts.landmarks.axial_skeleton import CENTRAL_MM
from twin_scanner.districts.landmarks.flesh import ArmParts, with_flesh
from twin_scanner.districts.landmarks.long_bones import filled_bone
from twin_scanner.districts.landmarks.shoulders import (
    BEHIND_HEAD_MM,
    HEAD_RADIUS_MM,
    Humerus,
    behind_the_joint,
    capsule,
    find_humeri,
    near_the_joint,
    towards_the_joint,
    tube,
)
from twin_scanner.districts.morphology import BoolArray, dilated, disc, flooded_first, grown
from twin_scanner.imaging.volume import FloatArray

SKIN_CONTACT_MM: Final = 6.0
"""Arms that touch trunk or head touch it with less than twice this depth of skin in an axial slice."""
SMALLEST_ARM_ML: Final = 60.0
"""A piece of forearm or upper arm; a nose, an ear or a fold of skin is smaller."""
LEAST_ARM_BONE: Final = 0.01
"""Share of bone: 5 to 10 % in an arm; none in a fold of skin or a cushion."""
SMALLEST_HAND_ML: Final = 20.0
"""What the end of the image leaves of a hand."""
HAND_BONE: Final = 0.05
"""Share of bone from which so small a piece is one: a hand has 10 to 25 %."""
ARM_ASIDE_MM: Final = 70.0
"""The middle of an arm's piece lies farther from the midline; a chin or a nose that hangs free does not."""
LEAST_HAND_MM2: Final = 100.0
"""Section of a hand at the fingers."""
HAND_SHARE: Final = 0.4
"""A forearm's section is less than this share of the thigh's beside it."""
BELOW_LUNGS_MM: Final = 60.0
"""The humerus of an arm that hangs down ends at most this far below the lungs; a shaft farther down is a femur."""
ABOVE_ISCHIA_MM: Final = 110.0
"""Femoral neck and trochanters reach this far above the ischia; the elbow hangs higher."""
DEEP_BONE_MM: Final = 45.0
"""Bone that lies deeper is spine, sacrum, skull (its brain included) or femur: the trunk's bones hang on it."""
RIB_MM: Final = 16.0
"""Ribs lie this near to the lungs, no bone of an arm does."""
BESIDE_LOOSE_MM: Final = 12.0
"""Bone this far above or below a loose part of an arm, and not deep, is the arm's."""
HEAD_MM: Final = 27.0
"""The ball around the humeral head's centre that is the arm's: the head and its cartilage."""
DOUBTFUL_MM: Final = 31.0
"""Bone between the head's surface and this radius may be the head's, or glenoid and acromion."""
FREE_ARM_MM: Final = 30.0
"""What lies apart this far from the head's centre towards the elbow is the arm's, although the acromion is near."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What the arms are sought in: the coarse CT, its body, depth below the skin and distance from the midline in mm.

    ``lateral`` (D, 1, W) is negative on the patient's right; ``lungs`` a mask; slices below ``legs_below`` are legs.
    """

    ct: CoarseCt
    body: BoolArray
    depth: FloatArray
    lateral: FloatArray
    lungs: BoolArray
    has_head: bool
    legs_below: int


@dataclass(frozen=True, eq=False)
class Arms:
    """The arms (D, H, W) on the coarse grid, the humeri that they were found by, and where they touch trunk or legs.

    Where an arm is ``touching``, it and the trunk are one in the axial slice, and its bones alone divide them.
    """

    mask: BoolArray
    humeri: tuple[Humerus, ...]
    touching: BoolArray


def find_arms(around: Surroundings) -> Arms:
    """The arms, however they are held, from the glenohumeral joint outward; empty if none is seen."""
    ct, body = around.ct, around.body
    bone = filled_bone(ct, body)
    lean = ndimage.binary_erosion(body | ~ct.seen, disc(SKIN_CONTACT_MM, ct.spacing_mm), border_value=1) & body
    core = _core(lean, np.abs(around.lateral), around.legs_below)
    loose = _loose_parts(around, lean & ~core)
    humeri = _humeri(around, bone)
    parts = _parts(around, bone, loose, humeri)
    if not ((parts.bones | parts.loose) & ~parts.behind).any():
        return Arms(np.zeros_like(body), (), core)
    mask = with_flesh(ct, body, around.depth, bone, parts)
    return Arms(mask, humeri, mask & core)


def _humeri(around: Surroundings, bone: BoolArray) -> tuple[Humerus, ...]:
    """Humeri as high as an arm can hang or be held; with neither chest, head nor hips in view none."""
    ct = around.ct
    lungs = np.flatnonzero(around.lungs.any(axis=(1, 2)))
    hips = 0 < around.legs_below < len(bone)
    if not (lungs.size or around.has_head or hips):
        return ()
    floor = int(lungs[0]) - round(BELOW_LUNGS_MM / ct.spacing_mm[0]) if lungs.size else 0
    if around.legs_below > 0:
        floor = max(floor, around.legs_below + round(ABOVE_ISCHIA_MM / ct.spacing_mm[0]))
    apex = int(lungs[-1]) if lungs.size else 0
    middle = float(np.argmin(np.abs(around.lateral[apex, 0])))
    return find_humeri(ct, around.body, bone, around.depth, around.lateral, (apex, middle), max(0, floor))


def _parts(around: Surroundings, bone: BoolArray, loose: BoolArray, humeri: tuple[Humerus, ...]) -> ArmParts:
    """Everything that separates the arms from the trunk, from the loose parts and the humeri."""
    ct, body = around.ct, around.body
    capsules, heads, doubtful, behind, joint, free = (np.zeros_like(body) for _ in range(6))
    for humerus in (one for one in humeri if one.has_head):
        capsules |= capsule(humerus, ct, HEAD_MM) & body
        heads |= capsule(humerus, ct, HEAD_RADIUS_MM) & body
        doubtful |= capsule(humerus, ct, DOUBTFUL_MM)
        behind |= behind_the_joint(humerus, ct) & body
        joint |= near_the_joint(humerus, ct, -BEHIND_HEAD_MM) & body
        free |= near_the_joint(humerus, ct, FREE_ARM_MM) & body
    bones = _arm_bones(around, bone, loose, heads, behind, humeri) | heads
    return ArmParts(bones, loose | capsules, doubtful, behind, joint & ~behind, free)


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


def _loose_parts(around: Surroundings, apart: BoolArray) -> BoolArray:
    """Pieces that axial slices show apart from the trunk, the head or the legs, and that hold bone or are cut."""
    ct = around.ct
    above = apart.copy()
    above[: around.legs_below] = False
    labels, count = ndimage.label(above)
    parts = labels[above]
    voxels = np.maximum(np.bincount(parts, minlength=count + 1), 1)
    bone = np.bincount(parts, weights=ct.bone[above], minlength=count + 1) / voxels
    cut = np.zeros(count + 1, np.bool_)
    cut[labels[:, at_the_side(ct)]] = True
    aside = np.broadcast_to(np.abs(around.lateral), above.shape)[above]
    far = np.bincount(parts, weights=aside, minlength=count + 1) / voxels > ARM_ASIDE_MM
    volume_ml = voxels * ct.voxel_ml
    arm = (volume_ml > SMALLEST_ARM_ML) & ((bone > LEAST_ARM_BONE) | cut)
    arm = (arm | ((volume_ml > SMALLEST_HAND_ML) & (bone > HAND_BONE))) & far
    arm[0] = False
    kept = _down_beside_the_legs(arm[labels], apart, around)
    return ndimage.binary_dilation(kept, disc(SKIN_CONTACT_MM, ct.spacing_mm)) & around.body


def _down_beside_the_legs(arm: BoolArray, apart: BoolArray, around: Surroundings) -> BoolArray:
    """The arms followed below the trunk's end: a hand is the piece that lies under the forearm's last slice.

    Where the image shows no trunk, what lies apart beside the thighs in its highest slice is a forearm or a hand.
    """
    below = around.legs_below
    if 0 < below == len(apart):
        below -= 1
        arm[below] = _beside_the_thighs(apart[below], around.ct.bone[below], around.ct)
    for k in range(below - 1, -1, -1):
        if not arm[k + 1].any():
            break
        labels, count = ndimage.label(apart[k])
        over = np.bincount(labels[arm[k + 1]], minlength=count + 1)[1:]
        area = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        arm[k] = np.isin(labels, 1 + np.flatnonzero((over > 0) & (area < 2.0 * max(1, int(arm[k + 1].sum())))))
    return arm


def _beside_the_thighs(apart: BoolArray, bone: FloatArray, ct: CoarseCt) -> BoolArray:
    """Pieces of one slice (H, W) that are much smaller than a thigh and hold bone."""
    labels, count = ndimage.label(apart)
    area = np.bincount(labels.ravel(), minlength=count + 1) * ct.voxel_mm2
    area[0] = 0.0
    bony = np.bincount(labels.ravel(), weights=bone.ravel(), minlength=count + 1) * ct.voxel_mm2
    hand = (area > LEAST_HAND_MM2) & (area < HAND_SHARE * area.max()) & (bony > HAND_BONE * area)
    return np.asarray(hand[labels])


def _arm_bones(
    around: Surroundings,
    bone: BoolArray,
    loose: BoolArray,
    heads: BoolArray,
    behind: BoolArray,
    humeri: tuple[Humerus, ...],
) -> BoolArray:
    """All bone that hangs on a humerus or lies in a loose part: forearm and hand wherever they lie.

    Two floods run along the bones from voxel to voxel over gaps of a joint's width; the other one starts from the deep
    bones of trunk and legs, from the ribs and from what surrounds the shoulder joint.
    """
    ct = around.ct
    shoulder, shafts = np.zeros_like(bone), np.zeros_like(bone)
    for humerus in humeri:
        shafts |= humerus.bone
        if humerus.has_head:
            shoulder |= towards_the_joint(humerus, ct) & ~tube(humerus, ct, DOUBTFUL_MM)
    deep = bone & (around.depth > DEEP_BONE_MM)
    deep[around.legs_below :] &= (np.abs(around.lateral) < CENTRAL_MM)[around.legs_below :]
    trunk = (deep | dilated(around.lungs, RIB_MM, ct.spacing_mm) | shoulder | behind) & bone
    height = 2 * round(BESIDE_LOOSE_MM / ct.spacing_mm[0]) + 1
    beside = grown(loose, (height, 1, 1)) & ~trunk
    own = (heads | shafts | (loose & ~shoulder) | beside) & bone & ~behind
    marks = np.where(own, np.uint8(1), np.where(trunk, np.uint8(2), np.uint8(0)))
    return flooded_first(marks, (grown(bone) & around.body) | (marks > 0)) & bone
