"""The humeri: shafts with the heads they end in, heads alone where the field of view ends near them, and the joint."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from twin_scanner.districts.coarse_grid import CoarseCt
from twin_scanner.districts.landmarks.long_bones import Shaft, find_shafts
from twin_scanner.districts.morphology import BoolArray, Box, Point, ball, convolved, points_mm
from twin_scanner.imaging.volume import FloatArray, Triple

HEAD_RADIUS_MM: Final = 23.5
"""The radius of the humeral head with its cortex is 21 to 26 mm in women and men."""
HEAD_SHELL_MM: Final = (19.0, 26.0)
"""Radii between which the cortex of the humeral head lies."""
AROUND_HEAD_MM: Final = (29.0, 37.0)
"""Radii between which lie flesh and a little of glenoid and acromion."""
AROUND_HEAD: Final = 0.7
"""How much of the mean share of bone there is taken off the shell's."""
HEAD_SCORE: Final = 0.19
"""Mean share of bone in the shell less that: 0.21 to 0.4 around humeral heads, up to 0.17 anywhere else aside."""
HEAD_REACH_MM: Final = 65.0
"""The head's centre is at most this far from the last free section of the shaft, near the deltoid tuberosity."""
HEAD_ASIDE_MM: Final = (90.0, 250.0)
"""How far from the midline a humeral head lies."""
HEAD_FROM_APEX_MM: Final = (-100.0, 70.0)
"""How far above the highest slice of the lungs a humeral head lies."""
HEAD_DEEPER_MM: Final = 20.0
"""A head's centre lies at least this deep below the skin."""
NECK_MM: Final = (26.0, 62.0)
"""Along the shaft's axis lies bone from here to there, counted from the head's centre."""
PROBE_MM: Final = 9.0
"""Radius of the probe along that axis; scapular spine and clavicle are too thin for it."""
MOST_BACKWARD: Final = 0.35
"""Part of an axis of length 1 that may point to the back: an elbow rests on the table at most a little behind."""
MOST_INWARD: Final = 0.5
"""Part of that axis that may point to the midline."""
DIRECTIONS: Final = 200
"""Directions that are tried, evenly spread over the sphere."""
LEAST_UPRIGHT: Final = 0.3
"""No upper arm lies so nearly level that less of its axis points up or down."""
SCAPULA: Final = 0.5
"""What a direction loses for each part of it that points to the back or the midline, where the scapula lies."""
TUBE_MM: Final = 20.0
"""Around the axis of its neck, bone within this radius is the humerus's."""
LEAST_NECK: Final = 0.7
"""Share of bone along the probe."""
CUT_MM: Final = 75.0
"""A head nearer to an end of the image than this may have lost its shaft there."""
STUMP_MM: Final = 32.0
"""The neck of a humerus whose shaft was not found reaches this far from the head's centre."""
SHOULDER_MM: Final = 105.0
"""Half side of the cube around the humeral head in which the joint divides arm and trunk."""
BEHIND_HEAD_MM: Final = 40.0
"""Capsule and deltoid reach this far past the head's centre (radius 24 mm), away from the elbow."""
JOINT_MM: Final = (150.0, 85.0)
"""How far along the shaft and aside of it the nearer bone decides between arm and trunk."""


@dataclass(frozen=True, eq=False)
class Humerus:
    """A humerus as far as it was found: its bone, the two ends and the head's centre in mm, the head's shell score.

    ``head`` is the best place for the humeral head; it is one only where ``score`` reaches HEAD_SCORE.
    """

    bone: BoolArray
    elbow: Point
    shoulder: Point
    head: Point
    score: float

    @property
    def has_head(self) -> bool:
        """Whether the humeral head was seen."""
        return self.score >= HEAD_SCORE

    @property
    def axis(self) -> Point:
        """The direction from the head (or the upper end) to the elbow, of length 1."""
        way = self.elbow - (self.head if self.has_head else self.shoulder)
        return way / max(1.0, float(np.linalg.norm(way)))


