"""The sections of the synthesis: model, districts, outputs."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from twin_scanner.settings.section import Seconds, Section


class ModelSection(Section):
    """Which model package translates; empty store: the storage folder's models/."""

    name: str = "champion"
    store: Path | None = None
    allow_other_segmenter: bool = False
    missing_district: Literal["reject", "deliver"] = "reject"
    accept_phantom_only: bool = False


class DistrictsSection(Section):
    """Who draws the districts."""

    segmenter: Literal["landmarks", "labelmap", "moose", "totalsegmentator"] = "landmarks"
    labelmap: Path | None = None
    label_table: str = "districts"
    moose_weights: Path | None = None
    moose_sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    totalsegmentator_weights: Path | None = None
    totalsegmentator_fast: bool = True
    totalsegmentator_sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?|mps)$")
    timeout_s: Seconds = 1800.0

    @model_validator(mode="after")
    def _needs_file(self) -> "DistrictsSection":
        if self.segmenter == "labelmap" and self.labelmap is None:
            raise ValueError("segmenter 'labelmap' needs districts.labelmap, a NIfTI or DICOM SEG file, or a folder")
        return self


class OutputsSection(Section):
    """What is made and sent beside the PET series."""

    segmentation: Literal["binary", "labelmap", "none"] = "binary"
    measurement_report: bool = True
    key_image: bool = True

    @model_validator(mode="after")
    def _report_refers_to_segmentation(self) -> "OutputsSection":
        if self.measurement_report and self.segmentation == "none":
            raise ValueError("measurement_report refers to the segmentation: make that too, or neither")
        return self
