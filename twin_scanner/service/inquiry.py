"""Looks at the studies that arrive: whether slices are missing, how many instances a peer counts, if a PET is there.

It has a thread of its own: neither a slow peer nor a long header keeps the receiver or the sweep waiting.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dicom_node.evidence import Completeness, Look, compare
from dicom_node.query import SeriesCount
from dicom_node.slice_stack import SlicePlaces
from dicom_node.spool import Spool
from twin_scanner.errors import Misconfigured, Transient
from twin_scanner.service.breaker import Breaker

LOG = logging.getLogger("twin_scanner.inquiry")

PATIENCE_S: Final = 60.0
"""For how long a study that is quiet waits for a look that has not ended."""
_SYNTHETIC: Final = "SYNTHETIC"
"""How the description of every PET of a virtual scanner begins, another one's too (``dicom.write.pet_series``)."""


@dataclass(frozen=True)
class Source:
    """A peer that may be asked; ``find`` returns the series of a study there, none where it does not know it."""

    name: str
    find: Callable[[str], Sequence[SeriesCount]]
    """Raises Transient where the peer does not say."""
    breaker: Breaker


class Inquiry:
    """Reports to ``completeness`` what a look at each arriving study has found.

    ``is_ours`` says of a PET series' UID whether we made it; ``on_real_pet`` is given a study and its PET series that
    nobody of us made. ``on_promising`` is given a study that one association brought and that a second look, or time,
    will likely prove complete.
    """

    def __init__(
        self,
        completeness: Completeness,
        spool: Spool,
        sources: Sequence[Source],
        *,
        is_ours: Callable[[str], bool],
        on_real_pet: Callable[[str, str], None],
        on_promising: Callable[[str], None] = lambda study_uid: None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._completeness = completeness
        self._spool = spool
        self._sources = tuple(sources)
        self._is_ours = is_ours
        self._on_real_pet = on_real_pet
        self._on_promising = on_promising
        self._monotonic_s = monotonic_s
        self._places = SlicePlaces()

    def look(self) -> bool:
        """Look at every study whose look is due, and say whether there was one; raises Transient where the spool or the
        ledger cannot be used.
        """
        due = self._completeness.due(self._monotonic_s())
        for study_uid, version in due:
            files = self._spool.files(study_uid)
            ours = Counter(file.parent.name for file in files)
            theirs = self._ask(study_uid)
            counted = None if theirs is None else compare(ours, theirs)
            look = Look(self._places.gap_free(study_uid, files), counted)
            self._completeness.looked(study_uid, version, look, self._monotonic_s(), again=bool(self._sources))
            if look.promises and self._completeness.came_whole(study_uid, version):
                self._on_promising(study_uid)
        self._places.keep_only(self._completeness.arriving())
        return bool(due)

    def look_for_pet(self, study_uid: str) -> None:
        """Ask every peer once whether the study holds a real PET by now; one that does not answer holds nothing up."""
        for source in self._sources:
            self._look_for_pet(study_uid, self._find(source, study_uid) or ())

    def _ask(self, study_uid: str) -> Sequence[SeriesCount] | None:
        """The series of the study at the first peer that knows it; None where nobody could say."""
        has_answer = bool(self._sources)
        for source in self._sources:
            found = self._find(source, study_uid)
            if found:
                self._look_for_pet(study_uid, found)
                return found
            has_answer = has_answer and found is not None
        return () if has_answer else None

    def _find(self, source: Source, study_uid: str) -> Sequence[SeriesCount] | None:
        if not source.breaker.enter():
            return None
        try:
            found = source.find(study_uid)
        except (Transient, Misconfigured) as error:
            if source.breaker.down():
                LOG.warning("studies cannot be counted at %s: %s", source.name, error)
            return None
        if source.breaker.up():
            LOG.info("studies are counted at %s again", source.name)
        return found

    def _look_for_pet(self, study_uid: str, found: Sequence[SeriesCount]) -> None:
        for series in found:
            is_pet = series.modality == "PT" and series.instances > 0
            if is_pet and _SYNTHETIC not in series.description.upper() and not self._is_ours(series.series_uid):
                self._on_real_pet(study_uid, series.series_uid)
                return
