"""Registration against motions that are known because the test made them: phantoms and a real PET/CT."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.samples.cases import quick_and_long
from training.data.registration import Motion, register
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_scanner.dicom.read.ct_series import read_ct_series
from twin_scanner.dicom.read.pet_series import read_pet_series
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Triple, Volume, geometry_of, resample, resample_labels, to_sitk

pytestmark = pytest.mark.unit

TRANSLATION_MM: Triple = (6.0, -6.0, math.sqrt(72.0))
"""12 mm, in no axis' direction."""
AXIS: Triple = (2.0 / 3.0, -1.0 / 3.0, 2.0 / 3.0)
ANGLE_DEG = 4.0


@cache
def phantom(*, coarse: bool = False) -> tuple[Volume, Volume]:
    """A CT and a PET that lie exactly upon one another."""
    spacing_mm: Triple = (8.0, 6.0, 6.5) if coarse else (5.0, 4.0, 4.5)
    options = PhantomOptions(spacing_mm=spacing_mm, field_of_view="skull-base-to-mid-thigh")
    drawn = make_phantom(11, options)
    return drawn.ct, drawn.pet


@pytest.fixture(scope="module")
def thorax(shared_data: Path) -> tuple[Volume, Volume]:
    folder = shared_data / "thorax_petct"
    return read_ct_series(folder / "ct").volume, read_pet_series(folder / "pet_ac").suv


def rigid(
    centre_mm: Triple, translation_mm: Triple, angle_deg: float, axis: Triple = AXIS
) -> sitk.VersorRigid3DTransform:
    transform = sitk.VersorRigid3DTransform()
    transform.SetCenter(centre_mm)
    transform.SetRotation(axis, math.radians(angle_deg))
    transform.SetTranslation(translation_mm)
    return transform


def carried(pet: Volume, transform: sitk.Transform) -> Volume:
    """The PET of a patient who was moved so before it."""
    image = to_sitk(pet.array, pet.geometry)
    result = sitk.Resample(image, image, transform.GetInverse(), sitk.sitkLinear, 0.0)
    return Volume(sitk.GetArrayFromImage(result), geometry_of(result))


def moved(pet: Volume, motion: Motion) -> Volume:
    """The PET on its own grid with the motion taken back; 0 where nothing was measured."""
    return resample(Volume(pet.array, motion.taken_back(pet.geometry)), pet.geometry, outside=0.0)


def difference(found: Motion, made: sitk.VersorRigid3DTransform, before: Motion) -> tuple[float, float]:
    """How far ``found`` is from ``before`` followed by ``made``: mm at the body's centre, and degrees."""
    centre = before.centre_lps_mm
    expected = made.TransformPoint(before.transform.TransformPoint(centre))
    away_mm = math.dist(found.transform.TransformPoint(centre), expected)
    turned = np.reshape(made.GetMatrix(), (3, 3)) @ np.reshape(before.transform.GetMatrix(), (3, 3))
    left = np.trace(turned.T @ np.reshape(found.transform.GetMatrix(), (3, 3)))
    return away_mm, math.degrees(math.acos(min(1.0, (float(left) - 1.0) / 2.0)))


@pytest.mark.long
def test_a_known_motion_of_a_phantom_is_recovered_and_taken_back() -> None:
    ct, pet = phantom()
    before = register(ct, pet)
    assert before.distance_mm < 1.0
    assert before.rotation_deg < 0.5
    assert not before.corrected
    still = replace(before, translation_mm=(0.0, 0.0, 0.0), versor=(0.0, 0.0, 0.0))
    made = rigid(before.centre_lps_mm, TRANSLATION_MM, ANGLE_DEG)
    shifted = carried(pet, made)
    found = register(ct, shifted)
    away_mm, away_deg = difference(found, made, still)
    assert away_mm < 2.0
    assert away_deg < 1.0
    assert found.distance_mm == pytest.approx(12.0, abs=2.0)
    assert found.rotation_deg == pytest.approx(4.0, abs=1.0)
    assert found.corrected
    exactly = replace(
        still, translation_mm=TRANSLATION_MM, versor=tuple(made.GetParameters()[:3]), displacement_mm=12.0
    )
    by_truth, by_found = (moved(shifted, motion).array for motion in (exactly, found))
    assert np.abs(by_found - by_truth).mean() < 0.1 * np.abs(shifted.array - pet.array).mean()
    assert np.abs(by_truth - pet.array).mean() < 0.5 * np.abs(shifted.array - pet.array).mean()


