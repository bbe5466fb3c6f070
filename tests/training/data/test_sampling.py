"""Random windows: placed and masked as in service, each touching the region, repeatable by seed."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.samples.small_pairs import small_config
from training.data.pairs import Pair
from training.data.sampling import Sampler, patch_at, windowed
from training.fit.batches import study_of
from twin_scanner.errors import Rejected
from twin_scanner.models.plan import Plan, ct_to_model, suv_to_model

pytestmark = pytest.mark.loop

PLAN = Plan()
WHOLE = (70, 48, 32)


def pair(
    corner: tuple[int, int, int] = (10, 5, 3), cut: tuple[int, int, int] = (50, 40, 20), patient: str = "one"
) -> Pair:
    random = np.random.default_rng(1)
    labels, lesions = np.zeros((2, *cut), np.uint8)
    labels[2:20], labels[30:] = 1, 2
    lesions[5, 6, 7] = lesions[35, 8, 9] = lesions[25] = 1
    ct = random.integers(-1000, 1000, cut, np.int16)
    pet = random.uniform(0.0, 30.0, cut).astype(np.float16)
    return Pair("study", patient, "", ct, pet, labels, lesions, (int(ct.min()), int(ct.max())), WHOLE, corner)


def whole(example: Pair, values: np.ndarray) -> np.ndarray:
    """The field of view that the cut came from, 0 outside it."""
    volume = np.zeros(example.shape, values.dtype)
    volume[tuple(slice(c, c + n) for c, n in zip(example.corner, values.shape, strict=True))] = values
    return volume


@pytest.mark.parametrize("scaling", ["window", "per-volume"])
@pytest.mark.parametrize("start", [(0, 0, 0), (38, 16, 0), (7, 3, 0), (20, 9, 0)])
def test_a_window_is_the_masked_field_of_view(start: tuple[int, int, int], scaling: str) -> None:
    """Paper eq. 7, 8, 10, 11 on the whole volume in model space, bit for bit; windows reach beyond the cut."""
    example, plan = pair(), replace(PLAN, ct_scaling=scaling)
    cube = tuple(slice(s, s + 32) for s in start)
    patch = patch_at(example, (2,), start, plan)
    mask = whole(example, example.labels)[cube] == 2
    ct, pet = ct_to_model(example.ct.astype(np.float32), plan), suv_to_model(example.pet.astype(np.float32), plan)
    np.testing.assert_array_equal(patch.mask, mask)
    np.testing.assert_array_equal(patch.ct, (whole(example, ct)[cube] * mask)[None])
    np.testing.assert_array_equal(patch.pet, whole(example, pet)[cube] * mask)
    assert (patch.study, patch.start) == ("study", start)


def test_per_volume_scaling_is_the_volumes_not_the_patchs() -> None:
    example, plan = pair(), replace(PLAN, ct_scaling="per-volume")
    scaled = windowed(example, plan)
    assert (scaled.hu_low, scaled.hu_high) == example.hu_range and windowed(example, PLAN) is PLAN


def test_every_window_that_touches_the_region_is_drawn_and_no_other() -> None:
    """Oracle: the set of all places, one by one."""
    example = pair()
    region = whole(example, example.labels) == 2
    possible = {
        (d, h, w)
        for d in range(WHOLE[0] - 31)
        for h in range(WHOLE[1] - 31)
        for w in range(WHOLE[2] - 31)
        if region[d : d + 32, h : h + 32, w : w + 32].any()
    }
    random, sampler = np.random.default_rng(0), Sampler([example], (2,), PLAN)
    assert {sampler.sample(random, 0).start for _ in range(len(possible) * 12)} == possible


def test_the_same_random_state_draws_the_same_windows() -> None:
    sampler = Sampler([pair(), pair((0, 0, 0))], (1,), PLAN)
    one, two = (
        [sampler.sample(random, n % 2).ct.tobytes() for n in range(10)]
        for random in (np.random.default_rng(4), np.random.default_rng(4))
    )
    assert one == two and len(set(one)) > 5


def test_pairs_without_the_district_are_passed_over() -> None:
    without = pair()
    without.labels[without.labels == 1] = 2
    sampler = Sampler([without, pair()], (1,), PLAN)
    assert sampler.studies == 1
    assert all(sampler.sample(np.random.default_rng(n), 0).mask.any() for n in range(8))
    with pytest.raises(Rejected, match=r"No training pair contains labels \[1\]"):
        Sampler([without], (1,), PLAN)


def test_a_partition_without_masks_sees_the_air_too() -> None:
    patch = Sampler([pair((0, 0, 0), WHOLE)], (), PLAN).sample(np.random.default_rng(0), 0)
    assert patch.mask.all() and (patch.ct > 0).mean() > 0.99


def test_a_network_of_several_labels_draws_windows_of_each() -> None:
    example = pair()
    sampler, random = Sampler([example], (1, 2), PLAN), np.random.default_rng(0)
    starts = [sampler.sample(random, 0).start[0] for _ in range(300)]
    assert min(starts) == 0 and max(starts) == 38


@pytest.mark.parametrize(("label", "voxel"), [(1, (5, 6, 7)), (2, (35, 8, 9))])
def test_a_lesion_share_of_one_always_shows_a_lesion_of_the_region(label: int, voxel: tuple[int, int, int]) -> None:
    """The lesion in slice 25 lies in no district. The window's place around the voxel is any that holds it."""
    example = pair()
    sampler, random = Sampler([example], (label,), PLAN, lesion_share=1.0), np.random.default_rng(0)
    starts = np.array([sampler.sample(random, 0).start for _ in range(400)])
    inside = np.array(voxel) + example.corner - starts
    assert inside.min() >= 0 and inside.max() < 32
    first = [max(0, v + c - 31) for v, c in zip(voxel, example.corner, strict=True)]
    last = [min(v + c, n - 32) for v, c, n in zip(voxel, example.corner, WHOLE, strict=True)]
    assert starts.min(axis=0).tolist() == first and starts.max(axis=0).tolist() == last


