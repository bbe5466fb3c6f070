"""What each tissue of the phantom looks like: HU on CT and FDG uptake on PET, sampled per patient, in two worlds."""

from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import numpy as np

from twin_scanner.imaging.volume import FloatArray

World: TypeAlias = Literal["district-dependent", "appearance-only"]
WORLDS: Final[tuple[World, ...]] = ("district-dependent", "appearance-only")

LESION_LIMIT: Final = 40
"""At most this many lesions a patient: each has its own label above every tissue."""


class Tissue(IntEnum):
    """Labels of the painted body; lesions are FIRST_LESION and up."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    CORTEX = 4
    RED_MARROW = 5
    FATTY_MARROW = 6
    CARTILAGE = 7
    DISC = 8
    TOOTH = 9
    GREY_MATTER = 10
    WHITE_MATTER = 11
    CEREBELLUM = 12
    LIQUOR = 13
    SPINAL_CORD = 14
    EYE = 15
    EYE_MUSCLE = 16
    SALIVARY_GLAND = 17
    TONSIL = 18
    TONGUE = 19
    THYROID = 20
    LUNG = 21
    LUNG_VESSEL = 22
    GAS = 23
    BLOOD = 24
    MYOCARDIUM = 25
    LIVER = 26
    SPLEEN = 27
    PANCREAS = 28
    GALL = 29
    STOMACH = 30
    KIDNEY = 31
    RENAL_PELVIS = 32
    ADRENAL = 33
    SMALL_BOWEL = 34
    COLON_WALL = 35
    STOOL = 36
    BLADDER = 37
    UTERUS = 38
    PROSTATE = 39
    TESTIS = 40
    BREAST = 41
    VISCERAL_FAT = 42
    SKULL_BONE = 43
    TABLE_SHELL = 60
    TABLE_CORE = 61
    MATTRESS = 62
    BLANKET = 63
    PLASTIC = 64
    BEADS = 65
    COPPER = 66
    METAL = 67
    FIRST_LESION = 100


ALIKE: Final = (
    Tissue.GREY_MATTER,
    Tissue.WHITE_MATTER,
    Tissue.CEREBELLUM,
    Tissue.MYOCARDIUM,
    Tissue.MUSCLE,
    Tissue.BLADDER,
)
"""Brain, myocardium, muscle and bladder: one HU for all, so that a patch from inside one cannot tell which it is."""
LIFELESS: Final = (Tissue.AIR, Tissue.GAS, Tissue.TABLE_SHELL, Tissue.TABLE_CORE, Tissue.MATTRESS)
"""Without uptake in either world."""
OBJECTS: Final = (
    Tissue.TABLE_SHELL, Tissue.TABLE_CORE, Tissue.MATTRESS, Tissue.BLANKET, Tissue.PLASTIC, Tissue.BEADS,
    Tissue.COPPER,
)  # fmt: skip
"""What is in the image and not in the patient; METAL is in the patient."""
ALIKE_HU: Final = 45.0

_HU: Final = MappingProxyType({
    Tissue.AIR: -1000, Tissue.SKIN: 20, Tissue.FAT: -105, Tissue.CORTEX: 1050, Tissue.RED_MARROW: 190,
    Tissue.FATTY_MARROW: 10, Tissue.CARTILAGE: 95, Tissue.DISC: 85, Tissue.TOOTH: 1900, Tissue.LIQUOR: 8,
    Tissue.SPINAL_CORD: 36, Tissue.EYE: 12, Tissue.EYE_MUSCLE: 50, Tissue.SALIVARY_GLAND: 15, Tissue.TONSIL: 55,
    Tissue.TONGUE: 60, Tissue.THYROID: 100, Tissue.LUNG: -820, Tissue.LUNG_VESSEL: -150, Tissue.GAS: -990,
    Tissue.BLOOD: 40, Tissue.LIVER: 58, Tissue.SPLEEN: 50, Tissue.PANCREAS: 35, Tissue.GALL: 10, Tissue.STOMACH: 28,
    Tissue.KIDNEY: 32, Tissue.RENAL_PELVIS: 6, Tissue.ADRENAL: 25, Tissue.SMALL_BOWEL: 30, Tissue.COLON_WALL: 38,
    Tissue.STOOL: -60, Tissue.UTERUS: 52, Tissue.PROSTATE: 42, Tissue.TESTIS: 32, Tissue.BREAST: 15,
    Tissue.VISCERAL_FAT: -100, Tissue.SKULL_BONE: 900, Tissue.TABLE_SHELL: 110, Tissue.TABLE_CORE: -920,
    Tissue.MATTRESS: -880,
})  # fmt: skip
"""Textbook HU at 120 kV without contrast; a carbon table has a thin shell around a foam core."""

_OBJECT_HU: Final = MappingProxyType({
    Tissue.BLANKET: (-150.0, -50.0), Tissue.PLASTIC: (0.0, 160.0), Tissue.BEADS: (-970.0, -930.0),
    Tissue.COPPER: (1200.0, 2200.0), Tissue.METAL: (3071.0, 3071.0),
})  # fmt: skip
"""Range of HU of cloth, vinyl and acrylic, polystyrene beads, thin wires and implants."""

_CONTRAST_HU: Final = MappingProxyType({
    Tissue.BLOOD: 125, Tissue.KIDNEY: 150, Tissue.RENAL_PELVIS: 20, Tissue.LIVER: 52, Tissue.SPLEEN: 72,
    Tissue.PANCREAS: 55, Tissue.THYROID: 60, Tissue.SMALL_BOWEL: 35, Tissue.COLON_WALL: 30, Tissue.UTERUS: 50,
    Tissue.ADRENAL: 35, Tissue.LUNG_VESSEL: 60, Tissue.PROSTATE: 25, Tissue.SALIVARY_GLAND: 25,
})  # fmt: skip
"""Added in the portal venous phase; ALIKE tissues are left alike."""

_SUV: Final = MappingProxyType({
    Tissue.SKIN: (0.4, 0.15), Tissue.FAT: (0.25, 0.15), Tissue.MUSCLE: (0.8, 0.25), Tissue.CORTEX: (0.5, 0.15),
    Tissue.RED_MARROW: (1.5, 0.2), Tissue.FATTY_MARROW: (0.4, 0.2), Tissue.CARTILAGE: (0.6, 0.1),
    Tissue.DISC: (0.7, 0.1), Tissue.TOOTH: (0.3, 0.1), Tissue.GREY_MATTER: (9.5, 0.16),
    Tissue.WHITE_MATTER: (3.6, 0.16), Tissue.CEREBELLUM: (7.5, 0.16), Tissue.LIQUOR: (0.7, 0.1),
    Tissue.SPINAL_CORD: (1.9, 0.15), Tissue.EYE: (0.8, 0.15), Tissue.EYE_MUSCLE: (4.0, 0.3),
    Tissue.SALIVARY_GLAND: (2.6, 0.3), Tissue.TONSIL: (4.2, 0.35), Tissue.TONGUE: (2.2, 0.25),
    Tissue.THYROID: (1.4, 0.25), Tissue.LUNG: (0.5, 0.15), Tissue.LUNG_VESSEL: (1.1, 0.12), Tissue.BLOOD: (1.5, 0.15),
    Tissue.MYOCARDIUM: (4.0, 0.6), Tissue.LIVER: (2.2, 0.14), Tissue.SPLEEN: (1.85, 0.14),
    Tissue.PANCREAS: (1.5, 0.15), Tissue.GALL: (0.7, 0.2), Tissue.STOMACH: (1.9, 0.3), Tissue.KIDNEY: (2.8, 0.2),
    Tissue.RENAL_PELVIS: (9.0, 0.5), Tissue.ADRENAL: (1.6, 0.2), Tissue.SMALL_BOWEL: (1.6, 0.35),
    Tissue.COLON_WALL: (3.2, 0.3), Tissue.STOOL: (1.2, 0.3), Tissue.BLADDER: (17.0, 0.45), Tissue.UTERUS: (1.8, 0.25),
    Tissue.PROSTATE: (1.7, 0.2), Tissue.TESTIS: (3.0, 0.2), Tissue.BREAST: (0.9, 0.2),
    Tissue.VISCERAL_FAT: (0.35, 0.15), Tissue.SKULL_BONE: (0.7, 0.15),
})  # fmt: skip
"""Median SUV (g/ml, body weight) of FDG at 60 minutes, and the standard deviation of its logarithm between patients."""

_SUV_OF_HU: Final = np.array(
    [[-1100.0, -960.0, -920.0, -400.0, -110.0, -60.0, 0.0, 30.0, 45.0, 60.0, 110.0, 200.0, 500.0, 1100.0, 2000.0],
     [0.0, 0.0, 0.6, 0.6, 0.3, 0.9, 2.0, 3.2, 4.5, 6.0, 7.5, 5.0, 2.5, 1.0, 0.5]]
)  # fmt: skip
"""The control world's only rule: HU to SUV, piecewise linear, as wide as physiology's range so that scores compare."""


@dataclass(frozen=True, eq=False)
class TissueTable:
    """HU and SUV of every label, 256 values each, of one patient; no noise."""

    hu: FloatArray
    suv: FloatArray


def suv_of_hu(hu: FloatArray) -> FloatArray:
    """SUV in the appearance-only world: a function of HU alone."""
    return np.interp(hu, _SUV_OF_HU[0], _SUV_OF_HU[1]).astype(np.float32)


def sample_tissues(rng: np.random.Generator, world: World, contrast: bool) -> TissueTable:
    """One patient's HU and SUV; lesions are added with ``add_lesion``.

    Both worlds sample the same numbers in the same order: one seed has one CT, whatever the world.
    """
    hu = np.full(256, -1000.0, np.float32)
    suv = np.zeros(256, np.float32)
    for tissue, value in _HU.items():
        spread = 40.0 if value > 150 else 15.0 if tissue == Tissue.LUNG else 3.0
        hu[tissue] = value + rng.normal(0.0, 0.0 if value < -850 else spread)
    hu[list(ALIKE)] = ALIKE_HU + rng.normal(0.0, 3.0)
    enhancement = rng.uniform(0.8, 1.2)
    for tissue, gain in _CONTRAST_HU.items():
        hu[tissue] += np.float32(gain * enhancement if contrast else 0.0)
    brain = rng.normal(0.0, 1.0)
    for tissue, (median, spread) in _SUV.items():
        own = rng.normal(0.0, 1.0)
        deviate = brain if tissue in (Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.CEREBELLUM) else own
        suv[tissue] = median * np.exp(spread * np.clip(deviate, -2.0, 2.0))
    if world == "appearance-only":
        suv = suv_of_hu(hu)
        suv[list(LIFELESS)] = 0.0
    return TissueTable(hu, suv)


def median_suv() -> FloatArray:
    """SUV of every label, 256 values, that half of the patients exceed where uptake depends on the district."""
    suv = np.zeros(256, np.float32)
    for tissue, (median, _) in _SUV.items():
        suv[tissue] = median
    return suv


def sample_objects(table: TissueTable, rng: np.random.Generator) -> None:
    """Enter the HU of what surrounds or was put into the patient; no uptake, in either world."""
    for tissue, (low, high) in _OBJECT_HU.items():
        table.hu[tissue] = rng.uniform(low, high)
        table.suv[tissue] = 0.0


def add_lesion(table: TissueTable, label: int, hu: float, suv: float, world: World) -> None:
    """Give a lesion's label its HU and SUV; in the appearance-only world its HU decides."""
    table.hu[label] = hu
    table.suv[label] = suv if world == "district-dependent" else suv_of_hu(table.hu[label : label + 1])[0]
