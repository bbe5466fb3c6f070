"""The images of the jobs that were looked at last, within a bound on memory."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from twin_scanner.console.viewer.images import CLEARED, JobFiles, JobImages, read_images
from twin_scanner.errors import Rejected

MOST_BYTES: Final = 1 << 30
"""Two whole-body CTs of 512 x 512 x 600 voxels with their PETs."""


@dataclass(frozen=True, eq=False)
class _Kept:
    stamp: tuple[int, bool]
    images: JobImages


class ImageMemory:
    """Reads the images of jobs and keeps the latest ones; several threads ask it at once.

    One job is read at a time: reading needs more memory than keeping. What has been cleared since is not given any
    more, however lately it was seen.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[JobFiles, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._reading = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """What all that is kept takes."""
        with self._lock:
            return sum(kept.images.size_bytes for kept in self._kept.values())

    def images(self, files: JobFiles) -> JobImages:
        """The images as they are on disk now; raises Rejected where they were cleared or cannot be read."""
        stamp = files.stamp()
        if stamp is None:
            with self._lock:
                self._kept.pop(files, None)
            raise Rejected(CLEARED)
        if (images := self._found(files, stamp)) is not None:
            return images
        with self._reading:
            if (images := self._found(files, stamp)) is not None:
                return images
            images = read_images(files, self._most_bytes)
            self._keep(files, _Kept(stamp, images))
            return images

    def _found(self, files: JobFiles, stamp: tuple[int, bool]) -> JobImages | None:
        with self._lock:
            kept = self._kept.get(files)
            if kept is None or kept.stamp != stamp:
                return None
            self._kept.move_to_end(files)
            return kept.images

    def _keep(self, files: JobFiles, kept: _Kept) -> None:
        """Add the images and let go of those that were not asked for the longest, until all are within the bound."""
        with self._lock:
            self._kept.pop(files, None)
            self._kept[files] = kept
            while len(self._kept) > 1 and sum(one.images.size_bytes for one in self._kept.values()) > self._most_bytes:
                self._kept.popitem(last=False)
