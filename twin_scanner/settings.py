"""The configuration: one TOML file, every key also an environment variable; validated once, all faults at once."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from twin_scanner.errors import Rejected

ENVIRONMENT_PREFIX = "TWIN_SCANNER__"


def _ae_title(text: str) -> str:
    if not text.strip() or len(text) > 16 or not text.isascii() or not text.isprintable() or "\\" in text:
        raise ValueError("an AE title has 1 to 16 printable ASCII characters, no backslash (PS3.5, VR AE)")
    return text.strip()


def _zone(text: str | None) -> str | None:
    try:
        if text is not None:
            ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError("no such time zone; give an IANA name such as Europe/Rome") from error
    return text


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
ListenPort = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeSection(_Section):
    """Our own DICOM node, which the PACS routes to."""

    name: str = Field("twin-scanner-1", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    ae_title: AeTitle = "TWINSCANNER"
    host: str = "127.0.0.1"
    port: ListenPort = 11112
    allowed_calling_ae: tuple[AeTitle, ...] = ()
    maximum_associations: int = Field(64, ge=1)
    quiet_period_s: Seconds = 30.0
    longest_wait_s: Seconds = 1800.0
    minimum_free_mb: int = Field(2048, ge=0)


class PacsSection(_Section):
    """Where the synthetic PET goes."""

    ae_title: AeTitle = "PACS"
    host: str = "127.0.0.1"
    port: Port = 104
    timeout_s: Seconds = 60.0


class StorageSection(_Section):
    """The node's folder: spool, jobs, models and, by default, the databases."""

    folder: Path = Path("twin-scanner-data")
    keep_days: float = Field(7.0, ge=0)


class LedgerSection(_Section):
    """The job ledger; empty url: SQLite in the storage folder."""

    url: str = ""
    workers: int = Field(2, ge=1, le=32)
    lease_s: Seconds = 120.0


class RetrySection(_Section):
    """Back-off after failures that may pass; what is older than the limit has failed."""

    first_delay_s: Seconds = 15.0
    longest_delay_s: Seconds = 3600.0
    age_limit_days: float = Field(30.0, gt=0)


class ModelSection(_Section):
    """Which model package translates; empty store: the storage folder's models/."""

    name: str = "champion"
    store: Path | None = None
    allow_other_segmenter: bool = False
    missing_district: Literal["reject", "deliver"] = "reject"


class DistrictsSection(_Section):
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


class OutputsSection(_Section):
    """What is made and sent beside the PET series."""

    segmentation: Literal["binary", "labelmap", "none"] = "binary"
    measurement_report: bool = True
    key_image: bool = True

    @model_validator(mode="after")
    def _report_refers_to_segmentation(self) -> "OutputsSection":
        if self.measurement_report and self.segmentation == "none":
            raise ValueError("measurement_report refers to the segmentation: make that too, or neither")
        return self


class TwinSection(_Section):
    """Where the twin record is kept: a FHIR R4 server, or the embedded store where url is empty."""

    url: str = Field("", pattern=r"^(https?://.+)?$")
    token_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: Seconds = 30.0
    patient_identifier_system: str = "urn:twin-scanner:patient-id"
    issuer_systems: dict[str, str] = Field(default_factory=dict)
    zone: Annotated[str | None, AfterValidator(_zone)] = None


class ScannerSection(_Section):
    """What the virtual scanner says of itself, and what it takes."""

    device_serial_number: str = Field("TS-0001", min_length=1, max_length=64)
    accept_synthetic_ct: bool = False


class SelectionSection(_Section):
    """Which CT of a study is translated."""

    minimum_coverage_mm: float = Field(100.0, ge=0)
    target_thickness_mm: float = Field(3.0, gt=0)
    contrast: Literal["any", "without", "with"] = "any"


class RetrainSection(_Section):
    """When the scanner retrains by itself: cron text and configuration; an empty text: never."""

    config: Path | None = None
    cron: str = ""
    zone: str = "UTC"

    @model_validator(mode="after")
    def _has_a_configuration(self) -> "RetrainSection":
        if self.cron.strip() and self.config is None:
            raise ValueError("retrain.cron needs retrain.config, the retraining configuration")
        return self


class LogSection(_Section):
    """How much is logged."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Settings(BaseSettings):
    """Every key of the configuration; the environment wins over the file."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    node: NodeSection = NodeSection()
    pacs: PacsSection = PacsSection()
    storage: StorageSection = StorageSection()
    ledger: LedgerSection = LedgerSection()
    retry: RetrySection = RetrySection()
    model: ModelSection = ModelSection()
    districts: DistrictsSection = DistrictsSection()
    outputs: OutputsSection = OutputsSection()
    twin: TwinSection = TwinSection()
    scanner: ScannerSection = ScannerSection()
    selection: SelectionSection = SelectionSection()
    retrain: RetrainSection = RetrainSection()
    log: LogSection = LogSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then what the file holds; no .env file is ever read."""
        return env_settings, init_settings


def load_settings(file: Path | None) -> Settings:
    """The validated configuration; raises Rejected with every fault, one a line."""
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text("utf-8"))
        except OSError as error:
            raise Rejected(f"The configuration {file} cannot be read: {error.strerror}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Rejected(f"The configuration {file} is not valid TOML: {error}.") from error
    faults = _unknown_environment()
    try:
        settings = Settings(**values)
    except ValidationError as error:
        faults += [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
    if faults:
        raise Rejected("The configuration has faults, correct each of them:\n" + "\n".join(f"  {f}" for f in faults))
    return settings


def _unknown_environment() -> list[str]:
    """Environment variables with our prefix whose section does not exist: a typing error, not to be passed over."""
    sections = {name.upper() for name in Settings.model_fields}
    names = (name for name in os.environ if name.upper().startswith(ENVIRONMENT_PREFIX))
    return [
        f"environment variable {name}: there is no such section"
        for name in names
        if name[len(ENVIRONMENT_PREFIX) :].upper().split("__")[0] not in sections
    ]


def read_secret(file: Path) -> str:
    """A secret from a file, without the line end; raises Rejected where it cannot be read or is empty."""
    try:
        secret = file.read_text("utf-8").strip()
    except OSError as error:
        raise Rejected(f"The secret file {file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise Rejected(f"The secret file {file} is not text: put the token into it, in UTF-8.") from error
    if not secret:
        raise Rejected(f"The secret file {file} is empty: put the token into it.")
    return secret
