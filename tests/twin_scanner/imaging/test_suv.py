"""SUV of regions; the oracle is a plain loop over every voxel of every sphere."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin_scanner.imaging.suv import PEAK_RADIUS_MM, region_suv, sphere_rows
from twin_scanner.imaging.volume import FloatArray, Geometry, LabelArray, Triple, Volume

pytestmark = pytest.mark.unit


def image(array: FloatArray, spacing_mm: Triple) -> Volume:
    d, h, w = array.shape
    return Volume(array.astype(np.float32), Geometry((d, h, w), spacing_mm, (0.0, 0.0, 0.0)))


def sphere(spacing_mm: Triple) -> list[tuple[int, int, int]]:
    """Offsets of the voxels whose centres lie in the sphere of 1 ml."""
    reach = [range(-int(7 / s) - 1, int(7 / s) + 2) for s in spacing_mm]
    return [
        offset
        for offset in itertools.product(*reach)
        if sum((o * s) ** 2 for o, s in zip(offset, spacing_mm, strict=True)) <= PEAK_RADIUS_MM**2
    ]


def brute_force_peak(suv: Volume, labels: LabelArray, label: int) -> float | None:
    best = None
    offsets = sphere(suv.geometry.spacing_mm)
    for centre in np.argwhere(labels == label):
        points = [centre + offset for offset in offsets]
        if all((p >= 0).all() and (p < labels.shape).all() for p in points):
            mean = float(np.mean([suv.array[tuple(p)] for p in points], dtype=np.float64))
            best = mean if best is None else max(best, mean)
    return best


@settings(max_examples=10, deadline=None)
@given(
    st.tuples(*[st.floats(1.5, 7.0) for _ in range(3)]),
    st.integers(0, 2**32 - 1),
)
def test_every_number_is_that_of_a_plain_loop(spacing_mm: Triple, seed: int) -> None:
    rng = np.random.default_rng(seed)
    suv = image(rng.random((9, 10, 11)), spacing_mm)
    labels = rng.integers(0, 3, (9, 10, 11)).astype(np.uint8)
    found = region_suv(suv, labels)
    for label in (1, 2):
        one = found[label]
        inside = suv.array[labels == label]
        assert one.mean == pytest.approx(float(inside.mean(dtype=np.float64)))
        assert one.maximum == pytest.approx(float(inside.max()))
        assert suv.array[one.maximum_at] == pytest.approx(one.maximum)
        assert labels[one.maximum_at] == label
        assert one.volume_ml == pytest.approx(len(inside) * np.prod(spacing_mm) / 1000.0)
        wanted = brute_force_peak(suv, labels, label)
        assert (one.peak is None) == (wanted is None)
        if one.peak is not None and one.peak_at is not None:
            assert one.peak == pytest.approx(wanted)
            assert labels[one.peak_at] == label


def test_the_sphere_has_one_millilitre_on_a_fine_grid() -> None:
    rows = sphere_rows((0.5, 0.5, 0.5))
    assert sum(2 * half + 1 for half in rows.values()) * 0.5**3 / 1000.0 == pytest.approx(1.0, rel=0.01)


def test_a_ball_of_uniform_uptake_larger_than_the_sphere_has_its_peak_at_its_uptake() -> None:
    axes = np.meshgrid(*(np.arange(-15, 16) * 2.0,) * 3, indexing="ij")
    ball = sum(a**2 for a in axes) <= 12.0**2
    suv = image(np.where(ball, 5.0, 0.5), (2.0, 2.0, 2.0))
    found = region_suv(suv, ball.astype(np.uint8))[1]
    assert found.peak == pytest.approx(5.0)
    assert found.mean == pytest.approx(5.0)


def test_a_label_that_is_nowhere_has_no_numbers() -> None:
    suv = image(np.ones((9, 9, 9)), (3.0, 3.0, 3.0))
    assert region_suv(suv, np.zeros((9, 9, 9), np.uint8)) == {}
    assert set(region_suv(suv, np.full((9, 9, 9), 7, np.uint8))) == {7}


def test_an_image_thinner_than_the_sphere_has_no_peak() -> None:
    suv = image(np.ones((2, 20, 20)), (3.0, 3.0, 3.0))
    found = region_suv(suv, np.ones((2, 20, 20), np.uint8))[1]
    assert found.peak is None
    assert found.maximum == 1.0
