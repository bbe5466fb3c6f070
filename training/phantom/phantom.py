"""Parametric whole-body CT/PET pairs with known districts and lesions: the patient that options and a seed describe."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from scipy import ndimage

from training.phantom.anatomy import paint_body
from training.phantom.frame import Frame, frame_of, image_axes, turned, turned_geometry, turned_to_gravity
from training.phantom.implants import add_streaks, paint_implants
from training.phantom.lesions import MEDIAN_SUV, Diagnosis, paint_lesions, sample_lesions
from training.phantom.options import FieldOfView, PhantomOptions, random_stream, sample_options
from training.phantom.pose import sample_figure
from training.phantom.surroundings import paint_surroundings
from training.phantom.tissues import Tissue, TissueTable, median_suv, sample_objects, sample_tissues
from twin_scanner.imaging.volume import FloatArray, Geometry, LabelArray, Triple, Volume

__all__ = ["FieldOfView", "Phantom", "PhantomOptions", "make_phantom", "sample_options"]

PADDING_HU: Final = -1024.0
PET_FWHM_MM: Final = 5.5
"""Resolution of a clinical scanner after its usual filter."""
CT_FWHM_MM: Final = 2.0
BLUR_SIGMAS: Final = 3.0
"""Where the blur's Gaussian ends."""
CT_NOISE_HU: Final = 11.0
LUNG_GRAIN_MM: Final = 6.0
LUNG_MOTTLE_HU: Final = 22.0
LUNG_GRADIENT_HU_PER_MM: Final = 0.45
GUT_GRAIN_MM: Final = 30.0
GUT_MOTTLE: Final = 0.3
"""Standard deviation of the logarithm of uptake along the bowel."""
BEAD_GRAIN_MM: Final = 4.0
BEAD_MOTTLE_HU: Final = 30.0


@dataclass(frozen=True, eq=False)
class Phantom:
    """A CT (HU) and a PET (SUV g/ml, never negative) on one grid, with what is true of them (D, H, W)."""

    ct: Volume
    pet: Volume
    districts: LabelArray
    lesions: LabelArray
    """1 in every lesion, as autoPET's SEG."""
    tissues: LabelArray
    """phantom_tissues.Tissue; lesions are FIRST_LESION and up."""
    diagnosis: Diagnosis
    seed: int
    options: PhantomOptions = field(default_factory=PhantomOptions)

    @property
    def geometry(self) -> Geometry:
        """The grid of all arrays."""
        return self.ct.geometry


def make_phantom(seed: int, options: PhantomOptions | None = None) -> Phantom:
    """Make one patient; the same seed and options give the same bytes, whatever the machine's core count."""
    options = PhantomOptions() if options is None else options
    table = sample_tissues(random_stream(seed, "tissues"), options.world, options.contrast)
    figure = sample_figure(seed, options)
    frame = frame_of(options, figure)
    body = paint_body(frame.canvas, figure, random_stream(seed, "organs"))
    lesions = sample_lesions(options.diagnosis, random_stream(seed, "lesions"))
    paint_lesions(frame.canvas, lesions, table, options.world)
    _paint_objects(seed, frame, table, options)
    return _imaged(seed, frame, body.districts, table, options)


def expected_pet(phantom: Phantom) -> FloatArray:
    """SUV (D, H, W) of the phantom's anatomy where uptake depends on the district, every tissue and lesion with the
    median uptake of all patients, blurred to the scanner's resolution, without noise.

    The best guess of who knows each voxel's tissue and nothing of the patient's metabolism.
    """
    suv = median_suv()
    suv[Tissue.FIRST_LESION :] = MEDIAN_SUV
    return _blurred(suv[phantom.tissues], PET_FWHM_MM, phantom.geometry.spacing_mm)


def _paint_objects(seed: int, frame: Frame, table: TissueTable, options: PhantomOptions) -> None:
    """What is in the image beside a body: metal in it, and everything around it."""
    sample_objects(table, random_stream(seed, "objects' hu"))
    paint_implants(frame.canvas, options.implants, random_stream(seed, "implants"))
    upright = turned_to_gravity(frame.canvas, options.position)
    paint_surroundings(upright, options, random_stream(seed, "surroundings"))


def _imaged(seed: int, frame: Frame, districts: LabelArray, table: TissueTable, options: PhantomOptions) -> Phantom:
    """Both images of what the field of view shows, on the image's own axes."""
    tissue, districts = np.ascontiguousarray(frame.canvas.tissue[frame.box]), districts[frame.box]
    geometry = frame.geometry.cropped(frame.box)
    ct = _ct(seed, tissue, table, options.ct_noise, geometry.spacing_mm)
    pet = _pet(seed, tissue, table, options, geometry.spacing_mm)
    if frame.beyond is not None:
        ct[:, frame.beyond] = PADDING_HU
        pet[:, frame.beyond] = 0.0
        tissue[:, frame.beyond] = Tissue.AIR
        districts = np.where(frame.beyond, np.uint8(0), districts)
    axes = image_axes(options)
    on_image = turned_geometry(geometry, axes)
    tissue = turned(tissue, axes)
    return Phantom(
        Volume(turned(ct, axes), on_image),
        Volume(turned(pet, axes), on_image),
        turned(districts, axes),
        (tissue >= Tissue.FIRST_LESION).astype(np.uint8),
        tissue,
        options.diagnosis,
        seed,
        options,
    )


