"""Lesions and false uptake on phantoms whose every number is known, and against the plain definitions."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from tests.samples.known_cases import GEOMETRY, SHAPE, body_pet, districts, spot_label, with_spot
from training.evaluation.lesion_metrics import FalseUptake, false_uptake, lesions_of
from twin_scanner.imaging.suv import region_suv
from twin_scanner.imaging.volume import FloatArray, Geometry, Volume

pytestmark = pytest.mark.unit

ONE, TWO = (20, 12, 12), (26, 24, 20)
BODY = districts() > 0
FLAT = np.where(BODY, np.float32(1.0), np.float32(0.0))
UNEQUAL = Geometry((30, 34, 38), (3.0, 2.04, 1.1), (10.0, -20.0, 30.0))
"""No cubes, as scanners have none."""


def test_a_false_spot_must_be_half_a_millilitre_and_in_the_body() -> None:
    real = body_pet()
    small, large = with_spot(real, TWO, 7.0, edge=1), with_spot(real, TWO, 7.0, edge=2)
    assert false_uptake(real, small, BODY, GEOMETRY).components == 0
    assert false_uptake(real, large, BODY, GEOMETRY).components == 1, "0.512 ml"
    outside = with_spot(real, (0, 0, 0), 7.0)
    assert false_uptake(real, outside, BODY, GEOMETRY).components == 0


def test_half_a_millilitre_is_enough_for_a_false_spot() -> None:
    """One voxel of 5 x 10 x 10 mm."""
    made = np.zeros((5, 5, 5), np.float32)
    made[2, 2, 2] = 4.0
    coarse = Geometry(made.shape, (5.0, 10.0, 10.0), (0.0, 0.0, 0.0))
    assert false_uptake(np.zeros_like(made), made, np.ones(made.shape, np.bool_), coarse) == FalseUptake(1, 0.5)


def test_lesions_touch_by_corners_and_are_numbered_from_the_feet_up() -> None:
    labels = spot_label((20, 12, 12), (24, 16, 16), (8, 20, 20))
    real = body_pet()
    found = lesions_of(real, real, labels, GEOMETRY)
    assert [lesion.voxels for lesion in found] == [64, 128]
    assert found[0].real.mean == pytest.approx(real[8:12, 20:24, 20:24].mean(), rel=1e-5)


def test_the_peak_is_the_mean_of_the_1_ml_sphere_around_it() -> None:
    """One voxel of SUV 20 in a lesion of 2: the sphere of 6.2 mm holds 7 voxels of 4 mm and its 12 edge neighbours."""
    real = with_spot(np.where(BODY, np.float32(2.0), np.float32(0.0)), (22, 20, 20), 20.0, edge=1)
    (lesion,) = lesions_of(real, real, spot_label((20, 18, 18), edge=5), GEOMETRY)
    offsets = [np.linalg.norm(at) * 4.0 for at in np.ndindex(5, 5, 5) for at in [np.array(at) - 2]]
    inside = sum(distance <= (3000 / (4 * np.pi)) ** (1 / 3) for distance in offsets)
    assert lesion.real.peak == pytest.approx((20.0 + 2.0 * (inside - 1)) / inside)


def test_lesions_that_do_not_touch_are_apart() -> None:
    found = lesions_of(FLAT, FLAT, spot_label(ONE, (ONE[0] + 5, ONE[1], ONE[2])), GEOMETRY)
    assert [lesion.voxels for lesion in found] == [64, 64], "one voxel lies between them"


def test_a_lesion_beside_another_does_not_borrow_its_uptake() -> None:
    """The second lesion lies inside the box around the first, and is much hotter."""
    real = with_spot(with_spot(FLAT, ONE, 5.0), (ONE[0], ONE[1] + 5, ONE[2]), 15.0)
    labels = spot_label(ONE, (ONE[0], ONE[1] + 5, ONE[2]))
    first, second = lesions_of(real, real, labels, GEOMETRY)
    assert (first.real.mean, first.real.maximum) == (5.0, 5.0) and second.real.maximum == 15.0


def test_the_numbers_of_a_lesion_are_those_of_the_whole_image() -> None:
    """Each lesion is measured in a crop; the oracle takes the whole image. One lesion touches the image's edge."""
    random = np.random.default_rng(7)
    real, made = (random.gamma(2.0, 2.0, UNEQUAL.shape).astype(np.float32) for _ in range(2))
    labels = np.zeros(UNEQUAL.shape, np.uint8)
    labels[10:14, 8:15, 20:30], labels[22:26, 25:34, 5:12] = 1, 2
    found = lesions_of(real, made, np.minimum(labels, 1), UNEQUAL)
    for image, which in ((real, "real"), (made, "synthetic")):
        expected = region_suv(Volume(image, UNEQUAL), labels)
        for label, lesion in enumerate(found, start=1):
            uptake = getattr(lesion, which)
            assert uptake.mean == pytest.approx(expected[label].mean) and uptake.maximum == expected[label].maximum
            assert uptake.peak == pytest.approx(expected[label].peak) and uptake.peak < uptake.maximum
            assert uptake.tlg == pytest.approx(expected[label].mean * expected[label].volume_ml)
            assert lesion.volume_ml == pytest.approx(np.count_nonzero(labels == label) * 3.0 * 2.04 * 1.1 / 1000)


