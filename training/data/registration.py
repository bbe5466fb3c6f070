"""Rigid registration of a PET to its CT: how far the patient moved between them, and the PET moved back."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import SimpleITK as sitk

from twin_scanner.districts.body import find_body
from twin_scanner.districts.coarse_grid import COARSE_SPACING_MM, coarse_ct
from twin_scanner.districts.morphology import BoolArray
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import (
    AIR_HU,
    Geometry,
    Triple,
    Volume,
    geometry_of,
    resample,
    to_sitk,
)

LARGEST_TRANSLATION_MM: Final = 15.0
LARGEST_ROTATION_DEG: Final = 8.0
"""More is another position of the patient, or another patient: tissue no longer lies where the CT shows it."""
SMALLEST_DISPLACEMENT_MM: Final = 2.0
"""Less is left as it is: the method tells a known shift to within 2 mm. On aligned phantoms it finds up to 0.4 mm; on
thorax_petct, whose PET breathes freely, 1.5 mm."""
CT_WINDOW_HU: Final = (-1000.0, 300.0)
"""Air, lung, fat, muscle; what is denser is alike."""
HIGHEST_SUV: Final = 4.0
"""Brain, heart and bladder stand far above all other tissue; clipped, they do not take all the histogram's bins."""
COARSE_MM: Final = (COARSE_SPACING_MM, COARSE_SPACING_MM, COARSE_SPACING_MM)
"""Both images are registered on this grid, on which the body is sought too: a PET resolves no more."""
PYRAMID: Final = ((4, 8.0, 0.5), (2, 4.0, 0.25), (1, 2.0, 0.1))
"""Coarse to fine: shrink factor, smoothing sigma in mm, share of voxels sampled."""
HISTOGRAM_BINS: Final = 32
SEED: Final = 20_260_101
"""It decides which voxels are sampled, so that the same images give the same motion."""
FIRST_STEP_MM, LAST_STEP_MM, STEPS, RELAXATION = 2.0, 0.02, 100, 0.6
GRADIENT_TOLERANCE: Final = 1e-6


@dataclass(frozen=True)
class Motion:
    """How the patient moved from CT to PET: a rotation about ``centre_lps_mm``, then a translation, all in LPS.

    ``versor`` is the rotation's axis times the sine of half its angle. ``displacement_mm`` is how far the body's voxels
    moved, as their root mean square.
    """

    translation_mm: Triple
    rotation_deg: float
    displacement_mm: float
    versor: Triple = field(repr=False)
    centre_lps_mm: Triple = field(repr=False)

    @property
    def distance_mm(self) -> float:
        """Length of the translation."""
        return math.hypot(*self.translation_mm)

    @property
    def corrected(self) -> bool:
        """Whether it is taken back: only what is more than the method's own error could not as well add to it."""
        return self.displacement_mm > SMALLEST_DISPLACEMENT_MM

    @property
    def transform(self) -> sitk.VersorRigid3DTransform:
        """From a point of the CT to the same tissue's point in the PET (LPS, mm)."""
        transform = sitk.VersorRigid3DTransform()
        transform.SetCenter(self.centre_lps_mm)
        transform.SetParameters((*self.versor, *self.translation_mm))
        return transform

    def taken_back(self, geometry: Geometry) -> Geometry:
        """The grid of a PET, or of labels on it, after the motion was taken back; the same where none is corrected.

        A rigid motion only changes where the voxels lie, so what is on the grid is still resampled once.
        """
        if not self.corrected:
            return geometry
        back = self.transform.GetInverse()
        x, y, z = back.TransformPoint(geometry.origin_lps_mm)
        d, h, w = (back.TransformVector(axis, geometry.origin_lps_mm) for axis in geometry.direction)
        return replace(geometry, origin_lps_mm=(x, y, z), direction=(d, h, w))


