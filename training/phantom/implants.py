"""Metal in the phantom: prostheses, nails, rods and fillings, and the streaks that a CT shows in their slices."""

import itertools
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import fft

from training.phantom.options import Implant
from training.phantom.shapes import Canvas, Point, Region
from training.phantom.skeleton import HIP, Side, mirrored, spine_y
from training.phantom.tissues import Tissue
from twin_scanner.imaging.volume import FloatArray, LabelArray, Triple

HIGHEST_HU: Final = 3071.0
"""End of the usual 12-bit scale, where metal is clipped."""
DIRECTIONS: Final = 120
"""The parallel beam has so many, in which the metal's error is reckoned; with fewer, single rays can be seen."""
HARDENING_PER_MM2: Final = 0.004
"""Polychromatic X-rays grow harder in metal: a ray through p mm loses this times p squared of its line integral; after
Brooks and Di Chiro, Phys Med Biol 21 (1976) 390, where the loss is quadratic in the path. 20 mm of steel: 1.6 of 8."""
STARVED_PER_MM: Final = 0.007
"""Standard deviation of the line integral a mm of metal, where few photons are left, on detector cells of CELL_MM."""
CELL_MM: Final = 2.5
"""Detail of the streaks, at the isocentre: finer voxels show them no finer."""
WATER_PER_MM: Final = 0.02
"""Attenuation of water at 70 keV."""
DEEPEST_STREAK_HU: Final = 800.0
SCREW: Final[tuple[Point, Point]] = ((150.0, 14.0, 850.0), (92.0, 0.0, 915.0))


def paint_implants(canvas: Canvas, implants: Sequence[Implant], rng: np.random.Generator) -> None:
    """Paint metal inside the body, on the side that ``rng`` decides."""
    side: Side = 1 if rng.random() < 0.5 else -1
    for implant in implants:
        if implant == "hip prosthesis":
            hip = mirrored(HIP, side)
            _paint(canvas, canvas.ellipsoid(hip, (26.0, 26.0, 26.0)), Tissue.METAL)
            _paint(canvas, canvas.ellipsoid(hip, (23.0, 23.0, 23.0)), Tissue.CARTILAGE)
        for region in _solids(canvas, implant, side):
            _paint(canvas, region, Tissue.METAL)


def _paint(canvas: Canvas, region: Region, tissue: Tissue) -> None:
    view = canvas.tissue[region.box]
    view[region.mask & (view != Tissue.AIR)] = tissue


def _solids(canvas: Canvas, implant: Implant, side: Side) -> list[Region]:
    if implant == "hip prosthesis":
        return _hip(canvas, side)
    if implant == "femoral nail":
        nail = mirrored((127.0, 12.0, 905.0), side), mirrored((98.0, 8.0, 545.0), side)
        screw = mirrored(SCREW[0], side), mirrored(SCREW[1], side)
        return [canvas.cone(*nail, 6.5, 5.5), canvas.cone(*screw, 5.0, 5.0)]
    if implant == "spinal rods":
        return _rods(canvas)
    fillings = ((26.0, -50.0, 1553.0), (-25.0, -52.0, 1554.0), (-20.0, -64.0, 1562.0), (22.0, -64.0, 1549.0))
    return [canvas.ellipsoid(centre, (5.0, 5.0, 5.0)) for centre in fillings]


def _hip(canvas: Canvas, side: Side) -> list[Region]:
    """The head, which turns in its cup's plastic, the neck, and a tapered stem in the femur's shaft."""
    hip, shoulder = mirrored(HIP, side), mirrored((124.0, 12.0, 893.0), side)
    tip = mirrored((117.0, 10.0, 755.0), side)
    return [
        canvas.ellipsoid(hip, (14.0, 14.0, 14.0)),
        canvas.cone(hip, shoulder, 9.0, 9.0),
        canvas.cone(shoulder, tip, 11.0, 6.0),
    ]


def _rods(canvas: Canvas) -> list[Region]:
    """Two rods behind the lumbar spine, with a pair of pedicle screws a vertebra."""
    regions = []
    heights = [1030.0, 1064.0, 1098.0, 1132.0]
    for side in (-1.0, 1.0):
        for low, high in itertools.pairwise(heights):
            start, end = ((side * 24.0, spine_y(z) + 42.0, z) for z in (low, high))
            regions.append(canvas.cone(start, end, 4.0, 4.0))
        for z in heights:
            start, end = (side * 24.0, spine_y(z) + 42.0, z), (side * 10.0, spine_y(z) - 4.0, z)
            regions.append(canvas.cone(start, end, 4.0, 3.5))
    return regions


def add_streaks(image: FloatArray, tissue: LabelArray, spacing_mm: Triple, rng: np.random.Generator) -> None:
    """Add to a CT (D, H, W; HU) what its reconstruction makes of metal, and clip the metal; changes ``image``.

    In every axial slice the metal is projected along parallel rays; the error of each ray (beam hardening, and noise
    where photons are scarce) is ramp-filtered and projected back, as filtered back-projection does: dark bands between
    two pieces of metal, bright and dark rays around each.
    """
    slices = np.flatnonzero((tissue == Tissue.METAL).any(axis=(1, 2)))
    if not slices.size:
        return
    y, x = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(image.shape[1:], spacing_mm[1:], strict=True))
    bin_mm = min(spacing_mm[1:])
    reach = int(np.ceil(np.hypot(x[-1], y[-1]) / bin_mm)) + 2
    errors = np.zeros((slices.size, *image.shape[1:]), np.float32)
    where = np.nonzero(tissue[slices] == Tissue.METAL)
    area = spacing_mm[1] * spacing_mm[2] / bin_mm
    for angle in np.arange(DIRECTIONS) * (np.pi / DIRECTIONS):
        across = (y[:, None] * np.sin(angle) + x * np.cos(angle)) / bin_mm + reach
        bins = np.rint(across).astype(np.intp)
        path = np.zeros((slices.size, 2 * reach + 1))
        np.add.at(path, (where[0], bins[where[1], where[2]]), area)
        errors += _filtered(_ray_errors(path, bin_mm, rng), bin_mm)[:, bins]
    errors *= np.float32(np.pi / DIRECTIONS * 1000.0 / WATER_PER_MM)
    image[slices] += np.float32(DEEPEST_STREAK_HU) * np.tanh(errors / np.float32(DEEPEST_STREAK_HU))
    image[tissue == Tissue.METAL] = np.float32(HIGHEST_HU)
    np.minimum(image, np.float32(HIGHEST_HU), out=image)


def _ray_errors(path_mm: npt.NDArray[np.float64], bin_mm: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Error of every ray's line integral from the metal on its path."""
    noise = STARVED_PER_MM * np.sqrt(CELL_MM / bin_mm) * rng.standard_normal(path_mm.shape)
    return np.asarray(path_mm * (noise - HARDENING_PER_MM2 * path_mm))


def _filtered(rays: npt.NDArray[np.float64], bin_mm: float) -> FloatArray:
    """Parallel rays (slices, bins) after the ramp filter with a Hann window that ends at CELL_MM, in 1/mm."""
    length = fft.next_fast_len(2 * rays.shape[1], real=True)
    frequency = fft.rfftfreq(length, bin_mm)
    end = min(0.5 / CELL_MM, float(frequency[-1]))
    window = np.where(frequency < end, 0.5 + 0.5 * np.cos(np.pi * frequency / end), 0.0)
    spectrum = fft.rfft(rays, length, axis=1) * frequency * window
    return fft.irfft(spectrum, length, axis=1)[:, : rays.shape[1]].astype(np.float32)