def test_41_percent_is_of_the_lesions_own_real_maximum_in_both_pets() -> None:
    real = with_spot(with_spot(FLAT, ONE, 4.0), ONE, 10.0, edge=2)
    made = with_spot(with_spot(FLAT, ONE, 4.11), ONE, 30.0, edge=1)
    (lesion,) = lesions_of(real, made, spot_label(ONE), GEOMETRY)
    assert lesion.own_ml == (pytest.approx(8 * 0.064), pytest.approx(64 * 0.064)), (
        "4.1 of 10, whatever the made maximum"
    )


@pytest.mark.parametrize(
    ("real_suv", "made_suv", "detected", "detected_own"),
    [
        (10.0, 4.0, True, False),
        (10.0, 3.99, False, False),
        (6.0, 3.0, False, True),
        (3.99, 8.0, None, True),
        (3.5, 1.0, None, False),
        (4.0, 4.0, True, True),
    ],
)
def test_detection_is_at_suv_4_and_apart_from_it_at_41_percent_of_the_own_maximum(
    real_suv: float, made_suv: float, detected: bool | None, detected_own: bool
) -> None:
    real, made = with_spot(FLAT, ONE, real_suv), with_spot(FLAT, ONE, made_suv)
    (lesion,) = lesions_of(real, made, spot_label(ONE), GEOMETRY)
    assert (lesion.detected, lesion.detected_own) == (detected, detected_own)


def test_uptake_beside_the_annotation_does_not_detect_the_lesion() -> None:
    real, beside = with_spot(FLAT, ONE, 10.0), with_spot(FLAT, (ONE[0] + 4, ONE[1], ONE[2]), 10.0)
    (lesion,) = lesions_of(real, beside, spot_label(ONE), GEOMETRY)
    assert lesion.detected is False and lesion.detected_own is False


def test_a_lesion_that_the_ct_does_not_wholly_show_is_not_judged() -> None:
    """The CT ends one voxel short of the second lesion's top, then below it, then at its top; on two grids."""
    labels = spot_label(ONE, TWO)
    fields = [GEOMETRY.cropped((slice(0, end), slice(0, SHAPE[1]), slice(0, SHAPE[2]))) for end in (29, 26, 30)]
    assert [len(lesions_of(FLAT, FLAT, labels, GEOMETRY, field)) for field in fields] == [1, 1, 2]
    fine = [field.with_spacing((2.0, 2.0, 2.0)) for field in fields]
    assert [len(lesions_of(FLAT, FLAT, labels, GEOMETRY, field)) for field in fine] == [1, 1, 2]
    assert len(lesions_of(FLAT, FLAT, labels, GEOMETRY)) == 2
    moved = replace(GEOMETRY, origin_lps_mm=(0.0, 0.0, 4.0 * (ONE[0] + 1)))
    assert len(lesions_of(FLAT, FLAT, labels, GEOMETRY, moved)) == 1, "a CT that begins above the first one's feet"


