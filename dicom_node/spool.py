"""The spool: received instances as DICOM files on disk, durable before they are acknowledged; knows no network.

Layout: ``<folder>/<study_uid>/<series_uid>/<sop_instance_uid>.dcm``; what is being written or removed lies in
``<folder>/.partial`` on the same file system. One process writes and removes; other processes may read.
"""

import errno
import hashlib
import io
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final

from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.durable_file import sync_folder

SUFFIX: Final = ".dcm"
_PARTIAL: Final = ".partial"
_UID: Final = re.compile(r"[0-9]{1,62}(?:\.[0-9]{1,62})+")
_UID_LENGTH: Final = 64
_STRIPES: Final = 64
"""Locks that instances share by hash: enough that two senders seldom wait for each other."""
_BLOCK_BYTES: Final = 65536
_OWNERS_ALONE: Final = 0o700
"""The rights of every folder here: it holds patients' images."""
_NO_LINK: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
"""Errors of link(2) that say that this file system cannot, not that something is wrong."""


class StoreOutcome(StrEnum):
    """What a store did: a new instance, the same bytes again, or other bytes under the same UID."""

    STORED = "stored"
    IDENTICAL = "identical"
    REPLACED = "replaced"


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user may still write on the folder's file system."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def is_file_name_uid(text: str) -> bool:
    """Whether a UID may become a file's name: numbers joined by single dots, at most 64 characters.

    PS3.5 9.1 also forbids leading zeros in a component; scanners in use break that, and it does no harm here.
    """
    return len(text) <= _UID_LENGTH and _UID.fullmatch(text) is not None


class Spool:
    """Received instances by study and series; every method may be called from several threads.

    ``free`` tells the free bytes of a folder. Raises Transient where the file system refuses, Rejected where a UID
    cannot become a file's name.
    """

    def __init__(self, folder: Path, *, free: Callable[[Path], int] = free_bytes) -> None:
        self._folder = folder
        self._partial = folder / _PARTIAL
        self._free = free
        self._locks = tuple(threading.Lock() for _ in range(_STRIPES))
        self._folders_lock = threading.Lock()
        self._durable: set[Path] = set()
        with _disk(f"The spool {folder} cannot be created"):
            _make_folder(self._partial)

    @property
    def folder(self) -> Path:
        """Where the spool lies."""
        return self._folder

    def free_bytes(self) -> int:
        """Bytes that may still be written to the spool's file system."""
        with _disk(f"The free space of the spool {self._folder} cannot be read"):
            return self._free(self._folder)

    def store(
        self,
        parts: Sequence[bytes | memoryview],
        study_uid: str,
        series_uid: str,
        sop_instance_uid: str,
        report: Callable[[StoreOutcome], None] = lambda outcome: None,
    ) -> StoreOutcome:
        """Keep an instance, given as the parts of its file; when this returns, it outlives a power cut.

        The same bytes under the same UIDs are not written again. Other bytes replace the file at once: a reader sees
        the one or the other, never a mixture. ``report`` is told before anybody could remove the instance; it must
        not use the spool.
        """
        series = self._series_folder(study_uid, series_uid)
        target = series / (_checked(sop_instance_uid) + SUFFIX)
        with self._locks[hash(target) % _STRIPES]:
            with _disk(f"Instance {sop_instance_uid} cannot be kept"):
                outcome = self._store(series, target, parts)
            report(outcome)
            return outcome

    def studies(self) -> list[str]:
        """The study UIDs that have a folder, sorted."""
        with _disk(f"The spool {self._folder} cannot be read"):
            return sorted(entry.name for entry in os.scandir(self._folder) if is_file_name_uid(entry.name))

    def files(self, study_uid: str) -> tuple[Path, ...]:
        """The study's files, sorted by series and instance; empty where there is no such study."""
        study = self._folder / _checked(study_uid)
        with _disk(f"Study {study_uid} cannot be read from the spool"):
            return tuple(sorted(path for path in study.glob(f"*/*{SUFFIX}") if is_file_name_uid(path.parent.name)))

    def fingerprint(self, study_uid: str) -> str:
        """SHA-256 over series, instance, size and modification time (ns) of the study's files.

        It changes if and only if the content may have changed: ``store`` never gives a replaced file the time of the
        file before it.
        """
        digest = hashlib.sha256()
        for path in self.files(study_uid):
            status = _stat(path)
            if status is not None:
                entry = f"{path.parent.name}/{path.name} {status.st_size} {status.st_mtime_ns}\n"
                digest.update(entry.encode())
        return digest.hexdigest()

    def remove(
        self, study_uid: str, fingerprint: str | None = None, unless: Callable[[], bool] = lambda: False
    ) -> bool:
        """Remove a study; with a fingerprint only while it still has that one. Says whether it is gone.

        No instance that is stored meanwhile is lost: it comes before, and changes the fingerprint, or after. One that
        came again unchanged has been reported (``store``) when ``unless`` is asked, and may keep the study.
        """
        study = self._folder / _checked(study_uid)
        with ExitStack() as held, _disk(f"Study {study_uid} cannot be removed from the spool"):
            for lock in self._locks:
                held.enter_context(lock)
            if unless() or (fingerprint is not None and self.fingerprint(study_uid) != fingerprint):
                return False
            removed = self._partial / uuid.uuid4().hex
            try:
                study.rename(removed)
            except FileNotFoundError:
                return True
            sync_folder(self._folder)
            self._durable = {series for series in self._durable if series.parent != study}
        with _disk(f"Study {study_uid} cannot be removed from the spool"):
            shutil.rmtree(removed)
        return True

    def sweep(self) -> int:
        """Remove what a crash left half written or half removed, and say how many; call it before receiving."""
        with _disk(f"The spool {self._folder} cannot be swept"):
            remains = list(self._partial.iterdir())
            for path in remains:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        return len(remains)

    def _series_folder(self, study_uid: str, series_uid: str) -> Path:
        return self._folder / _checked(study_uid) / _checked(series_uid)

    def _store(self, series: Path, target: Path, parts: Sequence[bytes | memoryview]) -> StoreOutcome:
        self._make_durable(series)
        old = _stat(target)
        if old is not None and _same_bytes(target, old.st_size, parts):
            sync_folder(target)
            sync_folder(series)
            return StoreOutcome.IDENTICAL
        self._replace(target, parts, old)
        return StoreOutcome.STORED if old is None else StoreOutcome.REPLACED

    def _replace(self, target: Path, parts: Sequence[bytes | memoryview], old: os.stat_result | None) -> None:
        partial = self._partial / uuid.uuid4().hex
        try:
            _write(partial, parts, None if old is None else old.st_mtime_ns)
            partial.rename(target)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)

    def _make_durable(self, series: Path) -> None:
        """Both folders exist and are entered in their parents for good, also if another thread has just made them."""
        with self._folders_lock:
            if series in self._durable and series.is_dir():
                return
            _make_folder(series)
            sync_folder(self._folder)
            sync_folder(series.parent)
            self._durable.add(series)


