"""Tumour lesions of the phantom: which disease has them where, how large and how avid."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import numpy as np

from training.phantom.shapes import Canvas, Point
from training.phantom.tissues import LESION_LIMIT, Tissue, TissueTable, World, add_lesion

Diagnosis: TypeAlias = Literal["NEGATIVE", "LYMPHOMA", "MELANOMA", "LUNG_CANCER"]
DIAGNOSES: Final[tuple[Diagnosis, ...]] = ("NEGATIVE", "LYMPHOMA", "MELANOMA", "LUNG_CANCER")
"""As autoPET's fdg_metadata.csv spells them."""
DIAGNOSIS_SHARES: Final = (513 / 1014, 145 / 1014, 188 / 1014, 168 / 1014)
"""Studies of each in autoPET's 1,014."""

Bed: TypeAlias = Literal["node", "lung", "liver", "bone", "skin", "spleen"]

_NODES: Final[tuple[tuple[float, ...], ...]] = (
    (40, 4, 1505), (36, -6, 1540), (46, 8, 1475), (44, -30, 1440), (20, -34, 1375), (12, -14, 1330), (44, 14, 1300),
    (146, 14, 1352), (136, -4, 1335), (22, 8, 1130), (18, 4, 1080), (44, 0, 1000), (52, -14, 960), (76, -58, 884),
)  # fmt: skip
"""Neck, supraclavicular fossa, mediastinum, hilum, axilla, retroperitoneum, pelvis and groin, on the left."""
_BONES: Final[tuple[tuple[float, ...], ...]] = (
    (6, 28, 1060), (-6, 27, 1105), (5, 40, 1215), (4, 48, 1290), (76, 44, 975), (98, -4, 975), (88, 0, 918),
    (100, 10, 800), (190, 13, 1340), (8, -84, 1325),
)  # fmt: skip
_SKIN: Final[tuple[tuple[float, ...], ...]] = (
    (100, 68, 760),
    (140, -20, 720),
    (98, 54, 420),
    (60, -88, 1150),
    (110, 84, 1250),
    (90, 86, 1130),
    (60, 50, 1460),
    (130, 60, 600),
)
_PATTERNS: Final[MappingProxyType[Diagnosis, tuple[tuple[Bed, float], ...]]] = MappingProxyType({
    "NEGATIVE": (),
    "LYMPHOMA": (("node", 7.0), ("spleen", 0.6), ("bone", 0.6)),
    "MELANOMA": (("skin", 1.6), ("node", 1.4), ("liver", 1.0), ("lung", 1.0), ("bone", 0.8)),
    "LUNG_CANCER": (("node", 1.6), ("bone", 0.6), ("liver", 0.4), ("lung", 0.3)),
})  # fmt: skip
"""Expected number of lesions a bed (Poisson)."""
_RADIUS_MM: Final[MappingProxyType[Bed, tuple[float, float]]] = MappingProxyType({
    "node": (9.0, 0.35), "lung": (7.0, 0.4), "liver": (11.0, 0.35), "bone": (9.0, 0.3), "skin": (8.0, 0.35),
    "spleen": (12.0, 0.3),
})  # fmt: skip
"""Median and logarithmic spread."""
MEDIAN_SUV: Final = 7.0


@dataclass(frozen=True)
class Lesion:
    """One tumour: an ellipsoid in reference millimetres."""

    bed: Bed
    centre: Point
    radii: Point
    suv: float


def sample_lesions(diagnosis: Diagnosis, rng: np.random.Generator) -> tuple[Lesion, ...]:
    """The lesions of one patient; at least one unless NEGATIVE; a lung cancer has its primary in a lung."""
    beds: list[tuple[Bed, float]] = []
    if diagnosis == "LUNG_CANCER":
        beds.append(("lung", 2.2))
    if diagnosis == "LYMPHOMA":
        beds.append(("node", 1.6))
    if diagnosis == "MELANOMA":
        beds.append(("node" if rng.random() < 0.5 else "lung", 1.0))
    for bed, expected in _PATTERNS[diagnosis]:
        beds += [(bed, 1.0)] * int(rng.poisson(expected))
    return tuple(_lesion(bed, scale, rng) for bed, scale in beds[:LESION_LIMIT])


def paint_lesions(canvas: Canvas, lesions: tuple[Lesion, ...], table: TissueTable, world: World) -> None:
    """Paint lesions over the body, each with a label of its own, and enter their HU and SUV in the table.

    A nodule in the lung is soft tissue and plain on CT; one in liver, spleen or marrow has the HU of its bed and shows
    on PET alone, as autoPET's often do.
    """
    for number, lesion in enumerate(lesions):
        label = Tissue.FIRST_LESION + number
        region = canvas.ellipsoid(lesion.centre, lesion.radii)
        view = canvas.tissue[region.box]
        view[region.mask & (view != Tissue.AIR)] = label
        bed: dict[Bed, float] = {
            "node": 40.0, "lung": 32.0, "skin": 30.0, "liver": float(table.hu[Tissue.LIVER]),
            "spleen": float(table.hu[Tissue.SPLEEN]), "bone": float(table.hu[Tissue.RED_MARROW]),
        }  # fmt: skip
        add_lesion(table, label, bed[lesion.bed], lesion.suv, world)


def _lesion(bed: Bed, scale: float, rng: np.random.Generator) -> Lesion:
    median, spread = _RADIUS_MM[bed]
    size = float(np.clip(scale * median * np.exp(spread * rng.normal()), 4.0, 34.0))
    stretch = rng.uniform(0.8, 1.25, 3)
    suv = float(np.clip(MEDIAN_SUV * np.exp(0.45 * rng.normal()), 3.0, 25.0))
    return Lesion(bed, _site(bed, rng), (size * stretch[0], size * stretch[1], size * stretch[2]), suv)


def _site(bed: Bed, rng: np.random.Generator) -> Point:
    """Where a lesion of a bed lies, either side."""
    side = 1.0 if rng.random() < 0.5 else -1.0
    sites = {"node": _NODES, "bone": _BONES, "skin": _SKIN}.get(bed)
    if sites is not None:
        x, y, z = (float(v) + float(rng.normal(0, 3.0)) for v in sites[int(rng.integers(len(sites)))])
        return side * x, y, z
    low, high = {
        "lung": ((52.0, -40.0, 1275.0), (98.0, 62.0, 1395.0)),
        "liver": ((40.0, -34.0, 1130.0), (104.0, 42.0, 1205.0)),
        "spleen": ((84.0, 28.0, 1150.0), (98.0, 52.0, 1190.0)),
    }[bed]
    x, y, z = rng.uniform(low, high).tolist()
    return {"lung": side, "liver": -1.0, "spleen": 1.0}[bed] * x, y, z
