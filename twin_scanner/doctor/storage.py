"""The storage folder: it can be written, is closed to other users and has room."""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dicom_node.spool import free_bytes
from twin_scanner.doctor.finding import Finding
from twin_scanner.settings import Settings

LEAST_ROOM: Final = 2
"""A disk with less than this many times node.minimum_free_mb is soon one that refuses images."""


def check_storage(settings: Settings) -> Iterator[Finding]:
    """The folder or the nearest one above it takes a file, and how much room is left there."""
    folder = settings.storage.folder.resolve()
    standing = _standing(folder)
    try:
        if not standing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.TemporaryFile(dir=standing) as probe:
            probe.write(b"twin-scanner doctor")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        yield Finding(
            "storage folder",
            "fault",
            f"{standing} cannot be written ({error.strerror}): give it to the user that runs twin-scanner, or set "
            "storage.folder.",
        )
        return
    if standing != folder:
        yield Finding("storage folder", "ok", f"{folder} is not there yet and is made at the first start.")
    elif folder.stat().st_mode & 0o007:
        yield Finding(
            "storage folder", "warning", f"{folder} holds patients' images and every user may open it: chmod o-rwx it."
        )
    else:
        yield Finding("storage folder", "ok", f"{folder} can be written.")
    yield _free_space(standing, settings.node.minimum_free_mb)


def _standing(path: Path) -> Path:
    """The path itself or the nearest one above it that exists."""
    return next((place for place in (path, *path.parents) if place.exists()), Path(path.anchor))


def _free_space(folder: Path, minimum_mb: int) -> Finding:
    free_mb = free_bytes(folder) // 2**20
    told = f"{free_mb} MB are free, node.minimum_free_mb is {minimum_mb}"
    if free_mb < minimum_mb:
        return Finding("free space", "fault", f"{told}: every image is refused (0xA700) until there is more room.")
    if free_mb < LEAST_ROOM * minimum_mb:
        return Finding("free space", "warning", f"{told}: make room before images are refused.")
    return Finding("free space", "ok", f"{told}.")