def find_humeri(
    ct: CoarseCt,
    body: BoolArray,
    bone: BoolArray,
    depth: FloatArray,
    lateral: FloatArray,
    neck: tuple[int, float],
    floor: int,
) -> tuple[Humerus, ...]:
    """Humeri above slice ``floor``, shafts first; ``neck`` is the slice of the lungs' apex and
    the column of the midline.

    ``bone`` (D, H, W) is filled; ``depth`` below the skin and ``lateral`` (D, 1, W), the signed distance from the
    midline, in mm.
    """
    above = bone.copy()
    above[:floor] = False
    score = _head_scores(ct, bone, floor)
    root = np.asarray([neck[0], 0.0, neck[1]]) * np.asarray(ct.spacing_mm)
    humeri = [_with_head(ct, bone, shaft, root, score) for shaft in find_shafts(ct, body, above, lateral)]
    for side in (-1.0, 1.0):
        if not any(h.has_head and (h.head[2] - root[2]) * side > 0 for h in humeri):
            lone = _lone_head(ct, bone, depth, lateral, side, neck[0], score)
            if lone is not None:
                humeri.append(lone)
    return tuple(humeri)


def _head_scores(ct: CoarseCt, bone: BoolArray, floor: int) -> FloatArray:
    """Mean share of bone in the shell of a humeral head around every voxel above ``floor``."""
    scores = np.zeros(bone.shape, np.float32)
    shell = _template(ct.spacing_mm)
    start = max(0, floor - shell.shape[0])
    if start >= len(bone):
        return scores
    part = np.where(bone[start:], ct.bone[start:], np.float32(0))
    scores[start:] = convolved(part, shell)
    return scores


def _with_head(ct: CoarseCt, bone: BoolArray, shaft: Shaft, root: Point, scores: FloatArray) -> Humerus:
    """The shaft with its humeral head: near the end nearer to the root of the neck, where most bone lies in a shell."""
    shoulder, elbow = sorted(shaft.ends, key=lambda end: abs(end[0] - root[0]) + abs(end[2] - root[2]))
    box = box_between(shoulder - HEAD_REACH_MM, shoulder + HEAD_REACH_MM, ct)
    near = scores[box]
    best = np.unravel_index(int(np.argmax(near)), near.shape)
    head = (np.asarray(best) + [s.start for s in box]) * np.asarray(ct.spacing_mm)
    humerus = Humerus(shaft.voxels, elbow, shoulder, head, float(near[best]))
    if not humerus.has_head:
        return humerus
    straight = replace(humerus, elbow=_away_from(head, shaft, ct.spacing_mm))
    return replace(straight, bone=shaft.voxels | (tube(straight, ct, TUBE_MM) & bone))


def _away_from(head: Point, shaft: Shaft, spacing_mm: Triple) -> Point:
    """The far end of a shaft on the straight line from the head's centre through its middle."""
    away = np.argwhere(shaft.voxels) * np.asarray(spacing_mm) - head
    far = np.linalg.norm(away, axis=1)
    beyond = away[far > NECK_MM[0]]
    if not len(beyond):
        return max(shaft.ends, key=lambda end: float(np.linalg.norm(end - head)))
    middle = beyond.mean(axis=0)
    return np.asarray(head + middle / max(1.0, float(np.linalg.norm(middle))) * float(far.max()))


