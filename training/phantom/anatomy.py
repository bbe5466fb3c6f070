"""The phantom's body in reference coordinates: its outline, what lies inside, and its districts."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from scipy import ndimage

from training.phantom import skeleton
from training.phantom.head import SKULL_CENTRE, SKULL_RADII, head_plane_z, paint_airway, paint_head, paint_neck
from training.phantom.organs import paint_abdominal_organs, paint_thoracic_organs, paint_vessels
from training.phantom.shapes import BoolArray, Box, Canvas, Loft, Point, Region
from training.phantom.skeleton import ANKLE, SIDES, ArmPose, Side, mirrored
from training.phantom.tissues import Tissue
from twin_scanner.imaging.district_labels import DISTRICT_LABELS
from twin_scanner.imaging.volume import FloatArray, LabelArray

Sex: TypeAlias = Literal["F", "M"]
ArmPosition: TypeAlias = Literal["up", "down", "crossed"]
Build: TypeAlias = Literal["even", "abdominal"]
"""Where the trunk's fat is: everywhere, or on the belly more than on chest, shoulders and neck."""

REFERENCE_HEIGHT_MM: Final = 1750.0
SKIN_MM: Final = 2.0
LEAST_FAT_MM: Final = 3.0
ARM_REACH_MM: Final = 80.0
"""Flesh farther from the humerus than this is not the arm's."""
FREE_ARM_MM: Final = 30.0
"""From here towards the elbow, flesh of the arm outside the trunk's outline is the arm's, whatever bone is near."""
BEHIND_THE_HEAD_MM: Final = 34.0
"""The joint's capsule and the deltoid reach this far past the humeral head's centre, away from the elbow."""
LEGS_BELOW_MM: Final = skeleton.ISCHIUM[2] - 16.0
"""Height of the lowest point of the ischial tuberosities."""
TRUNK: Final = Loft(
    ((812, 16, 14, 24), (826, 60, 44, 24), (845, 132, 78, 22), (880, 168, 100, 14), (920, 176, 110, 8),
     (980, 168, 106, 4), (1050, 155, 101, 3),
     (1120, 145, 98, 2), (1200, 153, 104, 1), (1280, 162, 109, 0), (1350, 166, 106, 4), (1400, 164, 95, 12),
     (1432, 146, 80, 20), (1455, 112, 70, 22), (1478, 78, 64, 20), (1500, 61, 59, 15), (1560, 57, 60, 10),
     (1615, 57, 60, 8)), 2.5,
)  # fmt: skip
FACE: Final = Loft(
    (
        (1514, 26, 20, -70),
        (1530, 44, 38, -55),
        (1555, 60, 60, -34),
        (1600, 68, 80, -16),
        (1640, 72, 92, -7),
        (1670, 74, 94, -4),
    ),
)
ARMS_DOWN: Final = ArmPose(skeleton.SHOULDER_DOWN, (242, 16, 1108), (240, -12, 866), (236, -18, 795), (228, -22, 715))
ARMS_UP: Final = ArmPose(
    skeleton.SHOULDER_UP, (222, -18, 1702), (86, -40, 1826), (34, -44, 1862), (-24, -48, 1880), raised=True
)
BELLY: Final = np.array(
    [[812, 880, 960, 1100, 1220, 1330, 1420, 1480, 1530, 1615], [0.6, 0.9, 1.0, 1.05, 0.9, 0.7, 0.6, 0.45, 0.3, 0.2],
     [0.0, 0.05, 0.25, 0.35, 0.2, 0.05, 0, 0, 0, 0]]
)  # fmt: skip
"""Abdominal build: z, the share of the trunk's fat around it there, and how much more of it hangs in front."""
MAMMA: Final[Point] = (80.0, -92.0, 1290.0)


@dataclass(frozen=True)
class Figure:
    """The person: what a seed or an option decides of the body, in reference millimetres."""

    sex: Sex
    build: Build
    fat_mm: float
    """Fat under the trunk's skin beyond a slim person's (less is negative); limbs have half of it."""
    left: ArmPose
    right: ArmPose
    bladder_mm: float
    heart_mm: float

    def pose(self, side: Side) -> ArmPose:
        """The arm of a side; joints of both are given as if they were left ones."""
        return self.left if side > 0 else self.right


