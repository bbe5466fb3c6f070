"""What an image of a person can be: its voxels' size, its extent, its number of voxels, its HU and SUV.

A header that says more is damaged or hostile: a resampled grid of it would fill any memory, so it is refused before
anything is allocated.
"""

import math
from collections.abc import Sequence
from typing import Final

SPACING_MM: Final = (0.05, 50.0)
"""How far voxels are apart along any axis: 0.1 mm for the inner ear, up to 20 mm for single slices of a lung."""
LONGEST_MM: Final = 3000.0
"""Along one axis: the longest person is shorter than 2.8 m, the longest scan 2 m."""
WIDEST_MM: Final = 1000.0
"""Along the two other axes: the widest gantry's opening is 900 mm."""
MAXIMUM_VOXELS: Final = 2**31
"""1024 x 1024 x 2048: more is 8 GiB as float32, and no scan of a person."""
HOUNSFIELD_RANGE: Final = (-32768.0, 65535.0)
"""All that 16 bits, signed or unsigned, can say at slope 1. Metal ends at 3071 HU on the usual scale and at 30710 on
the extended one; padding lies at -32768 at the lowest."""
LARGEST_SUV: Final = 1e6
"""g/ml, also below 0: all of the dose in one voxel of 0.07 ml of a person of 70 kg."""


def extent_fault(shape: Sequence[int], spacing_mm: Sequence[float]) -> str:
    """Which length of a grid no image of a person has, as in "4050 mm along one axis, longer than 3000"; or empty."""
    longest_mm, second_mm, _ = sorted((n * s for n, s in zip(shape, spacing_mm, strict=True)), reverse=True)
    if longest_mm > LONGEST_MM:
        return f"{longest_mm:.0f} mm along one axis, longer than {LONGEST_MM:g}"
    if second_mm > WIDEST_MM:
        return f"{second_mm:.0f} mm along a second axis, longer than {WIDEST_MM:g}"
    return ""


def voxels_fault(shape: Sequence[int]) -> str:
    """The numbers of voxels, where they are more than can be read; or empty."""
    return " x ".join(map(str, shape)) + " voxels" if math.prod(shape) > MAXIMUM_VOXELS else ""
