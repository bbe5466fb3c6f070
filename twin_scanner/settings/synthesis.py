"""The sections of the synthesis: model, districts, PET, outputs."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import model_validator

from twin_scanner.models.compute import DEVICES
from twin_scanner.settings.section import Seconds, Section, Sha256, text_like

Device = Annotated[str, text_like(r"cpu|cuda(:\d+)?|mps", "a device is cpu, cuda, cuda:1 or mps")]
NetworkDevice = Annotated[str, text_like(DEVICES, "a device is auto, cpu, cuda or cuda:1")]


class ModelSection(Section):
    """Which model package translates; empty store: the storage folder's models/."""

    name: str = "champion"
    store: Path | None = None
    allow_other_segmenter: bool = False
    missing_district: Literal["reject", "deliver"] = "reject"
    stitching: Literal["package", "uniform", "gaussian"] = "package"
    device: NetworkDevice = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    accept_phantom_only: bool = False


class DistrictsSection(Section):
    """Which segmenter splits the body into districts."""

    segmenter: Literal["landmarks", "labelmap", "moose", "totalsegmentator"] = "landmarks"
    labelmap: Path | None = None
    label_table: str = "districts"
    moose_weights: Path | None = None
    moose_sha256: Sha256 = ""
    totalsegmentator_weights: Path | None = None
    totalsegmentator_fast: bool = True
    totalsegmentator_sha256: Sha256 = ""
    device: Device = "cpu"
    timeout_s: Seconds = 1800.0

    @model_validator(mode="after")
    def _needs_file(self) -> "DistrictsSection":
        if self.segmenter == "labelmap" and self.labelmap is None:
            raise ValueError(
                "the segmenter 'labelmap' needs districts.labelmap, a NIfTI or DICOM SEG file, or a folder"
            )
        return self


class PetSection(Section):
    """What the PET series says of a dose that was never given."""

    zero_dose: bool = False


class OutputsSection(Section):
    """What is written and sent beside the PET series."""

    segmentation: Literal["binary", "labelmap", "none"] = "binary"
    measurement_report: bool = True
    key_image: bool = True
    key_objects: bool = True

    @model_validator(mode="after")
    def _report_refers_to_segmentation(self) -> "OutputsSection":
        if self.measurement_report and self.segmentation == "none":
            raise ValueError("outputs.measurement_report refers to the segmentation: set both, or neither")
        return self
