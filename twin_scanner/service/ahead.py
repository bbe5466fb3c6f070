"""What is done for a study while the proof that it is complete is awaited: its headers are read, and its CT.

Nothing of it decides anything. What was found counts only where the study's files are in the end the ones that were
looked at, by the spool's fingerprint; else it is thrown away.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, NamedTuple

from dicom_node.spool import Spool
from twin_scanner.dicom.read.series_choice import Choice

MOST_STUDIES: Final = 16
"""Of so many studies choices are remembered."""
MOST_FILES: Final = 1000
"""A study of more files is not read ahead: nothing else could begin meanwhile."""


class _Begun(NamedTuple):
    fingerprint: str
    choosing: Future[list[Choice]]


class Ahead:
    """``choose`` lets another process read a study's headers, ``read`` lets one read its CT where none is at work."""

    def __init__(
        self,
        spool: Spool,
        choose: Callable[[str, Sequence[Path]], Future[list[Choice]]],
        read: Callable[[Sequence[Path]], Future[Any] | None],
    ) -> None:
        self._spool = spool
        self._choose = choose
        self._read = read
        self._lock = threading.Lock()
        self._begun: dict[str, _Begun] = {}
        self._reading: Future[Any] | None = None

    def begin(self, study_uid: str) -> None:
        """Begin with a study as it now lies in the spool, once for each state of it; does not wait.

        Raises Transient where the spool cannot be read.
        """
        fingerprint = self._spool.fingerprint(study_uid)
        known = self._begun.get(study_uid)
        files = self._spool.files(study_uid)
        if not 0 < len(files) <= MOST_FILES or (known is not None and known.fingerprint == fingerprint):
            return
        try:
            if self.reading() is None:
                self._reading = self._read(files)
            choosing = self._choose(study_uid, files)
        except (RuntimeError, OSError):
            # The executor is shut down, for the service stops; or the machine gives no process or thread more.
            return
        with self._lock:
            self._begun[study_uid] = _Begun(fingerprint, choosing)
            if len(self._begun) > MOST_STUDIES:
                del self._begun[next(iter(self._begun))]

    def take(self, study_uid: str) -> Future[list[Choice]] | None:
        """The choices of a study, made or under way, if it is still the same; they are forgotten here."""
        with self._lock:
            begun = self._begun.pop(study_uid, None)
        return begun.choosing if begun and begun.fingerprint == self._spool.fingerprint(study_uid) else None

    def choosing(self) -> list[Future[list[Choice]]]:
        """The choices under way: nobody else's headers are read before they end."""
        with self._lock:
            return [begun.choosing for begun in self._begun.values() if not begun.choosing.done()]

    def reading(self) -> Future[Any] | None:
        """The CT that is being read: no render begins before that ends."""
        return None if self._reading is None or self._reading.done() else self._reading
