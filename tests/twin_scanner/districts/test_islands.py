"""Small pieces of a district that lie apart from it, on maps of which every voxel is known; a voxel has 0.1 ml."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from twin_scanner.districts import islands
from twin_scanner.districts.islands import join_islands
from twin_scanner.imaging.volume import LabelArray

pytestmark = pytest.mark.unit

SPACING_MM = (10.0, 2.0, 5.0)


def joined(labels: LabelArray) -> LabelArray:
    """The map after its islands were joined."""
    result = labels.copy()
    join_islands(result, SPACING_MM)
    return result


def bodies() -> LabelArray:
    """A trunk (2) and an arm (3) beside it, with air around."""
    labels = np.zeros((10, 12, 14), np.uint8)
    labels[2:8, 2:10, 2:7] = 2
    labels[2:8, 2:10, 8:12] = 3
    return labels


def test_a_crumb_in_the_air_is_no_body() -> None:
    labels = bodies()
    labels[0, 0:3, 0:3] = 2
    assert (joined(labels) == bodies()).all()


def test_a_crumb_inside_another_district_becomes_that_one() -> None:
    labels = bodies()
    labels[4, 4:7, 3:6] = 3
    assert (joined(labels) == bodies()).all()


def test_two_crumbs_that_touch_each_other_become_what_is_around_both() -> None:
    labels = bodies()
    labels[4, 4:7, 3:5] = 3
    labels[4, 4:7, 5:6] = 1
    labels[0, 0, 0:2] = 1
    labels[9, 3:5, 3:5] = 4
    labels[9, 5:7, 3:5] = 1
    labels[9, 9, 9] = 1
    once = joined(labels)
    assert (once[:9] == bodies()[:9])[1:].all()
    sizes = {label: [int(n) for n in np.bincount(ndimage.label(once == label)[0].ravel())[1:]] for label in (1, 4)}
    assert all(len(pieces) <= 1 for pieces in sizes.values()), "only the largest piece of a district may be so small"


def test_a_millilitre_apart_is_a_part_of_the_body() -> None:
    labels = bodies()
    labels[0, 0:5, 0:2] = 3
    assert (joined(labels) == labels).all()


def test_pieces_that_share_only_an_edge_hang_together_no_more() -> None:
    labels = bodies()
    labels[8, 10, 2:7] = 2
    assert (joined(labels) == bodies()).all()


def test_the_largest_piece_stays_however_small_it_is() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 1, 1:3] = 4
    labels[3, 3, 3] = 4
    found = joined(labels)
    assert [tuple(int(i) for i in place) for place in np.argwhere(found)] == [(1, 1, 1), (1, 1, 2)]


def test_a_map_without_districts_stays_empty() -> None:
    assert not joined(np.zeros((3, 3, 3), np.uint8)).any()


@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_the_islands_are_those_that_counting_every_voxel_of_every_piece_gives(share: float) -> None:
    """Also where the first piece by number is one of them: a corner's voxel is always the first."""
    mask = np.random.default_rng(1).random((12, 13, 14)) < share
    mask[0, 0, 0], mask[1, 0, 0], mask[0, 1, 0], mask[0, 0, 1] = True, False, False, False
    pieces, count = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    small = (sizes * 0.1 < 1.0) & (sizes < sizes.max())
    small[0] = False
    box = (slice(0, 12), slice(0, 13), slice(0, 14))
    found = islands._islands(np.where(mask, np.uint8(2), np.uint8(0)), 2, box, voxel_ml=0.1)
    assert np.array_equal(found, np.argwhere(small[pieces]))
    assert small[1]


def test_more_crumbs_than_two_bytes_can_number_are_all_joined() -> None:
    """Single voxels inside another district; of equal pieces none is the largest, so all of these stay."""
    labels = np.full((50, 100, 120), 2, np.uint8)
    labels[1:-1:2, 1:-1:2, 1:-1:2] = 3
    labels[1, 1, 2] = 3
    assert ndimage.label(labels == 3)[1] > np.iinfo(np.uint16).max
    assert (joined(labels) == 3).sum() == 3, "the piece of three voxels is the largest"


def test_numbering_the_pieces_of_a_district_takes_at_most_four_bytes_a_voxel() -> None:
    """The district itself, as a mask, takes one, and the numbers two; what is beside that is less than one slice."""
    labels = np.zeros((60, 120, 120), np.uint8)
    labels[2:-2, 2:-2, 2:-2] = 2
    labels[0, 0, 0] = 2
    tracemalloc.start()
    try:
        join_islands(labels, SPACING_MM)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert labels[0, 0, 0] == 0
    assert peak < 4 * labels.size
