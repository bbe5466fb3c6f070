"""The window-edge metric on images whose steps are known, and against a plain loop."""

import numpy as np
import pytest

from training.evaluation.window_edges import window_edges
from twin_scanner.imaging.volume import FloatArray, LabelArray

pytestmark = pytest.mark.unit

SHAPE = (52, 34, 33)
"""Windows start at 0, 16 and 20 along D, at 0 and 2 along H, at 0 and 1 along W, and end 32 voxels later."""
EDGES = ({16, 20, 32, 48}, {2, 32}, {1, 32})


def two_districts() -> LabelArray:
    """A body in air, its upper half another district."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:50, 4:33, 2:] = 2
    labels[27:50, 4:33, 2:] = 1
    return labels


def by_loop(image: FloatArray, labels: LabelArray) -> tuple[float, float, int]:
    """Mean step at the edges, elsewhere, and the faces at edges: every pair of neighbours, one after the other."""
    steps: dict[bool, list[float]] = {True: [], False: []}
    for at in np.ndindex(SHAPE):
        for axis in range(3):
            before = tuple(n - (a == axis) for a, n in enumerate(at))
            if min(before) >= 0 and labels[at] == labels[before] > 0:
                steps[at[axis] in EDGES[axis]].append(abs(float(image[at]) - float(image[before])))
    return float(np.mean(steps[True])), float(np.mean(steps[False])), len(steps[True])


def test_the_steps_are_those_of_a_plain_loop() -> None:
    image = np.random.default_rng(1).random(SHAPE, np.float32)
    found = window_edges(image, two_districts())
    assert found is not None
    at_edges, elsewhere, faces = by_loop(image, two_districts())
    assert (found.at_edges, found.elsewhere) == (pytest.approx(at_edges, rel=1e-5), pytest.approx(elsewhere, rel=1e-5))
    assert found.faces == faces and found.ratio == pytest.approx(at_edges / elsewhere, rel=1e-5)
    assert 0.95 < found.ratio < 1.05, "in pure noise no window shows"


def test_a_step_where_a_window_ends_shows_and_one_between_two_edges_does_not() -> None:
    grain = np.random.default_rng(2).normal(0, 0.1, SHAPE).astype(np.float32)
    ratios = []
    for plane in (16, 24):
        image = grain.copy()
        image[plane:] += 1.0
        found = window_edges(image, np.ones(SHAPE, np.uint8))
        assert found is not None
        ratios.append(found.ratio)
    assert ratios[0] > 1.5 and ratios[1] < 1.0


def test_the_border_of_two_districts_and_the_skin_are_no_edges_of_windows() -> None:
    labels = np.where(np.arange(SHAPE[0]) < 16, np.uint8(2), np.uint8(1))[:, None, None] * np.ones(SHAPE, np.uint8)
    labels[:, :2] = 0
    image = np.random.default_rng(3).normal(0, 0.1, SHAPE).astype(np.float32)
    calm = window_edges(image, labels)
    image[16:] += 5.0
    image[:, :2] = 9.0
    stepped = window_edges(image, labels)
    assert calm is not None and stepped is not None and stepped.ratio == pytest.approx(calm.ratio, rel=1e-4)


@pytest.mark.parametrize("shape", [(32, 32, 32), (20, 30, 32)])
def test_an_image_of_one_window_has_no_edges(shape: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(4).random(shape, np.float32)
    assert window_edges(noise, np.ones(shape, np.uint8)) is None


def test_a_flat_image_has_no_steps_to_compare_with() -> None:
    assert window_edges(np.ones(SHAPE, np.float32), two_districts()) is None
    assert window_edges(np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)) is None