def _lone_head(
    ct: CoarseCt, bone: BoolArray, depth: FloatArray, lateral: FloatArray, side: float, apex: int, scores: FloatArray
) -> Humerus | None:
    """The best humeral head on one side (-1 right, 1 left) near the lungs' apex, with the bone that leads away."""
    outward = lateral * np.float32(side)
    low, high = (apex + round(mm / ct.spacing_mm[0]) for mm in HEAD_FROM_APEX_MM)
    place = (outward > HEAD_ASIDE_MM[0]) & (outward < HEAD_ASIDE_MM[1]) & (depth > HEAD_DEEPER_MM)
    place[: max(0, low)] = False
    place[max(0, high) :] = False
    if not place.any():
        return None
    inside = np.where(place, scores, np.float32(0))
    best = np.unravel_index(int(np.argmax(inside)), inside.shape)
    if inside[best] < HEAD_SCORE:
        return None
    head = np.asarray(best) * np.asarray(ct.spacing_mm)
    axis, share = _neck_axis(ct, bone, head, side)
    top = (bone.shape[0] - 1) * ct.spacing_mm[0]
    if share < LEAST_NECK:
        if top - head[0] < CUT_MM:
            axis = np.asarray([1.0, 0.0, 0.0])
        elif head[0] < CUT_MM:
            axis = np.asarray([-1.0, 0.0, 0.0])
        else:
            return None
    lone = Humerus(bone, head + axis * NECK_MM[1], head + axis * STUMP_MM, head, float(inside[best]))
    return replace(lone, bone=tube(lone, ct, TUBE_MM) & bone)


def _neck_axis(ct: CoarseCt, bone: BoolArray, head: Point, side: float) -> tuple[Point, float]:
    """The direction in which bone leads away from a head, and how much of a probe along it is bone."""
    directions = _directions(side)
    along = np.arange(NECK_MM[0], NECK_MM[1], 4.0)
    probe = ball(PROBE_MM, ct.spacing_mm)
    offsets = np.argwhere(probe) - np.asarray(probe.shape) // 2
    points = head + directions[:, None, None, :] * along[None, :, None, None] + offsets * np.asarray(ct.spacing_mm)
    index = np.round(points / np.asarray(ct.spacing_mm)).astype(int)
    inside = ((index >= 0) & (index < np.asarray(bone.shape))).all(axis=-1)
    d, h, w = np.moveaxis(np.where(inside[..., None], index, 0), -1, 0)
    hit = bone[d, h, w] & inside
    share = (hit.sum(axis=(1, 2)) / np.maximum(1, inside.sum(axis=(1, 2)))) * (inside.mean(axis=(1, 2)) > 0.5)
    share -= SCAPULA * (np.maximum(directions[:, 1], 0.0) + np.maximum(-directions[:, 2] * side, 0.0))
    best = int(np.argmax(share))
    return directions[best], float(share[best])


def _directions(side: float) -> npt.NDArray[np.float64]:
    """Axes (d, h, w) of length 1 along which an upper arm can lie; ``side`` is 1 where outward is to the left."""
    number = np.arange(DIRECTIONS)
    turn = number * np.pi * (3.0 - np.sqrt(5.0))
    z = 1.0 - 2.0 * (number + 0.5) / DIRECTIONS
    flat = np.sqrt(1.0 - z**2)
    axes = np.stack([z, flat * np.cos(turn), flat * np.sin(turn)], axis=1)
    return axes[(np.abs(z) > LEAST_UPRIGHT) & (axes[:, 1] < MOST_BACKWARD) & (axes[:, 2] * side > -MOST_INWARD)]


def tube(humerus: Humerus, ct: CoarseCt, radius_mm: float) -> BoolArray:
    """What lies around the axis from the head's centre to where the shaft begins."""
    reach = NECK_MM[1] + radius_mm
    box = box_between(humerus.head - reach, humerus.head + reach, ct)
    along, aside = _along_and_aside(humerus, points_mm(box, ct.spacing_mm))
    inside = np.zeros(ct.hu.shape, np.bool_)
    inside[box] = (along >= 0) & (along <= NECK_MM[1]) & (aside <= radius_mm)
    return inside


