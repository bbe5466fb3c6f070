"""SUV of a region: mean, maximum and peak; the measurement report and the evaluation share it."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from twin_scanner.volume import FloatArray, LabelArray, Shape, Triple, Volume, label_counts

PEAK_SPHERE_ML: Final = 1.0
"""Volume of the sphere of SUVpeak (Wahl et al., PERCIST 1.0, J Nucl Med 2009; 50 Suppl 1:122S)."""
PEAK_RADIUS_MM: Final = (3.0 * PEAK_SPHERE_ML * 1000.0 / (4.0 * np.pi)) ** (1.0 / 3.0)
"""6.2 mm."""


@dataclass(frozen=True)
class RegionSuv:
    """SUV (g/ml) of one region and where it is highest; indices are (d, h, w).

    ``peak`` is the highest mean of a 1 ml sphere centred on a voxel of the region; the sphere may reach beyond the
    region, but not beyond the image. None where no whole sphere fits: the image is thinner than the sphere.
    """

    volume_ml: float
    mean: float
    maximum: float
    maximum_at: Shape
    peak: float | None
    peak_at: Shape | None


def region_suv(suv: Volume, labels: LabelArray) -> dict[int, RegionSuv]:
    """Statistics of every label (D, H, W) that is present; ``suv`` in g/ml on the same grid.

    A label that is nowhere has no numbers, so no entry.
    """
    if suv.array.shape != labels.shape:
        raise ValueError(f"the labels {labels.shape} do not lie on the SUV {suv.array.shape}")
    counts = label_counts(labels)
    present = [int(label) for label in np.flatnonzero(counts) if label]
    peaks = _peaks(suv, labels)
    found = {}
    for label in present:
        mask = labels == label
        inside = np.where(mask, suv.array, np.float32(-np.inf))
        at = np.unravel_index(int(np.argmax(inside)), inside.shape)
        peak, peak_at = peaks.get(label, (None, None))
        found[label] = RegionSuv(
            volume_ml=float(counts[label]) * suv.geometry.voxel_ml,
            mean=float(suv.array[mask].mean(dtype=np.float64)),
            maximum=float(inside[at]),
            maximum_at=(int(at[0]), int(at[1]), int(at[2])),
            peak=peak,
            peak_at=peak_at,
        )
    return found


def sphere_rows(spacing_mm: Triple) -> dict[tuple[int, int], int]:
    """The 1 ml sphere as rows along W: for each offset (d, h) the half length in voxels.

    A voxel belongs to the sphere where its centre does, and every such voxel counts alike.
    """
    reach = [int(PEAK_RADIUS_MM // s) for s in spacing_mm]
    rows = {}
    for d in range(-reach[0], reach[0] + 1):
        for h in range(-reach[1], reach[1] + 1):
            rest = PEAK_RADIUS_MM**2 - (d * spacing_mm[0]) ** 2 - (h * spacing_mm[1]) ** 2
            if rest >= 0:
                rows[d, h] = int(np.sqrt(rest) // spacing_mm[2])
    return rows


def _peaks(suv: Volume, labels: LabelArray) -> dict[int, tuple[float, Shape]]:
    """The highest sphere mean of every label and its centre, slice by slice."""
    best: dict[int, tuple[float, Shape]] = {}
    for d, means in _sphere_means(suv.array, sphere_rows(suv.geometry.spacing_mm)):
        here = labels[d]
        for label in np.flatnonzero(np.bincount(here.ravel())):
            if label == 0:
                continue
            inside = np.where(here == label, means, -np.inf)
            h, w = np.unravel_index(int(np.argmax(inside)), inside.shape)
            value = float(inside[h, w])
            if np.isfinite(value) and value > best.get(int(label), (-np.inf, None))[0]:
                best[int(label)] = (value, (d, int(h), int(w)))
    return best


def _sphere_means(
    array: FloatArray, rows: Mapping[tuple[int, int], int]
) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """For every slice that has room for the sphere: its index and the mean around each voxel; -inf at the edges.

    Sums along W come from running sums, of which only the slices that a sphere spans are kept.
    """
    deep = max(d for d, _ in rows)
    high = max(h for _, h in rows)
    wide = max(rows.values())
    voxels = sum(2 * half + 1 for half in rows.values())
    depth, height, width = array.shape
    if depth <= 2 * deep or height <= 2 * high or width <= 2 * wide:
        return
    sums: deque[npt.NDArray[np.float64]] = deque(maxlen=2 * deep + 1)
    for last in range(depth):
        running = np.zeros((height, width + 1))
        np.cumsum(array[last], axis=1, dtype=np.float64, out=running[:, 1:])
        sums.append(running)
        if len(sums) <= 2 * deep:
            continue
        total = np.zeros((height - 2 * high, width - 2 * wide))
        for (d, h), half in rows.items():
            part = sums[deep + d][high + h : height - high + h]
            total += part[:, wide + half + 1 : width - wide + half + 1] - part[:, wide - half : width - wide - half]
        means = np.full((height, width), -np.inf)
        means[high : height - high, wide : width - wide] = total / voxels
        yield last - deep, means