@pytest.mark.long
def test_a_known_motion_of_the_real_scan_is_recovered(thorax: tuple[Volume, Volume]) -> None:
    """Against no motion at all (2 mm, 1 degree), and against what is found in the scan as it is."""
    ct, pet = thorax
    before = register(ct, pet)
    assert before.distance_mm < 2.0
    assert before.rotation_deg < 1.0
    assert not before.corrected
    made = rigid(before.centre_lps_mm, TRANSLATION_MM, ANGLE_DEG)
    found = register(ct, carried(pet, made))
    still = replace(before, translation_mm=(0.0, 0.0, 0.0), versor=(0.0, 0.0, 0.0))
    for reference in (still, before):
        away_mm, away_deg = difference(found, made, reference)
        assert away_mm < 2.0
        assert away_deg < 1.0


@pytest.mark.parametrize(
    ("translation_mm", "angle_deg", "shown"),
    quick_and_long([((0.0, 0.0, 18.0), 0.0, "mm and")], [((0.0, 0.0, 0.0), 10.0, "degrees")]),
)
def test_more_than_15_mm_or_8_degrees_is_refused(translation_mm: Triple, angle_deg: float, shown: str) -> None:
    ct, pet = phantom(coarse=True)
    d, h, w = (n / 2 for n in ct.geometry.shape)
    shifted = carried(pet, rigid(ct.geometry.position_lps_mm((d, h, w)), translation_mm, angle_deg))
    with pytest.raises(Rejected, match=r"more than 15 mm or 8 degrees.*moved too far") as caught:
        register(ct, shifted)
    assert shown in str(caught.value)


def test_the_same_images_give_the_same_motion_to_the_last_bit() -> None:
    ct, pet = phantom(coarse=True)
    part = (slice(19, 56), slice(0, pet.geometry.shape[1]), slice(0, pet.geometry.shape[2]))
    first, second = (register(ct.cropped(part), pet.cropped(part)) for _ in range(2))
    assert first == second


def test_a_pet_that_shows_nothing_of_the_body_is_refused() -> None:
    ct, pet = phantom(coarse=True)
    with pytest.raises(Rejected, match="shows nothing where the CT shows the body"):
        register(ct, Volume(np.zeros_like(pet.array), pet.geometry))
    away = replace(pet.geometry, origin_lps_mm=(5000.0, 0.0, 0.0))
    with pytest.raises(Rejected, match="shows nothing where the CT shows the body"):
        register(ct, Volume(pet.array, away))


def test_a_ct_without_a_body_is_refused() -> None:
    ct, pet = phantom(coarse=True)
    with pytest.raises(Rejected, match="no human body"):
        register(Volume(np.full_like(ct.array, -1000.0), ct.geometry), pet)


MOTION = Motion((4.0, 0.0, 0.0), 0.0, 4.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
"""The patient moved 4 mm to the left."""


def test_a_motion_is_taken_back_by_the_grid_alone() -> None:
    """Oracle: the PET moved by whole voxels; what comes into view is 0."""
    _, pet = phantom(coarse=True)
    moved_by = replace(MOTION, translation_mm=(2 * 6.5, 0.0, 0.0))
    back = moved(pet, moved_by).array
    np.testing.assert_allclose(back[:, :, :-2], pet.array[:, :, 2:], rtol=1e-5, atol=1e-5)
    assert not back[:, :, -2:].any()
    labels = (pet.array > 2).astype(np.uint8)
    at = moved_by.taken_back(pet.geometry)
    np.testing.assert_array_equal(resample_labels(labels, at, pet.geometry)[:, :, :-2], labels[:, :, 2:])


def test_a_motion_below_what_the_method_can_tell_is_left() -> None:
    _, pet = phantom(coarse=True)
    small = replace(MOTION, translation_mm=(1.9, 0.0, 0.0), displacement_mm=1.9)
    assert small.taken_back(pet.geometry) == pet.geometry
