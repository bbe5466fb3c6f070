"""The phantom's bones in the reference body, and the joints that the arms' and legs' borders follow."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from training.phantom.shapes import Canvas, Loft, Point, Region
from training.phantom.tissues import Tissue

Side: TypeAlias = Literal[-1, 1]
SIDES: Final[tuple[Side, ...]] = (-1, 1)
"""Right (x < 0) and left (x > 0) of the patient."""

SPINE: Final = np.array(
    [[905, 72], [935, 74], [965, 72], [1000, 52], [1030, 36], [1060, 28], [1100, 26], [1150, 30], [1200, 38],
     [1260, 46], [1320, 50], [1380, 46], [1430, 36], [1480, 22], [1520, 12], [1560, 8], [1600, 8]], np.float32,
)  # fmt: skip
"""Middle of the vertebral bodies: z and y in mm."""
SACRUM_TOP_MM: Final = 1015.0
ATLAS_TOP_MM: Final = 1600.0
RIB_CAGE: Final = Loft(
    ((1090, 124, 84, 6), (1200, 134, 92, 4), (1280, 136, 92, 4), (1340, 124, 84, 10), (1390, 100, 68, 18),
     (1425, 72, 48, 24), (1450, 46, 34, 26)), 2.3,
)  # fmt: skip
"""The ribs lie on this surface; the lungs inside it."""
SHOULDER_DOWN: Final[Point] = (178.0, 12.0, 1398.0)
SHOULDER_UP: Final[Point] = (172.0, 10.0, 1420.0)
"""Centre of the left humeral head."""
HIP: Final[Point] = (88.0, 0.0, 915.0)
ISCHIUM: Final[Point] = (56.0, 36.0, 852.0)
"""Centre of the ischial tuberosity; its radius is 16 mm."""
HUMERAL_HEAD_MM: Final = 23.0
KNEE: Final[Point] = (95.0, 8.0, 505.0)
ANKLE: Final[Point] = (100.0, 22.0, 80.0)


@dataclass(frozen=True)
class ArmPose:
    """Joints of the left arm in reference mm; the right arm is its mirror image with its own jitter."""

    shoulder: Point
    elbow: Point
    wrist: Point
    palm: Point
    fingers: Point
    fan: Point = (0.0, 1.0, 0.0)
    """Direction from the thumb to the little finger."""
    apart: Point = (1.0, 0.0, 0.0)
    """Direction from ulna to radius at the elbow."""
    raised: bool = False


def mirrored(point: Point, side: Side) -> Point:
    """The point on the left (as given) or on the right."""
    return side * point[0], point[1], point[2]


def spine_y(z: float) -> float:
    """y of the vertebral bodies' middle at height z."""
    return float(np.interp(z, SPINE[:, 0], SPINE[:, 1]))


def bone(canvas: Canvas, start: Point, end: Point, radii: tuple[float, float], cortex_mm: float, marrow: int) -> Region:
    """A tube of cortical bone around marrow; returns all of it."""
    outer = canvas.paint(canvas.cone(start, end, *radii), Tissue.CORTEX)
    inner = canvas.cone(start, end, radii[0] - cortex_mm, radii[1] - cortex_mm)
    if min(radii) > cortex_mm:
        canvas.paint(inner, marrow, only=(Tissue.CORTEX,))
    return outer


def knob(canvas: Canvas, centre: Point, radii: Point, cortex_mm: float, marrow: int) -> Region:
    """An ellipsoid of bone with a shell of cortex."""
    outer = canvas.paint(canvas.ellipsoid(centre, radii), Tissue.CORTEX)
    canvas.paint(canvas.ellipsoid(centre, radii, cortex_mm), marrow)
    return outer


