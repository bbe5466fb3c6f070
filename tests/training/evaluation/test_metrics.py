"""Voxel metrics against scikit-image, MONAI and images whose answer is known."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.metrics.regression import KernelType, compute_ssim_and_cs
from scipy import ndimage
from skimage import metrics as skimage_metrics

from tests.samples.known_cases import SHAPE, body_pet, districts
from training.evaluation.metrics import (
    MARGIN,
    SCALE_WEIGHTS,
    SLAB_PLANES,
    box_around,
    halved,
    mae,
    mean_inside,
    mean_ratio,
    ms_ssim,
    nrmse,
    psnr,
    similarity,
)
from twin_scanner.imaging.volume import FloatArray

pytestmark = pytest.mark.unit

BODY = districts() > 0
EVERYWHERE = np.ones(SHAPE, np.bool_)
MONAI_ROUNDING = 2e-4
"""MONAI turns what it gets into single precision, in which the differences of squares are that wrong."""


def pair(noise: float = 0.05) -> tuple[FloatArray, FloatArray]:
    """Two images in model space: a textured body, and a blurred, scaled and noisy copy of it."""
    random = np.random.default_rng(1)
    texture = ndimage.gaussian_filter(random.random(SHAPE, np.float32), 2.0)
    real = (body_pet(2, 0.2) * (texture / texture.mean()) / 4.0).astype(np.float32)
    made = ndimage.gaussian_filter(real, 1.0) * np.float32(0.9)
    return np.clip(real, 0, 1), np.clip(made + random.normal(0, noise, SHAPE).astype(np.float32), 0, 1)


def test_a_ratio_of_means_is_numpys_and_needs_a_real_mean() -> None:
    real, made = pair()
    assert mean_ratio(real, made, BODY) == pytest.approx(made[BODY].mean() / real[BODY].mean(), rel=1e-5)
    assert mean_ratio(real, made, np.zeros(SHAPE, np.bool_)) is None
    assert mean_ratio(np.zeros(SHAPE, np.float32), made, BODY) is None


def test_error_measures_are_those_of_scikit_image_over_the_voxels_of_the_mask() -> None:
    real, made = pair()
    inside = (real[BODY], made[BODY])
    assert mae(real, made, BODY) == pytest.approx(np.abs(inside[0] - inside[1]).mean(), rel=1e-6)
    assert psnr(real, made, BODY) == pytest.approx(
        skimage_metrics.peak_signal_noise_ratio(*inside, data_range=1.0), rel=1e-5
    )
    assert psnr(real, made, BODY, data_range=20.0) == pytest.approx(
        skimage_metrics.peak_signal_noise_ratio(*inside, data_range=20.0), rel=1e-5
    )
    assert nrmse(real, made, BODY) == pytest.approx(skimage_metrics.normalized_root_mse(*inside), rel=1e-5)


def scikit_images_map(real: FloatArray, made: FloatArray) -> npt.NDArray[np.float64]:
    """In double precision: scikit-image keeps single where it gets single, and is then itself wrong by 1e-4."""
    _, expected = skimage_metrics.structural_similarity(
        real.astype(np.float64), made.astype(np.float64), data_range=1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    return np.asarray(expected)


def monais_maps(real: FloatArray, made: FloatArray) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """SSIM and its contrast part by MONAI, whose windows are not padded: so the images are mirrored before."""
    x, y = (torch.from_numpy(np.pad(image, MARGIN, mode="symmetric"))[None, None] for image in (real, made))
    ssim, contrast = compute_ssim_and_cs(
        x, y, 3, kernel_size=[11] * 3, kernel_sigma=[1.5] * 3, data_range=1.0, kernel_type=KernelType.GAUSSIAN
    )
    return ssim[0, 0].numpy(), contrast[0, 0].numpy()


def pooled(image: npt.NDArray[np.generic]) -> FloatArray:
    """Torch's means of two voxels along each axis."""
    means: FloatArray = torch.nn.functional.avg_pool3d(torch.from_numpy(image.astype(np.float32))[None], 2)[0].numpy()
    return means


