"""Augmentation: CT and PET move together, noise is the CT's alone, and a draw can be replayed."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from training.data.sampling import Patch
from training.fit.augmentation import Augmentation, augment, move, sample_augmentation
from training.fit.config import AugmentationConfig
from twin_scanner.imaging.volume import Triple

pytestmark = pytest.mark.loop

CUBES = (1.0, 1.0, 1.0)
AUTOPET = (3.0, 2.04, 2.04)
STILL = Augmentation((False, False, False), (0.0, 0.0, 0.0), 0.0, 0)


def patches(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    mask = np.zeros((32, 32, 32), np.bool_)
    mask[4:30, 3:20, 6:28] = True
    ct, pet = random.random((2, 32, 32, 32), np.float32) * mask
    return ct, pet, mask


def augmented(
    augmentation: Augmentation, ct: np.ndarray, pet: np.ndarray, mask: np.ndarray, spacing_mm: Triple
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The CT, of one channel, the PET and the mask of a patch."""
    after = augment(augmentation, Patch(ct[None], pet, mask, "study", (0, 0, 0)), spacing_mm)
    return after.ct[0], after.pet, after.mask


def blob(patch: np.ndarray) -> np.ndarray:
    """The centre of what an image shows, in voxels from its middle."""
    return np.array(ndimage.center_of_mass(patch)) - 15.5


def test_no_change_changes_nothing() -> None:
    ct, pet, mask = patches()
    for before, after in zip((ct, pet, mask), augmented(STILL, ct, pet, mask, AUTOPET), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flip_mirrors_both_along_its_axis(axis: int) -> None:
    ct, pet, mask = patches()
    flips = (axis == 0, axis == 1, axis == 2)
    moved = augmented(Augmentation(flips, (0.0, 0.0, 0.0), 0.0, 0), ct, pet, mask, AUTOPET)
    for before, after in zip((ct, pet, mask), moved, strict=True):
        np.testing.assert_array_equal(np.flip(before, axis), after)


@pytest.mark.parametrize(("axis", "plane"), [(0, (1, 2)), (1, (0, 2)), (2, (0, 1))])
def test_a_right_angle_is_a_transposition(axis: int, plane: tuple[int, int]) -> None:
    """Oracle: numpy's rot90, one way or the other; it also proves that the centre stays where it is."""
    ct, pet, mask = patches()
    angles = (90.0 * (axis == 0), 90.0 * (axis == 1), 90.0 * (axis == 2))
    turned_ct, turned_pet, _ = augmented(Augmentation((False, False, False), angles, 0.0, 0), ct, pet, mask, CUBES)
    turns = [k for k in (1, 3) if np.allclose(np.rot90(ct, k, plane), turned_ct, atol=1e-5)]
    assert len(turns) == 1
    np.testing.assert_allclose(np.rot90(pet, turns[0], plane), turned_pet, atol=1e-5)


@pytest.mark.parametrize("spacing_mm", [CUBES, AUTOPET, (5.0, 1.5, 2.5)])
@pytest.mark.parametrize("angles", [(10.0, 0.0, 0.0), (0.0, -7.5, 0.0), (0.0, 0.0, 3.0), (9.0, -4.0, 6.0)])
def test_a_rotation_is_scipys(angles: Triple, spacing_mm: Triple) -> None:
    """Oracle: affine_transform, linear for the images and nearest for the mask; rounding decides a few voxels of it.

    It counts in voxels: into mm, turned there, and back.
    """
    ct, pet, mask = patches()
    to_mm = np.diag(spacing_mm)
    turn = np.linalg.inv(to_mm) @ Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ to_mm
    centre = np.full(3, 15.5)
    offset = centre - turn @ centre
    region = ndimage.affine_transform(mask.astype(np.float32), turn, offset, order=0) > 0.5
    moved, turned_mask = move(Augmentation((False, False, False), angles, 0.0, 0), (ct, pet), mask, spacing_mm)
    assert np.count_nonzero(region != turned_mask) <= 20
    both = region & turned_mask
    for image, result in zip((ct, pet), moved, strict=True):
        oracle = ndimage.affine_transform(image, turn, offset, order=1)
        np.testing.assert_allclose(result[both], oracle[both], atol=1e-4)
        assert not result[~turned_mask].any()


@pytest.mark.parametrize("angles", [(0.0, 10.0, 0.0), (9.0, -4.0, 6.0)])
def test_what_was_at_right_angles_and_equally_long_in_mm_stays_so(angles: Triple) -> None:
    """Three images that hold their place along one axis in mm: where each rises fastest is that axis, turned."""
    mask = np.ones((32, 32, 32), np.bool_)
    along = [np.asarray(index * mm, np.float32) for index, mm in zip(np.indices(mask.shape), AUTOPET, strict=True)]
    turned, _ = move(Augmentation((False, False, False), angles, 0.0, 0), tuple(along), mask, AUTOPET)
    middle = (slice(12, 20),) * 3
    axes = np.array([[rise[middle].mean() for rise in np.gradient(image, *AUTOPET)] for image in turned])
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-4)
    assert np.linalg.norm(axes - np.eye(3)) > 0.1


