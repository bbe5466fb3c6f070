"""Random windows: placed and masked as in service, each touching the region, repeatable by seed."""

import itertools
import re
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.samples.small_pairs import small_config, small_sampler
from training.data.pairs import Pair
from training.data.sampling import Sampler, patch_at, windowed
from training.fit.batches import sample_batch, study_of
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


RECORDED = {
    0.0: [(32, 8, 0), (27, 0, 0), (21, 15, 0), (21, 2, 0), (38, 10, 0), (5, 8, 0), (38, 4, 0), (13, 13, 0)],
    0.5: [(33, 6, 0), (27, 0, 0), (24, 12, 0), (21, 1, 0), (38, 10, 0), (8, 4, 0), (38, 4, 0), (15, 7, 0)],
}
"""First voxels by lesion share, recorded before a window could be placed otherwise."""


@pytest.mark.parametrize("share", sorted(RECORDED))
def test_by_default_windows_are_where_they_always_were(share: float) -> None:
    sampler = Sampler([pair(), pair((0, 0, 0))], (2,), PLAN, lesion_share=share)
    random = np.random.default_rng(11)
    assert [sampler.sample(random, n % 2).start for n in range(8)] == RECORDED[share]


def test_by_default_a_cyclegans_windows_are_where_they_always_were(tmp_path: Path) -> None:
    config = replace(small_config(tmp_path), method="cyclegan")
    assert sample_batch(config, "trunk", small_sampler(0, 1, labels=(2,)), 1).origins == (
        "CT study-1 at [6, 8, 7], PET study-0 at [7, 3, 0]",
        "CT study-0 at [7, 12, 2], PET study-1 at [7, 1, 1]",
    )


def scattered() -> Pair:
    """A region of three voxels far apart in a field of view of 36 x 34 x 33, one of them alone above SUV 4."""
    labels = np.zeros((36, 34, 30), np.uint8)
    labels[0, 3, 4] = labels[20, 33, 29] = labels[33, 0, 0] = 2
    pet = np.where(labels == 2, 3.5, 30.0).astype(np.float16)
    pet[20, 33, 29] = 4.1
    ct = np.zeros(labels.shape, np.int16)
    return Pair("study", "one", "", ct, pet, labels, None, (0, 0), (36, 34, 33), (0, 0, 2))


def places(voxel: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Every start in the field of view whose window holds the voxel."""
    for start in itertools.product(*(range(length - 31) for length in shape)):
        if all(first <= at < first + 32 for first, at in zip(start, voxel, strict=True)):
            yield start


@pytest.mark.parametrize(
    ("options", "chosen"),
    [({"inside": True}, [(0, 3, 6), (20, 33, 31), (33, 0, 2)]), ({"hot_share": 1.0}, [(20, 33, 31)])],
)
def test_a_wanted_voxel_and_its_place_in_the_window_are_each_as_likely_as_any_other(
    options: dict[str, float], chosen: list[tuple[int, int, int]]
) -> None:
    """Oracle: all voxels times all places that hold them, counted one by one; the corner of the cut is (0, 0, 2)."""
    expected: Counter[tuple[int, ...]] = Counter()
    for voxel in chosen:
        around = list(places(voxel, (36, 34, 33)))
        for start in around:
            expected[start] += 1.0 / len(around) / len(chosen)
    random, sampler = np.random.default_rng(0), Sampler([scattered()], (2,), PLAN, **options)
    count = 2000
    found = Counter(sampler.sample(random, 0).start for _ in range(count))
    assert set(found) <= set(expected)
    for start, share in expected.items():
        assert abs(found[start] / count - share) < 5 * np.sqrt(share / count)


@pytest.mark.parametrize("inside", [True, False])
def test_a_study_without_uptake_has_windows_like_the_rest(inside: bool) -> None:
    cold = replace(pair(), pet=np.full((50, 40, 20), 4.0, np.float16))
    starts = []
    for hot_share in (0.0, 1.0):
        sampler = Sampler([cold], (2,), PLAN, inside=inside, hot_share=hot_share)
        random = np.random.default_rng(3)
        starts.append([sampler.sample(random, 0).start for _ in range(50)])
    assert starts[0] == starts[1]


def test_shares_of_lesions_and_uptake_exclude_each_other() -> None:
    """A lesion, a hot voxel and a third one, no two in one window: .1 + .6 / 3, .3 + .6 / 3 and .6 / 3 of all."""
    labels, lesions, ct = np.zeros((140, 32, 32), np.uint8), np.zeros((140, 32, 32), np.uint8), np.zeros((140, 32, 32))
    labels[[5, 70, 125], 9, 9], lesions[5, 9, 9] = 2, 1
    pet = np.where(np.arange(140)[:, None, None] == 70, np.float16(5.0), np.zeros_like(ct, np.float16))
    far = Pair("study", "one", "", ct.astype(np.int16), pet, labels, lesions, (0, 0), labels.shape, (0, 0, 0))
    sampler = Sampler([far], (2,), PLAN, inside=True, lesion_share=0.1, hot_share=0.3)
    random, count = np.random.default_rng(5), 1000
    held = Counter(int(sampler.sample(random, 0).start[0] // 39) for _ in range(count))
    for at, share in enumerate((0.3, 0.5, 0.2)):
        assert abs(held[at] / count - share) < 0.07


def test_the_places_of_a_large_region_take_next_to_no_memory() -> None:
    """Four million voxels would be 16 MB as a list of 32-bit indices."""
    shape = (160, 160, 160)
    labels, pet = np.full(shape, 2, np.uint8), np.full(shape, 9.0, np.float16)
    large = Pair("study", "one", "", np.zeros(shape, np.int16), pet, labels, None, (0, 0), shape, (0, 0, 0))
    sampler, random = Sampler([large], (2,), PLAN, inside=True, hot_share=0.5), np.random.default_rng(0)
    tracemalloc.start()
    try:
        for _ in range(10):
            sampler.sample(random, 0)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000 and peak < 3_000_000


def test_a_cyclegans_ct_and_pet_are_both_placed_as_asked(tmp_path: Path) -> None:
    config = replace(small_config(tmp_path), method="cyclegan")
    pairs = [replace(scattered(), name=name, patient=name) for name in ("one", "two", "three")]
    sampler = Sampler(pairs, (2,), PLAN, hot_share=1.0)
    possible = set(places((20, 33, 31), (36, 34, 33)))
    for step in range(5):
        for origin in sample_batch(config, "trunk", sampler, step).origins:
            starts = re.findall(r"\[(\d+), (\d+), (\d+)\]", origin)
            assert len(starts) == 2 and {tuple(map(int, start)) for start in starts} <= possible


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
