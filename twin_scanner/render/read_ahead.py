"""A CT that a worker has read before its render was asked for: at most one, for a moment, and without any say in it.

Whoever waits for the proof that a study is complete lets its CT be read meanwhile. The render takes what was read only
where it is asked for the very same files, read in the same way; else it reads them itself.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from twin_scanner.dicom.read.ct_series import CtSeries, read_chosen_series
from twin_scanner.dicom.read.gantry_tilt import GantryTilt
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.dicom.read.stored_pixels import JPEG_BY_GDCM
from twin_scanner.errors import Rejected, Transient
from twin_scanner.executor.memory import Memory
from twin_scanner.imaging.volume import Geometry
from twin_scanner.render.request import RenderRequest

KEEP_S: Final = 30.0
"""So long a CT is kept for its render: the evidence that it waits for comes within a second, or within the settling
time of an association."""
MOST_VOXELS: Final = 512 * 512 * 600
"""Of a CT that is read ahead: a whole body of 1.5 mm slices is none, and waits for its render."""
ROOM: Final = 8
"""So many times its size must be free, so that what is kept turns no render away for want of memory."""
VOXEL_BYTES: Final = 4

FileIdentity: TypeAlias = tuple[str, int, int, int, int]
"""Name, device, inode, size and time of the last change (ns): hard links to one file have one."""
Reading: TypeAlias = tuple[Preference, bool, GantryTilt]
"""How a CT is read."""


@dataclass(frozen=True, eq=False)
class _Kept:
    files: list[FileIdentity]
    reading: Reading
    series: CtSeries


class ReadAhead:
    """Keeps the CT that was read last; one of a process, from any of its threads."""

    def __init__(self, keep_s: float = KEEP_S) -> None:
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._kept: _Kept | None = None
        self._forgetting: threading.Timer | None = None

    def read(self, files: Sequence[Path], request: RenderRequest, memory: Memory | None) -> bool:
        """Read the CT that the service would choose of a study's files, and say whether it is kept.

        What cannot be read is left to the render, which says why.
        """
        self._keep(None)
        try:
            chosen = read_chosen_series(
                files,
                preference=request.preference,
                accept_synthetic=request.accept_synthetic_ct,
                gantry_tilt=request.gantry_tilt,
                has_room=lambda geometry, syntaxes: has_room(geometry, syntaxes, memory),
            )
            kept = None if chosen is None else _Kept(identities(chosen.files), _reading(request), chosen.series)
        except (Rejected, Transient, MemoryError, OSError):
            return False
        self._keep(kept)
        return kept is not None

    def take(self, request: RenderRequest) -> CtSeries | None:
        """The series in the request's folder, if it is the one that was read; nothing is kept from then on."""
        kept = self._keep(None)
        if kept is None or kept.reading != _reading(request):
            return None
        try:
            files = identities(path for path in request.source.rglob("*") if path.is_file())
        except OSError:
            return None
        return kept.series if files == kept.files else None

    def _keep(self, kept: _Kept | None) -> _Kept | None:
        """Keep this instead of what was kept, which is given back."""
        with self._lock:
            before, self._kept = self._kept, kept
            if self._forgetting is not None:
                self._forgetting.cancel()
                self._forgetting = None
            if kept is not None:
                self._forgetting = threading.Timer(self._keep_s, self._forget, (kept,))
                self._forgetting.daemon = True
                self._forgetting.start()
            return before

    def _forget(self, kept: _Kept) -> None:
        with self._lock:
            if self._kept is kept:
                self._kept = None


READ_AHEAD: Final = ReadAhead()
"""That of this process."""


def has_room(geometry: Geometry, syntaxes: Iterable[str], memory: Memory | None) -> bool:
    """Whether a CT may be read ahead: small beside the free memory, and by no codec that could end the process.

    GDCM could, in spite of the checks before it, and a render that waits behind it would be lost with it.
    """
    depth, height, width = geometry.shape
    voxels = depth * height * width
    fits = memory is not None and voxels * VOXEL_BYTES * ROOM <= memory.free
    return fits and voxels <= MOST_VOXELS and JPEG_BY_GDCM.isdisjoint(syntaxes)


def identities(files: Iterable[Path]) -> list[FileIdentity]:
    """The identity of each file, sorted; raises OSError."""
    found = [(file.name, file.stat()) for file in files]
    return sorted((name, one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) for name, one in found)


def _reading(request: RenderRequest) -> Reading:
    return request.preference, request.accept_synthetic_ct, request.gantry_tilt
