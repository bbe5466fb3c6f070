"""The head's border in head-and-neck CTs; the oracle is the phantom, whose districts are known."""

from functools import cache

import numpy as np
import pytest

from tests.samples.cases import quick_and_long
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_scanner.districts.landmarks.segmenter import LandmarkSegmenter
from twin_scanner.imaging.volume import FloatArray, Geometry, LabelArray, Volume

pytestmark = pytest.mark.unit

HEAD = 1
SPACING_MM = (3.0, 4.0, 4.0)
CHEST_MM = 110.0
"""Height above the image's end from which on the neck leans."""


@cache
def head_and_neck() -> tuple[FloatArray, LabelArray]:
    """Vertex to the upper chest, of a phantom that looks straight up."""
    phantom = make_phantom(0, PhantomOptions(SPACING_MM, field_of_view=(1330.0, 2000.0), sex="F", contrast=True))
    return phantom.ct.array, phantom.districts


def stretched(degrees: float) -> tuple[Volume, LabelArray]:
    """The same with the neck leaning back, so that the spine comes forward under the face."""
    array, districts = head_and_neck()
    lean_mm = np.maximum(0.0, np.arange(len(array)) * SPACING_MM[0] - CHEST_MM) * np.tan(np.radians(degrees))
    shifts = np.rint(lean_mm / SPACING_MM[1]).astype(int)
    shape = (array.shape[0], array.shape[1] + int(shifts.max()), array.shape[2])
    ct, truth = np.full(shape, -1000.0, np.float32), np.zeros(shape, np.uint8)
    for k, shift in enumerate(shifts):
        ct[k, shift : shift + array.shape[1]] = array[k]
        truth[k, shift : shift + array.shape[1]] = districts[k]
    return Volume(ct, Geometry(shape, SPACING_MM, (0.0, 0.0, 0.0))), truth


@pytest.mark.parametrize("degrees", quick_and_long([25.0], [0.0]))
def test_the_spine_of_a_neck_however_it_leans_is_not_taken_for_the_jaw(degrees: float) -> None:
    ct, truth = stretched(degrees)
    found = LandmarkSegmenter().segment(ct)
    head = found.labels == HEAD
    lowest, expected = (int(np.flatnonzero(mask.any(axis=(1, 2)))[0]) for mask in (head, truth == HEAD))
    assert abs(lowest - expected) * SPACING_MM[0] <= 12.0
    both = float((head & (truth == HEAD)).sum())
    assert 2.0 * both / float(head.sum() + (truth == HEAD).sum()) >= 0.97
    assert {part.part: part.border for part in found.quality}["head"] == "found"
