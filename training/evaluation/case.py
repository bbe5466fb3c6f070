"""One study with its real and its synthetic PET on one grid, ready to be scored, and the rows that the score gives."""

from dataclasses import dataclass
from typing import Final

from twin_scanner.imaging.volume import FloatArray, Geometry, LabelArray
from twin_scanner.models.plan import Plan

BODY: Final = "body"
LESION: Final = "lesion"
"""Regions beside the districts' names: everything inside the body, and everything annotated as a lesion."""


@dataclass(frozen=True, eq=False)
class Translated:
    """The synthetic PET (D, H, W) as the model made it, on its own grid, where its windows lie: SUV and districts."""

    suv: FloatArray
    districts: LabelArray


@dataclass(frozen=True, eq=False)
class Case:
    """One study and one model: arrays (D, H, W) on one grid, whose place in the patient ``geometry`` gives.

    ``real`` and ``synthetic`` are float32 SUV in g/ml, the real one unclipped; ``labels`` are the districts (uint8, 0
    outside the body and where the real PET has no value), ``lesions`` 0 or 1 (None where nobody annotated), ``organs``
    an optional label map with ``organ_names``. ``plan`` is the model's. ``translated`` is the field of view of the CT
    that was translated: beyond it there is no synthetic PET; ``as_translated`` is what the model made, None where it
    is not asked for. ``diagnosis`` is autoPET's word (NEGATIVE, MELANOMA,
    LUNG_CANCER, LYMPHOMA) or empty.

    In an evaluation the grid is the real PET's own, so every model is scored on the same voxels. Validation and gate
    score on the grid of the training store, calibration on that of the model, on which intervals are stated.
    """

    study: str
    patient: str
    diagnosis: str
    real: FloatArray
    synthetic: FloatArray
    labels: LabelArray
    lesions: LabelArray | None
    geometry: Geometry
    plan: Plan
    translated: Geometry
    organs: LabelArray | None = None
    organ_names: tuple[tuple[int, str], ...] = ()
    as_translated: Translated | None = None


@dataclass(frozen=True)
class Row:
    """One number: a study, a model, a region, a metric.

    ``region`` is a district's name, "body", "lesion" or "organ:NAME"; ``item`` numbers the lesions of a study from 1
    in the metrics that are of one lesion, else 0. ``metric`` names what was measured and ``unit`` its unit ("" for
    none); ``n`` is how many voxels (or lesions) stand behind the value. A number that does not exist (an empty mask)
    has no row.
    """

    model: str
    study: str
    patient: str
    diagnosis: str
    region: str
    item: int
    metric: str
    unit: str
    value: float
    n: int
