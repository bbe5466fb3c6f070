"""Parametric whole-body CT/PET pairs with known districts and lesions: the patient that options and a seed describe."""

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from scipy import ndimage

from training.phantom_anatomy import (
    ARMS_DOWN,
    ARMS_UP,
    REFERENCE_HEIGHT_MM,
    ArmPosition,
    Figure,
    Sex,
    draw_body,
)
from training.phantom_lesions import DIAGNOSES, DIAGNOSIS_SHARES, Diagnosis, draw_lesions, paint_lesions
from training.phantom_shapes import Canvas, Point
from training.phantom_skeleton import ArmPose
from training.phantom_tissues import WORLDS, Tissue, TissueTable, World, draw_tissues
from twin_scanner.errors import Rejected
from twin_scanner.volume import FloatArray, Geometry, LabelArray, Triple, Volume

FieldOfView: TypeAlias = Literal["head-to-toe", "skull-base-to-mid-thigh"]

MID_THIGH_MM: Final = 640.0
SKULL_BASE_MM: Final = 1640.0
"""Ends of the usual field of view in reference mm: autoPET's show the orbits and half of the thighs."""
SOLES_MM: Final = -60.0
MARGIN_MM: Final = 24.0
"""Air around the body."""
TABLE_MM: Final = 46.0
"""From the table's top to the end of the image."""
SHELL_MM: Final = 3.0
"""Thickness of the table's carbon shell."""
PET_FWHM_MM: Final = 5.5
"""Resolution of a clinical scanner after its usual filter."""
CT_FWHM_MM: Final = 2.0
CT_NOISE_HU: Final = 11.0
LUNG_GRAIN_MM: Final = 6.0
LUNG_MOTTLE_HU: Final = 22.0
LUNG_GRADIENT_HU_PER_MM: Final = 0.45
PET_NOISE: Final = 0.95
"""Before the point spread; leaves a coefficient of variation of about 10 % in the liver at 2 x 2 x 3 mm."""


@dataclass(frozen=True)
class PhantomOptions:
    """What the phantom shows; ``draw_options`` varies it by seed.

    ``spacing_mm`` runs along (D, H, W). ``noise`` scales the noise of both images, 0 for none. ``world``:
    "district-dependent" (brain, myocardium, muscle and bladder have one HU and different SUV) or "appearance-only"
    (SUV is a function of HU).
    """

    spacing_mm: Triple = (3.0, 2.04, 2.04)
    height_mm: float = 1750.0
    body_mass_index: float = 24.0
    sex: Sex = "M"
    age: int = 60
    arms: ArmPosition = "down"
    field_of_view: FieldOfView = "head-to-toe"
    world: World = "district-dependent"
    diagnosis: Diagnosis = "NEGATIVE"
    contrast: bool = False
    table: bool = True
    noise: float = 1.0
    study_date: date = date(2020, 1, 15)

    def __post_init__(self) -> None:
        if self.world not in WORLDS:
            raise Rejected(f"There is no world '{self.world}': choose {' or '.join(WORLDS)}.")
        if self.diagnosis not in DIAGNOSES:
            raise Rejected(f"There is no diagnosis '{self.diagnosis}': choose one of {', '.join(DIAGNOSES)}.")
        if self.field_of_view not in get_args(FieldOfView):
            raise Rejected(
                f"There is no field of view '{self.field_of_view}': choose {' or '.join(get_args(FieldOfView))}."
            )
        if self.arms not in get_args(ArmPosition) or self.sex not in get_args(Sex):
            raise Rejected("The phantom's arms are 'up' or 'down', the phantom's sex is 'F' or 'M'.")
        if not 0 <= self.noise <= 10:
            raise Rejected("The phantom's noise is a factor between 0 (none) and 10.")
        if not (1300 <= self.height_mm <= 2200 and 14 <= self.body_mass_index <= 50):
            raise Rejected("The phantom is an adult: height 1300 to 2200 mm, body mass index 14 to 50.")
        if not 0.5 <= min(self.spacing_mm) <= max(self.spacing_mm) <= 12.0:
            raise Rejected("The phantom's spacing must lie between 0.5 and 12 mm along every axis.")

    @property
    def weight_kg(self) -> float:
        """From height and body mass index."""
        return self.body_mass_index * (self.height_mm / 1000.0) ** 2


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