def _ct(seed: int, tissue: LabelArray, table: TissueTable, noise_factor: float, spacing_mm: Triple) -> FloatArray:
    """HU with the scanner's blur and noise, and the streaks of metal."""
    rng = random_stream(seed, "ct noise")
    image = table.hu[tissue]
    _add_lung_texture(image, tissue, spacing_mm, rng)
    _add_bead_texture(image, tissue, spacing_mm, random_stream(seed, "beads"))
    if noise_factor > 0:
        noise = rng.standard_normal(tissue.shape, dtype=np.float32)
        noise *= np.float32(noise_factor * CT_NOISE_HU / _gain(CT_FWHM_MM, spacing_mm))
        image += noise
    image = _blurred(image, CT_FWHM_MM, spacing_mm)
    add_streaks(image, tissue, spacing_mm, random_stream(seed, "streaks"))
    return np.maximum(image, np.float32(-1024.0), out=image)


def _add_lung_texture(image: FloatArray, tissue: LabelArray, spacing_mm: Triple, rng: np.random.Generator) -> None:
    """Lungs are denser towards the back, where a supine patient's blood is, and mottled; changes ``image``."""
    boxes = ndimage.find_objects((tissue == Tissue.LUNG).view(np.uint8))
    if not boxes:
        return
    part, lung = image[boxes[0]], tissue[boxes[0]] == Tissue.LUNG
    mottle = _blurred(rng.standard_normal(part.shape, dtype=np.float32), LUNG_GRAIN_MM, spacing_mm)
    mottle *= np.float32(LUNG_MOTTLE_HU / _gain(LUNG_GRAIN_MM, spacing_mm))
    rows = np.arange(part.shape[1], dtype=np.float32)[None, :, None]
    mottle += np.float32(LUNG_GRADIENT_HU_PER_MM * spacing_mm[1]) * (rows - part.shape[1] / 2)
    part[lung] += mottle[lung]


def _add_bead_texture(image: FloatArray, tissue: LabelArray, spacing_mm: Triple, rng: np.random.Generator) -> None:
    """A vacuum cushion's beads lie closer here and looser there; changes ``image``."""
    beads = tissue == Tissue.BEADS
    if beads.any():
        mottle = _blurred(rng.standard_normal(image.shape, dtype=np.float32), BEAD_GRAIN_MM, spacing_mm)
        image[beads] += mottle[beads] * np.float32(BEAD_MOTTLE_HU / _gain(BEAD_GRAIN_MM, spacing_mm))


def _pet(seed: int, tissue: LabelArray, table: TissueTable, options: PhantomOptions, spacing_mm: Triple) -> FloatArray:
    """SUV with counting noise, blurred to the scanner's resolution, never negative.

    The noise's variance goes as uptake, and its coefficient of variation in the liver is ``pet_noise`` on every grid:
    it is white before the blur and as much stronger as the blur will weaken it.
    """
    image = table.suv[tissue]
    if options.world == "district-dependent":
        _add_gut_texture(image, tissue, spacing_mm, random_stream(seed, "gut"))
    if options.pet_noise > 0:
        noise = random_stream(seed, "pet noise").standard_normal(tissue.shape, dtype=np.float32)
        noise *= np.sqrt(image * table.suv[Tissue.LIVER])
        noise *= np.float32(options.pet_noise / _gain(PET_FWHM_MM, spacing_mm))
        image += noise
    image = _blurred(image, PET_FWHM_MM, spacing_mm)
    return np.maximum(image, np.float32(0.0), out=image)


def _add_gut_texture(image: FloatArray, tissue: LabelArray, spacing_mm: Triple, rng: np.random.Generator) -> None:
    """One loop of the bowel takes up more than the next; changes ``image``."""
    gut = (tissue == Tissue.SMALL_BOWEL) | (tissue == Tissue.COLON_WALL)
    boxes = ndimage.find_objects(gut.view(np.uint8))
    if not boxes:
        return
    part, inside = image[boxes[0]], gut[boxes[0]]
    mottle = _blurred(rng.standard_normal(part.shape, dtype=np.float32), GUT_GRAIN_MM, spacing_mm)
    mottle *= np.float32(GUT_MOTTLE / _gain(GUT_GRAIN_MM, spacing_mm))
    part[inside] *= np.exp(np.clip(mottle[inside], -2.0 * GUT_MOTTLE, 2.0 * GUT_MOTTLE))


def _blurred(image: FloatArray, fwhm_mm: float, spacing_mm: Triple) -> FloatArray:
    """Gaussian of a full width at half maximum; zero-order continuation at the borders."""
    sigma = [fwhm_mm / 2.3548 / s for s in spacing_mm]
    return np.asarray(ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=BLUR_SIGMAS))


def _gain(fwhm_mm: float, spacing_mm: Triple) -> float:
    """Standard deviation of white noise after that Gaussian."""
    gain = 1.0
    for s in spacing_mm:
        sigma = fwhm_mm / 2.3548 / s
        reach = int(BLUR_SIGMAS * sigma + 0.5)
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        gain *= float(np.sqrt(np.sum((weights / weights.sum()) ** 2)))
    return gain
