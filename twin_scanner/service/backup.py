"""A backup of what cannot be made again: the ledger, the embedded twin store and the models; and the way back.

Nothing stops for it. Each part is copied as it stands at one moment, in an order in which no later part can lack what
an earlier one relies on: the ledger first, then the twin store, then the models. What the twin has beyond the ledger is
recorded again after a restore, which writes nothing that is there; what the models have beyond it is of no matter.

Patients' images are not in it: the PACS has the CT, and it has the PET.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from twin_scanner.errors import Rejected
from twin_scanner.files.durable_file import PART, sync_folder, whole_folder, write_durably
from twin_scanner.files.file_lock import take_lock
from twin_scanner.files.writable import disk_fault
from twin_scanner.progress import Progress
from twin_scanner.service.ledger import migration_state
from twin_scanner.service.ledger.copying import (
    check_no_ledger,
    check_not_there,
    copy_database,
    copy_ledger,
    copy_name,
    place_database,
    place_ledger,
)
from twin_scanner.service.ledger.migrate import NEWER, known_migrations

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
TWIN: Final = "twin.sqlite"
MODELS: Final = "models"
ALIASES: Final = "aliases.json"
LOCK: Final = "lock"
STAMP: Final = "%Y%m%dT%H%M%SZ"
STAMPED: Final = re.compile(r"\d{8}T\d{6}Z")
BLOCK: Final = 2**20


@dataclass(frozen=True)
class Places:
    """Where a node keeps what is backed up."""

    folder: Path
    """The storage folder, which one scanner at a time has locked."""
    ledger_url: str
    twin: Path
    """The file of the embedded twin store; it need not be there."""
    models: Path


@dataclass(frozen=True)
class Manifest:
    """What a backup holds: written last, so that a folder without it is no backup."""

    format: int
    version: str
    """Of the program that wrote it."""
    made_at: str
    node: str
    migration: str
    """The version of the ledger."""
    files: dict[str, str]
    """SHA-256 by path in the backup."""


def back_up(places: Places, into: Path, *, version: str, node: str, at: datetime, progress: Progress) -> Path:
    """Write a backup as a new folder of ``into``, named by the moment, and return it; `serve` may run meanwhile.

    Raises Rejected where there is no ledger, Transient where the disk or a database fails.
    """
    state = migration_state(places.ledger_url)
    if state is None or state.found is None:
        raise Rejected("There is no ledger to back up: check the configuration, or start 'serve' first.")
    folder = into / at.astimezone(UTC).strftime(STAMP)
    if folder.exists():
        raise Rejected(f"There is a backup at {folder} already: wait a second, or give another folder.")
    with _disk(into):
        into.mkdir(parents=True, exist_ok=True, mode=0o700)
        with whole_folder(folder) as scratch:
            copy_ledger(places.ledger_url, scratch / copy_name(places.ledger_url))
            progress(1, 3)
            if places.twin.exists():
                copy_database(places.twin, scratch / TWIN)
            progress(2, 3)
            _copy_models(places.models, scratch / MODELS)
            files = {str(path.relative_to(scratch)): _settle(path) for path in _files(scratch)}
            made_at = at.astimezone(UTC).isoformat(timespec="seconds")
            manifest = Manifest(FORMAT, version, made_at, node, state.found, files)
            write_durably(scratch / MANIFEST, json.dumps(asdict(manifest), indent=1).encode())
            _settle(scratch / MANIFEST)
        folder.chmod(0o700)
    progress(3, 3)
    return folder


def remove_older(into: Path, keep: int) -> list[Path]:
    """Remove all but the newest ``keep`` backups of a folder, and return what was removed; nothing else is touched."""
    found = sorted(path for path in into.iterdir() if STAMPED.fullmatch(path.name) and (path / MANIFEST).is_file())
    older = found[:-keep]
    with _disk(into):
        for folder in older:
            shutil.rmtree(folder)
    return older


def read_manifest(backup: Path) -> Manifest:
    """What a backup holds, once every file is there as it was written; raises Rejected where one is not."""
    try:
        values: dict[str, Any] = json.loads((backup / MANIFEST).read_text("utf-8"))
        manifest = Manifest(**values)
    except (OSError, ValueError, TypeError) as error:
        raise Rejected(f"{backup} is no whole backup, its {MANIFEST} cannot be read: choose another one.") from error
    if manifest.format != FORMAT:
        raise Rejected(
            f"{backup} was written by another version of twin-scanner ({manifest.version}): restore with that."
        )
    for name, digest in manifest.files.items():
        path = backup / name
        if not path.resolve().is_relative_to(backup.resolve()) or not path.is_file() or _sha256(path) != digest:
            raise Rejected(f"{path} is not what was backed up: choose another backup.")
    return manifest


def restore(places: Places, backup: Path, progress: Progress) -> Manifest:
    """Put a backup back where nothing is; everything is checked before anything is written.

    Raises Rejected where a scanner runs on the storage folder, a part is there already, or the backup is not whole or
    of a newer version; Transient where the disk or the database fails.
    """
    manifest = read_manifest(backup)
    name = copy_name(places.ledger_url)
    if name not in manifest.files:
        raise Rejected(f"{backup} holds no {name}: ledger.url names another kind of database than the backup's.")
    if manifest.migration not in known_migrations():
        raise Rejected(NEWER)
    with _disk(places.folder), _stopped(places.folder):
        check_no_ledger(places.ledger_url)
        if TWIN in manifest.files:
            check_not_there(places.twin)
        if (places.models / ALIASES).exists():
            raise Rejected(f"{places.models / ALIASES} is there already: move it away first, it is not overwritten.")
        _place_models(backup, places.models, manifest)
        progress(1, 3)
        if TWIN in manifest.files:
            place_database(backup / TWIN, places.twin)
        progress(2, 3)
        place_ledger(places.ledger_url, backup / name)
        progress(3, 3)
    return manifest


@contextmanager
def _stopped(folder: Path) -> Iterator[None]:
    busy = Rejected(f"A scanner runs on {folder}: stop it before its ledger is restored.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with take_lock(folder / LOCK, busy):
        yield


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_fault(folder, error) from error


def _copy_models(store: Path, target: Path) -> None:
    """The packages, aliases and promotions, under the store's own lock: no alias is copied without its package."""
    if not store.is_dir():
        return
    with take_lock(store / LOCK, None):
        for path in _files(store):
            name = path.relative_to(store)
            if path.name != LOCK and not path.name.endswith(PART) and not any(p.startswith(".") for p in name.parts):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / name)


def _place_models(backup: Path, store: Path, manifest: Manifest) -> None:
    """Packages first, the aliases last; a package is immutable, so one that is there already stays."""
    names = [name for name in manifest.files if name.startswith(f"{MODELS}/")]
    for name in sorted(names, key=lambda name: name == f"{MODELS}/{ALIASES}"):
        target = store / Path(name).relative_to(MODELS)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            write_durably(target, (backup / name).read_bytes())


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _settle(path: Path) -> str:
    """Make a file of the backup durable and its owner's alone; returns its SHA-256."""
    path.chmod(0o600)
    sync_folder(path)
    return _sha256(path)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