def paint_pelvis(canvas: Canvas) -> None:
    """Hip bones, sacrum and symphysis; the lowest bone is the ischial tuberosity."""
    for side in SIDES:
        points = {
            name: mirrored(point, side)
            for name, point in {
                "socket": (90.0, 2.0, 938.0), "front": (122.0, -46.0, 1008.0), "crest": (116.0, 18.0, 1052.0),
                "back": (44.0, 74.0, 1000.0), "notch": (56.0, 58.0, 950.0), "pubis": (12.0, -50.0, 882.0),
                "column": (72.0, 20.0, 895.0),
            }.items()
        }  # fmt: skip
        blades = (("socket", "front", "crest"), ("socket", "crest", "back"), ("socket", "back", "notch"))
        for thickness, tissue in ((13.0, Tissue.CORTEX), (8.0, Tissue.RED_MARROW)):
            for a, b, c in blades:
                canvas.paint(canvas.plate((points[a], points[b], points[c]), thickness), tissue)
        tubes = (("socket", "pubis", 13.0, 8.0), ("socket", "column", 18.0, 15.0), ("notch", "socket", 10.0, 16.0))
        for a, b, first, last in tubes:
            bone(canvas, points[a], points[b], (first, last), 3.0, Tissue.RED_MARROW)
        tuber = mirrored(ISCHIUM, side)
        bone(canvas, points["column"], tuber, (15.0, 16.0), 3.0, Tissue.RED_MARROW)
        bone(canvas, mirrored((42.0, 6.0, 858.0), side), points["pubis"], (7.0, 7.0), 3.0, Tissue.RED_MARROW)
        bone(canvas, tuber, mirrored((42.0, 6.0, 858.0), side), (12.0, 7.0), 3.0, Tissue.RED_MARROW)
        hip = mirrored(HIP, side)
        cup = canvas.ellipsoid(hip, (32.0, 32.0, 32.0))
        x, _, z = canvas.axes(cup.box)
        cup = cup.keep(side * (x - hip[0]) < 8.0 + 0.9 * (z - hip[2]))
        canvas.paint(cup, Tissue.CORTEX)
        canvas.paint(canvas.ellipsoid(hip, (27.0, 27.0, 27.0)), Tissue.CARTILAGE)
    canvas.paint(canvas.ellipsoid((0.0, -52.0, 882.0), (6.0, 11.0, 18.0)), Tissue.CARTILAGE)


def paint_spine(canvas: Canvas) -> None:
    """Sacrum, 24 vertebrae with discs, arches and processes, and the canal with the cord."""
    for low, high, wide in ((965.0, SACRUM_TOP_MM, 48.0), (935.0, 970.0, 34.0), (908.0, 938.0, 16.0)):
        middle = (low + high) / 2.0
        radii = (wide, 15.0, (high - low) / 2.0 + 6.0)
        knob(canvas, (0.0, spine_y(middle) + 4.0, middle), radii, 3.0, Tissue.RED_MARROW)
    tops = np.cumsum([34, 34, 33, 33, 32, 27, 27, 26, 25, 25, 24, 23, 23, 22, 21, 20, 19, 18, 17, 17, 16, 16, 15, 20])
    heights = SACRUM_TOP_MM + tops / tops[-1] * (ATLAS_TOP_MM - SACRUM_TOP_MM)
    low = SACRUM_TOP_MM
    for number, top in enumerate(heights):
        _paint_vertebra(canvas, low, float(top), number)
        low = float(top)
    canal = [(0.0, spine_y(z) + _half_depth(z) + 9.0, z) for z in np.linspace(960.0, 1612.0, 40).tolist()]
    for a, b in itertools.pairwise(canal):
        canvas.paint(canvas.cone(a, b, 8.0, 8.0), Tissue.LIQUOR)
        if a[2] > 1110.0:
            canvas.paint(canvas.cone(a, b, 5.0, 5.0), Tissue.SPINAL_CORD)


def _half_depth(z: float) -> float:
    return float(np.interp(z, (SACRUM_TOP_MM, 1200.0, 1400.0, 1490.0, 1600.0), (18.0, 16.0, 12.0, 9.0, 8.0)))


