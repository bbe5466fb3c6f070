"""What lies under, on and beside the phantom's patient: table, cushions, positioning aids, blankets, cables.

Everything is painted in air only, on a canvas whose rows run down to the table: it never touches the districts.
"""

import itertools
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
from scipy import ndimage

from training.phantom.options import Aid, PhantomOptions
from training.phantom.shapes import BoolArray, Canvas, Point, Region
from training.phantom.tissues import Tissue
from twin_scanner.imaging.volume import FloatArray, Triple

Drawing: TypeAlias = Callable[[Canvas, BoolArray, float, np.random.Generator], None]
"""What paints an aid, given the canvas, where the body is, the height of the table's top, and what varies it."""

SHELL_MM: Final = 3.0
"""Thickness of the table's carbon shell."""
AIR: Final = (Tissue.AIR,)
SHEET_MM: Final = 4.0
WIDEST_SPAN_MM: Final = 130.0
"""A blanket hangs straight over hollows narrower than this."""
DEEPEST_FOLD_MM: Final = 14.0
DRAPE_MM: Final = 260.0
"""Half the width of a blanket across the body."""
SUNK_MM: Final = 50.0
"""A vacuum cushion stands so far out from the body's sides."""
CABLE_MM: Final = 2.5
TUBE_MM: Final = 4.0


def paint_surroundings(canvas: Canvas, options: PhantomOptions, rng: np.random.Generator) -> None:
    """Aids first, then the table, then what lies on top; ``canvas`` has its rows running down to the table."""
    body = canvas.tissue > Tissue.AIR
    rows = np.flatnonzero(body.any(axis=(0, 2)))
    top = float(canvas.y[rows[-1]]) + 3.0
    for aid in options.aids:
        _AIDS[aid](canvas, body, top, rng)
    if options.table:
        if not options.position.endswith("S"):
            _paint_padding(canvas, top)
        paint_table(canvas, top)
    if options.blanket is not None:
        _paint_blanket(canvas, body, top, options.blanket, rng)


def paint_table(canvas: Canvas, top: float) -> None:
    """A carbon shell around foam from the height ``top`` down, and a cushion under the head; only in air."""
    low, high = float(canvas.z[0]), float(canvas.z[-1])
    cushion = canvas.everywhere((-125.0, 40.0, max(1540.0, low)), (125.0, top, max(1760.0, low)))
    canvas.paint(cushion, Tissue.MATTRESS, only=AIR)
    for depth, tissue in ((0.0, Tissue.TABLE_SHELL), (SHELL_MM, Tissue.TABLE_CORE)):
        slab = canvas.everywhere(
            (-215.0 + depth, top + depth, low - 1.0), (215.0 - depth, top + 34.0 - depth, high + 1.0)
        )
        canvas.paint(slab, tissue, only=(*AIR, Tissue.TABLE_SHELL))


def _paint_padding(canvas: Canvas, top: float) -> None:
    """Foam between the table and whoever lies on the belly or on a side, which touch it in a few places only."""
    low, high = float(canvas.z[0]), min(float(canvas.z[-1]), 1500.0)
    block = canvas.everywhere((-150.0, 60.0, low), (150.0, top, high))
    canvas.paint(block, Tissue.MATTRESS, only=AIR)


def _paint_knee_wedge(canvas: Canvas, body: BoolArray, top: float, rng: np.random.Generator) -> None:
    """A foam wedge in a plastic cover under the knees."""
    crest_z, low, high = 530.0 + float(rng.uniform(-25, 25)), 350.0, 680.0
    for inset, tissue in ((0.0, Tissue.PLASTIC), (SHELL_MM, Tissue.MATTRESS)):
        block = canvas.everywhere((-205.0 + inset, 45.0, low), (205.0 - inset, top, high))
        _, y, z = canvas.axes(block.box)
        surface = np.interp(z, (low, crest_z, high), (top, 50.0, top)).astype(np.float32) + np.float32(inset)
        canvas.paint(block.keep(y > surface), tissue, only=(*AIR, Tissue.PLASTIC))


def _paint_arm_rest(canvas: Canvas, body: BoolArray, top: float, rng: np.random.Generator) -> None:
    """A padded board behind the raised arms, beside and above the head's place."""
    depth = float(rng.uniform(8, 16))
    for side in (-1.0, 1.0):
        low, high = sorted((side * 105.0, side * 330.0))
        for inset, tissue in ((0.0, Tissue.PLASTIC), (SHELL_MM, Tissue.MATTRESS)):
            block = canvas.everywhere((low + inset, depth + inset, 1560.0 + inset), (high - inset, top, 1830.0 - inset))
            canvas.paint(block, tissue, only=(*AIR, Tissue.PLASTIC))


