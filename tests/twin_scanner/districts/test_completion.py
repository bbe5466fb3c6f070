"""What is left over. Oracles: brute force over every voxel, and the labels that were given."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.samples.labelled_body import GRID, body, ct_of, four_districts, turned
from twin_scanner.districts.completion import completed, every_voxel_labelled, upright_body
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import LabelArray, Triple, Volume

pytestmark = pytest.mark.unit

Mask = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
SHAPES = arrays.array_shapes(min_dims=3, max_dims=3, max_side=9)
COARSE_MM = st.sampled_from([3.0, 4.0, 5.0, 7.5, 11.0])
"""A voxel is a block from 2.7 mm on, so that the nearest label is exact."""
FINE_MM = st.sampled_from([0.7, 1.0, 1.3, 2.0, 2.5, 4.0])


@st.composite
def bodies(draw: st.DrawFn, spacing_mm: st.SearchStrategy[float]) -> tuple[LabelArray, Mask, Triple]:
    """Any labels, dense or sparse, any mask, any spacing."""
    shape = draw(SHAPES)
    fill = draw(st.sampled_from([st.just(0), st.just(200), st.nothing()]))
    labels = draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 4, 117, 254]), fill=fill))
    inside = draw(arrays.arrays(np.bool_, shape))
    d, h, w = (draw(spacing_mm) for _ in range(3))
    return labels, inside, (d, h, w)


def distances_mm(labels: LabelArray, inside: Mask, spacing_mm: Triple, at: np.ndarray) -> dict[int, float]:
    """Distance from one voxel to the nearest one of each label that was given inside."""
    given_ones = np.where(inside, labels, 0)
    found = {}
    for label in np.unique(given_ones[given_ones > 0]):
        offsets = (np.argwhere(given_ones == label) - at) * np.asarray(spacing_mm)
        found[int(label)] = float(np.sqrt((offsets**2).sum(axis=1)).min())
    return found


@given(bodies(st.one_of(COARSE_MM, FINE_MM)), st.one_of(st.none(), st.integers(1, 254)))
@settings(max_examples=300, deadline=None)
def test_every_voxel_inside_has_one_label_none_outside_and_given_ones_stay(
    drawn: tuple[LabelArray, Mask, Triple], rest: int | None
) -> None:
    labels, inside, spacing_mm = drawn
    if rest is None and inside.any() and not labels[inside].any():
        with pytest.raises(Rejected, match="No voxel of the body"):
            every_voxel_labelled(labels, inside, spacing_mm)
        return
    before = labels.copy()
    found = every_voxel_labelled(labels, inside, spacing_mm, rest)
    assert found.dtype == np.uint8
    assert (found[inside] > 0).all()
    assert (found[~inside] == 0).all()
    assert np.array_equal(found[inside & (labels > 0)], labels[inside & (labels > 0)])
    left_over = set(np.unique(found[inside & (labels == 0)]).tolist())
    assert left_over <= ({rest} if rest is not None else set(np.unique(labels[inside]).tolist()) - {0})
    assert np.array_equal(labels, before)


@given(bodies(COARSE_MM))
@settings(max_examples=200, deadline=None)
def test_the_label_of_a_left_over_voxel_is_a_nearest_one(drawn: tuple[LabelArray, Mask, Triple]) -> None:
    labels, inside, spacing_mm = drawn
    if not labels[inside].any():
        return
    found = every_voxel_labelled(labels, inside, spacing_mm)
    for at in np.argwhere(inside & (labels == 0)):
        reach = distances_mm(labels, inside, spacing_mm, at)
        assert reach[int(found[tuple(at)])] == pytest.approx(min(reach.values()))


@given(bodies(FINE_MM))
@settings(max_examples=200, deadline=None)
def test_on_a_fine_grid_it_lies_at_most_two_diagonals_of_a_block_farther(
    drawn: tuple[LabelArray, Mask, Triple],
) -> None:
    labels, inside, spacing_mm = drawn
    if not labels[inside].any():
        return
    found = every_voxel_labelled(labels, inside, spacing_mm)
    diagonal_mm = float(np.linalg.norm([max(s, round(4.0 / s) * s) for s in spacing_mm]))
    for at in np.argwhere(inside & (labels == 0)):
        reach = distances_mm(labels, inside, spacing_mm, at)
        assert reach[int(found[tuple(at)])] <= min(reach.values()) + 2 * diagonal_mm


def test_a_body_one_voxel_thin_is_labelled_along_its_length() -> None:
    inside = np.zeros((1, 1, 101), np.bool_)
    inside[0, 0, 10:91] = True
    labels = np.zeros(inside.shape, np.uint8)
    labels[0, 0, 20], labels[0, 0, 80] = 1, 4
    found = every_voxel_labelled(labels, inside, (5.0, 5.0, 5.0))[0, 0]
    assert (found[10:50] == 1).all() and (found[51:91] == 4).all() and found[50] in (1, 4)


def test_no_body_needs_no_label() -> None:
    nothing = np.zeros((3, 4, 5), np.bool_)
    assert not every_voxel_labelled(np.ones((3, 4, 5), np.uint8), nothing, (1.0, 1.0, 1.0)).any()


def test_a_completed_map_covers_the_body_of_the_ct_and_nothing_of_its_table() -> None:
    """Oracle: the cylinder, to within the voxels at its rim."""
    inside = body()
    ct = ct_of(inside)
    ct.array[:, 45:47, 5:55] = 100.0
    labels = four_districts(inside)
    given_ones = labels.copy()
    labels[::2] = 0
    labels[:, 45:47] = 2
    found = completed(labels, ct)
    assert (found[inside] > 0).all()
    assert float((found[~inside] > 0).mean()) < 0.01
    assert float((found == given_ones)[inside].mean()) > 0.95


@pytest.mark.parametrize("orientation", ["SAR", "RAI", "PSL"])
def test_the_axis_order_of_the_ct_changes_nothing(orientation: str) -> None:
    inside = body()
    labels = four_districts(inside)
    labels[3::5] = 0
    upright = completed(labels, ct_of(inside))
    hu, grid = turned(ct_of(inside).array, GRID, orientation)
    again = completed(turned(labels, GRID, orientation)[0].astype(np.uint8), Volume(hu.astype(np.float32), grid))
    assert np.array_equal(again, turned(upright, GRID, orientation)[0])


def test_the_body_of_a_ct_without_one_is_rejected() -> None:
    with pytest.raises(Rejected, match="no human body"):
        upright_body(Volume(np.full(GRID.shape, -1000.0, np.float32), GRID))


def test_a_large_map_needs_four_bytes_a_voxel_at_most() -> None:
    """100 million voxels of a whole body then stay far below a gigabyte."""
    labels = np.zeros((80, 256, 256), np.uint8)
    labels[10:70, 60:200, 60:200] = np.random.default_rng(0).integers(0, 118, (60, 140, 140))
    inside = np.zeros(labels.shape, np.bool_)
    inside[:, 40:220, 30:230] = True
    tracemalloc.start()
    try:
        every_voxel_labelled(labels, inside, (2.5, 1.0, 1.0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * labels.size
