"""The spool: received instances as DICOM files on disk, durable before they are acknowledged; knows no network.

Layout: ``<folder>/<study_uid>/<series_uid>/<sop_instance_uid>.dcm``; what is being written or removed lies in
``<folder>/.partial`` on the same file system. The first content of an instance stays: another one under the same UIDs
is kept as ``<folder>/.apart/<study_uid>/<series_uid>/<sop_instance_uid>.<digest>.dcm``, where no reader looks, until
the study is removed. One process writes and removes; other processes may read.
"""

import errno
import filecmp
import hashlib
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.durable_file import sync_folder

SUFFIX: Final = ".dcm"
_PARTIAL: Final = ".partial"
_APART: Final = ".apart"
_DIGEST_LENGTH: Final = 16
"""Hexadecimal digits of a content's SHA-256 that tell it from the others under the same UID."""
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
    """What a store did: a new instance, the same bytes again, or other bytes under the same UID, kept apart."""

    STORED = "stored"
    IDENTICAL = "identical"
    KEPT_APART = "kept apart"


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user may still write on the folder's file system."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def is_file_name_uid(text: str) -> bool:
    """Whether a UID may become a file's name: numbers joined by single dots, at most 64 characters.

    PS3.5 9.1 also forbids leading zeros in a component; scanners in use break that, and it does no harm here.
    """
    return len(text) <= _UID_LENGTH and _UID.fullmatch(text) is not None


class Partial:
    """A file that is being written in the spool's folder for them; gone at ``close`` unless the spool has kept it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        with _disk(f"The partial file {path.name} cannot be made"):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def write(self, *parts: bytes | memoryview) -> None:
        """Add the parts at the end; raises Transient."""
        rest = [memoryview(part) for part in parts if len(part)]
        with _disk("A received instance cannot be written"):
            while rest:
                written = os.writev(self._descriptor, rest)
                self.size += written
                while rest and written >= len(rest[0]):
                    written -= len(rest.pop(0))
                if written:
                    rest[0] = rest[0][written:]

    def read(self, start: int, most: int) -> bytes:
        """So many bytes from there; raises Transient."""
        with _disk("A received instance cannot be read"):
            return os.pread(self._descriptor, most, start)

    def flush(self) -> None:
        """Put what was written on disk; raises Transient."""
        with _disk("A received instance cannot be written"):
            os.fsync(self._descriptor)

    def move(self, target: Path) -> None:
        """Give the file its name, whole and on disk; its folder is the caller's to fsync. Raises OSError."""
        os.fsync(self._descriptor)
        self.path.rename(target)
        self._close()

    def has_bytes_of(self, path: Path) -> bool:
        """Whether the other file has the same bytes; raises OSError."""
        if path.stat().st_size != self.size:
            return False
        with path.open("rb", buffering=0) as other:
            return all(block == other.read(len(block)) for block in self._blocks())

    def digest(self) -> str:
        """The beginning of the SHA-256 of all bytes; raises OSError."""
        digest = hashlib.sha256()
        for block in self._blocks():
            digest.update(block)
        return digest.hexdigest()[:_DIGEST_LENGTH]

    def close(self) -> None:
        """Remove the file, unless it has its name already."""
        if self._close():
            with suppress(OSError):
                self.path.unlink()

    def _close(self) -> bool:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        return descriptor >= 0

    def _blocks(self) -> Iterator[bytes]:
        for start in range(0, self.size, _BLOCK_BYTES):
            yield os.pread(self._descriptor, _BLOCK_BYTES, start)


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

    def begin(self) -> Partial:
        """A file for an instance that is being received."""
        return Partial(self._partial / uuid.uuid4().hex)

    def keep(
        self,
        partial: Partial,
        study_uid: str,
        series_uid: str,
        sop_instance_uid: str,
        report: Callable[[StoreOutcome], None] = lambda outcome: None,
    ) -> StoreOutcome:
        """Keep an instance whose file is written; when this returns, it outlives a power cut.

        The same bytes under the same UIDs are not kept twice, other bytes are kept apart. ``report`` is told before
        anybody could remove the instance; it must not use the spool. Where this raises, the partial file stays.
        """
        series = self._series_folder(study_uid, series_uid)
        target = series / (_checked(sop_instance_uid) + SUFFIX)
        with self._locks[hash(target) % _STRIPES]:
            with _disk(f"Instance {sop_instance_uid} cannot be kept"):
                outcome = self._keep(partial, target)
            report(outcome)
            return outcome

    def store(
        self,
        parts: Sequence[bytes | memoryview],
        study_uid: str,
        series_uid: str,
        sop_instance_uid: str,
        report: Callable[[StoreOutcome], None] = lambda outcome: None,
    ) -> StoreOutcome:
        """``begin``, write and ``keep`` an instance, given as the parts of its file."""
        partial = self.begin()
        try:
            partial.write(*parts)
            return self.keep(partial, study_uid, series_uid, sop_instance_uid, report)
        finally:
            partial.close()

    def studies(self) -> list[str]:
        """The study UIDs that have a folder, sorted."""
        with _disk(f"The spool {self._folder} cannot be read"):
            return sorted(entry.name for entry in os.scandir(self._folder) if is_file_name_uid(entry.name))

    def files(self, study_uid: str) -> tuple[Path, ...]:
        """The study's files, sorted by series and instance; empty where there is no such study."""
        study = self._folder / _checked(study_uid)
        with _disk(f"Study {study_uid} cannot be read from the spool"):
            return tuple(sorted(_instances_in(study)))

    def apart(self, study_uid: str) -> tuple[Path, ...]:
        """Other contents that came under UIDs of the study, by series and instance; the first one is in ``files``."""
        study = self._folder / _APART / _checked(study_uid)
        with _disk(f"What is kept apart of study {study_uid} cannot be read from the spool"):
            return tuple(sorted(study.glob(f"*/*{SUFFIX}")))

    def take_apart(self, study_uid: str) -> int:
        """Put what is kept apart in the place of the first content, and say how many instances that were.

        Only series of which every instance came again later than the first content, the last one that came of each;
        what was linked from the spool before (``snapshot``) keeps the first. It may be repeated after a crash at any
        point: nothing leaves its place apart before all of its series has the new one.
        """
        latest: dict[str, dict[str, Path]] = {}
        taken = 0
        with _disk(f"What is kept apart of study {study_uid} cannot be taken"):
            apart = sorted(self.apart(study_uid), key=lambda path: path.stat().st_mtime_ns)
            for path in apart:
                latest.setdefault(path.parent.name, {})[_first_name(path)] = path
            for series_uid, others in sorted(latest.items()):
                firsts = {path.name: path for path in self.files(study_uid) if path.parent.name == series_uid}
                if firsts.keys() == others.keys() and not any(_is_later(firsts[name], others[name]) for name in firsts):
                    taken += sum(self._put_in_place(others[name], firsts[name]) for name in firsts)
            for path in apart:
                first = self._folder / study_uid / path.parent.name / _first_name(path)
                if first.exists() and _is_same(path, first):
                    path.unlink()
                    sync_folder(path.parent)
        return taken

    def _put_in_place(self, other: Path, first: Path) -> bool:
        """Whether that was not done before."""
        with self._locks[hash(first) % _STRIPES]:
            if _is_same(other, first):
                return False
            link = self._partial / uuid.uuid4().hex
            _link(other, link)
            link.rename(first)
            sync_folder(first.parent)
        return True

    def fingerprint(self, study_uid: str) -> str:
        """SHA-256 over series, instance, size and modification time (ns) of the study's files.

        It changes if and only if the content may have changed; what is kept apart does not change it.
        """
        digest = hashlib.sha256()
        with _disk(f"Study {study_uid} cannot be read from the spool"):
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
            apart = self._folder / _APART / study_uid
            removed = [self._take_away(folder) for folder in (apart, study) if folder.exists()]
            self._durable = {series for series in self._durable if series.parent not in (study, apart)}
        with _disk(f"Study {study_uid} cannot be removed from the spool"):
            for folder in removed:
                shutil.rmtree(folder)
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

    def _take_away(self, folder: Path) -> Path:
        removed = self._partial / uuid.uuid4().hex
        folder.rename(removed)
        sync_folder(folder.parent)
        return removed

    def _keep(self, partial: Partial, target: Path) -> StoreOutcome:
        self._make_durable(target.parent)
        if not target.exists():
            self._move(partial, target)
            return StoreOutcome.STORED
        if partial.has_bytes_of(target):
            sync_folder(target)
            sync_folder(target.parent)
            partial.close()
            return StoreOutcome.IDENTICAL
        self._keep_apart(partial, target)
        return StoreOutcome.KEPT_APART

    def _keep_apart(self, partial: Partial, first: Path) -> None:
        series = self._folder / _APART / first.parent.relative_to(self._folder)
        self._make_durable(series)
        self._move(partial, series / f"{first.stem}.{partial.digest()}{SUFFIX}")

    def _move(self, partial: Partial, target: Path) -> None:
        partial.move(target)
        sync_folder(target.parent)

    def _make_durable(self, series: Path) -> None:
        """Both folders exist and are entered in their parents for good, also if another thread has just made them."""
        with self._folders_lock:
            if series in self._durable and series.is_dir():
                return
            _make_folder(series)
            sync_folder(series.parent.parent)
            sync_folder(series.parent)
            self._durable.add(series)


