"""Wires metrics and health: settings and, where there is one, a running scanner in; what a monitor asks out."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.receipt import MEGABYTE
from dicom_node.tls_validity import validity_of
from twin_scanner.app import tls_files
from twin_scanner.console.health import Disk, Health
from twin_scanner.console.metrics import Monitored
from twin_scanner.errors import Misconfigured, Rejected
from twin_scanner.models.card import Card, read_card
from twin_scanner.models.store import ModelStore
from twin_scanner.service.drift import drift_of
from twin_scanner.service.ledger import Ledger
from twin_scanner.service.steps import TWIN
from twin_scanner.settings import Settings

if TYPE_CHECKING:
    from twin_scanner.app import Scanner

DAY: Final = timedelta(days=1)


def monitored_of(settings: Settings, ledger: Ledger, has_storage: bool) -> Monitored:
    """What is measured; ``has_storage``: this process works in the storage folder."""
    return Monitored(
        version("twin-scanner"),
        ledger,
        (*(section.name for section in settings.known_destinations), TWIN),
        disk=_disk_of(settings, has_storage),
        model=partial(_card, settings),
        certificate_days=partial(_certificate_days, settings),
        drift=lambda: {shift.name: shift.shift for shift in drift_of(ledger).shifts},
    )


def health_of(settings: Settings, ledger: Ledger, scanner: "Scanner | None") -> Health:
    """What is asked of this process; a console alone has no scanner."""
    if scanner is None:
        return Health(ledger, settings.ledger_url)
    disk = _disk_of(settings, has_storage=True)
    return Health(ledger, settings.ledger_url, scanner.thread_fault, scanner.executor_fault, disk)


def _disk_of(settings: Settings, has_storage: bool) -> Callable[[], Disk | None]:
    return partial(_disk, settings.storage.folder, settings.node.minimum_free_mb) if has_storage else lambda: None


def _disk(folder: Path, minimum_free_mb: int) -> Disk:
    return Disk(shutil.disk_usage(folder).free, minimum_free_mb * MEGABYTE)


def _card(settings: Settings) -> Card | None:
    try:
        return read_card(ModelStore(settings.model_store).resolve(settings.model.name))
    except Rejected:
        return None


def _certificate_days(settings: Settings) -> dict[str, float]:
    """Of our DICOM certificate; 0 where it cannot be read."""
    files = tls_files(settings)
    if files is None:
        return {}
    try:
        return {"dicom": max(0.0, (validity_of(files).end - datetime.now(UTC)) / DAY)}
    except Misconfigured:
        return {"dicom": 0.0}
