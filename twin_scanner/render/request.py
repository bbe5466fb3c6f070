"""What a render is asked for: everything that decides the result, as plain values, without torch."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from twin_scanner.dicom.read.gantry_tilt import GantryTilt
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.districts.choice import SegmenterChoice
from twin_scanner.models.card import StitchingChoice
from twin_scanner.models.compute import PROCESSOR, Compute


@dataclass(frozen=True)
class Outputs:
    """Which DICOM objects accompany the PET series."""

    segmentation: Literal["binary", "labelmap", "none"] = "binary"
    measurement_report: bool = True
    key_image: bool = True
    key_objects: bool = True


@dataclass(frozen=True)
class RenderRequest:
    """Everything that decides the result; plain values, so that it travels to another process."""

    source: Path
    result: Path
    made_at: datetime
    model: str
    model_store: Path
    segmenter: SegmenterChoice
    allow_other_segmenter: bool
    missing_district: Literal["reject", "deliver"]
    device_serial_number: str
    accept_synthetic_ct: bool
    outputs: Outputs = field(default_factory=Outputs)
    revision: int = 1
    source_evidence: str = ""
    """Why a service took the CT for complete, or that it did not; it stands in the report."""
    needs_patient_id: bool = False
    """Whether the PET must belong to a twin: a service records it, a translation at the desk need not."""
    uncertainty: bool = False
    """Whether the standard deviation of every voxel is wanted too: seven more translations."""
    explain: str = ""
    """A target whose uptake is to be explained (``explain.find_target`` reads it); empty for none."""
    preference: Preference = field(default_factory=Preference)
    """Which of several series, or phases of one, is read; its minimum coverage does not count."""
    gantry_tilt: GantryTilt = "reject"
    stitching: StitchingChoice = "package"
    """How windows are weighted where they overlap; ``package``: as the model's card says."""
    zero_dose: bool = False
    """Whether the PET states a dose of 0, for viewers that show no SUV without a dose."""
    compute: Compute = PROCESSOR
    """On what and in which precision the networks run; the precision enters the PET's UIDs."""
    accept_phantom_only: bool = False
    """Whether a model that was trained on phantoms only may be used; every result then says so."""
