"""Voxel metrics and the seam against scikit-image, MONAI and images whose answer is known."""

import numpy as np
import pytest
import torch
from monai.metrics.regression import KernelType, compute_ssim_and_cs
from scipy import ndimage
from skimage import metrics as skimage_metrics

from tests.judged_cases import SHAPE, body_pet, districts
from training.evaluation.metrics import MARGIN, halved, mae, mean_inside, ms_ssim, nrmse, psnr, similarity
from training.evaluation.seam import seam
from twin_scanner.volume import FloatArray

pytestmark = pytest.mark.unit

BODY = districts() > 0
EVERYWHERE = np.ones(SHAPE, np.bool_)


def pair(noise: float = 0.05) -> tuple[FloatArray, FloatArray]:
    """Two images in model space: a textured body, and a blurred, scaled and noisy copy of it."""
    random = np.random.default_rng(1)
    texture = ndimage.gaussian_filter(random.random(SHAPE, np.float32), 2.0)
    real = (body_pet(2, 0.2) * (texture / texture.mean()) / 4.0).astype(np.float32)
    made = ndimage.gaussian_filter(real, 1.0) * np.float32(0.9)
    return np.clip(real, 0, 1), np.clip(made + random.normal(0, noise, SHAPE).astype(np.float32), 0, 1)


def test_error_measures_are_those_of_scikit_image_over_the_voxels_of_the_mask() -> None:
    real, made = pair()
    inside = (real[BODY], made[BODY])
    assert mae(real, made, BODY) == pytest.approx(np.abs(inside[0] - inside[1]).mean(), rel=1e-6)
    assert psnr(real, made, BODY) == pytest.approx(
        skimage_metrics.peak_signal_noise_ratio(*inside, data_range=1.0), rel=1e-5
    )
    assert nrmse(real, made, BODY) == pytest.approx(skimage_metrics.normalized_root_mse(*inside), rel=1e-5)


def test_the_similarity_map_is_scikit_images() -> None:
    real, made = pair()
    _, expected = skimage_metrics.structural_similarity(
        real.astype(np.float64), made.astype(np.float64), data_range=1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    np.testing.assert_allclose(similarity(real, made).ssim, expected, atol=2e-4)
    mean = mean_inside(similarity(real, made).ssim, BODY)
    assert mean == pytest.approx(expected[BODY].mean(), abs=1e-5) and 0.1 < expected[BODY].mean() < 0.9


def test_a_crop_with_a_margin_has_the_same_map_inside() -> None:
    real, made = pair()
    whole = similarity(real, made).ssim[12:30, 14:30, 15:31]
    cut = tuple(
        slice(part.start - MARGIN, part.stop + MARGIN) for part in (slice(12, 30), slice(14, 30), slice(15, 31))
    )
    inside = similarity(real[cut], made[cut]).ssim[MARGIN:-MARGIN, MARGIN:-MARGIN, MARGIN:-MARGIN]
    np.testing.assert_allclose(inside, whole, atol=1e-5)


def test_contrast_and_structure_are_monais() -> None:
    """MONAI's Gaussian of 11 voxels without padding: the same map, 5 voxels smaller on every side."""
    real, made = pair()
    _, expected = compute_ssim_and_cs(
        torch.from_numpy(real)[None, None].double(), torch.from_numpy(made)[None, None].double(), 3,
        kernel_size=[11] * 3, kernel_sigma=[1.5] * 3, data_range=1.0, kernel_type=KernelType.GAUSSIAN,
    )  # fmt: skip
    ours = similarity(real, made).contrast_structure[5:-5, 5:-5, 5:-5]
    np.testing.assert_allclose(ours, expected[0, 0].numpy(), atol=2e-4)


def test_several_scales_are_wangs_product_of_the_means_inside() -> None:
    """Computed again by scikit-image's map at the coarsest scale and MONAI-tested parts at the finer ones."""
    random = np.random.default_rng(5)
    real = ndimage.gaussian_filter(random.random((96, 96, 96), np.float32), 3.0)
    real = (real - real.min()) / (real.max() - real.min())
    made = np.clip(real + random.normal(0, 0.05, real.shape).astype(np.float32), 0, 1)
    inside = np.ones(real.shape, np.bool_)
    expected, weights = 1.0, (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    x, y = real, made
    for scale in range(4):
        expected *= float(similarity(x, y).contrast_structure.mean()) ** weights[scale]
        x, y = (torch.nn.functional.avg_pool3d(torch.from_numpy(image)[None], 2)[0].numpy() for image in (x, y))
    last = skimage_metrics.structural_similarity(
        x, y, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, win_size=5
    )
    full = skimage_metrics.structural_similarity(
        np.pad(x, 8, mode="symmetric"), np.pad(y, 8, mode="symmetric"), data_range=1.0, gaussian_weights=True,
        sigma=1.5, use_sample_covariance=False, full=True,
    )[1][8:-8, 8:-8, 8:-8].mean()  # fmt: skip
    assert np.isfinite(last)
    assert ms_ssim(real, made, inside) == pytest.approx(expected * full ** weights[4], rel=1e-4)


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
    expected = torch.nn.functional.avg_pool3d(torch.from_numpy(image)[None], 2)[0].numpy()
    np.testing.assert_allclose(halved(image), expected, rtol=1e-6)
    assert halved(np.arange(3, dtype=np.float32)[:, None, None] * np.ones((3, 2, 2), np.float32)).tolist() == [
        [[0.5]], [[2.0]],
    ]  # fmt: skip


def test_a_seam_of_1_suv_is_1() -> None:
    """The real PET is flat; the synthetic one is 1 higher in the head: the step is at its border alone."""
    labels = districts()
    real = np.where(labels > 0, np.float32(1.0), np.float32(0.0))
    made = np.where(labels == 1, real + 1, real).astype(np.float32)
    only_head = np.where(labels == 1, 1, np.where(labels > 0, 2, 0)).astype(np.uint8)
    found = seam(real, made, only_head)
    assert found is not None and found.real == 0 and found.excess == pytest.approx(1.0)
    assert found.faces == 32 * 34, "every voxel of the head's underside"


def test_a_gradient_that_goes_on_across_the_border_is_no_seam() -> None:
    labels = districts()
    ramp = np.broadcast_to(np.arange(SHAPE[0], dtype=np.float32)[:, None, None], SHAPE)
    found = seam(ramp, ramp * 2, labels)
    assert found is not None and found.excess == pytest.approx(0.0) and found.real == pytest.approx(0.0)


def test_without_a_border_there_is_no_seam() -> None:
    flat = np.ones(SHAPE, np.float32)
    assert seam(flat, flat, (districts() > 0).astype(np.uint8)) is None
