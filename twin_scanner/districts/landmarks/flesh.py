"""The arm's soft tissue: it ends at the arm's thickness around its bones, at the shoulder half-way to the trunk's."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from twin_scanner.districts.body import LUNG_HU, at_the_side
from twin_scanner.districts.coarse_grid import CoarseCt
from twin_scanner.districts.morphology import BoolArray, Box, box_around, depth_mm, distance_mm, flooded, grown
from twin_scanner.imaging.volume import FloatArray, Triple

SKIN_MM: Final = 6.0
"""Skin and fat over a bone."""
GAS_DEPTH_MM: Final = 15.0
"""Gas deeper than this is lung or bowel; nearer to the skin a coarse voxel is half air outside."""
NEIGHBOURS_MM: Final = 24.0
"""An arm is about as thick, from bone to skin, as it is at its thickest within this distance along the bone."""
FLESH: Final = 0.85
"""Share of that thickness around the bones which is the arm's for sure, also where the arm lies on the trunk."""
BEYOND_FLESH: Final = (1.15, 10.0)
"""Share of that thickness, and mm more, beyond which nothing is the arm's."""
THICKEST_MM: Final = 75.0
"""The distance from bone to skin in the upper arm of an obese patient."""
RADIUS_STEP_MM: Final = 6.0
"""Radii of the flesh are rounded to this, so that one distance map serves for many bone voxels."""
ROUNDING_MM: Final = 26.0
"""The trunk without an arm on it is at least this round; the shell of skin that is left around an arm is not."""
CUT_ROUNDING_MM: Final = 34.0
"""No ball of this radius fits into the piece of an arm that the side of the field of view leaves."""
REACH_MM: Final = 100.0
"""Soft tissue farther from the arm's bones than this is not the arm's."""


@dataclass(frozen=True, eq=False)
class ArmParts:
    """What is known of the arms before their flesh is divided from the trunk's; all (D, H, W) on the coarse grid.

    ``bones`` of the arms; ``loose`` what lies apart from the trunk; ``doubtful`` where a bone may be the arm's or the
    trunk's; ``behind`` what lies beyond the shoulder joint; ``joint`` where the nearer bone decides, and ``free``
    that part of it in which whatever lies apart is the arm's, whatever bone is near.
    """

    bones: BoolArray
    loose: BoolArray
    doubtful: BoolArray
    behind: BoolArray
    joint: BoolArray
    free: BoolArray

    def within(self, box: Box) -> "ArmParts":
        """The same in a box."""
        return ArmParts(*(part[box] for part in vars(self).values()))


def with_flesh(ct: CoarseCt, body: BoolArray, depth: FloatArray, bone: BoolArray, parts: ArmParts) -> BoolArray:
    """The arms with their flesh (D, H, W); ``depth`` below the skin in mm, ``bone`` filled.

    The arm's marks are its loose parts and the flesh close around its bones; the trunk's are its other bones, gas, and
    the trunk as it is without the arm, rounded. Meyer's watershed floods from all marks at once, in the order of the
    distance to the nearest of them; it stays inside the body: an arm beside the head loses no muscle to the jaw.
    """
    result = np.zeros_like(body)
    box = box_around(parts.bones | parts.loose, REACH_MM, ct.spacing_mm)
    body, parts = body[box], parts.within(box)
    gas = body & (ct.hu[box] < LUNG_HU[1]) & (depth[box] > GAS_DEPTH_MM)
    other_bone = bone[box] & ~parts.bones & ~parts.doubtful & (depth[box] > SKIN_MM)
    to_arm = distance_mm(parts.bones, ct.spacing_mm)
    nearer = to_arm < distance_mm(other_bone | gas, ct.spacing_mm)
    thickness = _thickness(parts.bones, depth[box], ct.spacing_mm)
    close = _around_bones(parts.bones, thickness * FLESH, ct.spacing_mm) & body & nearer
    sure = parts.bones | parts.loose | close
    cut = _cut_flesh(body & ~close & ~parts.loose, sure, at_the_side(ct)[box[1:]], ct.spacing_mm)
    trunk = _trunk(ct, body, parts, close, thickness, box) & ~cut | other_bone | (gas & ~parts.loose)
    at_joint = nearer | (parts.loose & parts.free)
    arm = np.where(parts.joint, at_joint, sure | cut) & body & ~parts.behind
    trunk = (np.where(parts.joint, ~at_joint, trunk) | parts.behind) & body & ~arm
    marks = np.where(arm, np.uint8(1), np.where(trunk, np.uint8(2), np.uint8(0)))
    relief = np.where(body, np.minimum(distance_mm(marks > 0, ct.spacing_mm), 254), 255).astype(np.uint8)
    result[box] = (flooded(marks, relief) == 1) & body & ((to_arm < REACH_MM) | parts.loose)
    return result


def _trunk(
    ct: CoarseCt, body: BoolArray, parts: ArmParts, close: BoolArray, thickness: FloatArray, box: Box
) -> BoolArray:
    """The body without the arms, rounded, and all that lies beyond the arms' thickness."""
    rest = body & ~close & ~parts.loose
    reach = thickness * BEYOND_FLESH[0] + BEYOND_FLESH[1]
    within = _around_bones(parts.bones, np.where(parts.bones, reach, np.float32(0)), ct.spacing_mm)
    rounded = _rounded(rest | ~ct.seen[box[1:]], ROUNDING_MM, ct.spacing_mm) & rest
    return rounded | (body & ~within & ~parts.loose)


def _cut_flesh(rest: BoolArray, arm: BoolArray, side: BoolArray, spacing_mm: Triple) -> BoolArray:
    """What the side of the field of view left of an arm whose bone lies beyond it: thin, at the side, under the arm."""
    thin = rest & ~_rounded(rest & ~side, CUT_ROUNDING_MM, spacing_mm)
    labels, count = ndimage.label(thin)
    at_side, hangs = np.zeros(count + 1, np.bool_), np.zeros(count + 1, np.bool_)
    at_side[labels[:, side]] = True
    hangs[labels[grown(arm)]] = True
    chosen = at_side & hangs
    chosen[0] = False
    return np.asarray(chosen[labels])


def _rounded(mask: BoolArray, radius_mm: float, spacing_mm: Triple) -> BoolArray:
    """The mask without whatever a ball of the radius does not fit into."""
    return np.asarray(distance_mm(depth_mm(mask, spacing_mm) > radius_mm, spacing_mm) <= radius_mm)


def _thickness(bones: BoolArray, depth: FloatArray, spacing_mm: Triple) -> FloatArray:
    """Depth of the arm's bones below the skin in mm, the greatest within NEIGHBOURS_MM along them; 0 elsewhere."""
    size = [2 * int(NEIGHBOURS_MM // s) + 1 for s in spacing_mm]
    greatest = ndimage.maximum_filter(np.where(bones, depth, np.float32(0)), size)
    return np.where(bones, np.clip(greatest, SKIN_MM, THICKEST_MM), np.float32(0)).astype(np.float32)


def _around_bones(bones: BoolArray, radius_mm: FloatArray, spacing_mm: Triple) -> BoolArray:
    """All that lies within each bone voxel's own radius of it."""
    steps = np.where(bones, np.ceil(radius_mm / RADIUS_STEP_MM), 0).astype(np.int32)
    inside = np.zeros_like(bones)
    for step in np.unique(steps[bones]):
        reach = (step - 0.5) * RADIUS_STEP_MM
        box = box_around(steps == step, reach, spacing_mm)
        inside[box] |= distance_mm(steps[box] == step, spacing_mm) <= reach
    return inside
