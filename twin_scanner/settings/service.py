"""The sections of the service: ledger, limits, retry, retraining, log."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from twin_scanner.settings.section import Seconds, Section


class LedgerSection(Section):
    """The job ledger; empty url: SQLite in the storage folder."""

    url: str = ""
    workers: int = Field(2, ge=1, le=32)
    lease_s: Seconds = 120.0


class LimitsSection(Section):
    """How long work on one study may take; what takes longer hangs, and its process is ended."""

    reading_s: Seconds = 600.0
    render_s: Seconds = 14400.0


class RetrySection(Section):
    """Back-off after failures that may pass; what is older than the limit has failed."""

    first_delay_s: Seconds = 15.0
    longest_delay_s: Seconds = 3600.0
    age_limit_days: float = Field(30.0, gt=0)


class RetrainSection(Section):
    """When the scanner retrains by itself: cron text and configuration; an empty text: never."""

    config: Path | None = None
    cron: str = ""
    zone: str = "UTC"

    @model_validator(mode="after")
    def _has_a_configuration(self) -> "RetrainSection":
        if self.cron.strip() and self.config is None:
            raise ValueError("retrain.cron needs retrain.config, the file of the retraining configuration")
        return self


class LogSection(Section):
    """How much is logged."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
