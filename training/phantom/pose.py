"""How a person holds the arms: down, up, or laid on the belly so that they rest on the trunk and on each other."""

import itertools
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from training.phantom.anatomy import ARMS_DOWN, ARMS_UP, ArmPosition, Figure, outer_trunk
from training.phantom.options import PhantomOptions, random_stream
from training.phantom.shapes import Loft, Point
from training.phantom.skeleton import SHOULDER_DOWN, ArmPose

Vector: TypeAlias = npt.NDArray[np.float64]
Obstacle: TypeAlias = Callable[[Vector], tuple[float, Vector]]
"""For a point: its distance to a surface (negative inside) and the direction that leads away from it."""

LENGTHS_MM: Final = (292.0, 243.0, 71.0, 80.0)
"""Shoulder to elbow, wrist, palm and finger tips: those of the arms that hang."""
RADII_MM: Final = (40.0, 38.0, 26.0, 22.0, 10.0)
"""The radii of the arm's flesh at shoulder, elbow, wrist, palm and finger tips."""
FAT_SHARES: Final = (0.5, 0.4, 0.3, 0.05, 0.0)
PRESSED_MM: Final = 3.0
"""Flesh that rests on flesh gives way this far."""
FOREARM_BULGE_MM: Final = 4.0
"""A forearm is thicker a quarter of its length behind the elbow than a straight taper is there."""
STEPS: Final = 120
SINKING_MM: Final = 3.0
"""An arm falls this far in the first of the steps in which it comes to rest, and not at all in the last ones."""
ELBOW_Y_MM: Final = 40.0
"""The elbow does not fall lower than this: beside the trunk it lies on the table's padding."""
HAND_FLAT: Final[Point] = (0.0, 0.0, -1.0)
"""Fingers of a hand that lies flat fan out from head to feet, the thumb to the head."""


def sample_figure(seed: int, options: PhantomOptions) -> Figure:
    """The body and the arms that a seed stands for."""
    rng = random_stream(seed, "figure")
    slim = 22.5 if options.sex == "M" else 21.0
    fat = float(np.clip(2.8 * (options.body_mass_index - slim) + rng.normal(0, 1.5), -9.0, 60.0))
    left, right = (_sample_pose(arms, fat, rng) for arms in options.arm_positions)
    bladder, heart = float(rng.uniform(22, 38)), float(rng.uniform(34, 40))
    if "crossed" in options.arm_positions:
        trunk = outer_trunk(fat, options.build)
        left, right = _laid_on(trunk, fat, options, (left, right), random_stream(seed, "crossed arms"))
    return Figure(options.sex, options.build, fat, left, right, bladder, heart)


def _sample_pose(arms: ArmPosition, fat_mm: float, rng: np.random.Generator) -> ArmPose:
    """An arm a little off its resting place; arms that hang make room for a stout trunk."""
    resting = ARMS_UP if arms == "up" else ARMS_DOWN
    if arms == "up":
        lift = float(rng.uniform(-12, 18))
        moves = {"elbow": (rng.normal(0, 8), rng.normal(0, 6), lift)}
        moves["wrist"] = (rng.normal(0, 10), rng.normal(0, 6), lift + rng.normal(0, 12))
        moves["palm"] = moves["fingers"] = moves["wrist"]
    else:
        aside = max(fat_mm, 0.0) * 0.9 + float(rng.uniform(-4, 12))
        moves = {"elbow": (aside, rng.normal(0, 6), 0.0), "wrist": (aside + rng.uniform(-6, 10), rng.normal(0, 8), 0.0)}
        moves["palm"] = moves["fingers"] = moves["wrist"]
    joints = {name: _moved(getattr(resting, name), move) for name, move in moves.items()}
    return ArmPose(
        resting.shoulder, joints["elbow"], joints["wrist"], joints["palm"], joints["fingers"], raised=arms == "up"
    )


def _moved(point: Point, move: tuple[float, float, float]) -> Point:
    return point[0] + float(move[0]), point[1] + float(move[1]), point[2] + float(move[2])


