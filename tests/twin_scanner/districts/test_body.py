"""The body mask on drawn bodies with known answers; the oracle is the drawing itself."""

import numpy as np
import pytest

from twin_scanner.districts.body import find_body, refine_body
from twin_scanner.districts.coarse_grid import coarse_ct, to_ct_grid
from twin_scanner.districts.morphology import BoolArray
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import FloatArray, Geometry, Volume

pytestmark = pytest.mark.unit

GRID = Geometry((60, 120, 170), (4.0, 2.5, 2.5), (-210.0, -150.0, 0.0))
SKIN, TISSUE, BONE, LUNG, AIR, FOAM = -80.0, 40.0, 700.0, -800.0, -1000.0, -450.0


def ellipse(centre_mm: tuple[float, float], radii_mm: tuple[float, float]) -> BoolArray:
    """A section (H, W) around (y, x) in LPS mm."""
    rows = (np.arange(GRID.shape[1]) * 2.5 - 150.0)[:, None]
    columns = (np.arange(GRID.shape[2]) * 2.5 - 210.0)[None, :]
    return ((rows - centre_mm[0]) / radii_mm[0]) ** 2 + ((columns - centre_mm[1]) / radii_mm[1]) ** 2 <= 1.0


def chest(arm_mm: float = 170.0) -> tuple[FloatArray, BoolArray]:
    """HU and truth of a chest with open lungs, a spine and two arms apart from it, all cut at top and bottom."""
    hu = np.full(GRID.shape, AIR, np.float32)
    section = ellipse((0.0, 0.0), (100.0, 130.0))
    hu[:, section] = SKIN
    hu[:, ellipse((0.0, 0.0), (90.0, 120.0))] = TISSUE
    for side in (-60.0, 60.0):
        hu[:, ellipse((0.0, side), (60.0, 40.0))] = LUNG
    hu[:, ellipse((75.0, 0.0), (14.0, 16.0))] = BONE
    for side in (-arm_mm, arm_mm):
        arm = ellipse((0.0, side), (38.0, 32.0))
        hu[:, arm] = TISSUE
        hu[:, ellipse((0.0, side), (11.0, 11.0))] = BONE
        section = section | arm
    return hu, np.broadcast_to(section, GRID.shape)


def body_of(hu: FloatArray) -> BoolArray:
    """The refined mask on the CT's own grid."""
    ct = Volume(hu, GRID)
    coarse = coarse_ct(ct)
    upright = refine_body(find_body(coarse), coarse)
    return to_ct_grid(upright.astype(np.uint8), GRID) > 0


def assert_is(mask: BoolArray, truth: BoolArray) -> None:
    assert float(mask[truth].mean()) >= 0.99
    assert float((mask & ~truth).sum()) <= 0.01 * float(truth.sum())


def test_chest_and_arms_are_the_body_with_lungs_that_the_field_of_view_cuts_open() -> None:
    hu, truth = chest()
    mask = body_of(hu)
    assert_is(mask, truth)
    assert mask[hu == LUNG].all()


def test_a_table_that_touches_the_back_is_not_the_body() -> None:
    hu, truth = chest()
    rows = slice(int((102.5 + 150.0) / 2.5), int((140.0 + 150.0) / 2.5))
    hu[:, rows, 10:-10] = FOAM
    hu[:, rows.start : rows.start + 1, 10:-10] = 150.0
    hu[:, rows.stop - 1 : rows.stop + 1, 10:-10] = 150.0
    assert_is(body_of(hu), truth)


def test_a_blanket_over_the_chest_is_not_the_body() -> None:
    hu, truth = chest()
    hu[:, 14:16, 20:-20] = -100.0
    assert_is(body_of(hu), truth)


def test_the_gap_between_an_arm_and_the_chest_stays_outside_where_they_touch_in_front_and_behind() -> None:
    hu, truth = chest(arm_mm=172.0)
    ring = ellipse((0.0, 150.0), (75.0, 60.0)) & ~ellipse((0.0, 150.0), (45.0, 20.0))
    truth = truth.copy()
    truth[20:30] |= ring
    hu[truth & (hu == AIR)] = TISSUE
    gap = ellipse((0.0, 150.0), (45.0, 20.0)) & ~truth[25]
    assert gap.sum() > 50
    assert_is(body_of(hu), truth)


def test_metal_in_the_spine_changes_nothing() -> None:
    hu, truth = chest()
    hu[20:40, ellipse((75.0, 0.0), (5.0, 5.0))] = 8000.0
    assert_is(body_of(hu), truth)


def test_a_body_that_touches_the_edge_of_the_field_of_view_is_kept_to_the_edge() -> None:
    hu, truth = chest()
    box = (slice(0, 60), slice(22, 98), slice(40, 130))
    ct = Volume(np.ascontiguousarray(hu[box]), GRID.cropped(box))
    coarse = coarse_ct(ct)
    mask = refine_body(find_body(coarse), coarse)
    assert_is(mask, truth[box])


@pytest.mark.parametrize("value", [AIR, LUNG, FOAM])
def test_an_empty_scan_is_rejected(value: float) -> None:
    with pytest.raises(Rejected, match="no human body"):
        find_body(coarse_ct(Volume(np.full(GRID.shape, value, np.float32), GRID)))


def test_a_water_phantom_is_rejected() -> None:
    hu = np.full(GRID.shape, AIR, np.float32)
    hu[:, ellipse((0.0, 0.0), (100.0, 100.0))] = 0.0
    hu[:, ellipse((0.0, 0.0), (96.0, 96.0)) & ~ellipse((0.0, 0.0), (94.0, 94.0))] = 120.0
    with pytest.raises(Rejected, match="no skeleton"):
        find_body(coarse_ct(Volume(hu, GRID)))
