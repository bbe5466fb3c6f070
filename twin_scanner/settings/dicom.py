"""The sections of the DICOM side: our node, what the scanner says of itself, which CT it takes."""

from typing import Annotated, Literal

from pydantic import Field

from dicom_node.peers import Priority
from twin_scanner.settings.section import AeTitle, ListenPort, Seconds, Section, text_like

NodeName = Annotated[
    str,
    text_like(r"[A-Za-z0-9_.-]{1,64}", "a node's name has 1 to 64 letters, digits, dots, hyphens and underscores"),
]


class NodeSection(Section):
    """Our own DICOM node, which the PACS routes to."""

    name: NodeName = "twin-scanner-1"
    ae_title: AeTitle = "TWINSCANNER"
    other_ae_titles: dict[AeTitle, Priority] = Field({})
    host: str = "127.0.0.1"
    port: ListenPort = 11112
    open_to_loopback: bool = False
    maximum_associations: int = Field(64, ge=1)
    associations_per_address: int = Field(32, ge=1)
    quiet_period_s: Seconds = 30.0
    settle_s: Seconds = 5.0
    longest_wait_s: Seconds = 1800.0
    incomplete: Literal["hold", "go on"] = "hold"
    minimum_free_mb: int = Field(2048, ge=0)
    maximum_instance_mb: int = Field(4096, ge=1)


class ScannerSection(Section):
    """What the virtual scanner says of itself, and what it takes."""

    device_serial_number: str = Field("TS-0001", min_length=1, max_length=64)
    accept_synthetic_ct: bool = False


class ReadingSection(Section):
    """What is done to a CT before it is translated."""

    gantry_tilt: Literal["reject", "resample"] = "reject"


class SelectionSection(Section):
    """Which CT of a study is translated."""

    minimum_coverage_mm: float = Field(100.0, ge=0)
    target_thickness_mm: float = Field(3.0, gt=0)
    contrast: Literal["any", "without", "with"] = "any"
    real_pet: Literal["skip", "hold", "deliver"] = "skip"
    outside_training: Literal["hold", "deliver"] = "hold"