def _paint_vertebra(canvas: Canvas, low: float, high: float, number: int) -> None:
    """The vertebra ``number`` (0: L5, 23: C1) between two heights, the disc below it."""
    middle = (low + high) / 2.0
    y, deep = spine_y(middle), _half_depth(middle)
    wide = float(np.interp(middle, (SACRUM_TOP_MM, 1200.0, 1400.0, 1490.0, 1600.0), (27.0, 20.0, 15.0, 13.0, 13.0)))
    gap = 0.14 * (high - low)
    body = Loft(((low, wide, deep, y), (high, wide, deep, y)), 2.4)
    canvas.paint(canvas.loft(body), Tissue.DISC)
    solid = Loft(((low + gap, wide, deep, y), (high - gap, wide, deep, y)), 2.4)
    canvas.paint(canvas.loft(solid), Tissue.CORTEX)
    canvas.paint(canvas.loft(solid, 2.2), Tissue.RED_MARROW)
    arch = y + deep + 9.0
    ring = Loft(((low + gap, 14.0, 13.0, arch), (high - 0.35 * (high - low), 14.0, 13.0, arch)))
    canvas.paint(canvas.loft(ring), Tissue.CORTEX)
    reach = float(np.interp(number, (0, 5, 12, 17, 23), (24, 24, 26, 22, 16)))
    tip = (0.0, arch + reach, middle - (12.0 if 5 <= number < 17 else 3.0))
    canvas.paint(canvas.cone((0.0, arch + 8.0, middle), tip, 5.0, 4.0), Tissue.CORTEX)
    for side in SIDES:
        out = (side * (wide + (16.0 if number < 17 else 9.0)), arch, middle)
        canvas.paint(canvas.cone((side * 12.0, arch - 3.0, middle), out, 5.0, 4.0), Tissue.CORTEX)


def paint_thorax(canvas: Canvas) -> None:
    """Ribs with their cartilages and the sternum."""
    for pair in range(12):
        for side in SIDES:
            _paint_rib(canvas, pair, side)
    front = [(0.0, -62.0, 1392.0), (0.0, -84.0, 1330.0), (0.0, -88.0, 1245.0)]
    for a, b in itertools.pairwise(front):
        for offset in (-9.0, 9.0):
            start, end = (offset, a[1], a[2]), (offset, b[1], b[2])
            bone(canvas, start, end, (8.5, 8.5), 2.5, Tissue.RED_MARROW)


def _paint_rib(canvas: Canvas, pair: int, side: Side) -> None:
    """Rib ``pair`` (0: first) from its vertebra around the cage, falling towards the front, then cartilage."""
    z_back = 1450.0 - 24.0 * pair
    last = float(np.interp(pair, (0, 6, 9, 10, 11), (1.0, 1.0, 0.9, 0.62, 0.42)))
    fall = float(np.interp(pair, (0, 3, 6, 11), (45.0, 75.0, 105.0, 85.0)))
    steps = np.linspace(0.0, last, 14)
    heights = (z_back - fall * steps**1.2).astype(np.float32)
    width, depth, middle = RIB_CAGE.at(heights, 0.0)
    angle = np.radians(14.0 + 152.0 * steps)
    points = [
        (side * float(w * np.sin(a) ** 0.8), float(m + d * np.cos(a)), float(z))
        for w, d, m, z, a in zip(width, depth, middle, heights, angle, strict=True)
    ]
    points[0] = (side * 22.0, spine_y(z_back) + 14.0, z_back)
    bony = 0.72 if pair < 10 else 1.0
    for a, b, step in zip(points[:-1], points[1:], steps[1:], strict=True):
        if step <= bony or pair >= 10:
            canvas.paint(canvas.cone(a, b, 5.5, 5.5), Tissue.CORTEX)
            canvas.paint(canvas.cone(a, b, 3.2, 3.2), Tissue.RED_MARROW)
        elif pair < 7:
            canvas.paint(canvas.cone(a, b, 5.5, 5.0), Tissue.CARTILAGE)