def _paint_head_holder(canvas: Canvas, body: BoolArray, top: float, rng: np.random.Generator) -> None:
    """A trough of plastic around the back of the head, lined with foam."""
    tilt = float(rng.uniform(-4, 4))
    for radius, tissue in ((112.0, Tissue.PLASTIC), (112.0 - SHELL_MM - 1.0, Tissue.MATTRESS), (92.0, Tissue.AIR)):
        block = canvas.everywhere((-120.0, 0.0, 1545.0), (120.0, top, 1800.0))
        x, y, _ = canvas.axes(block.box)
        inside = (x**2 + (y - np.float32(tilt)) ** 2 < radius**2) & (y > 8.0)
        only = (*AIR, Tissue.PLASTIC, Tissue.MATTRESS)
        canvas.paint(block.keep(np.broadcast_to(inside, block.mask.shape)), tissue, only=only)


def _paint_vacuum_cushion(canvas: Canvas, body: BoolArray, top: float, rng: np.random.Generator) -> None:
    """Beads in a plastic bag, sucked hard around the back and the sides of the trunk and thighs."""
    low, high = 560.0 + float(rng.uniform(-40, 40)), 1420.0 + float(rng.uniform(-60, 20))
    block = canvas.everywhere((-400.0, 25.0, low), (400.0, top, high))
    inside = body[block.box[0]]
    columns = np.broadcast_to(canvas.x[None, None, :], inside.shape)
    left = np.where(inside, columns, 1e3).min(axis=(1, 2), initial=1e3)
    right = np.where(inside, columns, -1e3).max(axis=(1, 2), initial=-1e3)
    x, y, _ = canvas.axes(block.box)
    rim = np.float32(0.5) * np.maximum(0.0, 60.0 - y)
    for inset, tissue in ((0.0, Tissue.PLASTIC), (SHELL_MM, Tissue.BEADS)):
        reach = np.float32(SUNK_MM - inset) - rim
        within = (x > left[:, None, None] - reach) & (x < right[:, None, None] + reach) & (y > 25.0 + inset)
        canvas.paint(block.keep(within), tissue, only=(*AIR, Tissue.PLASTIC))


def _paint_ecg_cable(canvas: Canvas, body: BoolArray, top: float, rng: np.random.Generator) -> None:
    """Three electrodes on the chest, each with a cable to the shoulder and on past the head."""
    front = _surface(canvas, body, top)
    for x, z in ((95.0, 1385.0), (-95.0, 1385.0), (80.0, 1180.0)):
        place = x + float(rng.uniform(-8, 8)), z + float(rng.uniform(-8, 8))
        spot = _on(canvas, front, *place, CABLE_MM)
        canvas.paint(canvas.ellipsoid(spot, (11.0, 4.0, 11.0)), Tissue.PLASTIC, only=AIR)
        canvas.paint(canvas.ellipsoid(spot, (4.0, 4.0, 4.0)), Tissue.COPPER, only=(*AIR, Tissue.PLASTIC))
        way = [place, (0.6 * place[0] + 40.0, 1400.0), (125.0, 1445.0), (150.0, 1560.0), (160.0, 1900.0)]
        _paint_line(canvas, front, way, CABLE_MM, Tissue.COPPER)


def _paint_oxygen_tube(canvas: Canvas, body: BoolArray, top: float, rng: np.random.Generator) -> None:
    """From the nostrils over both cheeks, joined on the chest, off the shoulder."""
    front = _surface(canvas, body, top)
    bend = float(rng.uniform(-10, 10))
    for side in (-1.0, 1.0):
        way = [(side * 4.0, 1594.0), (side * 45.0, 1590.0), (side * 40.0, 1530.0), (bend, 1420.0)]
        _paint_line(canvas, front, way, TUBE_MM, Tissue.PLASTIC)
    _paint_line(canvas, front, [(bend, 1420.0), (-60.0, 1330.0), (-230.0, 1250.0)], TUBE_MM, Tissue.PLASTIC)