def test_the_similarity_map_is_scikit_images_at_every_voxel_whatever_slab_it_lies_in() -> None:
    real, made = pair()
    assert real.shape[0] > SLAB_PLANES > MARGIN, "more than one slab"
    expected = scikit_images_map(real, made)
    np.testing.assert_allclose(similarity(real, made).ssim, expected, atol=1e-6)
    assert mean_inside(similarity(real, made).ssim, BODY) == pytest.approx(expected[BODY].mean(), abs=1e-7)
    assert 0.1 < expected[BODY].mean() < 0.9


@pytest.mark.parametrize("planes", [1, 4, SLAB_PLANES, SLAB_PLANES + 1, 2 * SLAB_PLANES + 3])
def test_images_of_any_depth_have_the_map_of_their_mirrored_selves(planes: int) -> None:
    """scikit-image refuses images thinner than its window, so SciPy's filter on the whole image is the oracle."""
    real, made = (np.resize(image[:, :12, :14], (planes, 12, 14)).astype(np.float64) for image in pair())
    ux, uy, both, product = (
        ndimage.gaussian_filter(image, 1.5, truncate=3.5) for image in (real, made, real**2 + made**2, real * made)
    )
    contrast = (2 * (product - ux * uy) + 9e-4) / (both - ux**2 - uy**2 + 9e-4)
    found = similarity(real.astype(np.float32), made.astype(np.float32))
    np.testing.assert_allclose(found.contrast_structure, contrast, atol=1e-6)
    np.testing.assert_allclose(found.ssim, contrast * (2 * ux * uy + 1e-4) / (ux**2 + uy**2 + 1e-4), atol=1e-6)


def test_a_bright_flat_image_is_not_lost_to_rounding() -> None:
    """Near 1 a variance of 1e-6 is the difference of two squares that agree in six digits."""
    random = np.random.default_rng(2)
    real, made = ((0.95 + random.normal(0, 1e-3, (30, 20, 20))).astype(np.float32) for _ in range(2))
    np.testing.assert_allclose(similarity(real, made).ssim, scikit_images_map(real, made), atol=1e-6)


def test_a_crop_with_a_margin_has_the_same_map_inside() -> None:
    real, made = pair()
    mask = np.zeros(SHAPE, np.bool_)
    mask[12:30, 14:30, 15:31] = True
    box = box_around(mask)
    assert box == (slice(7, 35), slice(9, 35), slice(10, 36))
    inside = similarity(real[box], made[box]).ssim[mask[box]]
    np.testing.assert_allclose(inside, similarity(real, made).ssim[mask], atol=1e-7)


def test_a_box_ends_with_the_image_and_nothing_has_none() -> None:
    assert box_around(EVERYWHERE) == tuple(slice(0, length) for length in SHAPE)
    assert box_around(np.zeros(SHAPE, np.bool_)) is None


def test_contrast_and_structure_are_monais() -> None:
    real, made = pair()
    ssim, contrast = monais_maps(real, made)
    np.testing.assert_allclose(similarity(real, made).contrast_structure, contrast, atol=MONAI_ROUNDING)
    np.testing.assert_allclose(similarity(real, made).ssim, ssim, atol=MONAI_ROUNDING)


def textured(shape: tuple[int, int, int]) -> tuple[FloatArray, FloatArray]:
    """An image with structure at every scale, and a noisy copy of it."""
    random = np.random.default_rng(5)
    real = sum(ndimage.gaussian_filter(random.random(shape, np.float32), sigma) * sigma for sigma in (1.0, 3.0, 8.0))
    real = ((real - np.min(real)) / np.ptp(real)).astype(np.float32)
    return real, np.clip(real + random.normal(0, 0.2, shape).astype(np.float32), 0, 1)


