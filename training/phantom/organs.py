"""The phantom's organs of chest, abdomen and pelvis, the great vessels and the bowel."""

import itertools
from typing import Final

import numpy as np

from training.phantom.shapes import BoolArray, Canvas, Loft, Point, Region
from training.phantom.skeleton import RIB_CAGE, SIDES, Side
from training.phantom.tissues import Tissue
from twin_scanner.imaging.volume import FloatArray

ABDOMEN: Final = Loft(
    ((868, 36, 32, 10), (890, 50, 42, 4), (930, 62, 58, -8), (980, 100, 70, -8), (1040, 112, 64, -10),
     (1100, 112, 64, -8), (1160, 117, 73, -2), (1240, 124, 82, 2), (1262, 120, 78, 2)), 2.3,
)  # fmt: skip
"""The peritoneal cavity and what lies behind it."""
DOMES: Final[dict[Side, float]] = {-1: 1250.0, 1: 1238.0}
"""Height of the diaphragm's right and left dome."""
VESSELS: Final[tuple[tuple[tuple[float, ...], ...], ...]] = (
    ((-8, -28, 1285, 15), (-12, -22, 1330, 15), (0, 2, 1364, 14), (16, 26, 1345, 13), (18, 28, 1220, 12),
     (8, 8, 1120, 10), (2, 2, 1058, 9)),
    ((2, 2, 1058, 7), (48, -4, 985, 6), (74, -48, 905, 5), (72, -30, 800, 5), (88, 10, 620, 4), (96, 32, 480, 4),
     (100, 40, 150, 2.5)),
    ((2, 2, 1058, 7), (-48, -4, 985, 6), (-74, -48, 905, 5), (-72, -30, 800, 5), (-88, 10, 620, 4), (-96, 32, 480, 4),
     (-100, 40, 150, 2.5)),
    ((-17, 4, 1056, 11), (-22, 10, 1180, 12), (-24, -4, 1240, 12)),
    ((-17, 4, 1056, 8), (44, 6, 985, 7), (66, -44, 905, 6), (66, -24, 800, 5)),
    ((-17, 4, 1056, 8), (-46, 6, 985, 7), (-66, -44, 905, 6), (-66, -24, 800, 5)),
    ((-28, -20, 1290, 10), (-26, -22, 1375, 9), (26, -30, 1398, 7)),
    ((8, -38, 1300, 13), (10, -16, 1340, 12), (40, 8, 1312, 9)),
    ((10, -16, 1336, 11), (-40, 4, 1312, 9)),
    ((-22, -18, 1130, 6), (-60, -12, 1185, 6)),
)  # fmt: skip
"""Aorta, iliac to popliteal arteries, caval and iliac veins, pulmonary trunk, portal vein: (x, y, z, radius) each."""
COLON: Final[tuple[Point, ...]] = (
    (-96, -6, 975), (-100, 0, 1045), (-96, -8, 1100), (-60, -44, 1092), (0, -56, 1075), (60, -48, 1105), (98, 6, 1135),
    (102, 12, 1060), (92, 6, 990), (58, -10, 958), (20, 6, 972), (0, 40, 955), (0, 50, 915), (0, 40, 880),
)  # fmt: skip


def diaphragm_z(x: FloatArray, y: FloatArray) -> FloatArray:
    """Height of the diaphragm, two domes that fall 75 mm towards the ribs and 55 mm between them."""
    top = np.where(x < 0, np.float32(DOMES[-1]), np.float32(DOMES[1]))
    off = ((np.abs(x) - 66.0) / 80.0) ** 2 + ((y - 4.0) / 84.0) ** 2
    return np.asarray(top - 75.0 * np.minimum(off, 1.4), dtype=np.float32)


def paint_thoracic_organs(canvas: Canvas, heart_mm: float, rng: np.random.Generator) -> None:
    """Lungs with their vessels, and the heart in the mediastinum's fat."""
    chest = canvas.loft(RIB_CAGE, 7.0)
    x, y, z = canvas.axes(chest.box)
    chest = chest.keep(z > diaphragm_z(x, y))
    canvas.paint(chest, Tissue.VISCERAL_FAT)
    wall = np.interp(z, (1180, 1300, 1380, 1450), (30.0, 24.0, 22.0, 14.0)) - np.where(y < -45.0, 14.0, 0.0)
    canvas.paint(chest.keep(np.abs(x) > wall), Tissue.LUNG)
    for side in SIDES:
        for _ in range(26):
            _paint_lung_vessel(canvas, side, rng)
    gullet: tuple[Point, ...] = ((0.0, 2.0, 1490.0), (6.0, 22.0, 1360.0), (10.0, 16.0, 1210.0), (22.0, 2.0, 1190.0))
    for a, b in itertools.pairwise(gullet):
        canvas.paint(canvas.cone(a, b, 8.0, 8.0), Tissue.MUSCLE, only=(Tissue.VISCERAL_FAT,))
    _paint_heart(canvas, heart_mm)


