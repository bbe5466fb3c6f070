"""The seam metric on images whose jumps are known."""

import numpy as np
import pytest

from tests.samples.known_cases import SHAPE, districts
from training.evaluation.seam import seam
from twin_scanner.imaging.volume import FloatArray, LabelArray

pytestmark = pytest.mark.unit


def two_districts(axis: int) -> LabelArray:
    """A body that fills its image, cut in the middle of an axis."""
    labels = np.full(SHAPE, 2, np.uint8)
    np.moveaxis(labels, axis, 0)[SHAPE[axis] // 2 :] = 1
    return labels


def test_a_seam_of_1_suv_is_1() -> None:
    """The real PET is flat; the synthetic one is 1 higher in the head: the step is at its border alone."""
    labels = districts()
    real = np.where(labels > 0, np.float32(1.0), np.float32(0.0))
    made = np.where(labels == 1, real + 1, real).astype(np.float32)
    only_head = np.where(labels == 1, 1, np.where(labels > 0, 2, 0)).astype(np.uint8)
    found = seam(real, made, only_head)
    assert found is not None and found.real == 0 and found.excess == pytest.approx(1.0)
    assert found.faces == 32 * 34, "every voxel of the head's underside"


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("step", [1.0, -1.0])
def test_a_step_of_1_suv_is_1_whichever_way_the_border_runs(axis: int, step: float) -> None:
    labels = two_districts(axis)
    real = np.zeros(SHAPE, np.float32)
    found = seam(real, np.where(labels == 1, np.float32(step), np.float32(0.0)), labels)
    assert found is not None and (found.real, found.synthetic) == (0.0, 1.0)
    assert found.faces == np.prod(SHAPE) // SHAPE[axis]


@pytest.mark.parametrize(("first", "last"), [(0.5, 0.1), (-0.5, 0.1), (0.5, -0.1)])
def test_the_jump_is_the_step_across_less_the_mean_of_those_beside_it(first: float, last: float) -> None:
    """By hand along one line: steps of 0.5, 2 and 0.1 about the border, up or down."""
    line = np.cumsum([0.0, first, 2.0, last], dtype=np.float32)
    labels = np.array([2, 2, 1, 1], np.uint8)[:, None, None]
    found = seam(np.zeros((4, 1, 1), np.float32), line[:, None, None], labels)
    assert found is not None and found.faces == 1
    assert found.synthetic == pytest.approx(2.0 - (0.5 + 0.1) / 2) and found.excess == found.synthetic


def test_a_real_step_at_the_border_is_no_fault_of_the_synthetic_pet() -> None:
    labels = two_districts(0)
    real = np.where(labels == 1, np.float32(3.0), np.float32(1.0))
    found = seam(real, real.copy(), labels)
    assert found is not None and found.real == pytest.approx(2.0) and found.excess == 0


def test_a_synthetic_pet_that_blurs_a_real_step_away_has_a_negative_excess() -> None:
    labels = two_districts(0)
    real = np.where(labels == 1, np.float32(3.0), np.float32(1.0))
    found = seam(real, np.full(SHAPE, np.float32(2.0)), labels)
    assert found is not None and found.excess == pytest.approx(-2.0)


def test_a_gradient_that_goes_on_across_the_border_is_no_seam() -> None:
    labels = districts()
    ramp: FloatArray = np.broadcast_to(np.arange(SHAPE[0], dtype=np.float32)[:, None, None], SHAPE)
    found = seam(ramp, ramp * 2, labels)
    assert found is not None and found.excess == pytest.approx(0.0) and found.real == pytest.approx(0.0)


def test_the_skin_is_no_seam() -> None:
    """Where the body ends, the PET falls to 0; only borders between two districts count."""
    labels = districts()
    made = np.where(labels > 0, np.float32(5.0), np.float32(0.0))
    found = seam(made, made, labels)
    assert found is not None and found.synthetic == 0


def test_a_district_one_voxel_thick_has_no_inside_to_compare_with() -> None:
    labels = np.full((8, 3, 3), 2, np.uint8)
    labels[4] = 1
    assert seam(np.zeros(labels.shape, np.float32), np.ones(labels.shape, np.float32), labels) is None


def test_without_a_border_there_is_no_seam() -> None:
    flat = np.ones(SHAPE, np.float32)
    assert seam(flat, flat, (districts() > 0).astype(np.uint8)) is None