def test_noise_is_the_cts_alone_and_stays_inside_the_mask_and_model_space() -> None:
    ct, pet, mask = patches()
    noisy, same, _ = augmented(Augmentation((False, False, False), (0.0, 0.0, 0.0), 0.01, 3), ct, pet, mask, AUTOPET)
    np.testing.assert_array_equal(same, pet)
    assert not noisy[~mask].any()
    assert noisy.min() >= 0.0 and noisy.max() <= 1.0 and noisy.dtype == np.float32
    assert abs(float((noisy - ct)[mask & (ct > 0.1) & (ct < 0.9)].std()) - 0.01) < 3e-4


def test_what_leaves_a_rotation_is_masked_by_the_moved_mask() -> None:
    ct, pet, mask = patches()
    augmentation = Augmentation((False, False, False), (7.0, -4.0, 10.0), 0.01, 3)
    turned_ct, turned_pet, turned_mask = augmented(augmentation, ct, pet, mask, AUTOPET)
    assert not turned_ct[~turned_mask].any() and not turned_pet[~turned_mask].any()
    assert not turned_ct[0].any() and not turned_pet[-1].any()


def test_a_draw_follows_its_seed_and_its_configuration() -> None:
    config = AugmentationConfig(("W",), 10.0, 0.02)
    draws = [sample_augmentation(np.random.default_rng(seed), config) for seed in range(200)]
    assert draws[7] == sample_augmentation(np.random.default_rng(7), config)
    assert {draw.flips for draw in draws} == {(False, False, False), (False, False, True)}
    angles = np.array([draw.angles_deg for draw in draws])
    assert np.abs(angles).max() <= 10.0 and np.abs(angles).max(axis=0).min() > 9.0
    assert len({draw.noise_seed for draw in draws}) > 190 and {draw.noise_sigma for draw in draws} == {0.02}


@pytest.mark.parametrize(
    ("flips", "angles"), [((True, False, True), (0.0, 0.0, 0.0)), ((False, True, False), (9.0, -6.0, 4.0))]
)
def test_channels_pet_and_context_move_alike(
    flips: tuple[bool, bool, bool], angles: tuple[float, float, float]
) -> None:
    """Oracle: one blob, at the same place in all of them, is at one place afterwards, and not where it was."""
    image = np.zeros((32, 32, 32), np.float32)
    image[19:23, 10:14, 20:24] = 0.8
    pair = np.stack([image, 0.5 * image])
    after = augment(
        Augmentation(flips, angles, 0.0, 0),
        Patch(pair, image, np.ones(image.shape, np.bool_), "study", (0, 0, 0), pair),
        AUTOPET,
    )
    assert after.context is not None and after.context.shape == pair.shape
    places = [blob(moved) for moved in (*after.ct, after.pet, *after.context)]
    np.testing.assert_allclose(places, np.broadcast_to(places[0], (5, 3)), atol=1e-4)
    assert np.abs(places[0] - blob(image)).max() > 0.5
    np.testing.assert_array_equal(after.context, after.ct)


def test_each_channel_has_its_own_noise_and_the_context_has_none() -> None:
    """The first channel's is what it was before there was a second one."""
    ct, pet, mask = patches()
    noisy = Augmentation((False, False, False), (0.0, 0.0, 0.0), 0.01, 3)
    context = np.full((2, 32, 32, 32), 0.5, np.float32)
    after = augment(noisy, Patch(np.stack([ct, ct]), pet, mask, "study", (0, 0, 0), context), AUTOPET)
    np.testing.assert_array_equal(after.ct[0], augmented(noisy, ct, pet, mask, AUTOPET)[0])
    assert abs(float(np.corrcoef((after.ct - ct)[:, mask & (ct > 0.1) & (ct < 0.9)])[0, 1])) < 0.05
    np.testing.assert_array_equal(after.context, context)