def _laid_on(
    trunk: Loft, fat_mm: float, options: PhantomOptions, poses: tuple[ArmPose, ArmPose], rng: np.random.Generator
) -> tuple[ArmPose, ArmPose]:
    """The poses with every crossed arm laid on the trunk, the right one also over the left one."""
    high = options.sex == "M" and rng.random() < 0.4
    level = float(rng.uniform(1215, 1250) if high else rng.uniform(1085, 1150))
    radii = [r + share * max(fat_mm, 0.0) for r, share in zip(RADII_MM, FAT_SHARES, strict=True)]
    obstacles: list[Obstacle] = [lambda point: _off_loft(trunk, point)]
    laid: list[ArmPose] = []
    for pose, arms, side in zip(poses, options.arm_positions, (1.0, -1.0), strict=True):
        wrist_z = level + float(rng.uniform(-35, 35))
        if arms != "crossed":
            laid.append(pose)
            continue
        chain = _rested(_folded(fat_mm, wrist_z, side), radii, obstacles)
        obstacles.append(_off_arm(chain, radii))
        joints = [(side * float(x), float(y), float(z)) for x, y, z in chain]
        laid.append(ArmPose(joints[0], joints[1], joints[2], joints[3], joints[4], HAND_FLAT, (0.0, 0.2, 0.6)))
    return laid[0], laid[1]


def _folded(fat_mm: float, wrist_z: float, side: float) -> Vector:
    """Joints (5, 3) of a bent arm near the trunk's front, before it comes to rest."""
    out = max(fat_mm, 0.0)
    elbow = (212.0 + 0.95 * out, -8.0 - 0.3 * out, min(1120.0, wrist_z + 20.0))
    wrist = (30.0, -100.0 - out, wrist_z)
    palm, fingers = (-40.0, -96.0 - out, wrist_z + 4.0), (-112.0, -80.0 - out, wrist_z + 2.0)
    chain = np.asarray([SHOULDER_DOWN, elbow, wrist, palm, fingers], np.float64)
    chain[:, 0] *= side
    return chain


def _rested(chain: Vector, radii: Sequence[float], obstacles: Sequence[Obstacle]) -> Vector:
    """The chain with its lengths kept, fallen on whatever it lies on; the shoulder stays."""
    chain = chain.copy()
    for step_number in range(STEPS):
        sinking = SINKING_MM * max(0.0, 1.0 - 1.25 * step_number / STEPS)
        chain[1:, 1] += np.where(chain[1:, 1] < ELBOW_Y_MM, sinking, 0.0)
        for bone in range(1, 4):
            for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
                _push_out(chain, bone, share, radii, obstacles)
        for end in range(1, 5):
            step = chain[end] - chain[end - 1]
            chain[end] = chain[end - 1] + step * (LENGTHS_MM[end - 1] / float(np.linalg.norm(step)))
    return chain


def _push_out(chain: Vector, bone: int, share: float, radii: Sequence[float], obstacles: Sequence[Obstacle]) -> None:
    """Move the two joints of a bone until its point at ``share`` of the length clears every obstacle."""
    point = chain[bone] + share * (chain[bone + 1] - chain[bone])
    bulge = FOREARM_BULGE_MM if bone == 1 and 0.0 < share < 0.8 else 0.0
    radius = radii[bone] + share * (radii[bone + 1] - radii[bone]) + bulge - PRESSED_MM
    for obstacle in obstacles:
        distance, away = obstacle(point)
        if distance < radius:
            chain[bone] += (1.0 - share) * (radius - distance) * away
            chain[bone + 1] += share * (radius - distance) * away


def _off_loft(loft: Loft, point: Vector) -> tuple[float, Vector]:
    """Distance to the loft's axial section at the point's height."""
    width, depth, middle = (float(v[0]) for v in loft.at(np.asarray([point[2]], np.float32), 0.0))
    angle = np.linspace(0.0, 2.0 * np.pi, 181)
    curve = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    curve = np.sign(curve) * np.abs(curve) ** (2.0 / loft.power) * (width, depth) + (0.0, middle)
    to_point = point[:2] - curve
    nearest = to_point[int(np.argmin(np.sum(to_point**2, axis=1)))]
    inside = (abs(point[0]) / width) ** loft.power + (abs(point[1] - middle) / depth) ** loft.power < 1.0
    distance = max(float(np.linalg.norm(nearest)), 1e-6)
    away = np.append(nearest / distance, 0.0)
    return (-distance, -away) if inside else (distance, away)


def _off_arm(chain: Vector, radii: Sequence[float]) -> Obstacle:
    """Distance to the flesh of an arm below its elbow."""

    def off(point: Vector) -> tuple[float, Vector]:
        best, away = np.inf, np.zeros(3)
        for (a, first), (b, last) in itertools.pairwise(list(zip(chain, radii, strict=True))[1:]):
            share = float(np.clip((point - a) @ (b - a) / ((b - a) @ (b - a)), 0.0, 1.0))
            to_point = point - (a + share * (b - a))
            distance = max(float(np.linalg.norm(to_point)), 1e-6)
            clearance = distance - (first + share * (last - first)) - FOREARM_BULGE_MM
            if clearance < best:
                best, away = clearance, to_point / distance
        return best, away

    return off