def capsule(humerus: Humerus, ct: CoarseCt, radius_mm: float) -> BoolArray:
    """What lies within the radius of the way from the shaft's end to the head's centre: head, tuberosities, neck."""
    way = humerus.head - humerus.shoulder
    low, high = (f(humerus.shoulder, humerus.head) for f in (np.minimum, np.maximum))
    box = box_between(low - radius_mm, high + radius_mm, ct)
    points = points_mm(box, ct.spacing_mm) - humerus.shoulder
    along = np.clip(points @ way / max(1.0, float(way @ way)), 0, 1)
    inside = np.zeros(ct.hu.shape, np.bool_)
    inside[box] = np.linalg.norm(points - along[..., None] * way, axis=-1) <= radius_mm
    return inside


def behind_the_joint(humerus: Humerus, ct: CoarseCt) -> BoolArray:
    """What lies near the shoulder beyond the humeral head, seen from the elbow: chest wall and neck, not the arm."""
    box = box_between(humerus.head - SHOULDER_MM, humerus.head + SHOULDER_MM, ct)
    inside = np.zeros(ct.hu.shape, np.bool_)
    inside[box] = (points_mm(box, ct.spacing_mm) - humerus.head) @ humerus.axis < -BEHIND_HEAD_MM
    return inside


def near_the_joint(humerus: Humerus, ct: CoarseCt, from_mm: float) -> BoolArray:
    """What lies beside the upper half of the humerus: there the nearer bone decides between arm and trunk."""
    box = box_between(humerus.head - JOINT_MM[0], humerus.head + JOINT_MM[0], ct)
    along, aside = _along_and_aside(humerus, points_mm(box, ct.spacing_mm))
    inside = np.zeros(ct.hu.shape, np.bool_)
    inside[box] = (along >= from_mm) & (along <= JOINT_MM[0]) & (aside < JOINT_MM[1])
    return inside


def _along_and_aside(humerus: Humerus, points: npt.NDArray[np.float32]) -> tuple[Point, Point]:
    """How far along the axis from the head's centre points in mm (..., 3) lie, and how far from the axis."""
    away = points - humerus.head
    along = away @ humerus.axis
    return along, np.asarray(np.sqrt(np.maximum((away**2).sum(axis=-1) - along**2, 0)))


def towards_the_joint(humerus: Humerus, ct: CoarseCt) -> BoolArray:
    """What lies near the shoulder and nearer to it than to the elbow: other bones there are scapula and clavicle."""
    joint = humerus.head if humerus.has_head else humerus.shoulder
    way = humerus.elbow - joint
    box = box_between(joint - SHOULDER_MM, joint + SHOULDER_MM, ct)
    inside = np.zeros(ct.hu.shape, np.bool_)
    inside[box] = (points_mm(box, ct.spacing_mm) - joint) @ way < 0.5 * float(way @ way)
    return inside


def box_between(low_mm: Point, high_mm: Point, ct: CoarseCt) -> Box:
    """The voxels between two corners, as far as the image reaches."""
    spacing = np.asarray(ct.spacing_mm)
    low = np.clip(np.floor(low_mm / spacing), 0, ct.hu.shape).astype(int)
    high = np.clip(np.ceil(high_mm / spacing) + 1, low, ct.hu.shape).astype(int)
    d, h, w = (slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return d, h, w


def _shell(spacing_mm: Triple, radii_mm: tuple[float, float]) -> npt.NDArray[np.float32]:
    """The voxels between two radii, as a mean."""
    outer, inner = ball(radii_mm[1], spacing_mm), ball(radii_mm[0], spacing_mm)
    margin = [((a - b) // 2, (a - b) // 2) for a, b in zip(outer.shape, inner.shape, strict=True)]
    shell = (outer & ~np.pad(inner, margin)).astype(np.float32)
    return shell / shell.sum()


def _template(spacing_mm: Triple) -> npt.NDArray[np.float32]:
    around, shell = _shell(spacing_mm, AROUND_HEAD_MM), _shell(spacing_mm, HEAD_SHELL_MM)
    margin = [((a - b) // 2, (a - b) // 2) for a, b in zip(around.shape, shell.shape, strict=True)]
    return np.asarray(np.pad(shell, margin) - np.float32(AROUND_HEAD) * around, dtype=np.float32)
