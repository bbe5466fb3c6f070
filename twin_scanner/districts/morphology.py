"""Growing, shrinking, filling and measuring masks (D, H, W) in millimetres, fast enough for a whole body."""

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from twin_scanner.volume import FloatArray, Triple

BoolArray: TypeAlias = npt.NDArray[np.bool_]

SECTION: Final = np.zeros((3, 3, 3), np.bool_)
SECTION[1] = ndimage.generate_binary_structure(2, 1)
"""Neighbours within one axial slice: one call then labels all slices, each for itself."""


def dilated(mask: BoolArray, radius_mm: float, spacing_mm: Triple) -> BoolArray:
    """The mask grown by ``radius_mm`` along every axis (a cube: separable, so its cost does not grow with it)."""
    grown = ndimage.maximum_filter(mask.view(np.uint8), _size(radius_mm, spacing_mm), mode="nearest")
    return grown.view(np.bool_)


def eroded(mask: BoolArray, radius_mm: float, spacing_mm: Triple) -> BoolArray:
    """The mask shrunk by ``radius_mm`` along every axis; the image's border does not count as outside."""
    shrunk = ndimage.minimum_filter(mask.view(np.uint8), _size(radius_mm, spacing_mm), mode="nearest")
    return shrunk.view(np.bool_)


def opened(mask: BoolArray, radius_mm: float, spacing_mm: Triple) -> BoolArray:
    """The mask without whatever a cube of half side ``radius_mm`` does not fit into."""
    return dilated(eroded(mask, radius_mm, spacing_mm), radius_mm, spacing_mm)


def section_holes(mask: BoolArray) -> BoolArray:
    """What the mask encloses in axial slices, each for itself."""
    labels, count = ndimage.label(~mask, SECTION)
    open_ones = np.zeros(count + 1, np.bool_)
    open_ones[labels[:, (0, -1), :]] = True
    open_ones[labels[:, :, (0, -1)]] = True
    open_ones[0] = True
    return np.asarray(~open_ones[labels])


def depth_mm(mask: BoolArray, spacing_mm: Triple) -> FloatArray:
    """Distance of every voxel of the mask to its surface, in mm; the image's border is no surface."""
    image = sitk.GetImageFromArray(mask.view(np.uint8))
    image.SetSpacing([float(s) for s in reversed(spacing_mm)])
    signed = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    distance = sitk.GetArrayFromImage(signed)
    return np.maximum(distance, np.float32(0), out=distance)


def ball(radius_mm: float, spacing_mm: Triple) -> BoolArray:
    """The voxels whose centres lie within ``radius_mm`` of the middle one."""
    reach = [int(radius_mm // s) for s in spacing_mm]
    offsets = np.meshgrid(*(np.arange(-r, r + 1) * s for r, s in zip(reach, spacing_mm, strict=True)), indexing="ij")
    return np.asarray(sum(o**2 for o in offsets) <= radius_mm**2 + 1e-6)


def _size(radius_mm: float, spacing_mm: Triple) -> tuple[int, int, int]:
    d, h, w = (2 * int(radius_mm // s) + 1 for s in spacing_mm)
    return d, h, w