@dataclass(frozen=True)
class Part:
    """A piece of the outline: the solid made smaller by so many mm, its fat when slim, its share of further fat."""

    solid: Callable[[float], Region]
    slim_fat_mm: float
    fat_share: float
    side: Side | None = None
    """Set for the pieces of an arm."""


@dataclass(frozen=True, eq=False)
class Body:
    """What painting leaves: tissues on the canvas, and the district of every voxel."""

    canvas: Canvas
    districts: LabelArray


def paint_body(canvas: Canvas, figure: Figure, rng: np.random.Generator) -> Body:
    """Outline, organs, bones and airways of a figure; then its districts. ``rng`` decides bowel and lung vessels."""
    arms = _paint_outline(canvas, figure)
    outline = canvas.tissue > Tissue.AIR
    paint_thoracic_organs(canvas, figure.heart_mm, rng)
    paint_abdominal_organs(canvas, figure.sex == "F", figure.bladder_mm, rng)
    paint_vessels(canvas)
    paint_neck(canvas)
    skeleton.paint_spine(canvas)
    skeleton.paint_thorax(canvas)
    skeleton.paint_shoulder_girdle(canvas, [figure.pose(side) for side in SIDES])
    skeleton.paint_pelvis(canvas)
    humeri: dict[Side, list[Region]] = {}
    for side in SIDES:
        skeleton.paint_leg_bones(canvas, side)
        humeri[side] = skeleton.paint_arm_bones(canvas, figure.pose(side), side)
    paint_head(canvas)
    paint_airway(canvas)
    canvas.tissue[~outline] = Tissue.AIR
    return Body(canvas, _districts(canvas, outline, figure, arms, humeri))


def _paint_outline(canvas: Canvas, figure: Figure) -> BoolArray:
    """Skin, fat and muscle as three nested layers of all parts; returns where the arms' parts are."""
    arms = np.zeros(canvas.shape, np.bool_)
    parts = _parts(canvas, figure)
    for layer, tissue in enumerate((Tissue.SKIN, Tissue.FAT, Tissue.MUSCLE)):
        for part in parts:
            more = part.fat_share * figure.fat_mm
            fat = max(part.slim_fat_mm + more, LEAST_FAT_MM)
            depth = (0.0, SKIN_MM, SKIN_MM + fat)[layer]
            outward = fat - part.slim_fat_mm
            region = part.solid(depth - outward)
            canvas.paint(region, tissue)
            if part.side is not None and layer == 0:
                arms[region.box] |= region.mask
    return arms


def _parts(canvas: Canvas, figure: Figure) -> list[Part]:
    """Every piece of the outline."""
    parts = [
        Part(lambda s: _trunk(canvas, figure.build, s), 12.0, 1.0),
        Part(lambda s: canvas.ellipsoid(SKULL_CENTRE, SKULL_RADII, s), 2.0, 0.05),
        Part(lambda s: canvas.loft(FACE, s), 5.0, 0.15),
        Part(lambda s: canvas.cone((0, -96, 1640), (0, -112, 1604), 7.0 - s, 12.0 - s), 2.0, 0.0),
    ]
    for side in SIDES:
        parts += _leg_parts(canvas, side) + _arm_parts(canvas, figure.pose(side), side)
        parts.append(_ellipsoid_part(canvas, (side * 78.0, 10.0, 1632.0), (7.0, 15.0, 28.0), 1.0, 0.0))
        if figure.sex == "F":
            parts.append(_ellipsoid_part(canvas, mirrored(MAMMA, side), (58.0, 42.0, 56.0), 26.0, 1.2))
        else:
            parts.append(_ellipsoid_part(canvas, (side * 14.0, -46.0, 824.0), (20.0, 22.0, 26.0), 3.0, 0.0))
    return parts


