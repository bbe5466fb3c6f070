"""What a phantom shows: body, pose, field of view, how the patient lies, and what else is in the image."""

from dataclasses import asdict, dataclass, fields
from datetime import date, timedelta
from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from training.phantom.anatomy import ArmPosition, Build, Sex
from training.phantom.lesions import DIAGNOSES, DIAGNOSIS_SHARES, Diagnosis
from training.phantom.tissues import WORLDS, World
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Triple

FieldOfView: TypeAlias = Literal["head-to-toe", "skull-base-to-mid-thigh"]
Range: TypeAlias = tuple[float, float]
"""Lowest and highest z in reference mm: soles 0, ischia 836, shoulders 1400, chin 1524, vertex 1751."""
PatientPosition: TypeAlias = Literal["HFS", "HFP", "FFS", "FFP", "HFDL", "HFDR"]
"""PatientPosition of PS3.3 C.7.3.1.1.2: head or feet first, supine, prone or lying on the left or right side."""
ImageAxes: TypeAlias = Literal["gantry", "patient"]
Aid: TypeAlias = Literal["knee wedge", "arm rest", "head holder", "vacuum cushion", "ECG cable", "oxygen tube"]
Implant: TypeAlias = Literal["hip prosthesis", "femoral nail", "spinal rods", "dental fillings"]

STREAMS: Final = (
    "options", "tissues", "figure", "organs", "lesions", "ct noise", "pet noise",
    "crossed arms", "surroundings", "objects' hu", "beads", "implants", "streaks", "variation",
    "gut",
)  # fmt: skip
"""Purposes of randomness; their order is part of every phantom, so new ones are added at the end."""
WIDEST_FIELD_MM: Final = (150.0, 1000.0)
"""Diameters of the reconstructed field of view: 200 mm for a head, 500 mm as a rule, 780 mm where it is extended."""
LOWEST_MM: Final = -60.0
HIGHEST_MM: Final = 2000.0
SHORTEST_RANGE_MM: Final = 60.0
PET_NOISE: Final = (0.04, 0.12)
"""Range of ``pet_noise`` that patients are sampled from: little and much activity, short and long acquisitions."""