def _paint_line(
    canvas: Canvas, front: FloatArray, way: Sequence[tuple[float, float]], radius: float, tissue: int
) -> None:
    """A tube along (x, z) points that lies on the body's front."""
    for (xa, za), (xb, zb) in itertools.pairwise(way):
        steps = max(2, int(np.hypot(xb - xa, zb - za) / 12.0))
        points = [
            _on(canvas, front, xa + t * (xb - xa), za + t * (zb - za), radius) for t in np.linspace(0.0, 1.0, steps)
        ]
        for a, b in itertools.pairwise(points):
            canvas.paint(canvas.cone(a, b, radius, radius), tissue, only=(*AIR, Tissue.PLASTIC))


def _surface(canvas: Canvas, body: BoolArray, top: float) -> FloatArray:
    """y of the body's front at every (z, x); the table's top where there is no body."""
    first = body.argmax(axis=1)
    return np.where(body.any(axis=1), canvas.y[first], np.float32(top)).astype(np.float32)


def _on(canvas: Canvas, front: FloatArray, x: float, z: float, radius: float) -> Point:
    """The point above (x, z) where something of a radius rests on the front."""
    d = int(np.clip(np.searchsorted(canvas.z, z), 0, canvas.z.size - 1))
    w = int(np.clip(np.searchsorted(canvas.x, x), 0, canvas.x.size - 1))
    return x, float(front[d, w]) - radius, z


def _paint_blanket(
    canvas: Canvas, body: BoolArray, top: float, ends: tuple[float, float], rng: np.random.Generator
) -> None:
    """A thin sheet that hangs over the body: straight over hollows, on the skin elsewhere, with folds."""
    slices = slice(*map(int, np.searchsorted(canvas.z, ends)))
    if slices.stop - slices.start < 2:
        return
    spacing = _steps(canvas)
    upper = _hung(_surface(canvas, body, top)[slices], spacing)
    folds = _folds(upper.shape, spacing, rng)
    upper = upper - folds
    thick = np.where(folds > 0.55 * DEEPEST_FOLD_MM, 2.0, 1.0) * max(SHEET_MM, 1.1 * spacing[1])
    lower = np.maximum(upper + thick, ndimage.maximum_filter(upper, size=(1, 3)))
    wide = np.abs(canvas.x) < DRAPE_MM + float(rng.uniform(-30, 60))
    y = canvas.y[None, :, None]
    sheet = (y >= upper[:, None, :]) & (y < lower[:, None, :]) & (y < top) & wide[None, None, :]
    region = Region((slices, slice(0, canvas.y.size), slice(0, canvas.x.size)), sheet)
    canvas.paint(region, Tissue.BLANKET, only=AIR)


def _hung(front: FloatArray, spacing: Triple) -> FloatArray:
    """The front closed over hollows narrower than WIDEST_SPAN_MM, and rounded as cloth is."""
    size = [max(1, round(WIDEST_SPAN_MM / s)) | 1 for s in (spacing[0], spacing[2])]
    highest = ndimage.minimum_filter(front, size=size, mode="nearest")
    straight = ndimage.maximum_filter(highest, size=size, mode="nearest")
    smooth = ndimage.gaussian_filter(straight, [12.0 / s for s in (spacing[0], spacing[2])], mode="nearest")
    return np.minimum(smooth, front).astype(np.float32)


def _folds(shape: tuple[int, ...], spacing: Triple, rng: np.random.Generator) -> FloatArray:
    """Height of the folds over (z, x): ridges that wander, and nothing in between."""
    grain = [35.0 / spacing[0], 14.0 / spacing[2]]
    field = ndimage.gaussian_filter(rng.standard_normal(shape), grain, mode="nearest")
    field = np.clip(field / max(float(field.std()), 1e-6) - 0.4, 0.0, 1.5) / 1.5
    return (DEEPEST_FOLD_MM * field).astype(np.float32)


def _steps(canvas: Canvas) -> Triple:
    d, h, w = (float(axis[1] - axis[0]) if axis.size > 1 else 1.0 for axis in (canvas.z, canvas.y, canvas.x))
    return d, h, w


_AIDS: Final[MappingProxyType[Aid, Drawing]] = MappingProxyType({
    "knee wedge": _paint_knee_wedge, "arm rest": _paint_arm_rest, "head holder": _paint_head_holder,
    "vacuum cushion": _paint_vacuum_cushion, "ECG cable": _paint_ecg_cable, "oxygen tube": _paint_oxygen_tube,
})  # fmt: skip