def snapshot(files: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Hard links to a study's chosen files as ``<folder>/<series_uid>/<sop_instance_uid>.dcm``, durable.

    An unchanging view: it stays when the study is removed from the spool. Copies where the file system cannot link.
    The folder appears complete or not at all; where it is there already, it is kept as it is.
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
        _link(file, folder / file.parent.name / file.name)
    for series in folder.iterdir():
        sync_folder(series)
    sync_folder(folder)


def _link(file: Path, link: Path) -> None:
    """A hard link, or a durable copy where the file system has none."""
    try:
        os.link(file, link)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copy2(file, link)
        sync_folder(link)


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


def _first_name(apart: Path) -> str:
    """The name of the first content, without the digest of this one."""
    return apart.name.rsplit(".", 2)[0] + SUFFIX


def _is_later(one: Path, other: Path) -> bool:
    return one.stat().st_mtime_ns > other.stat().st_mtime_ns


def _is_same(one: Path, other: Path) -> bool:
    return filecmp.cmp(one, other, shallow=False)


def _instances_in(study: Path) -> Iterator[Path]:
    """The files of a study's series; Path.glob would leave out in silence what it may not or cannot list."""
    for series in _entries(study):
        if is_file_name_uid(series.name) and series.is_dir():
            yield from (Path(file.path) for file in _entries(series) if file.name.endswith(SUFFIX))


def _entries(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing where it is not there (any more). Raises OSError."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


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
