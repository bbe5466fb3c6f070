"""What a network is given: channels of one CT, and the body around a window in cells of four voxels."""

import numpy as np
import pytest

from twin_scanner.imaging.volume import FloatArray, LabelArray, Shape
from twin_scanner.models.card import PAPER, Architecture
from twin_scanner.models.inputs import context_cells, ct_channels, surroundings
from twin_scanner.models.plan import Plan, ct_to_model

pytestmark = pytest.mark.unit

BOTH = Architecture("unet", 4, soft_tissue=True, context=True)
WHOLE: Shape = (70, 49, 35)


def study(seed: int = 0) -> tuple[FloatArray, LabelArray]:
    """Two channels of noise, and a body that leaves air on every side but one."""
    random = np.random.default_rng(seed)
    labels = np.zeros(WHOLE, np.uint8)
    labels[9:66, 6:, 3:30] = random.integers(0, 5, (57, 43, 27))
    return random.random((2, *WHOLE), np.float32), labels


def cell_by_cell(channels: FloatArray, labels: LabelArray, start: Shape) -> FloatArray:
    """The context of a window in a plain loop: the mean of each cell's voxels, 0 where the image has none."""
    body = channels * (labels > 0)
    context = np.zeros((len(channels), 32, 32, 32), np.float32)
    first = [4 * cell for cell in context_cells(start)]
    for place in np.ndindex(32, 32, 32):
        voxels = [slice(max(0, f + 4 * n), max(0, f + 4 * n + 4)) for f, n in zip(first, place, strict=True)]
        block = body[:, *voxels]
        if block.size:
            context[:, *place] = block.mean(axis=(1, 2, 3))
    return context


def test_the_papers_input_is_the_ct_alone() -> None:
    hu = np.linspace(-1200.0, 1200.0, 50, dtype=np.float32).reshape(5, 2, 5)
    channels = ct_channels(hu, Plan(), PAPER)
    assert channels.shape == (1, 5, 2, 5)
    np.testing.assert_array_equal(channels[0], ct_to_model(hu, Plan()))


@pytest.mark.parametrize("scaling", ["window", "per-volume"])
def test_the_soft_tissue_channel_is_one_window_for_every_plan(scaling: str) -> None:
    hu = np.array([[[-1000.0, -160.0, 40.0, 60.0, 240.0, 900.0]]], np.float32)
    plan = Plan(ct_scaling=scaling, hu_low=-500.0)  # type: ignore[arg-type]
    ct, soft = ct_channels(hu, plan, BOTH)
    np.testing.assert_array_equal(ct, ct_to_model(hu, plan))
    np.testing.assert_allclose(soft.ravel(), [0.0, 0.0, 0.5, 0.55, 1.0, 1.0], atol=1e-7)
    assert soft.dtype == np.float32


@pytest.mark.parametrize("start", [(0, 0, 0), (16, 16, 0), (38, 17, 3), (7, 2, 1)])
def test_the_context_is_the_mean_of_four_voxels_an_edge_around_the_same_centre(start: Shape) -> None:
    channels, labels = study()
    made = surroundings(channels, labels).around([start])[0]
    np.testing.assert_allclose(made, cell_by_cell(channels, labels, start), atol=1e-6)
    assert made.dtype == np.float32 and made.any()


@pytest.mark.parametrize("first", [*range(9), 211, 212, 213])
def test_the_centres_of_window_and_context_lie_within_two_voxels(first: int) -> None:
    (cell, *_) = context_cells((first, 0, 0))
    assert abs(4 * (cell + 16) - (first + 16)) <= 2


@pytest.mark.parametrize("corner", [(8, 4, 0), (9, 6, 3), (7, 5, 2)])
def test_the_cut_of_a_body_gives_the_same_bytes_as_the_whole_image(corner: Shape) -> None:
    """A training store keeps the cut alone; its corner need not lie between two cells."""
    channels, labels = study()
    cut = tuple(slice(c, end) for c, end in zip(corner, (67, WHOLE[1], 31), strict=True))
    part = surroundings(channels[:, *cut], labels[cut], corner, WHOLE)
    whole = surroundings(channels, labels)
    for start in ((0, 0, 0), (38, 17, 3), (20, 9, 2)):
        assert part.around([start]).tobytes() == whole.around([start]).tobytes()


def test_far_from_the_body_there_is_nothing() -> None:
    channels, labels = study()
    assert not surroundings(channels, np.zeros_like(labels)).around([(0, 0, 0)]).any()
    assert not surroundings(channels, labels).around([(600, 0, 0)]).any()