@dataclass(frozen=True)
class PhantomOptions:
    """What the phantom shows; ``sample_options`` and ``sample_variation`` vary it by seed.

    ``spacing_mm`` runs along (D, H, W). ``ct_noise`` scales the CT's noise and ``pet_noise`` is the PET's coefficient
    of variation in the liver, as large on every grid; 0 is none. ``world``: "district-dependent" (brain, myocardium,
    muscle and bladder have one HU and different SUV) or "appearance-only" (SUV is a function of HU). ``arms`` are both
    arms, unless ``right_arm`` says otherwise for the right one. ``field_of_view`` is one of two usual ones or a range
    (low, high) in reference mm, z to the head; with ``diameter_mm`` the image is a circle around ``centre_mm`` (x, y in
    LPS mm of the patient) and padding beside it. ``position`` says on what side the patient lies and which end is
    scanned first; ``axes`` whether the image's axes are those of the gantry or turned to the patient's back and left;
    ``reversed_scan`` turns the slice order.
    """

    spacing_mm: Triple = (3.0, 2.04, 2.04)
    height_mm: float = 1750.0
    body_mass_index: float = 24.0
    sex: Sex = "M"
    age: int = 60
    arms: ArmPosition = "down"
    field_of_view: FieldOfView | Range = "head-to-toe"
    world: World = "district-dependent"
    diagnosis: Diagnosis = "NEGATIVE"
    contrast: bool = False
    table: bool = True
    ct_noise: float = 1.0
    pet_noise: float = 0.05
    """As in a good clinical PET: 4.4 to 4.9 % were measured in one, 26 % in an old scanner's (training/LOG.md)."""
    study_date: date = date(2020, 1, 15)
    right_arm: ArmPosition | None = None
    build: Build = "even"
    diameter_mm: float | None = None
    centre_mm: tuple[float, float] = (0.0, 0.0)
    position: PatientPosition = "HFS"
    axes: ImageAxes = "gantry"
    reversed_scan: bool = False
    blanket: Range | None = None
    """Where a blanket lies, z in reference mm."""
    aids: tuple[Aid, ...] = ()
    implants: tuple[Implant, ...] = ()

    def __post_init__(self) -> None:
        self._check_names()
        self._check_field_of_view()
        if not 0 <= self.ct_noise <= 10:
            raise Rejected("The phantom's CT noise is a factor between 0 (none) and 10.")
        if not 0 <= self.pet_noise <= 1:
            raise Rejected("The phantom's PET noise is the liver's coefficient of variation, between 0 (none) and 1.")
        if not (1300 <= self.height_mm <= 2200 and 14 <= self.body_mass_index <= 50):
            raise Rejected("The phantom is an adult: height 1300 to 2200 mm, body mass index 14 to 50.")
        if not 0.5 <= min(self.spacing_mm) <= max(self.spacing_mm) <= 12.0:
            raise Rejected("The phantom's spacing must lie between 0.5 and 12 mm along every axis.")

    @property
    def weight_kg(self) -> float:
        """From height and body mass index."""
        return self.body_mass_index * (self.height_mm / 1000.0) ** 2

    @property
    def arm_positions(self) -> tuple[ArmPosition, ArmPosition]:
        """The positions of the left and the right arm."""
        return self.arms, self.arms if self.right_arm is None else self.right_arm

    @property
    def identity(self) -> str:
        """All options as text, those left out that were added later and are not used: UIDs are derived from it."""
        default = {f.name: f.default for f in fields(self)}
        values = asdict(self).items()
        return repr(sorted((n, v) for n, v in values if n in _FIRST_OPTIONS or v != default[n]))

    def _check_names(self) -> None:
        if self.world not in WORLDS:
            raise Rejected(f"There is no world '{self.world}': choose {' or '.join(WORLDS)}.")
        if self.diagnosis not in DIAGNOSES:
            raise Rejected(f"There is no diagnosis '{self.diagnosis}': choose one of {', '.join(DIAGNOSES)}.")
        if not set(self.arm_positions) <= set(get_args(ArmPosition)) or self.sex not in get_args(Sex):
            raise Rejected("The phantom's arms are 'up', 'down' or 'crossed', the phantom's sex is 'F' or 'M'.")
        for value, allowed, what in (
            (self.build, Build, "build"), (self.position, PatientPosition, "patient position"),
            (self.axes, ImageAxes, "choice of axes"),
            *((aid, Aid, "positioning aid") for aid in self.aids),
            *((implant, Implant, "implant") for implant in self.implants),
        ):  # fmt: skip
            if value not in get_args(allowed):
                raise Rejected(f"There is no {what} '{value}': choose one of {', '.join(get_args(allowed))}.")

    def _check_field_of_view(self) -> None:
        if isinstance(self.field_of_view, str) and self.field_of_view not in get_args(FieldOfView):
            raise Rejected(
                f"There is no field of view '{self.field_of_view}': choose {' or '.join(get_args(FieldOfView))}."
            )
        for part in (self.field_of_view, self.blanket):
            if isinstance(part, tuple) and not (
                LOWEST_MM <= part[0] <= part[1] - SHORTEST_RANGE_MM and part[1] <= HIGHEST_MM
            ):
                raise Rejected(
                    f"The range {part} shows nothing of a phantom: give low and high between {LOWEST_MM:g} and"
                    f" {HIGHEST_MM:g} reference mm, {SHORTEST_RANGE_MM:g} mm apart."
                )
        if self.diameter_mm is not None and not WIDEST_FIELD_MM[0] <= self.diameter_mm <= WIDEST_FIELD_MM[1]:
            raise Rejected("The phantom's field of view is 150 to 1000 mm wide.")


_FIRST_OPTIONS: Final = frozenset({
    "spacing_mm", "height_mm", "body_mass_index", "sex", "age", "arms", "field_of_view", "world", "diagnosis",
    "contrast", "table", "ct_noise", "pet_noise", "study_date",
})  # fmt: skip


def random_stream(seed: int, purpose: str) -> np.random.Generator:
    """A stream of its own for each purpose: a change in one leaves the others as they were."""
    return np.random.default_rng([seed, STREAMS.index(purpose)])


def sample_options(
    seed: int, *, world: World = "district-dependent", spacing_mm: Triple = (3.0, 2.04, 2.04)
) -> PhantomOptions:
    """The patient and the examination that a seed stands for, spread as in a clinical cohort."""
    rng = random_stream(seed, "options")
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
        ct_noise=round(float(rng.uniform(0.7, 1.4)), 2),
        study_date=date(2001, 1, 1) + timedelta(days=int(rng.integers(7000))),
        pet_noise=round(float(rng.uniform(*PET_NOISE)), 3),
    )
