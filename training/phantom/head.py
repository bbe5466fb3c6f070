"""The phantom's head and neck: skull, brain, face, airway and glands, and the plane where the head's district ends."""

import itertools
from typing import Final

import numpy as np

from training.phantom.shapes import Canvas, Point, Region
from training.phantom.skeleton import SIDES, bone, knob
from training.phantom.tissues import Tissue
from twin_scanner.imaging.volume import FloatArray

SKULL_CENTRE: Final[Point] = (0.0, -2.0, 1659.0)
SKULL_RADII: Final[Point] = (77.0, 97.0, 92.0)
"""The cranium with its skin."""
SCALP_MM: Final = 6.0
VAULT_MM: Final = 7.0
FLOOR: Final = np.array([[-95, 1640], [-20, 1632], [-4, 1618], [14, 1603], [54, 1600], [95, 1622]], np.float32)
"""Floor of the cranial cavity: y and z."""
CHIN: Final = (-79.0, 1524.0)
OCCIPUT: Final = (54.0, 1593.5)
"""(y, z) of the lowest points of the mandible and of the occipital bone: the plane through both ends the head."""
MANDIBLE: Final[tuple[Point, ...]] = (
    (50.0, -8.0, 1622.0), (47.0, -16.0, 1562.0), (34.0, -52.0, 1543.0), (14.0, -76.0, 1533.0), (0.0, -79.0, 1532.0),
)  # fmt: skip


def head_plane_z(y: FloatArray) -> FloatArray:
    """Height at y of the plane through the lowest points of mandible and occiput."""
    slope = (OCCIPUT[1] - CHIN[1]) / (OCCIPUT[0] - CHIN[0])
    return np.asarray(CHIN[1] + slope * (y - CHIN[0]), dtype=np.float32)


def paint_head(canvas: Canvas) -> None:
    """Everything inside the head's skin."""
    _paint_skull(canvas)
    _paint_brain(canvas)
    _paint_face(canvas)
    _paint_mandible(canvas)
    _paint_air_spaces(canvas)


def paint_neck(canvas: Canvas) -> None:
    """Thyroid, larynx and the great vessels; painted before the spine."""
    for side in SIDES:
        canvas.paint(canvas.ellipsoid((side * 16.0, -22.0, 1462.0), (9.0, 9.0, 22.0)), Tissue.THYROID)
        for start, end, radius in (
            ((side * 18.0, -12.0, 1400.0), (side * 25.0, -8.0, 1560.0), 4.0),
            ((side * 26.0, -14.0, 1405.0), (side * 34.0, 0.0, 1570.0), 6.0),
        ):
            canvas.paint(canvas.cone(start, end, radius, radius), Tissue.BLOOD)
    canvas.paint(canvas.cone((0.0, -22.0, 1478.0), (0.0, -24.0, 1500.0), 16.0, 17.0), Tissue.CARTILAGE)


def paint_airway(canvas: Canvas) -> None:
    """From the nasopharynx to the main bronchi; painted last, it stays open."""
    path: list[tuple[Point, float]] = [
        ((0.0, -24.0, 1598.0), 9.0), ((0.0, -20.0, 1560.0), 9.0), ((0.0, -22.0, 1520.0), 8.0),
        ((0.0, -24.0, 1488.0), 6.0), ((0.0, -22.0, 1450.0), 8.5), ((0.0, -6.0, 1400.0), 8.5), ((0.0, 8.0, 1338.0), 8.5),
    ]  # fmt: skip
    for (a, r), (b, q) in itertools.pairwise(path):
        canvas.paint(canvas.cone(a, b, r + 2.0, q + 2.0), Tissue.CARTILAGE, only=(Tissue.MUSCLE, Tissue.VISCERAL_FAT))
    for (a, r), (b, q) in itertools.pairwise(path):
        canvas.paint(canvas.cone(a, b, r, q), Tissue.GAS)
    for side in SIDES:
        canvas.paint(canvas.cone((0.0, 8.0, 1338.0), (side * 42.0, 16.0, 1300.0), 7.0, 5.0), Tissue.GAS)


def _floor(y: FloatArray) -> FloatArray:
    return np.interp(y, FLOOR[:, 0], FLOOR[:, 1]).astype(np.float32)


