"""How close a synthetic PET is to the real one, voxel by voxel: pure functions of two images and a mask."""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from twin_scanner.volume import FloatArray

BoolArray: TypeAlias = npt.NDArray[np.bool_]

SIGMA_VOXELS: Final = 1.5
TRUNCATE: Final = 3.5
MARGIN: Final = 5
"""How far the Gaussian of SSIM reaches, in voxels: a crop with such a margin changes no value inside."""
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
    of scikit-image's structural_similarity with gaussian_weights (Wang et al. 2004).
    """
    ux, uy = _blurred(real), _blurred(synthetic)
    product = ux * uy
    numerator = 2 * (_blurred(real * synthetic) - product) + C2
    denominator = _blurred(np.square(real)) + _blurred(np.square(synthetic))
    np.square(ux, out=ux)
    np.square(uy, out=uy)
    ux += uy
    denominator -= ux
    denominator += C2
    contrast_structure = np.divide(numerator, denominator, out=numerator)
    luminance = (2 * product + C1) / (ux + C1)
    return SimilarityMaps(luminance * contrast_structure, contrast_structure)


def mean_inside(values: FloatArray, mask: BoolArray) -> float | None:
    """The mean of a map over a mask; None for an empty one."""
    return float(values[mask].mean(dtype=np.float64)) if mask.any() else None


def ms_ssim(real: FloatArray, synthetic: FloatArray, mask: BoolArray) -> float | None:
    """Multi-scale SSIM over a mask (Wang et al. 2003): five scales, each half as fine as the one before.

    At each scale contrast and structure (at the coarsest, SSIM itself) are averaged inside the mask, where a coarse
    voxel belongs to it as soon as half of its eight voxels do; then they are multiplied with Wang's exponents, negative
    means as 0. None where the coarsest mask is empty.
    """
    product = 1.0
    share = mask.astype(np.float32)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        inside = share >= 0.5
        maps = similarity(real, synthetic)
        coarsest = scale == len(SCALE_WEIGHTS) - 1
        mean = mean_inside(maps.ssim if coarsest else maps.contrast_structure, inside)
        if mean is None:
            return None
        product *= max(mean, 0.0) ** weight
        if not coarsest:
            real, synthetic, share = halved(real), halved(synthetic), halved(inside.astype(np.float32))
    return product


def halved(image: FloatArray) -> FloatArray:
    """Means of blocks of two voxels along each axis; the last plane of an odd axis is repeated first."""
    padded = np.pad(image, [(0, length % 2) for length in image.shape], mode="edge")
    d, h, w = (length // 2 for length in padded.shape)
    means: FloatArray = padded.reshape(d, 2, h, 2, w, 2).mean(axis=(1, 3, 5), dtype=np.float32)
    return means


def _blurred(image: FloatArray) -> FloatArray:
    blurred: FloatArray = ndimage.gaussian_filter(image, SIGMA_VOXELS, truncate=TRUNCATE, mode="reflect")
    return blurred