def outer_trunk(fat_mm: float, build: Build) -> Loft:
    """The trunk's skin: TRUNK with so much more fat around it."""
    if build == "even":
        share, forward = np.ones(len(TRUNK.sections)), np.zeros(len(TRUNK.sections))
    else:
        heights = [row[0] for row in TRUNK.sections]
        share, forward = (np.interp(heights, BELLY[0], row) for row in BELLY[1:])
    return Loft(
        tuple(
            (z, width + s * fat_mm, depth + (s + f) * fat_mm, middle - f * fat_mm)
            for (z, width, depth, middle), s, f in zip(TRUNK.sections, share.tolist(), forward.tolist(), strict=True)
        ),
        TRUNK.power,
    )


def _trunk(canvas: Canvas, build: Build, shrink_mm: float) -> Region:
    """TRUNK made smaller, or larger by fat where the build has it."""
    if build == "even" or shrink_mm >= 0.0:
        return canvas.loft(TRUNK, shrink_mm)
    return canvas.loft(outer_trunk(-shrink_mm, build))


def _ellipsoid_part(canvas: Canvas, centre: Point, radii: Point, fat_mm: float, share: float) -> Part:
    return Part(lambda s: canvas.ellipsoid(centre, radii, s), fat_mm, share)


def _cone_part(
    canvas: Canvas, start: Point, end: Point, radii: tuple[float, float], fat: tuple[float, float], side: Side | None
) -> Part:
    return Part(lambda s: canvas.cone(start, end, radii[0] - s, radii[1] - s), fat[0], fat[1], side)


def _leg_parts(canvas: Canvas, side: Side) -> list[Part]:
    chain: list[tuple[Point, float]] = [
        ((100, 8, 872), 86.0), ((100, 8, 720), 76.0), ((97, 6, 520), 57.0), ((98, 14, 420), 56.0),
        ((100, 20, 260), 46.0), ((ANKLE[0], ANKLE[1], 90), 37.0), ((100, 34, 34), 33.0),
    ]  # fmt: skip
    parts = []
    for (a, first), (b, last) in itertools.pairwise(chain):
        parts.append(_cone_part(canvas, mirrored(a, side), mirrored(b, side), (first, last), (9.0, 0.5), None))
    foot: list[tuple[Point, Point, float, float]] = [
        ((100, 34, 30), (104, -70, 24), 32.0, 30.0), ((92, -66, 22), (88, -134, 6), 18.0, 13.0),
        ((116, -66, 20), (124, -122, 4), 18.0, 12.0), ((104, -66, 22), (106, -130, 6), 16.0, 12.0),
    ]  # fmt: skip
    for a, b, first, last in foot:
        parts.append(_cone_part(canvas, mirrored(a, side), mirrored(b, side), (first, last), (4.0, 0.05), None))
    return parts


def _arm_parts(canvas: Canvas, pose: ArmPose, side: Side) -> list[Part]:
    """From the deltoid to the finger tips."""
    shoulder, elbow, wrist, palm = (mirrored(p, side) for p in (pose.shoulder, pose.elbow, pose.wrist, pose.palm))
    middle = tuple(a + 0.35 * (b - a) for a, b in zip(shoulder, elbow, strict=True))
    upper = (middle[0], middle[1], middle[2])
    belly = tuple(a + 0.25 * (b - a) for a, b in zip(elbow, wrist, strict=True))
    forearm = (belly[0], belly[1], belly[2])
    parts = [
        _cone_part(canvas, shoulder, upper, (50.0, 47.0), (8.0, 0.5), side),
        _cone_part(canvas, upper, elbow, (47.0, 38.0), (8.0, 0.5), side),
        _cone_part(canvas, elbow, forearm, (38.0, 39.0), (6.0, 0.3), side),
        _cone_part(canvas, forearm, wrist, (39.0, 26.0), (6.0, 0.3), side),
        _cone_part(canvas, wrist, palm, (24.0, 22.0), (3.0, 0.05), side),
    ]
    rays = skeleton.hand_rays(pose, side)
    for start, end in rays:
        parts.append(_cone_part(canvas, start, end, (11.0, 8.0), (2.0, 0.0), side))
        parts.append(_cone_part(canvas, wrist, start, (15.0, 13.0), (2.0, 0.0), side))
    root = (palm[0] - side * 6.0, palm[1], palm[2] + (8.0 if pose.palm[2] < pose.wrist[2] else -8.0))
    thumb = root[0] - 52.0 * pose.fan[0], root[1] - 52.0 * pose.fan[1], root[2] - 52.0 * pose.fan[2]
    parts.append(_cone_part(canvas, wrist, thumb, (15.0, 10.0), (2.0, 0.0), side))
    return parts