def _above_floor(canvas: Canvas, region: Region, offset_mm: float) -> Region:
    _, y, z = canvas.axes(region.box)
    return region.keep(z > _floor(y) + np.float32(offset_mm))


def _paint_skull(canvas: Canvas) -> None:
    """The vault and the base, a shell around the brain's cavity."""
    shell = _above_floor(canvas, canvas.ellipsoid(SKULL_CENTRE, SKULL_RADII, SCALP_MM), -7.0)
    canvas.paint(shell, Tissue.SKULL_BONE)
    diploe = canvas.ellipsoid(SKULL_CENTRE, SKULL_RADII, SCALP_MM + 2.5)
    canvas.paint(_above_floor(canvas, diploe, -4.0), Tissue.RED_MARROW)
    inner = canvas.ellipsoid(SKULL_CENTRE, SKULL_RADII, SCALP_MM + VAULT_MM - 2.5)
    canvas.paint(_above_floor(canvas, inner, -2.5), Tissue.SKULL_BONE)
    cavity = canvas.ellipsoid(SKULL_CENTRE, SKULL_RADII, SCALP_MM + VAULT_MM)
    canvas.paint(_above_floor(canvas, cavity, 0.0), Tissue.LIQUOR)
    for side in SIDES:
        knob(canvas, (side * 52.0, 14.0, 1608.0), (13.0, 17.0, 15.0), 3.0, Tissue.CORTEX)
        for offset in (-6.0, 0.0, 6.0):
            canvas.paint(canvas.ellipsoid((side * 54.0, 14.0 + offset, 1606.0), (4.0, 2.4, 7.0)), Tissue.GAS)


def _paint_brain(canvas: Canvas) -> None:
    """Grey matter folded around white matter, ventricles, cerebellum and brain stem."""
    brain = _above_floor(canvas, canvas.ellipsoid(SKULL_CENTRE, SKULL_RADII, SCALP_MM + VAULT_MM + 3.0), 3.0)
    canvas.paint(brain, Tissue.GREY_MATTER)
    x, y, z = canvas.axes(brain.box)
    radii = [r - SCALP_MM - VAULT_MM - 3.0 for r in SKULL_RADII]
    rho = np.sqrt(
        sum(((v - np.float32(c)) / np.float32(r)) ** 2 for v, c, r in zip((x, y, z), SKULL_CENTRE, radii, strict=True))
    )
    folds = np.sin(x / 4.6) * np.sin(y / 5.1 + 1.0) + np.sin(z / 4.9) * np.sin(y / 5.6 + 2.0)
    white = brain.keep((rho < 0.8 + 0.06 * folds) & (z > 1640.0) & (np.abs(x) > 6.0))
    canvas.paint(white, Tissue.WHITE_MATTER)
    canvas.paint(brain.keep((np.abs(x) < 1.6) & (z > 1690.0)), Tissue.LIQUOR)
    for side in SIDES:
        canvas.paint(canvas.ellipsoid((side * 15.0, 2.0, 1674.0), (10.0, 17.0, 11.0)), Tissue.GREY_MATTER)
        canvas.paint(canvas.ellipsoid((side * 12.0, -22.0, 1682.0), (6.0, 9.0, 11.0)), Tissue.GREY_MATTER)
        canvas.paint(canvas.ellipsoid((side * 10.0, 0.0, 1690.0), (5.0, 32.0, 7.0)), Tissue.LIQUOR)
    inside = (Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.LIQUOR)
    canvas.paint(canvas.ellipsoid((0.0, 46.0, 1622.0), (50.0, 34.0, 22.0)), Tissue.CEREBELLUM, only=inside)
    canvas.paint(canvas.cone((0.0, 6.0, 1655.0), (0.0, 22.0, 1602.0), 13.0, 8.0), Tissue.WHITE_MATTER, only=inside)


