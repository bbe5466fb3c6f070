"""Growing, convolving and flooding, as slower or heavier functions have it."""

import numpy as np
import pytest
from scipy import ndimage, signal

from twin_scanner.districts.morphology import convolved, flooded, flooded_first, grown, joined_to

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


@pytest.mark.parametrize("share", [0.12, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_a_flood_along_a_mask_is_that_over_the_whole_image_to_the_voxel(share: float, seed: int) -> None:
    """At 0.12 the mask falls into many pieces, at 0.2 it hangs together by threads, at 0.5 it is one."""
    random = np.random.default_rng(seed)
    passable = random.random((17, 20, 23)) < share
    passable[:2], passable[:, :, -3:] = False, False
    marks = np.where(random.random(passable.shape) < 0.02, random.integers(1, 3, passable.shape), 0).astype(np.uint8)
    marks[2, 3, 4] = 1
    passable |= marks > 0
    whole = flooded(marks, np.where(passable, np.uint8(0), np.uint8(255)))
    assert np.array_equal(flooded_first(marks, passable), (whole == 1) & joined_to(passable, marks == 1))


def test_without_a_first_mark_nothing_is_flooded_first() -> None:
    marks = np.zeros((4, 4, 4), np.uint8)
    marks[1, 1, 1] = 2
    assert not flooded_first(marks, np.ones(marks.shape, np.bool_)).any()
