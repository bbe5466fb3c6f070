"""What a render reports: which files it wrote, from what and by which model; plain values, without torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from twin_scanner.dicom.write.companions import CompanionKind
from twin_scanner.errors import Defect
from twin_scanner.files.durable_file import write_durably, writing

REPORT = "report.json"
DELIVERY = "delivery.json"
FOLDERS: Mapping[CompanionKind, str] = {
    "segmentation": "seg",
    "measurement-report": "sr",
    "key-image": "key",
    "key-objects": "ko",
}
"""The folder of each companion in the result's folder."""


@dataclass(frozen=True)
class Companion:
    """A DICOM object that accompanies the PET: a series of one instance; ``file`` is its path in the result's folder.

    ``synthetic`` repeats its SyntheticData: derived from the PET, not from the CT alone.
    """

    modality: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    file: str
    description: str
    number: int
    synthetic: bool


@dataclass(frozen=True)
class RenderReport:
    """What a render wrote, and from what; it is written last, so the rest is there too. It holds no patient data."""

    software_version: str
    model_name: str
    model_hash: str
    plan_hash: str
    segmenter: str
    segmenter_hash: str
    missing_districts: tuple[str, ...]
    districts: dict[str, dict[str, float]]
    """By name: volume_ml, and suv_mean, suv_max and suv_peak of the synthetic PET (g/ml)."""
    segmentation_quality: tuple[str, ...]
    suv_max: float
    notes: tuple[str, ...]
    seconds: dict[str, float]
    """Of the stages read, translate and write; ``networks`` are a part of translate."""
    made_at: str
    revision: int
    study_uid: str = ""
    source_series_uid: str = ""
    source_description: str = ""
    source_number: int | None = None
    source_body_part: str = ""
    source_sop_class_uid: str = ""
    source_derivation: str = ""
    """How the CT was resampled before anything else; empty where it was not."""
    source_evidence: str = ""
    """Why a service took the CT for complete, or that it did not."""
    source_instance_uids: tuple[str, ...] = ()
    source_instance_numbers: tuple[int | None, ...] = ()
    """InstanceNumber of each of these, None where it has none."""
    pet_series_uid: str = ""
    pet_instance_uids: tuple[str, ...] = ()
    pet_instance_numbers: tuple[int | None, ...] = ()
    pet_description: str = ""
    pet_number: int | None = None
    pet_body_part: str = ""
    """What the CT shows, a term of PS3.16 Annex L; empty where neither the districts nor the CT's header say."""
    pet_files: tuple[str, ...] = ()
    companions: tuple[Companion, ...] = ()
    uncertainty: dict[str, Any] = field(default_factory=dict)
    explanation: dict[str, Any] = field(default_factory=dict)
    district_remarks: dict[str, str] = field(default_factory=dict)
    """What the segmenter says of each district, by name."""
    district_codes: dict[str, dict[str, str]] = field(default_factory=dict)
    """Value, scheme and meaning of the concept of each district that has one of the site's own, by name."""
    stitching: str = "uniform"
    """How the windows were weighted where they overlap."""
    phantom_only: bool = False
    """Whether the model was trained on phantoms only, no patient among them."""
    outside_training: tuple[str, ...] = ()
    """What of the CT lies outside of the training data, as the model's card states them."""
    intended_use: str = field(default="Research; synthetic; not for diagnosis.")


def read_report(folder: Path) -> RenderReport:
    """The report of an earlier render; raises Defect where it is not readable."""
    try:
        return report_of(json.loads((folder / REPORT).read_text("utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Defect(f"The report in {folder.name} cannot be read: remove the folder and retry the job.") from error


def report_of(values: dict[str, Any]) -> RenderReport:
    """The report that was kept as JSON; raises TypeError or KeyError where it is none of this version."""
    tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    companions = tuple(Companion(**companion) for companion in values["companions"])
    return RenderReport(**(values | tuples | {"companions": companions}))


def write_report(folder: Path, report: RenderReport) -> None:
    """Write the report, safely on disk when this returns; raises Transient where the disk fails."""
    with writing(REPORT, folder):
        write_durably(folder / REPORT, json.dumps(asdict(report), indent=1).encode())


def read_delivery(folder: Path) -> frozenset[str]:
    """What an earlier version has delivered, whose ledger does not know it; raises Defect where it is not readable."""
    try:
        return frozenset(json.loads((folder / DELIVERY).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise Defect(f"What was delivered of {folder.name} cannot be read: retry the job.") from error
