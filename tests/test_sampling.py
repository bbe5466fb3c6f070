"""Random windows: placed and masked as in service, each touching the region, repeatable by seed."""

import numpy as np
import pytest

from training.pairs import Pair
from training.sampling import Sampler, patch_at
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.loop

WHOLE = (70, 48, 32)


def pair(corner: tuple[int, int, int] = (10, 5, 3), cut: tuple[int, int, int] = (50, 40, 20)) -> Pair:
    random = np.random.default_rng(1)
    labels = np.zeros(cut, np.uint8)
    labels[2:20], labels[30:] = 1, 2
    ct, pet = random.random((2, *cut), np.float32)
    return Pair(ct, pet, labels, WHOLE, corner)


def whole(example: Pair, values: np.ndarray) -> np.ndarray:
    """The field of view that the cut came from, 0 outside it."""
    volume = np.zeros(example.shape, values.dtype)
    volume[tuple(slice(c, c + n) for c, n in zip(example.corner, values.shape, strict=True))] = values
    return volume


@pytest.mark.parametrize("start", [(0, 0, 0), (38, 16, 0), (7, 3, 0), (20, 9, 0)])
def test_a_window_is_the_masked_field_of_view(start: tuple[int, int, int]) -> None:
    """Paper eq. 7, 8, 10, 11 on the whole volume; windows reach beyond the cut."""
    example = pair()
    cube = tuple(slice(s, s + 32) for s in start)
    patch = patch_at(example, (2,), start)
    mask = whole(example, example.labels)[cube] == 2
    np.testing.assert_array_equal(patch.mask, mask)
    np.testing.assert_array_equal(patch.ct, whole(example, example.ct)[cube] * mask)
    np.testing.assert_array_equal(patch.pet, whole(example, example.pet)[cube] * mask)


def test_every_window_that_touches_the_region_is_drawn_and_no_other() -> None:
    """Oracle: the set of all places, one by one. Starts are read off a CT that holds its own coordinates."""
    example = pair()
    coordinates = np.arange(np.prod(example.ct.shape), dtype=np.float32).reshape(example.ct.shape) + 1
    numbered = Pair(coordinates, example.pet, np.full_like(example.labels, 1), WHOLE, example.corner)
    region = whole(example, example.labels) == 2
    numbered.labels[example.labels != 2] = 0
    possible = {
        (d, h, w)
        for d in range(WHOLE[0] - 31)
        for h in range(WHOLE[1] - 31)
        for w in range(WHOLE[2] - 31)
        if region[d : d + 32, h : h + 32, w : w + 32].any()
    }
    random, sampler = np.random.default_rng(0), Sampler([numbered], (1,))
    drawn = {patch.ct.tobytes() for patch in (sampler.draw(random) for _ in range(len(possible) * 12))}
    assert drawn == {patch_at(numbered, (1,), start).ct.tobytes() for start in possible}


def test_the_same_random_state_draws_the_same_windows() -> None:
    sampler = Sampler([pair(), pair((0, 0, 0))], (1,))
    one, two = (
        [sampler.draw(random).ct.tobytes() for _ in range(10)]
        for random in (np.random.default_rng(4), np.random.default_rng(4))
    )
    assert one == two and len(set(one)) > 5


def test_pairs_without_the_district_are_passed_over() -> None:
    without = pair()
    without.labels[without.labels == 1] = 2
    sampler = Sampler([without, pair()], (1,))
    assert all(sampler.draw(np.random.default_rng(n)).mask.any() for n in range(8))
    with pytest.raises(Rejected, match=r"No training pair contains labels \[1\]"):
        Sampler([without], (1,))


def test_a_partition_without_masks_sees_the_air_too() -> None:
    patch = Sampler([pair((0, 0, 0), WHOLE)], ()).draw(np.random.default_rng(0))
    assert patch.mask.all() and (patch.ct > 0).mean() > 0.99
