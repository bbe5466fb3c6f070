"""A CT that a worker has read before its render was asked for: at most one, for a moment, and without any say in it.

Whoever waits for the proof that a study is complete lets its CT be read meanwhile, and its districts be found by the
embedded segmenter. The render takes what was read only where it is asked for the very same files, read and segmented in
the same way; else it does all of that itself.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

from twin_scanner.dicom.read.ct_series import CtSeries, read_chosen_series
from twin_scanner.dicom.read.gantry_tilt import GantryTilt
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.dicom.read.stored_pixels import JPEG_BY_GDCM
from twin_scanner.districts.choice import SegmenterChoice, make_segmenter
from twin_scanner.districts.district_map import DistrictMap
from twin_scanner.errors import Defect, Rejected, Transient
from twin_scanner.executor.memory import Memory
from twin_scanner.imaging.volume import Geometry, Volume
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
Reading: TypeAlias = tuple[Preference, bool, GantryTilt, SegmenterChoice]
"""How a CT is read and segmented."""


@dataclass(frozen=True, eq=False)
class AlreadySegmented:
    """A segmenter that has segmented one CT, and gives what it found; it does not hold the CT itself."""

    geometry: Geometry
    districts: DistrictMap

    @property
    def name(self) -> str:
        """That of the segmenter which did it."""
        return self.districts.segmenter

    @property
    def segmenter_hash(self) -> str:
        """That of the segmenter which did it."""
        return self.districts.segmenter_hash

    def segment(self, ct: Volume) -> DistrictMap:
        """The districts of that CT, and of no other; raises Defect."""
        if ct.geometry is not self.geometry:
            raise Defect("These districts are those of another CT.")
        return self.districts


@dataclass(frozen=True, eq=False)
class ReadCt:
    """A CT that was read, of which files and how; ``segmenter`` is None where its districts were not sought."""

    files: list[FileIdentity]
    reading: Reading
    series: CtSeries
    segmenter: AlreadySegmented | None = None


class ReadAhead:
    """Keeps the CT that was read last; one of a process, from any of its threads."""

    def __init__(self, keep_s: float = KEEP_S) -> None:
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._kept: ReadCt | None = None
        self._turn = 0
        self._forgetting: threading.Timer | None = None

    def read(self, files: Sequence[Path], request: RenderRequest, memory: Memory | None) -> bool:
        """Read the CT that the service would choose of a study's files, seek its districts, and say whether it is kept.

        What cannot be read is left to the render, which says why.
        """
        self._keep(None)
        try:
            before = frozenset(identities(files))
            chosen = read_chosen_series(
                files,
                preference=request.preference,
                accept_synthetic=request.accept_synthetic_ct,
                gantry_tilt=request.gantry_tilt,
                has_room=lambda geometry, syntaxes: has_room(geometry, syntaxes, memory),
            )
            if chosen is None:
                return False
            read_files = identities(chosen.files)
            if not before.issuperset(read_files):
                # A correction took the place of a file while it was read: nobody knows which content is in the CT.
                return False
            read = ReadCt(read_files, _reading(request), chosen.series)
            self._keep(read)
            self._keep(replace(read, segmenter=_segmented(request, chosen.series.volume)))
        except (Rejected, Transient, MemoryError, OSError):
            return self._kept is not None
        return True

    def take(self, request: RenderRequest) -> ReadCt | None:
        """The CT in the request's folder, if it is the one that was read; nothing is kept from then on."""
        kept = self._keep(None)
        if kept is None or kept.reading != _reading(request):
            return None
        try:
            files = identities(path for path in request.source.rglob("*") if path.is_file())
        except OSError:
            return None
        return kept if files == kept.files else None

    def _keep(self, kept: ReadCt | None) -> ReadCt | None:
        """Keep this instead of what was kept, which is given back."""
        with self._lock:
            before, self._kept = self._kept, kept
            self._turn += 1
            if self._forgetting is not None:
                self._forgetting.cancel()
                self._forgetting = None
            if kept is not None:
                self._forgetting = threading.Timer(self._keep_s, self._forget, (self._turn,))
                self._forgetting.daemon = True
                self._forgetting.start()
            return before

    def _forget(self, turn: int) -> None:
        """What was kept in that turn; a timer that held the CT itself would keep it while its thread ends."""
        with self._lock:
            if self._turn == turn:
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
    return request.preference, request.accept_synthetic_ct, request.gantry_tilt, request.segmenter


def _segmented(request: RenderRequest, ct: Volume) -> AlreadySegmented | None:
    """What the embedded segmenter finds; networks take minutes, and a label map is read in a moment."""
    if request.segmenter.name != "landmarks":
        return None
    return AlreadySegmented(ct.geometry, make_segmenter(request.segmenter).segment(ct))
