"""The configuration as a whole: a TOML file, each key also an environment variable; all faults are found at once."""

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from twin_scanner.errors import Rejected
from twin_scanner.settings.dicom import NodeSection, PacsSection, ScannerSection, SelectionSection
from twin_scanner.settings.service import LedgerSection, LogSection, RetrainSection, RetrySection
from twin_scanner.settings.storage import StorageSection
from twin_scanner.settings.synthesis import DistrictsSection, ModelSection, OutputsSection
from twin_scanner.settings.twin import TwinSection

ENVIRONMENT_PREFIX = "TWIN_SCANNER__"


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