def _paint_lung_vessel(canvas: Canvas, side: Side, rng: np.random.Generator) -> None:
    """A vessel from the hilum outwards, thinner and bent on its way."""
    hilum = (side * 36.0, 10.0, 1308.0)
    end = (side * rng.uniform(62, 118), rng.uniform(-62, 76), rng.uniform(1195, 1415))
    bend = tuple(0.5 * (a + b) + float(rng.normal(0, 9)) for a, b in zip(hilum, end, strict=True))
    middle = (bend[0], bend[1], bend[2])
    canvas.paint(canvas.cone(hilum, middle, 4.5, 2.6), Tissue.LUNG_VESSEL, only=(Tissue.LUNG,))
    canvas.paint(canvas.cone(middle, end, 2.6, 1.0), Tissue.LUNG_VESSEL, only=(Tissue.LUNG,))


def _paint_heart(canvas: Canvas, size_mm: float) -> None:
    """The left ventricle's wall around its blood, the right heart and the atria."""
    axis = (0.68, -0.52, -0.52)
    soft = (Tissue.VISCERAL_FAT, Tissue.LUNG, Tissue.LUNG_VESSEL, Tissue.MUSCLE)
    canvas.paint(
        canvas.spheroid((14.0, -34.0, 1262.0), axis, size_mm + 24.0, size_mm + 12.0), Tissue.VISCERAL_FAT, only=soft
    )
    canvas.paint(canvas.ellipsoid((-22.0, -36.0, 1272.0), (30.0, 32.0, 38.0)), Tissue.BLOOD, only=soft)
    canvas.paint(canvas.spheroid((10.0, -56.0, 1256.0), axis, size_mm + 8.0, size_mm - 12.0), Tissue.BLOOD, only=soft)
    canvas.paint(canvas.ellipsoid((4.0, 2.0, 1288.0), (34.0, 22.0, 24.0)), Tissue.BLOOD, only=soft)
    left = (40.0, -34.0, 1248.0)
    canvas.paint(canvas.spheroid(left, axis, size_mm + 9.0, size_mm - 4.0), Tissue.MYOCARDIUM)
    canvas.paint(canvas.spheroid((35.0, -30.0, 1252.0), axis, size_mm - 1.0, size_mm - 15.0), Tissue.BLOOD)


def paint_abdominal_organs(canvas: Canvas, female: bool, bladder_mm: float, rng: np.random.Generator) -> None:
    """Fat first, then bowel, then the solid organs, which keep their shape."""
    cavity = canvas.loft(ABDOMEN)
    x, y, z = canvas.axes(cavity.box)
    cavity = cavity.keep(z < diaphragm_z(x, y) - 4.0)
    canvas.paint(cavity, Tissue.VISCERAL_FAT)
    _paint_small_bowel(canvas, rng)
    _paint_colon(canvas, rng)
    for centre, radii, tissue in (
        ((-58.0, 2.0, 1168.0), (90.0, 92.0, 92.0), Tissue.LIVER),
        ((6.0, -34.0, 1186.0), (80.0, 42.0, 36.0), Tissue.LIVER),
        ((92.0, 40.0, 1172.0), (28.0, 40.0, 50.0), Tissue.SPLEEN),
    ):
        _paint_inside(canvas, cavity, canvas.ellipsoid(centre, radii), tissue)
    _paint_stomach(canvas, cavity)
    _paint_retroperitoneum(canvas)
    _paint_pelvic_organs(canvas, female, bladder_mm)


def _paint_inside(canvas: Canvas, cavity: Region, region: Region, tissue: int) -> None:
    """Paint what of a region lies in the cavity."""
    view: BoolArray = np.zeros(canvas.tissue[cavity.box].shape, np.bool_)
    low = [max(r.start, c.start) for r, c in zip(region.box, cavity.box, strict=True)]
    high = [max(a, min(r.stop, c.stop)) for a, r, c in zip(low, region.box, cavity.box, strict=True)]
    shared = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    in_cavity = tuple(slice(s.start - c.start, s.stop - c.start) for s, c in zip(shared, cavity.box, strict=True))
    in_region = tuple(slice(s.start - r.start, s.stop - r.start) for s, r in zip(shared, region.box, strict=True))
    view[in_cavity] = region.mask[in_region]
    canvas.paint(cavity.keep(view), tissue)


