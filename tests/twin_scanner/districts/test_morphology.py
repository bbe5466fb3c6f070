"""Growing and convolving, as SciPy's own slower or heavier functions have it."""

import numpy as np
import pytest
from scipy import ndimage, signal

from twin_scanner.districts.morphology import convolved, grown

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("size", [(3, 3, 3), (7, 1, 1), (1, 5, 3)])
def test_a_mask_grows_by_a_box_as_binary_dilation_grows_it_also_at_the_image_s_border(
    size: tuple[int, int, int],
) -> None:
    mask = np.random.default_rng(0).random((12, 14, 16)) > 0.97
    mask[0, 0, 0] = True
    assert np.array_equal(grown(mask, size), ndimage.binary_dilation(mask, np.ones(size, np.bool_)))


@pytest.mark.parametrize("kernel", [(3, 3, 3), (5, 7, 4)])
def test_a_convolution_is_scipys_to_the_bit(kernel: tuple[int, int, int]) -> None:
    random = np.random.default_rng(0)
    values, weights = (random.random(shape, dtype=np.float32) for shape in ((21, 18, 25), kernel))
    assert np.array_equal(convolved(values, weights), signal.fftconvolve(values, weights, mode="same"))