def paint_shoulder_girdle(canvas: Canvas, poses: Sequence[ArmPose]) -> None:
    """Clavicles and scapulae, which stay with the trunk; a raised arm turns the acromion inward.

    ``poses`` are those of the arms in the order of SIDES.
    """
    for side, pose in zip(SIDES, poses, strict=True):
        sx, sy, sz = mirrored(pose.shoulder, side)
        glenoid = (sx - side * 30.0, sy + 6.0, sz)
        roof = (20.0, 24.0, 28.0) if pose.raised else (2.0, 14.0, 38.0)
        acromion = (sx - side * roof[0], sy + roof[1], sz + roof[2])
        tip = (sx - side * 66.0, 84.0, sz - 128.0)
        upper = (sx - side * 92.0, 82.0, sz - 4.0)
        for corners in ((glenoid, tip, upper), (glenoid, upper, (sx - side * 84.0, 72.0, sz + 22.0))):
            canvas.paint(canvas.plate(corners, 4.5), Tissue.CORTEX)
        bone(canvas, glenoid, tip, (9.0, 6.0), 2.5, Tissue.RED_MARROW)
        bone(canvas, upper, (acromion[0], acromion[1] + 12.0, acromion[2] - 4.0), (6.0, 7.0), 2.5, Tissue.RED_MARROW)
        knob(canvas, acromion, (16.0, 14.0, 6.0), 2.5, Tissue.RED_MARROW)
        knob(canvas, glenoid, (6.0, 14.0, 18.0), 2.5, Tissue.RED_MARROW)
        coracoid = (sx - side * 16.0, sy - 26.0, sz + 16.0)
        bone(canvas, glenoid, coracoid, (7.0, 6.0), 2.5, Tissue.RED_MARROW)
        clavicle = [
            (side * 18.0, -56.0, 1398.0),
            (side * 70.0, -54.0, 1412.0),
            (side * 115.0, -20.0, sz + 30.0),
            acromion,
        ]
        for a, b in itertools.pairwise(clavicle):
            bone(canvas, a, b, (6.5, 6.5), 3.0, Tissue.RED_MARROW)


def paint_arm_bones(canvas: Canvas, pose: ArmPose, side: Side) -> list[Region]:
    """Humerus, radius, ulna and hand; returns all of them."""
    shoulder, elbow, wrist, palm, fingers = (
        mirrored(p, side) for p in (pose.shoulder, pose.elbow, pose.wrist, pose.palm, pose.fingers)
    )
    radius = HUMERAL_HEAD_MM
    regions = [knob(canvas, shoulder, (radius, radius, radius), 3.0, Tissue.RED_MARROW)]
    neck = _between(shoulder, elbow, 0.06)
    regions.append(bone(canvas, neck, _between(shoulder, elbow, 0.3), (19.0, 12.0), 4.0, Tissue.FATTY_MARROW))
    regions.append(bone(canvas, _between(shoulder, elbow, 0.3), elbow, (12.0, 12.0), 4.5, Tissue.FATTY_MARROW))
    knob(canvas, shoulder, (radius - 3.0,) * 3, 0.1, Tissue.RED_MARROW)
    regions.append(knob(canvas, elbow, (26.0, 15.0, 16.0), 3.0, Tissue.FATTY_MARROW))
    for offset, thick in ((10.0, 8.0), (-10.0, 8.5)):
        start = _aside((elbow[0], elbow[1] + 2.0, elbow[2]), pose.apart, offset)
        end = _aside(_aside(wrist, pose.apart, 0.8 * offset), pose.fan, offset)
        regions.append(bone(canvas, start, end, (thick, thick + 1.0), 3.0, Tissue.FATTY_MARROW))
    regions.append(knob(canvas, _between(wrist, palm, 0.25), (13.0, 18.0, 14.0), 2.5, Tissue.RED_MARROW))
    for ray in (-24.0, -8.0, 8.0, 24.0):
        start, end = (_ray((wrist, palm, fingers), pose.fan, ray, share) for share in (0.5, 1.9))
        regions.append(bone(canvas, start, end, (4.5, 3.5), 2.0, Tissue.FATTY_MARROW))
    return regions