def draw_options(
    seed: int, *, world: World = "district-dependent", spacing_mm: Triple = (3.0, 2.04, 2.04)
) -> PhantomOptions:
    """The patient and the examination that a seed stands for, spread as in a clinical cohort."""
    rng = _generator(seed, "options")
    sex: Sex = "M" if rng.random() < 0.56 else "F"
    height = float(np.clip(rng.normal(1765 if sex == "M" else 1640, 70), 1480, 2020))
    return PhantomOptions(
        spacing_mm=spacing_mm,
        height_mm=round(height),
        body_mass_index=round(float(np.clip(rng.normal(25.5, 4.2), 17.5, 38.0)), 1),
        sex=sex,
        age=int(np.clip(rng.normal(60, 15), 19, 92)),
        arms="up" if rng.random() < 0.6 else "down",
        field_of_view="skull-base-to-mid-thigh" if rng.random() < 0.5 else "head-to-toe",
        world=world,
        diagnosis=DIAGNOSES[int(rng.choice(len(DIAGNOSES), p=DIAGNOSIS_SHARES))],
        contrast=bool(rng.random() < 0.5),
        noise=round(float(rng.uniform(0.7, 1.4)), 2),
        study_date=date(2001, 1, 1) + timedelta(days=int(rng.integers(7000))),
    )


def make_phantom(seed: int, options: PhantomOptions | None = None) -> Phantom:
    """Draw one patient; the same seed and options give the same bytes, whatever the machine's core count."""
    options = PhantomOptions() if options is None else options
    table = draw_tissues(_generator(seed, "tissues"), options.world, options.contrast)
    figure = _draw_figure(_generator(seed, "figure"), options)
    geometry, canvas = _canvas(options, figure)
    body = draw_body(canvas, figure, _generator(seed, "organs"))
    lesions = draw_lesions(options.diagnosis, _generator(seed, "lesions"))
    paint_lesions(canvas, lesions, table, options.world)
    if options.table:
        _draw_table(canvas)
    return Phantom(
        Volume(_ct(canvas.tissue, table, options, _generator(seed, "ct noise")), geometry),
        Volume(_pet(canvas.tissue, table, options, _generator(seed, "pet noise")), geometry),
        body.districts,
        (canvas.tissue >= Tissue.FIRST_LESION).astype(np.uint8),
        canvas.tissue,
        options.diagnosis,
        seed,
        options,
    )


_STREAMS: Final = ("options", "tissues", "figure", "organs", "lesions", "ct noise", "pet noise")


def _generator(seed: int, stream: str) -> np.random.Generator:
    """A stream of its own for each purpose: a change in one leaves the others as they were."""
    return np.random.default_rng([seed, _STREAMS.index(stream)])


def _draw_figure(rng: np.random.Generator, options: PhantomOptions) -> Figure:
    slim = 22.5 if options.sex == "M" else 21.0
    fat = float(np.clip(2.8 * (options.body_mass_index - slim) + rng.normal(0, 1.5), -9.0, 60.0))
    resting = ARMS_DOWN if options.arms == "down" else ARMS_UP
    left, right = (_draw_pose(resting, options.arms, fat, rng) for _ in range(2))
    return Figure(options.sex, options.arms, fat, left, right, float(rng.uniform(22, 38)), float(rng.uniform(34, 40)))


def _draw_pose(resting: ArmPose, arms: ArmPosition, fat_mm: float, rng: np.random.Generator) -> ArmPose:
    """An arm a little off its resting place; arms that hang make room for a stout trunk."""
    if arms == "up":
        lift = float(rng.uniform(-12, 18))
        moves = {"elbow": (rng.normal(0, 8), rng.normal(0, 6), lift)}
        moves["wrist"] = (rng.normal(0, 10), rng.normal(0, 6), lift + rng.normal(0, 12))
        moves["palm"] = moves["fingers"] = moves["wrist"]
    else:
        aside = max(fat_mm, 0.0) * 0.9 + float(rng.uniform(-4, 12))
        moves = {"elbow": (aside, rng.normal(0, 6), 0.0), "wrist": (aside + rng.uniform(-6, 10), rng.normal(0, 8), 0.0)}
        moves["palm"] = moves["fingers"] = moves["wrist"]
    joints = {name: _moved(getattr(resting, name), move) for name, move in moves.items()}
    return ArmPose(resting.shoulder, joints["elbow"], joints["wrist"], joints["palm"], joints["fingers"])


def _moved(point: Point, move: tuple[float, float, float]) -> Point:
    return point[0] + float(move[0]), point[1] + float(move[1]), point[2] + float(move[2])


