"""How close a synthetic PET is to the real one, voxel by voxel: pure functions of two images and a mask."""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from twin_scanner.imaging.volume import FloatArray

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Doubles: TypeAlias = npt.NDArray[np.float64]
Box: TypeAlias = tuple[slice, slice, slice]

SIGMA_VOXELS: Final = 1.5
TRUNCATE: Final = 3.5
MARGIN: Final = 5
"""How far the Gaussian of SSIM reaches, in voxels: a crop with such a margin changes no value inside."""
SLAB_PLANES: Final = 24
"""Planes that SSIM takes at once: 400 x 400 of them need some 300 MB in double precision."""
C1, C2 = 0.01**2, 0.03**2
"""Wang et al., Image quality assessment, IEEE Trans Image Process 2004; 13:600, for a data range of 1."""
SCALE_WEIGHTS: Final = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Wang, Simoncelli and Bovik, Multiscale structural similarity, Asilomar 2003."""


@dataclass(frozen=True, eq=False)
class SimilarityMaps:
    """SSIM of each voxel (D, H, W), and its part that compares contrast and structure alone."""

    ssim: FloatArray
    contrast_structure: FloatArray


def mae(real: FloatArray, synthetic: FloatArray, mask: BoolArray) -> float | None:
    """Mean absolute error over the mask, in the images' unit; None for an empty mask."""
    if not mask.any():
        return None
    return float(np.abs(real[mask] - synthetic[mask]).mean(dtype=np.float64))


def psnr(real: FloatArray, synthetic: FloatArray, mask: BoolArray, data_range: float = 1.0) -> float | None:
    """Peak signal-to-noise ratio over the mask in dB, 10 log10(data_range^2 / mean squared error).

    None for an empty mask, and for equal images, whose ratio is no number.
    """
    if not mask.any():
        return None
    error = float(np.square(real[mask] - synthetic[mask], dtype=np.float64).mean())
    return float(10.0 * np.log10(data_range**2 / error)) if error > 0 else None


def mean_ratio(real: FloatArray, synthetic: FloatArray, mask: BoolArray) -> float | None:
    """Synthetic over real mean, both over the mask; None for an empty mask and where the real mean is 0."""
    total = float(real[mask].sum(dtype=np.float64))
    return float(synthetic[mask].sum(dtype=np.float64)) / total if total > 0 else None


def nrmse(real: FloatArray, synthetic: FloatArray, mask: BoolArray) -> float | None:
    """Root mean squared error over the root mean square of the real image, both over the mask.

    The Euclidean normalisation of scikit-image's normalized_root_mse. None where the real image is 0 all over.
    """
    power = float(np.square(real[mask], dtype=np.float64).sum())
    if power == 0:
        return None
    return float(np.sqrt(np.square(real[mask] - synthetic[mask], dtype=np.float64).sum() / power))


def similarity(real: FloatArray, synthetic: FloatArray) -> SimilarityMaps:
    """Structural similarity of each voxel of two images (D, H, W) whose data range is 1.

    Gaussian windows of sigma 1.5 voxels cut at 3.5 sigma, population statistics, mirrored at the image's edge: the map
    of scikit-image's structural_similarity with gaussian_weights (Wang et al. 2004). Computed in double precision, for
    a variance is a small difference of squares and C2 is 9e-4: in single precision a voxel is wrong by up to 2e-4. Slab
    by slab, so that it takes the memory of a few planes besides the maps.
    """
    maps = SimilarityMaps(np.empty(real.shape, np.float32), np.empty(real.shape, np.float32))
    for first in range(0, real.shape[0], SLAB_PLANES):
        last = min(first + SLAB_PLANES, real.shape[0])
        wide = slice(max(0, first - MARGIN), min(last + MARGIN, real.shape[0]))
        inner = slice(first - wide.start, last - wide.start)
        luminance, contrast_structure = _slab(real[wide].astype(np.float64), synthetic[wide].astype(np.float64), inner)
        maps.contrast_structure[first:last] = contrast_structure
        np.multiply(luminance, contrast_structure, out=maps.ssim[first:last], casting="same_kind")
    return maps