def _paint_face(canvas: Canvas) -> None:
    """Orbits, cheek bones, maxilla, palate and the salivary glands."""
    canvas.paint(canvas.ellipsoid((0.0, -60.0, 1588.0), (35.0, 26.0, 27.0)), Tissue.CORTEX)
    canvas.paint(canvas.ellipsoid((0.0, -60.0, 1588.0), (31.0, 22.0, 23.0)), Tissue.RED_MARROW)
    canvas.paint(canvas.ellipsoid((0.0, -24.0, 1618.0), (20.0, 22.0, 14.0)), Tissue.SKULL_BONE)
    for side in SIDES:
        canvas.paint(canvas.ellipsoid((side * 32.0, -70.0, 1631.0), (20.0, 24.0, 19.0)), Tissue.SKULL_BONE)
        canvas.paint(canvas.ellipsoid((side * 32.0, -74.0, 1631.0), (17.0, 24.0, 16.0)), Tissue.FAT)
        for start, end in (
            ((24.0, -52.0, 1640.0), (32.0, -68.0, 1640.0)),
            ((24.0, -52.0, 1624.0), (32.0, -68.0, 1622.0)),
        ):
            muscle = canvas.cone((side * start[0], *start[1:]), (side * end[0], *end[1:]), 2.5, 2.5)
            canvas.paint(muscle, Tissue.EYE_MUSCLE)
        canvas.paint(canvas.ellipsoid((side * 32.0, -79.0, 1631.0), (12.0, 12.0, 12.0)), Tissue.EYE)
        arch: tuple[Point, ...] = ((44.0, -70.0, 1610.0), (61.0, -42.0, 1612.0), (65.0, -10.0, 1618.0))
        for a, b in itertools.pairwise(arch):
            bone(canvas, (side * a[0], *a[1:]), (side * b[0], *b[1:]), (5.5, 4.5), 2.5, Tissue.RED_MARROW)
        canvas.paint(canvas.ellipsoid((side * 57.0, 2.0, 1580.0), (9.0, 13.0, 22.0)), Tissue.SALIVARY_GLAND)
        canvas.paint(canvas.ellipsoid((side * 26.0, -36.0, 1533.0), (9.0, 14.0, 9.0)), Tissue.SALIVARY_GLAND)
        canvas.paint(canvas.ellipsoid((side * 17.0, -22.0, 1566.0), (7.0, 7.0, 11.0)), Tissue.TONSIL)
    canvas.paint(canvas.ellipsoid((0.0, -46.0, 1556.0), (21.0, 25.0, 15.0)), Tissue.TONGUE)


def _paint_mandible(canvas: Canvas) -> None:
    """The jaw's horseshoe with its rami, and both rows of teeth."""
    for side in SIDES:
        for a, b in itertools.pairwise(MANDIBLE):
            start, end = (side * a[0], *a[1:]), (side * b[0], *b[1:])
            bone(canvas, start, end, (8.0, 8.0), 3.0, Tissue.RED_MARROW)
        for height, reach in ((1549.0, 1.0), (1560.0, 1.06)):
            row = [
                (side * reach * x, y * reach, height)
                for x, y in ((26.0, -46.0), (21.0, -62.0), (11.0, -73.0), (0.0, -76.0))
            ]
            for a, b in itertools.pairwise(row):
                canvas.paint(canvas.cone(a, b, 4.5, 4.5), Tissue.TOOTH)


def _paint_air_spaces(canvas: Canvas) -> None:
    """Nasal cavity with septum and nostrils, and the paranasal sinuses."""
    cavity = canvas.ellipsoid((0.0, -66.0, 1604.0), (13.0, 36.0, 19.0))
    canvas.paint(cavity, Tissue.GAS)
    x, _, _ = canvas.axes(cavity.box)
    canvas.paint(cavity.keep(np.abs(x) < 2.2), Tissue.CARTILAGE)
    canvas.paint(canvas.cone((0.0, -36.0, 1602.0), (0.0, -24.0, 1596.0), 9.0, 9.0), Tissue.GAS)
    for side in SIDES:
        canvas.paint(canvas.cone((side * 6.0, -108.0, 1602.0), (side * 6.0, -92.0, 1604.0), 3.5, 3.5), Tissue.GAS)
        canvas.paint(canvas.ellipsoid((side * 24.0, -60.0, 1596.0), (9.0, 14.0, 13.0)), Tissue.GAS)
        canvas.paint(canvas.ellipsoid((side * 9.0, -84.0, 1652.0), (8.0, 4.0, 8.0)), Tissue.GAS)
    canvas.paint(canvas.ellipsoid((0.0, -26.0, 1619.0), (12.0, 11.0, 8.0)), Tissue.GAS)
