"""Evaluated studies with known answers: a body of four districts, lesions, and the synthetic PET that a test wants."""

from dataclasses import replace

import numpy as np

from training.evaluation.case import Case
from twin_scanner.imaging.volume import FloatArray, Geometry, LabelArray
from twin_scanner.models.plan import Plan

SHAPE = (48, 44, 46)
PLAN = Plan(spacing_mm=(4.0, 4.0, 4.0))
GEOMETRY = Geometry(SHAPE, PLAN.spacing_mm, (0.0, 0.0, 0.0))
BACKGROUND_SUV = 1.0


def districts() -> LabelArray:
    """A block of body in air: head on top, legs below, arms on one side of the trunk."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:44, 6:38, 6:40] = 2
    labels[34:44, 6:38, 6:40] = 1
    labels[4:14, 6:38, 6:40] = 4
    labels[14:34, 6:38, 32:40] = 3
    return labels


def body_pet(seed: int = 0, noise: float = 0.05) -> FloatArray:
    """SUV 1 with noise in the body, 0 in the air."""
    random = np.random.default_rng(seed)
    pet = random.normal(BACKGROUND_SUV, noise, SHAPE).astype(np.float32)
    return np.where(districts() > 0, np.clip(pet, 0.1, 3.0), np.float32(0.0))


def case_of(real: FloatArray, synthetic: FloatArray, lesions: LabelArray | None = None, **names: str) -> Case:
    """A study whose CT has the field of view of its PET."""
    known = {"study": "study-1", "patient": "patient-1", "diagnosis": "LYMPHOMA", **names}
    return Case(
        **known, real=real, synthetic=synthetic, labels=districts(), lesions=lesions, geometry=GEOMETRY, plan=PLAN,
        translated=GEOMETRY,
    )  # fmt: skip


def with_spot(pet: FloatArray, corner: tuple[int, int, int], suv: float, edge: int = 4) -> FloatArray:
    """The PET with a cube of uptake whose first voxel is ``corner``."""
    hot = pet.copy()
    d, h, w = corner
    hot[d : d + edge, h : h + edge, w : w + edge] = suv
    return hot


def spot_label(*corners: tuple[int, int, int], edge: int = 4) -> LabelArray:
    """An annotation of such cubes."""
    labels = np.zeros(SHAPE, np.uint8)
    for d, h, w in corners:
        labels[d : d + edge, h : h + edge, w : w + edge] = 1
    return labels


def of_patient(case: Case, patient: str, diagnosis: str) -> Case:
    """The same images under other names."""
    return replace(case, study=f"study-of-{patient}", patient=patient, diagnosis=diagnosis)