def snapshot(files: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Hard links to a study's chosen files as ``<folder>/<series_uid>/<sop_instance_uid>.dcm``, durable.

    An unchanging view: an instance that is replaced in the spool later stays as it was here. Copies where the file
    system cannot link. The folder appears complete or not at all; where it is there already, it is kept as it is.
    """
    with _disk(f"The files of {folder.name} cannot be linked from the spool"):
        if not folder.exists():
            partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
            try:
                _link_all(files, partial)
                _move_into_place(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return tuple(sorted(folder.glob(f"*/*{SUFFIX}")))


def _link_all(files: Sequence[Path], folder: Path) -> None:
    _make_folder(folder)
    for series_uid in sorted({file.parent.name for file in files}):
        _make_folder(folder / series_uid)
    for file in files:
        link = folder / file.parent.name / file.name
        try:
            os.link(file, link)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            shutil.copy2(file, link)
            sync_folder(link)
    for series in folder.iterdir():
        sync_folder(series)
    sync_folder(folder)


def _move_into_place(partial: Path, folder: Path) -> None:
    """Two that make the same snapshot at once: the first wins, and both have it."""
    try:
        partial.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    sync_folder(folder.parent)


def _checked(uid: str) -> str:
    if not is_file_name_uid(uid):
        raise Rejected(f"{uid[:_UID_LENGTH]!r} is not a valid UID: correct it at the sender.")
    return uid


def _write(path: Path, parts: Sequence[bytes | memoryview], after_ns: int | None) -> None:
    """Write, and fsync; a modification time that is not later than ``after_ns`` is moved past it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        rest = [memoryview(part) for part in parts if len(part)]
        while rest:
            written = os.writev(descriptor, rest)
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if written:
                rest[0] = rest[0][written:]
        status = os.fstat(descriptor)
        if after_ns is not None and status.st_mtime_ns <= after_ns:
            os.utime(descriptor, ns=(status.st_atime_ns, after_ns + 1))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _same_bytes(path: Path, size: int, parts: Sequence[bytes | memoryview]) -> bool:
    if size != sum(len(part) for part in parts):
        return False
    with path.open("rb", buffering=0) as file:
        return all(_starts_with(file, memoryview(part)) for part in parts)


def _starts_with(file: io.FileIO, expected: memoryview) -> bool:
    for start in range(0, len(expected), _BLOCK_BYTES):
        block = expected[start : start + _BLOCK_BYTES]
        if file.read(len(block)) != block:
            return False
    return True


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _make_folder(folder: Path) -> None:
    """Make the folder and its parents, its owner's alone, and enter each new one durably in its parent."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in (*reversed(new), folder):
        path.mkdir(mode=_OWNERS_ALONE, exist_ok=True)
    for path in new:
        sync_folder(path.parent)


@contextmanager
def _disk(what: str) -> Iterator[None]:
    """The one edge where the file system's errors become ours."""
    try:
        yield
    except OSError as error:
        raise Transient(f"{what} ({os.strerror(error.errno or 0)}): check the disk and its permissions.") from error
