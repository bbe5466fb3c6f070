"""What a render is asked for and what it reports, as plain values and files; it knows no network and no torch."""

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from twin_scanner.errors import Defect

REPORT = "report.json"


@dataclass(frozen=True)
class RenderRequest:
    """Everything that decides the result; plain values, so that it travels to another process."""

    source: Path
    result: Path
    made_at: datetime
    model: str
    model_store: Path
    segmenter: str
    labelmap: Path | None
    allow_other_segmenter: bool
    missing_district: Literal["reject", "deliver"]
    device_serial_number: str
    accept_synthetic_ct: bool
    revision: int = 1
    needs_patient_id: bool = False
    """Whether the PET must belong to a twin: a service records it, a translation at the desk need not."""


@dataclass(frozen=True)
class RenderReport:
    """What was made from what; written last, so its presence says that all the rest is there. No patient data."""

    software_version: str
    model_name: str
    model_hash: str
    plan_hash: str
    segmenter: str
    segmenter_hash: str
    missing_districts: tuple[str, ...]
    district_volumes_ml: dict[str, float]
    suv_max: float
    notes: tuple[str, ...]
    seconds: dict[str, float]
    made_at: str
    revision: int
    study_uid: str = ""
    source_series_uid: str = ""
    source_description: str = ""
    source_number: int | None = None
    source_body_part: str = ""
    source_sop_class_uid: str = ""
    source_instance_uids: tuple[str, ...] = ()
    pet_series_uid: str = ""
    pet_instance_uids: tuple[str, ...] = ()
    pet_files: tuple[str, ...] = ()
    intended_use: str = field(default="Research; synthetic; not for diagnosis.")


def read_report(folder: Path) -> RenderReport:
    """The report of an earlier render; raises Defect where it is not readable."""
    try:
        values = json.loads((folder / REPORT).read_text("utf-8"))
        tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return RenderReport(**(values | tuples))
    except (OSError, ValueError, TypeError) as error:
        raise Defect(f"The report in {folder.name} cannot be read: remove the folder and retry the job.") from error


def write_report(folder: Path, report: RenderReport) -> None:
    """Write the report, safely on disk when this returns."""
    part = folder / f"{REPORT}.part"
    with part.open("w", encoding="utf-8") as stream:
        json.dump(asdict(report), stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    part.rename(folder / REPORT)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
