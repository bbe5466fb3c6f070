"""The coarse grid holds the very means that NumPy's own sums over blocks give."""

import numpy as np
import pytest

from twin_scanner.districts.coarse_grid import coarse_ct, fine_slabs
from twin_scanner.imaging.volume import Geometry, Triple, Volume

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("spacing_mm", [(3.0, 0.9, 1.1), (1.2, 0.6, 4.0), (5.0, 1.3, 0.7)])
def test_blocks_of_unequal_sizes_have_the_sums_of_add_reduceat_bit_for_bit(spacing_mm: Triple) -> None:
    shape = (9, 41, 37)
    array = np.random.default_rng(0).normal(0.0, 700.0, shape).astype(np.float32)
    coarse = coarse_ct(Volume(array, Geometry(shape, spacing_mm, (0.0, 0.0, 0.0))))
    starts = [np.concatenate([[0], np.cumsum(sizes)[:-1]]) for sizes in coarse.blocks]
    for k, (start, size) in enumerate(zip(starts[0], coarse.blocks[0], strict=True)):
        plane = array[start : start + size].sum(axis=0)
        sums = np.add.reduceat(np.add.reduceat(plane, starts[1], axis=0), starts[2], axis=1)
        count = (size * coarse.blocks[1][:, None] * coarse.blocks[2][None, :]).astype(np.float32)
        assert np.array_equal(coarse.hu[k], sums / count)


def test_slab_by_slab_every_coarse_voxel_fills_its_block() -> None:
    shape = (9, 41, 37)
    coarse = coarse_ct(Volume(np.zeros(shape, np.float32), Geometry(shape, (3.0, 0.9, 1.1), (0.0, 0.0, 0.0))))
    values = np.random.default_rng(0).integers(0, 5, coarse.hu.shape, np.uint8)
    whole = values
    for axis, sizes in enumerate(coarse.blocks):
        whole = np.repeat(whole, sizes, axis=axis)
    fine = np.full(shape, 9, np.uint8)
    for slices, plane in fine_slabs(values, coarse):
        fine[slices] = plane
    assert np.array_equal(fine, whole)
