"""The storage folder: it can be written, is closed to other users and has room."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dicom_node.spool import free_bytes
from twin_scanner.doctor.finding import Finding
from twin_scanner.files.writable import check_writable
from twin_scanner.settings import Settings

LEAST_ROOM: Final = 2
"""A disk with less than this many times node.minimum_free_mb is soon one that refuses images."""


def check_storage(settings: Settings) -> Iterator[Finding]:
    """The folder, or the nearest one above it, can be written; how much room is left there. Raises as it does."""
    folder = settings.storage.folder.resolve()
    check_writable(folder)
    standing = _standing(folder)
    if standing != folder:
        yield Finding("storage folder", "ok", f"{folder} is not there yet and is created at the first start.")
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
    fact = f"{free_mb} MB are free, node.minimum_free_mb is {minimum_mb}"
    if free_mb < minimum_mb:
        return Finding("free space", "fault", f"{fact}: every image is refused (0xA700) until there is more room.")
    if free_mb < LEAST_ROOM * minimum_mb:
        return Finding("free space", "warning", f"{fact}: make room before images are refused.")
    return Finding("free space", "ok", f"{fact}.")