def test_a_field_of_view_ends_half_a_voxel_beyond_its_outer_centres() -> None:
    """Slices of the CT are 10 mm, its outer centres at 4.5 and 14.5 mm; the annotation's voxels are 1 mm."""
    fine = Geometry((40, 4, 4), (1.0, 4.0, 4.0), (0.0, 0.0, 7.0))
    field = fine.cropped((slice(10, 30), slice(0, 4), slice(0, 4))).with_spacing((10.0, 4.0, 4.0))
    flat = np.ones(fine.shape, np.float32)
    for first, last, judged in ((10, 29, 1), (10, 30, 0), (9, 29, 0)):
        labels = np.zeros(fine.shape, np.uint8)
        labels[first : last + 1] = 1
        assert len(lesions_of(flat, flat, labels, fine, field)) == judged, (first, last)


def test_nothing_annotated_is_no_lesion() -> None:
    assert lesions_of(FLAT, FLAT, np.zeros(SHAPE, np.uint8), GEOMETRY) == []


def test_a_false_spot_lies_more_than_10_mm_from_real_uptake() -> None:
    """Voxels of 5 mm along D: the second centre is exactly 10 mm away, the third 15."""
    geometry = replace(GEOMETRY, spacing_mm=(5.0, 4.0, 4.0))
    for steps, expected in ((0, 0), (1, 0), (2, 0), (3, 1)):
        real = with_spot(FLAT, (20, 12, 12), 9.0, edge=2)
        made = with_spot(FLAT, (21 + steps, 12, 12), 9.0, edge=2)
        assert false_uptake(real, made, BODY, geometry).components == expected


@pytest.mark.parametrize(("suv", "expected"), [(4.0, 0), (3.99, 1)])
def test_a_real_voxel_of_just_suv_4_explains(suv: float, expected: int) -> None:
    real, made = with_spot(FLAT, (20, 12, 12), suv, edge=1), with_spot(FLAT, (21, 12, 12), 9.0)
    assert false_uptake(real, made, BODY, GEOMETRY).components == expected


def plainly(real: FloatArray, made: FloatArray, body: np.ndarray, geometry: Geometry) -> FalseUptake:
    """The definition word by word: the distance of every voxel of the image to the nearest hot real one."""
    distance_mm = ndimage.distance_transform_edt(real < 4.0, sampling=geometry.spacing_mm)
    numbered, count = ndimage.label((made >= 4.0) & body, np.ones((3, 3, 3)))
    found = [numbered == number for number in range(1, count + 1)]
    false = [
        mask.sum() * geometry.voxel_ml
        for mask in found
        if mask.sum() * geometry.voxel_ml >= 0.5 and distance_mm[mask].min() > 10.0
    ]
    return FalseUptake(len(false), float(sum(false)))


@pytest.mark.parametrize("seed", range(6))
def test_false_uptake_is_what_its_definition_says_on_random_blobs(seed: int) -> None:
    random = np.random.default_rng(seed)
    real, made = (ndimage.gaussian_filter(random.random(UNEQUAL.shape), 1.5).astype(np.float32) for _ in range(2))
    real = (4.0 + 40 * (real - np.quantile(real, 0.9995))).astype(np.float32)
    made = (4.0 + 40 * (made - np.quantile(made, 0.93))).astype(np.float32)
    body = np.zeros(UNEQUAL.shape, np.bool_)
    body[2:-2, 3:-3, 4:-4] = True
    found, expected = false_uptake(real, made, body, UNEQUAL), plainly(real, made, body, UNEQUAL)
    assert found.components == expected.components and found.volume_ml == pytest.approx(expected.volume_ml)
    _, blobs = ndimage.label((made >= 4.0) & body, np.ones((3, 3, 3)))
    assert 0 < found.components < blobs, "some are explained or too small, some are not"


def test_uptake_of_brain_and_bladder_is_no_false_uptake_however_it_is_shaped() -> None:
    real = with_spot(FLAT, (36, 16, 16), 12.0, edge=6)
    made = with_spot(FLAT, (35, 15, 15), 18.0, edge=8)
    assert false_uptake(real, made, BODY, GEOMETRY) == FalseUptake(0, 0.0)