def test_several_scales_are_the_product_of_monais_means_inside_the_mask() -> None:
    """The mask lies inside the image, so the coarse windows see what is around it, and not a mirror of the mask."""
    real, made = textured((80, 96, 80))
    made *= np.float32(0.5)
    mask = np.zeros(real.shape, np.bool_)
    mask[20:61, 30:70, 10:50] = True
    expected, x, y, inside = 1.0, real, made, mask
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        ssim, contrast = monais_maps(x, y)
        expected *= float((ssim if scale == 4 else contrast)[inside].mean()) ** weight
        inside_last = inside
        x, y, inside = pooled(x), pooled(y), pooled(inside) >= 0.5
    assert ms_ssim(real, made, mask) == pytest.approx(expected, abs=1e-5)
    assert 0.2 < expected < 0.95 and ssim[inside_last].mean() < 0.95 * contrast[inside_last].mean()
    assert sum(SCALE_WEIGHTS) == pytest.approx(1.0, abs=1e-3)


def test_an_image_turned_to_its_negative_has_no_similarity() -> None:
    """Contrast that runs the other way has a negative mean, which counts as 0 (no root of it is real)."""
    real, _ = textured((40, 44, 48))
    mask = np.zeros(real.shape, np.bool_)
    mask[4:36, 6:38, 8:40] = True
    assert similarity(real, 1 - real).contrast_structure[mask].mean() < -0.1
    assert ms_ssim(real, 1 - real, mask) == 0


def test_the_finest_scale_may_be_given() -> None:
    real, made = textured((40, 44, 48))
    mask = np.zeros(real.shape, np.bool_)
    mask[4:36, 6:38, 8:40] = True
    box = box_around(mask)
    assert box is not None
    given = ms_ssim(real, made, mask, finest=similarity(real[box], made[box]))
    assert given == ms_ssim(real, made, mask) and given is not None


def test_a_region_that_no_coarse_voxel_is_half_full_of_has_no_several_scales() -> None:
    real, made = textured((48, 48, 48))
    few = np.zeros(real.shape, np.bool_)
    few[20:26, 20:26, 20:26] = True
    assert ms_ssim(real, made, few) is None and mean_inside(similarity(real, made).ssim, few) is not None


def test_equal_images_are_perfect_and_have_no_ratio() -> None:
    real, _ = pair()
    assert mae(real, real, BODY) == 0 and nrmse(real, real, BODY) == 0 and psnr(real, real, BODY) is None
    assert mean_inside(similarity(real, real).ssim, BODY) == pytest.approx(1.0, abs=1e-6)
    assert ms_ssim(real, real, BODY) == pytest.approx(1.0, abs=1e-6)


def test_a_constant_offset_is_its_own_error() -> None:
    real, _ = pair()
    made = (real + np.float32(0.05)).astype(np.float32)
    assert mae(real, made, BODY) == pytest.approx(0.05, rel=1e-4)
    assert psnr(real, made, BODY) == pytest.approx(20 * np.log10(1 / 0.05), rel=1e-4)


def test_an_empty_mask_has_no_number() -> None:
    real, made = pair()
    nothing = np.zeros(SHAPE, np.bool_)
    assert [mae(real, made, nothing), psnr(real, made, nothing), nrmse(real, made, nothing)] == [None] * 3
    assert mean_inside(real, nothing) is None and ms_ssim(real, made, nothing) is None


def test_voxels_outside_the_mask_do_not_count() -> None:
    real, made = pair()
    changed = np.where(BODY, made, np.float32(0.7))
    for metric in (mae, psnr, nrmse):
        assert metric(real, changed, BODY) == metric(real, made, BODY)


def test_halving_is_average_pooling_and_repeats_an_odd_edge() -> None:
    image = np.random.default_rng(3).random((6, 8, 4), np.float32)
    np.testing.assert_allclose(halved(image), pooled(image), rtol=1e-6)
    odd = np.random.default_rng(4).random((7, 5, 9), np.float32)
    np.testing.assert_allclose(halved(odd), pooled(np.pad(odd, (0, 1), mode="edge")), rtol=1e-6)
    kept = odd.copy()
    halved(odd)
    np.testing.assert_array_equal(odd, kept)