def _canvas(options: PhantomOptions, figure: Figure) -> tuple[Geometry, Canvas]:
    """The image's grid and the reference coordinates of its voxels."""
    across, deep, tall = _scales(options)
    more = max(figure.fat_mm, 0.0)
    reach = max(
        185.0 + more, *(p.elbow[0] + 44.0 + 0.5 * more for p in (figure.left, figure.right)), 232.0 + 0.5 * more
    )
    front, back = -134.0 - 1.3 * more, 112.0 + more
    top = max(1757.0, *(p.fingers[2] + 34.0 for p in (figure.left, figure.right))) + MARGIN_MM / 2
    ends = (SOLES_MM, top) if options.field_of_view == "head-to-toe" else (MID_THIGH_MM, SKULL_BASE_MM)
    low = (ends[0] * tall, front * deep - MARGIN_MM, -reach * across - MARGIN_MM)
    high = (ends[1] * tall, back * deep + (TABLE_MM if options.table else MARGIN_MM), reach * across + MARGIN_MM)
    shape = tuple(max(1, int(np.ceil((b - a) / s))) for a, b, s in zip(low, high, options.spacing_mm, strict=True))
    origin = [a + s / 2 for a, s in zip(low, options.spacing_mm, strict=True)]
    geometry = Geometry((shape[0], shape[1], shape[2]), options.spacing_mm, (origin[2], origin[1], origin[0]))
    z, y, x = (
        ((o + np.arange(n) * s) / scale).astype(np.float32)
        for o, n, s, scale in zip(origin, shape, options.spacing_mm, (tall, deep, across), strict=True)
    )
    return geometry, Canvas(x, y, z)


def _scales(options: PhantomOptions) -> tuple[float, float, float]:
    """Real over reference mm along x, y and z: tall people are less broad in proportion."""
    ratio = options.height_mm / REFERENCE_HEIGHT_MM
    slender = 1.0 if options.sex == "M" else 0.96
    return ratio**0.6 * slender, ratio**0.6 * slender, ratio


def _draw_table(canvas: Canvas) -> None:
    """A carbon shell around foam under the body, and a cushion under the head; only in air."""
    air = (Tissue.AIR,)
    rows = np.flatnonzero((canvas.tissue > Tissue.AIR).any(axis=(0, 2)))
    top = float(canvas.y[rows[-1]]) + 3.0
    low, high = float(canvas.z[0]), float(canvas.z[-1])
    cushion = canvas.everywhere((-125.0, 40.0, max(1540.0, low)), (125.0, top, max(1760.0, low)))
    canvas.paint(cushion, Tissue.MATTRESS, only=air)
    for depth, tissue in ((0.0, Tissue.TABLE_SHELL), (SHELL_MM, Tissue.TABLE_CORE)):
        slab = canvas.everywhere(
            (-215.0 + depth, top + depth, low - 1.0), (215.0 - depth, top + 34.0 - depth, high + 1.0)
        )
        canvas.paint(slab, tissue, only=(*air, Tissue.TABLE_SHELL))


def _ct(tissue: LabelArray, table: TissueTable, options: PhantomOptions, rng: np.random.Generator) -> FloatArray:
    """HU with the scanner's blur and noise."""
    image = table.hu[tissue]
    _add_lung_texture(image, tissue, options.spacing_mm, rng)
    if options.noise > 0:
        noise = rng.standard_normal(tissue.shape, dtype=np.float32)
        noise *= np.float32(options.noise * CT_NOISE_HU / _gain(CT_FWHM_MM, options.spacing_mm))
        image += noise
    image = _blurred(image, CT_FWHM_MM, options.spacing_mm)
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


def _pet(tissue: LabelArray, table: TissueTable, options: PhantomOptions, rng: np.random.Generator) -> FloatArray:
    """SUV with counting noise (variance as uptake), blurred to the scanner's resolution, never negative."""
    image = table.suv[tissue]
    if options.noise > 0:
        noise = rng.standard_normal(tissue.shape, dtype=np.float32)
        noise *= np.sqrt(image)
        noise *= np.float32(options.noise * PET_NOISE)
        image += noise
    image = _blurred(image, PET_FWHM_MM, options.spacing_mm)
    return np.maximum(image, np.float32(0.0), out=image)


def _blurred(image: FloatArray, fwhm_mm: float, spacing_mm: Triple) -> FloatArray:
    """Gaussian of a full width at half maximum; zero-order continuation at the borders."""
    sigma = [fwhm_mm / 2.3548 / s for s in spacing_mm]
    return np.asarray(ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3.0))


def _gain(fwhm_mm: float, spacing_mm: Triple) -> float:
    """Standard deviation of white noise after that Gaussian."""
    gain = 1.0
    for s in spacing_mm:
        sigma = fwhm_mm / 2.3548 / s
        weights = np.exp(-0.5 * (np.arange(-6, 7) / sigma) ** 2)
        gain *= float(np.sqrt(np.sum((weights / weights.sum()) ** 2)))
    return gain
