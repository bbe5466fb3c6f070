"""Files that survive a power cut: whole under their final name and on disk when the call returns; the home of fsync."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from twin_scanner.errors import Transient

PART = ".part"
"""Ends the name of a file that is being written; one that a crash left is overwritten by the next attempt."""
SYNCS_AT_ONCE: Final = 8
"""So many files are fsynced side by side: the disk then puts them into its journal together, not each by itself."""


def write_durably(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``: fsynced, renamed into place, its folder fsynced; raises OSError."""
    write_whole(path, lambda stream: stream.write(content))
    sync_folder(path.parent)


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill the file, fsync it and rename it into place; the folder is the caller's to fsync, once.

    Where it fails, nothing is left: on a full disk half a file would keep it full.
    """
    part = path.with_name(path.name + PART)
    try:
        with part.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_all_whole(contents: Iterable[tuple[Path, bytes]]) -> None:
    """Write many files, fsync them side by side, then rename them into place: none of them where one fails.

    The folder is the caller's to fsync, once. It takes a third of the time of ``write_whole`` one after another.
    """
    parts: dict[Path, Path] = {}
    try:
        for path, content in contents:
            parts[path] = path.with_name(path.name + PART)
            parts[path].write_bytes(content)
        with ThreadPoolExecutor(SYNCS_AT_ONCE) as pool:
            list(pool.map(_sync, parts.values()))
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def put_in_place(part: Path, path: Path) -> None:
    """Give a file that another library wrote its final name, durably; raises OSError."""
    _sync(part)
    part.replace(path)
    sync_folder(path.parent)


@contextmanager
def writing(what: str, folder: Path) -> Iterator[None]:
    """Turn any error of the disk into Transient: ``what`` cannot be written to ``folder``, and why."""
    try:
        yield
    except OSError as error:
        reason = f" ({error.strerror})" if error.strerror else ""
        raise Transient(f"{what} cannot be written to {folder}{reason}: check its free space and rights.") from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder to fill, which then takes the name ``folder``, whole or not at all; raises OSError.

    What is written into it is the caller's to fsync (``write_durably``).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name[:16]}-", dir=folder.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Put the folder's own entries (new, renamed and removed names) on disk; raises OSError."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