def _paint_stomach(canvas: Canvas, cavity: Region) -> None:
    """Contents with an air bubble in front, as a supine patient has it."""
    _paint_inside(canvas, cavity, canvas.ellipsoid((56.0, -22.0, 1164.0), (36.0, 40.0, 46.0)), Tissue.STOMACH)
    bubble = canvas.ellipsoid((56.0, -22.0, 1164.0), (30.0, 34.0, 40.0))
    _, y, _ = canvas.axes(bubble.box)
    canvas.paint(bubble.keep(y < -42.0), Tissue.GAS, only=(Tissue.STOMACH,))


def _paint_retroperitoneum(canvas: Canvas) -> None:
    """Kidneys, adrenals, pancreas and gall bladder."""
    for side in SIDES:
        z = 1092.0 if side > 0 else 1080.0
        canvas.paint(canvas.ellipsoid((side * 62.0, 30.0, z), (33.0, 30.0, 58.0)), Tissue.VISCERAL_FAT)
        canvas.paint(canvas.ellipsoid((side * 62.0, 30.0, z), (27.0, 24.0, 52.0)), Tissue.KIDNEY)
        canvas.paint(canvas.ellipsoid((side * 52.0, 26.0, z), (9.0, 8.0, 18.0)), Tissue.RENAL_PELVIS)
        canvas.paint(
            canvas.cone((side * 46.0, 20.0, z - 10.0), (side * 36.0, 10.0, 990.0), 1.7, 1.4), Tissue.RENAL_PELVIS
        )
        canvas.paint(canvas.ellipsoid((side * 38.0, 26.0, z + 52.0), (10.0, 7.0, 10.0)), Tissue.ADRENAL)
    for a, b in (((-22.0, -18.0, 1098.0), (12.0, -20.0, 1112.0)), ((12.0, -20.0, 1112.0), (74.0, 16.0, 1138.0))):
        canvas.paint(canvas.cone(a, b, 11.0, 9.0), Tissue.PANCREAS)
    canvas.paint(canvas.ellipsoid((-54.0, -48.0, 1112.0), (13.0, 12.0, 22.0)), Tissue.GALL)


def _paint_pelvic_organs(canvas: Canvas, female: bool, bladder_mm: float) -> None:
    if female:
        canvas.paint(canvas.ellipsoid((0.0, 14.0, 942.0), (27.0, 21.0, 30.0)), Tissue.UTERUS)
    else:
        canvas.paint(canvas.ellipsoid((0.0, -2.0, 874.0), (20.0, 16.0, 17.0)), Tissue.PROSTATE)
        for side in SIDES:
            canvas.paint(canvas.ellipsoid((side * 15.0, -46.0, 824.0), (12.0, 14.0, 17.0)), Tissue.TESTIS)
    full = (bladder_mm * 1.15, bladder_mm * 0.9, bladder_mm * 0.95)
    canvas.paint(canvas.ellipsoid((0.0, -14.0, 886.0 + full[2]), full), Tissue.BLADDER)


def _paint_small_bowel(canvas: Canvas, rng: np.random.Generator) -> None:
    """Loops that wander through the middle of the abdomen, some with gas."""
    for _ in range(16):
        points = rng.uniform((-82.0, -58.0, 962.0), (82.0, 2.0, 1078.0), (3, 3)).tolist()
        gas = rng.random() < 0.2
        for a, b in itertools.pairwise(points):
            start, end = (a[0], a[1], a[2]), (b[0], b[1], b[2])
            canvas.paint(
                canvas.cone(start, end, 12.0, 12.0), Tissue.SMALL_BOWEL, only=(Tissue.VISCERAL_FAT, Tissue.GAS)
            )
            if gas:
                canvas.paint(canvas.cone(start, end, 5.0, 5.0), Tissue.GAS, only=(Tissue.SMALL_BOWEL,))


def _paint_colon(canvas: Canvas, rng: np.random.Generator) -> None:
    """Caecum to rectum: a wall around stool, with gas in the parts in front."""
    path = [(x, y, z) for x, y, z in np.asarray(COLON, np.float64) + rng.normal(0, 3.0, (len(COLON), 3))]
    for a, b in itertools.pairwise(path):
        canvas.paint(canvas.cone(a, b, 18.0, 18.0), Tissue.COLON_WALL)
    for a, b in itertools.pairwise(path):
        content = Tissue.GAS if rng.random() < 0.35 else Tissue.STOOL
        canvas.paint(canvas.cone(a, b, 14.5, 14.5), content, only=(Tissue.COLON_WALL,))


def paint_vessels(canvas: Canvas) -> None:
    """The great vessels from the heart to the knees."""
    for path in VESSELS:
        for a, b in itertools.pairwise(path):
            canvas.paint(canvas.cone((a[0], a[1], a[2]), (b[0], b[1], b[2]), a[3], b[3]), Tissue.BLOOD)
