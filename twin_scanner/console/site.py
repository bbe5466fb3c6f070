"""What the pages need of the rest: the ledger, folders, the models, and what can be done; app.py hands it over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter

from twin_record.timeline import Timeline
from twin_scanner.console.fhir_api.router import RecordReader
from twin_scanner.models.store import ModelStore
from twin_scanner.service.ledger import KeptUpdate, Ledger


@dataclass(frozen=True)
class DestinationState:
    """A destination or the twin record; ``is_down`` is None where no worker of this process serves it."""

    name: str
    address: str
    confirm: str
    required: bool
    is_down: bool | None
    takes_echo: bool


@dataclass(frozen=True)
class Site:
    """One installation.

    ``echo`` asks a destination whether it is there; ``promote`` makes a model (its hash) the champion where the gate
    has decided so, or against the gate for a reason that is recorded; both raise an error of ours that says why not.
    ``twin_of`` gives the timeline of the patient whom a job's update is about: no page names a patient in its address.
    ``training_folder`` holds the retraining's runs with their curves.
    """

    name: str
    ledger: Ledger
    jobs_folder: Path
    models: ModelStore
    destinations: Callable[[], Sequence[DestinationState]]
    echo: Callable[[str], None]
    promote: Callable[[str, str], None]
    twin_of: Callable[[KeptUpdate], Timeline]
    training_folder: Callable[[], Path | None]
    records: RecordReader | None = None
    """The embedded twin store; None where the records lie on a FHIR server."""
    operation: tuple[APIRouter, ...] = ()
    """Metrics and health, where this process can say something of them."""