def paint_leg_bones(canvas: Canvas, side: Side) -> None:
    """Femur, patella, tibia, fibula and foot; painted after the pelvis, the femoral head stays in its socket."""
    hip, knee, ankle = (mirrored(p, side) for p in (HIP, KNEE, ANKLE))
    trochanter = mirrored((133.0, 14.0, 900.0), side)
    bone(canvas, hip, trochanter, (15.0, 15.0), 3.0, Tissue.RED_MARROW)
    knob(canvas, hip, (24.0, 24.0, 24.0), 2.5, Tissue.RED_MARROW)
    knob(canvas, trochanter, (17.0, 20.0, 24.0), 3.0, Tissue.RED_MARROW)
    shaft = mirrored((126.0, 10.0, 862.0), side)
    bone(canvas, shaft, (knee[0], knee[1], knee[2] + 30.0), (15.5, 15.0), 6.0, Tissue.FATTY_MARROW)
    knob(canvas, (knee[0], knee[1], knee[2] + 10.0), (40.0, 29.0, 27.0), 2.5, Tissue.FATTY_MARROW)
    knob(canvas, (knee[0], knee[1] - 44.0, knee[2] + 14.0), (22.0, 9.0, 21.0), 2.5, Tissue.FATTY_MARROW)
    knob(canvas, (knee[0], knee[1], knee[2] - 36.0), (38.0, 26.0, 20.0), 2.5, Tissue.FATTY_MARROW)
    canvas.paint(canvas.ellipsoid((knee[0], knee[1], knee[2] - 17.0), (34.0, 22.0, 4.0)), Tissue.CARTILAGE)
    bone(canvas, (knee[0], knee[1] - 4.0, knee[2] - 45.0), ankle, (21.0, 14.0), 5.0, Tissue.FATTY_MARROW)
    fibula = mirrored((128.0, 26.0, 455.0), side), mirrored((124.0, 32.0, 78.0), side)
    bone(canvas, *fibula, (7.5, 7.5), 3.0, Tissue.FATTY_MARROW)
    knob(canvas, (ankle[0], ankle[1] + 2.0, 56.0), (20.0, 26.0, 15.0), 2.5, Tissue.FATTY_MARROW)
    bone(canvas, (ankle[0], 12.0, 38.0), (ankle[0], 56.0, 24.0), (17.0, 18.0), 2.5, Tissue.FATTY_MARROW)
    for ray in range(5):
        start = (ankle[0] + side * (-16.0 + 9.0 * ray), 6.0, 36.0)
        end = (ankle[0] + side * (-22.0 + 15.0 * ray), -118.0 + 9.0 * ray, 4.0)
        bone(canvas, start, end, (7.0, 5.0), 2.5, Tissue.FATTY_MARROW)


def _between(a: Point, b: Point, share: float) -> Point:
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]), a[2] + share * (b[2] - a[2])


def _aside(point: Point, direction: Point, offset: float) -> Point:
    return point[0] + offset * direction[0], point[1] + offset * direction[1], point[2] + offset * direction[2]


def _ray(hand: tuple[Point, Point, Point], fan: Point, offset: float, share: float) -> Point:
    """A point of a hand's ray: 0 wrist, 1 palm, 2 finger tips; rays fan out from the thumb to the little finger."""
    wrist, palm, fingers = hand
    base = _between(wrist, palm, share) if share <= 1.0 else _between(palm, fingers, share - 1.0)
    return _aside(base, fan, offset * min(share, 1.0))


def hand_rays(pose: ArmPose, side: Side) -> Sequence[tuple[Point, Point]]:
    """The flesh of the fingers: from the palm to the tips."""
    hand = mirrored(pose.wrist, side), mirrored(pose.palm, side), mirrored(pose.fingers, side)
    return [
        (_ray(hand, pose.fan, offset, 1.0), _ray(hand, pose.fan, offset, 2.0)) for offset in (-26.0, -9.0, 8.0, 25.0)
    ]