@pytest.mark.parametrize("annotated", [True, False])
def test_a_study_without_lesions_is_drawn_from_all_the_same(annotated: bool) -> None:
    without = replace(pair(), lesions=np.zeros((50, 40, 20), np.uint8) if annotated else None)
    sampler = Sampler([without], (2,), PLAN, lesion_share=1.0)
    assert sampler.sample(np.random.default_rng(0), 0).mask.any()


def test_half_of_the_patches_show_a_lesion_where_half_is_asked_for() -> None:
    """Those drawn for nothing in particular show it now and then too; oracle: the share of those alone."""
    example = pair()
    lesion = whole(example, (example.lesions == 1) & (example.labels == 2)) if example.lesions is not None else None
    assert lesion is not None
    shares = []
    for share in (0.0, 0.5):
        sampler, random = Sampler([example], (2,), PLAN, lesion_share=share), np.random.default_rng(0)
        starts = [sampler.sample(random, 0).start for _ in range(2000)]
        shares.append(np.mean([lesion[tuple(slice(s, s + 32) for s in start)].any() for start in starts]))
    assert abs(shares[1] - (0.5 + 0.5 * shares[0])) < 0.05


def test_a_cyclegans_pet_is_of_another_patient() -> None:
    pairs = [pair(patient=name) for name in ("one", "two", "one", "three")]
    sampler, random = Sampler(pairs, (1,), PLAN), np.random.default_rng(0)
    assert {sampler.other_patients_study(random, 0) for _ in range(100)} == {1, 3}
    with pytest.raises(Rejected, match="Only one patient"):
        Sampler([pairs[0], pairs[2]], (1,), PLAN).other_patients_study(random, 0)


def test_every_round_visits_every_study_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    drawn = [study_of(config, "trunk", sample, 7) for sample in range(7 * 32)]
    rounds = [tuple(drawn[at : at + 7]) for at in range(0, len(drawn), 7)]
    assert all(sorted(turn) == list(range(7)) for turn in rounds) and len(set(rounds)) > 28
    assert Counter(drawn) == dict.fromkeys(range(7), 32)
    assert drawn != [study_of(config, "legs", sample, 7) for sample in range(7 * 32)]
