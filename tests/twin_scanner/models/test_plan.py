"""HU and SUV to model space and back; the oracle is the definition in the design: 0 is air, 1 is SUV 20."""

import json
from dataclasses import replace

import numpy as np
import pytest

from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import AIR_HU, Geometry, Triple, Volume, resample
from twin_scanner.models import plan
from twin_scanner.models.plan import Plan, ct_on_grid, ct_to_model, model_to_suv, plan_from_json, suv_to_model

pytestmark = pytest.mark.unit


def test_the_window_maps_air_to_zero_and_its_upper_end_to_one() -> None:
    hu = np.array([-3024, -1024, 0, 1024, 3071], np.float32)
    assert ct_to_model(hu, Plan()).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_the_papers_min_max_scales_each_volume_by_itself() -> None:
    hu = np.array([-1000, 0, 1000], np.float32)
    assert ct_to_model(hu, Plan(ct_scaling="per-volume")).tolist() == pytest.approx([0.0, 0.5, 1.0])


def test_a_flat_volume_does_not_divide_by_zero() -> None:
    assert np.isfinite(ct_to_model(np.full(4, 7.0, np.float32), Plan(ct_scaling="per-volume"))).all()


def test_suv_comes_back_from_model_space_and_is_clipped_there() -> None:
    suv = np.array([0.0, 2.5, 20.0, 55.0], np.float32)
    assert model_to_suv(suv_to_model(suv, Plan()), Plan()).tolist() == pytest.approx([0.0, 2.5, 20.0, 20.0])


def test_model_space_is_float32_whatever_comes_in() -> None:
    assert ct_to_model(np.zeros(3, np.float32), Plan()).dtype == np.float32
    assert model_to_suv(np.zeros(3, np.float32), Plan()).dtype == np.float32


def test_the_hash_changes_with_every_field_and_only_then() -> None:
    plans = [
        Plan(),
        Plan(spacing_mm=(3.0, 2.0, 2.0)),
        Plan(ct_scaling="per-volume"),
        Plan(hu_low=-1000.0),
        Plan(hu_high=2000.0),
        Plan(suv_max=15.0),
        Plan(training_grid="ct"),
    ]
    assert len({plan.plan_hash for plan in plans}) == len(plans)
    assert Plan().plan_hash == replace(Plan()).plan_hash


WRITTEN_BEFORE = {
    (3.0, 2.04, 2.04): "f0313953b3b5d8dafa522d7192150a9b075c8f384af9cd561ea310d2b11a0ea4",
    (4.0, 4.08, 4.08): "0cdb42c01778394924ba3a180bf33dc5c790c545b92ff783bf223230bbc83d8d",
}
"""Hashes by spacing, recorded with the version that knew no other training grid than the CT's."""


@pytest.mark.parametrize("spacing_mm", sorted(WRITTEN_BEFORE))
def test_a_plan_of_a_version_that_knew_no_training_grid_keeps_its_hash(spacing_mm: Triple) -> None:
    rest = {"ct_scaling": "window", "hu_low": -1024.0, "hu_high": 1024.0, "suv_max": 20.0}
    plan = plan_from_json({"spacing_mm": list(spacing_mm), **rest})
    assert plan == Plan(spacing_mm, training_grid="ct") != Plan(spacing_mm)
    assert plan.plan_hash == WRITTEN_BEFORE[spacing_mm] != Plan(spacing_mm).plan_hash
    assert plan.as_json() == {"spacing_mm": list(spacing_mm), **rest}


def test_only_the_training_grid_changes_nothing_in_service() -> None:
    assert Plan(training_grid="ct").serves_like(Plan()) and Plan().serves_like(Plan(training_grid="ct"))
    assert not Plan(training_grid="ct").serves_like(Plan(suv_max=15.0))


@pytest.mark.parametrize("plan", [Plan(), Plan((3.0, 2.0, 2.0), "per-volume", -900.0, 1500.0, 15.0, "ct")])
def test_a_plan_comes_back_from_its_file(plan: Plan) -> None:
    assert plan_from_json(json.loads(json.dumps(plan.as_json()))) == plan


def test_the_grid_has_canonical_axes_and_the_plans_spacing() -> None:
    head_first_from_below = ((0.0, 0.0, -1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0))
    geometry = Geometry((10, 20, 30), (5.0, 1.0, 1.2), (18.0, 10.0, 45.0), head_first_from_below)
    array = np.arange(6000, dtype=np.float32).reshape(10, 20, 30)
    on_grid = ct_on_grid(Volume(array, geometry), Plan())
    assert on_grid.geometry.spacing_mm == (3.0, 2.04, 2.04)
    assert np.allclose(on_grid.geometry.direction, np.eye(3)[::-1])
    assert on_grid.array[0, 0, 0] > on_grid.array[-1, -1, -1]
    assert on_grid.array.min() > AIR_HU


def test_the_grid_holds_whole_hu_and_no_negative_zero() -> None:
    """So a CT kept as int16 for training equals the one that serving makes, byte for byte."""
    geometry = Geometry((4, 6, 5), (3.0, 2.04, 2.04), (0.0, 0.0, 0.0))
    array = np.random.default_rng(0).uniform(-2.0, 2.0, geometry.shape).astype(np.float32)
    whole = ct_on_grid(Volume(array, geometry), Plan()).array
    np.testing.assert_array_equal(whole, np.rint(array))
    assert whole.tobytes() == whole.astype(np.int16).astype(np.float32).tobytes()
    assert (array != whole).any()


def test_an_impossible_plan_is_rejected() -> None:
    with pytest.raises(Rejected, match="impossible"):
        Plan(hu_low=10.0, hu_high=0.0)


@pytest.mark.parametrize("tilted", [False, True])
def test_a_ct_resampled_slab_by_slab_is_the_ct_resampled_at_once(tilted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole at once is the oracle; the target juts out at both ends, its axes may be turned."""
    monkeypatch.setattr(plan, "SLAB_PLANES", 4)
    hu = np.random.default_rng(2).integers(-1024, 2000, (40, 21, 17)).astype(np.float32)
    ct = Volume(hu, Geometry(hu.shape, (1.25, 0.9, 1.1), (3.0, -7.0, 11.0)))
    cosine, sine = (np.cos(0.1), np.sin(0.1)) if tilted else (1.0, 0.0)
    turned = ((0.0, -sine, cosine), (0.0, cosine, sine), (1.0, 0.0, 0.0))
    target = Geometry((23, 11, 9), (2.5, 2.04, 2.04), (2.0, -6.0, 5.0), turned)
    whole = np.rint(resample(ct, target, outside=AIR_HU).array)
    np.testing.assert_array_equal(plan.resampled_ct(ct, target).array, whole)
    assert (whole == AIR_HU).any()