def register(ct: Volume, pet: Volume) -> Motion:
    """The rigid motion between a CT in HU and its PET in SUV (any grids, one frame of reference).

    Mattes' mutual information (IEEE TMI 2003; 22:120) of voxels inside the CT's body, maximised by regular-step
    gradient descent from coarse to fine. One thread and a fixed seed: the same images always give the same motion.
    Recovers 12 mm with 4 degrees within 2 mm and 1 degree; breathing and arms that moved by themselves are not rigid
    and stay. Raises Rejected where it finds more than LARGEST_TRANSLATION_MM or LARGEST_ROTATION_DEG, where the CT
    shows no body, and where the PET shows nothing of it.
    """
    coarse = _coarse(ct.canonical(), AIR_HU)
    body = find_body(coarse_ct(coarse))
    positions = _positions_lps_mm(body, coarse.geometry)
    x, y, z = positions.mean(axis=0)
    motion_of = sitk.VersorRigid3DTransform()
    motion_of.SetCenter((float(x), float(y), float(z)))
    fixed = to_sitk(np.clip(coarse.array, *CT_WINDOW_HU), coarse.geometry)
    activity = _coarse(pet, 0.0)
    moving = to_sitk(np.clip(activity.array, 0.0, HIGHEST_SUV), activity.geometry)
    try:
        with one_thread():
            method = _method(to_sitk(body.astype(np.uint8), coarse.geometry))
            method.SetInitialTransform(motion_of, inPlace=True)
            method.Execute(fixed, moving)
    except RuntimeError as error:
        raise Rejected("The PET shows nothing where the CT shows the body: give the PET of the same scan.") from error
    return _within_limits(_motion(motion_of, positions))


@contextmanager
def one_thread() -> Iterator[None]:
    """SimpleITK on one thread: several add sums up in an order of their own (1e-8 mm apart), and share cores badly."""
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def _method(mask: sitk.Image) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    method.SetMetricFixedMask(mask)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([share for _, _, share in PYRAMID], SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(FIRST_STEP_MM, LAST_STEP_MM, STEPS, RELAXATION, GRADIENT_TOLERANCE)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([factor for factor, _, _ in PYRAMID])
    method.SetSmoothingSigmasPerLevel([sigma_mm for _, sigma_mm, _ in PYRAMID])
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    return method


def _coarse(volume: Volume, outside: float) -> Volume:
    """The image on a grid of COARSE_MM over its field of view, first averaged over the whole voxels in each."""
    grid = volume.geometry
    factors = [
        min(max(1, int(wanted / s)), n) for wanted, s, n in zip(COARSE_MM, grid.spacing_mm, grid.shape, strict=True)
    ]
    averaged = sitk.BinShrink(to_sitk(volume.array, grid), factors[::-1])
    blocks = Volume(sitk.GetArrayFromImage(averaged), geometry_of(averaged))
    return resample(blocks, grid.with_spacing(COARSE_MM), outside=outside)


def _positions_lps_mm(mask: BoolArray, geometry: Geometry) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Positions (N, 3) of a mask's voxels."""
    indices = np.argwhere(mask)
    return indices @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]


def _motion(
    transform: sitk.VersorRigid3DTransform, positions: "np.ndarray[tuple[int, int], np.dtype[np.float64]]"
) -> Motion:
    centre = np.asarray(transform.GetCenter())
    rotation = np.asarray(transform.GetMatrix()).reshape(3, 3)
    shifts = (positions - centre) @ (rotation - np.eye(3)).T + np.asarray(transform.GetTranslation())
    versor = transform.GetParameters()[:3]
    half_angle = math.asin(min(1.0, math.hypot(*versor)))
    return Motion(
        translation_mm=_triple(transform.GetTranslation()),
        rotation_deg=math.degrees(2.0 * half_angle),
        displacement_mm=float(np.sqrt((shifts**2).sum(axis=1).mean())),
        versor=_triple(versor),
        centre_lps_mm=_triple(transform.GetCenter()),
    )


def _within_limits(motion: Motion) -> Motion:
    if motion.distance_mm <= LARGEST_TRANSLATION_MM and motion.rotation_deg <= LARGEST_ROTATION_DEG:
        return motion
    raise Rejected(
        f"CT and PET lie {motion.distance_mm:.1f} mm and {motion.rotation_deg:.1f} degrees apart, more than "
        f"{LARGEST_TRANSLATION_MM:g} mm or {LARGEST_ROTATION_DEG:g} degrees: the patient moved too far to pair them."
    )


def _triple(values: tuple[float, ...]) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z
