"""The section of the storage folder, and which file lies where in it."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from twin_scanner.settings.section import Section


class StorageSection(Section):
    """The node's folder: spool, jobs, models and, by default, the databases."""

    folder: Path = Path("twin-scanner-data")
    keep_days: float = Field(7.0, ge=0)


@dataclass(frozen=True)
class Folders:
    """The storage folder's rooms."""

    root: Path

    def prepare(self) -> None:
        """Make the folder, readable by its owner alone: it holds patients' images."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def spool(self) -> Path:
        """Received instances."""
        return self.root / "spool"

    @property
    def jobs(self) -> Path:
        """One folder per job."""
        return self.root / "jobs"

    @property
    def models(self) -> Path:
        """The model store."""
        return self.root / "models"

    @property
    def ledger_url(self) -> str:
        """The default ledger."""
        return f"sqlite:///{(self.root / 'ledger.sqlite').resolve()}"

    @property
    def twin(self) -> Path:
        """The embedded twin store."""
        return self.root / "twin.sqlite"