def mean_inside(values: FloatArray, mask: BoolArray) -> float | None:
    """The mean of a map over a mask; None for an empty one."""
    return float(values[mask].mean(dtype=np.float64)) if mask.any() else None


def ms_ssim(
    real: FloatArray, synthetic: FloatArray, mask: BoolArray, finest: SimilarityMaps | None = None
) -> float | None:
    """Multi-scale SSIM over a mask (Wang et al. 2003) of two images whose data range is 1: five scales, halved each.

    At each scale contrast and structure (at the coarsest, SSIM itself) are averaged inside the mask, where a coarse
    voxel belongs to it as soon as half of its eight voxels do; then they are multiplied with Wang's exponents, negative
    means as 0. Give the whole field of view: the coarse windows reach 80 voxels beyond the mask, and beyond the image
    it is mirrored, where MONAI and torchmetrics refuse images below 176 voxels, which the depth of every body is. None
    where the mask of the coarsest scale is empty: the region is smaller than about 16 voxels.

    ``finest`` are the maps of the first scale over ``box_around(mask)``, where they are known already.
    """
    product, inside = 1.0, mask
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            real, synthetic, inside = halved(real), halved(synthetic), halved(inside.astype(np.float32)) >= 0.5
        box = box_around(inside)
        if box is None:
            return None
        maps = finest if finest is not None and scale == 0 else similarity(real[box], synthetic[box])
        values = maps.ssim if scale == len(SCALE_WEIGHTS) - 1 else maps.contrast_structure
        product *= max(float(values[inside[box]].mean(dtype=np.float64)), 0.0) ** weight
    return product


def box_around(mask: BoolArray) -> Box | None:
    """The smallest box that holds a mask (D, H, W) and the windows of SSIM around it; None for an empty mask."""
    found = ndimage.find_objects(mask.view(np.uint8))
    if not found:
        return None
    d, h, w = (
        slice(max(0, s.start - MARGIN), min(n, s.stop + MARGIN)) for s, n in zip(found[0], mask.shape, strict=True)
    )
    return d, h, w


def halved(image: FloatArray) -> FloatArray:
    """Means of blocks of two voxels along each axis; the last plane of an odd axis stands for its missing partner."""
    for axis in range(image.ndim):
        turned = np.moveaxis(image, axis, 0)
        means = turned[::2].copy()
        partners = turned[1::2]
        means[: len(partners)] += partners
        means[: len(partners)] *= np.float32(0.5)
        image = np.moveaxis(means, 0, axis)
    return np.ascontiguousarray(image)


def _slab(real: Doubles, synthetic: Doubles, inner: slice) -> tuple[Doubles, Doubles]:
    """Luminance, and contrast with structure (Wang et al. 2004, equations 6 and 9 to 12), of the planes ``inner``."""
    mean_real, mean_synthetic = _blurred(real, inner), _blurred(synthetic, inner)
    covariance = _blurred(real * synthetic, inner)
    both_variances = _blurred(np.square(real, out=real) + np.square(synthetic, out=synthetic), inner)
    product = mean_real * mean_synthetic
    squares = np.square(mean_real, out=mean_real) + np.square(mean_synthetic, out=mean_synthetic)
    contrast_structure = (2 * (covariance - product) + C2) / (both_variances - squares + C2)
    return (2 * product + C1) / (squares + C1), contrast_structure


def _blurred(slab: Doubles, inner: slice) -> Doubles:
    """The Gaussian means of the planes ``inner``: across planes first, then no other plane needs blurring."""
    across = ndimage.gaussian_filter1d(slab, SIGMA_VOXELS, axis=0, truncate=TRUNCATE, mode="reflect")[inner]
    return ndimage.gaussian_filter(across, SIGMA_VOXELS, truncate=TRUNCATE, mode="reflect", axes=(1, 2))