def _districts(
    canvas: Canvas,
    outline: BoolArray,
    figure: Figure,
    arms: BoolArray,
    humeri: dict[Side, list[Region]],
) -> LabelArray:
    """Head above the plane of mandible and occiput, legs below the ischia, arms from the joint out, trunk the rest."""
    districts = np.where(outline, np.uint8(DISTRICT_LABELS["trunk"]), np.uint8(0))
    legs = slice(0, int(np.searchsorted(canvas.z, LEGS_BELOW_MM)))
    districts[legs][outline[legs]] = DISTRICT_LABELS["legs"]
    start = int(np.searchsorted(canvas.z, 1450.0))
    head = canvas.z[start:, None, None] > head_plane_z(canvas.y)[None, :, None]
    districts[start:][head & outline[start:]] = DISTRICT_LABELS["head"]
    trunk = _trunk(canvas, figure.build, -figure.fat_mm)
    arms[trunk.box] &= ~trunk.mask
    for side in SIDES:
        _divide_shoulder(canvas, figure.pose(side), side, humeri[side], arms, outline)
    districts[arms & outline] = DISTRICT_LABELS["arms"]
    return districts


def _divide_shoulder(
    canvas: Canvas,
    pose: ArmPose,
    side: Side,
    humerus: list[Region],
    arms: BoolArray,
    outline: BoolArray,
) -> None:
    """Around the joint the arm is what is nearer to the humerus than to the trunk's bones, and all of the free arm."""
    centre = mirrored(pose.shoulder, side)
    low, high = (tuple(c + sign * r for c, r in zip(centre, (105.0, 90.0, 150.0), strict=True)) for sign in (-1, 1))
    box = canvas.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    if any(s.stop <= s.start for s in box):
        return
    own = _mask_in(box, humerus)
    bones = np.isin(canvas.tissue[box], (Tissue.CORTEX, Tissue.RED_MARROW, Tissue.CARTILAGE, Tissue.SKULL_BONE)) & ~own
    if not own.any():
        return
    spacing = [float(np.median(np.diff(axis))) for axis in (canvas.z, canvas.y, canvas.x)]
    to_arm = ndimage.distance_transform_edt(~own, spacing)
    to_trunk = ndimage.distance_transform_edt(~bones, spacing) if bones.any() else np.full(own.shape, np.inf)
    arm = (to_arm < to_trunk) & (to_arm < ARM_REACH_MM) & outline[box]
    along = _along(canvas, box, centre, mirrored(pose.elbow, side))
    arms[box] &= along > FREE_ARM_MM
    arms[box] |= arm & (along > -BEHIND_THE_HEAD_MM)


def _along(canvas: Canvas, box: Box, shoulder: Point, elbow: Point) -> FloatArray:
    """Distance from the humeral head's centre in mm, along the humerus towards the elbow."""
    x, y, z = (values - np.float32(c) for values, c in zip(canvas.axes(box), shoulder, strict=True))
    axis = np.asarray(elbow, np.float32) - np.asarray(shoulder, np.float32)
    return np.asarray((x * axis[0] + y * axis[1] + z * axis[2]) / np.float32(np.linalg.norm(axis)))


def _mask_in(box: Box, regions: list[Region]) -> BoolArray:
    """The union of regions inside a box."""
    mask = np.zeros([s.stop - s.start for s in box], np.bool_)
    for region in regions:
        low = [max(r.start, b.start) for r, b in zip(region.box, box, strict=True)]
        high = [min(r.stop, b.stop) for r, b in zip(region.box, box, strict=True)]
        if all(a < b for a, b in zip(low, high, strict=True)):
            to = tuple(slice(a - b.start, c - b.start) for a, c, b in zip(low, high, box, strict=True))
            of = tuple(slice(a - r.start, c - r.start) for a, c, r in zip(low, high, region.box, strict=True))
            mask[to] |= region.mask[of]
    return mask
