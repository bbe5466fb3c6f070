"""When a study has arrived, and what says so. Pure: no clock, no network, no file.

In this order: a peer counts as many instances as we have, twice, and no slice is missing between two others; whoever
sent the study has released its association, and no slice is missing; nothing more came for the quiet period. A study
of which a peer has more than we, or that it does not know, has no evidence, and is incomplete after the longest wait.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from dicom_node.query import SeriesCount

_FIRST_LOOK_S: Final = 1.0
"""A study that has been silent for so long is looked at, and again after so long."""
_LONGEST_LOOK_DELAY_S: Final = 60.0
"""Each further look waits twice as long as the one before, up to this."""
_BROUGHT_WHOLE: Final = 16
"""So many instances over one association, which was released, are no scanner's that sends slice by slice: the study is
looked at sooner, and twice again sooner after that."""
_FIRST_LOOK_AT_WHOLE_S: Final = 0.1
_NEXT_LOOK_AT_WHOLE_S: Final = 0.5
"""What proves a study complete are two answers of a peer, and the time between them: it stays."""
_HURRIED_LOOKS: Final = 2
"""The second of them finds a peer that had not yet counted the last instance when it was first asked."""
_PAUSES: Final = 3.0
"""A sender that has paused between two instances may do so again: the settling time is so many of its pauses."""


class EvidenceKind(StrEnum):
    """What says that nothing more will come; the beginning of ``studies.evidence``."""

    COUNTED = "C-FIND"
    RELEASED = "association release"
    QUIET = "quiet period"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class Evidence:
    """Why a study is taken for complete, or that it is not; ``detail`` says how many instances were counted."""

    kind: EvidenceKind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind.value


@dataclass(frozen=True)
class Counted:
    """How many instances of the series that we received we have, and how many of them a peer has."""

    here: int
    there: int
    equal: bool
    """Whether both have as many of every one of these series."""
    missing: bool
    """Whether the peer has more than we of one of them, or knows none of them."""
    other_ct: bool
    """Whether the peer has a CT series of the study of which we have received nothing."""

    def __str__(self) -> str:
        return f"{self.here} of {self.there}" if self.there else "the peer does not know the study"


@dataclass(frozen=True)
class Look:
    """What a look at a study has found: whether its slices are a stack without a gap, and what a peer counts.

    ``counted`` is None where nobody was asked or nobody answered.
    """

    gap_free: bool
    counted: Counted | None = None

    @property
    def promises(self) -> bool:
        """Whether the same found again would be evidence: a beginning may be made of what it would allow."""
        return self.gap_free and (self.counted is None or self.counted.equal)


def compare(ours: Mapping[str, int], theirs: Sequence[SeriesCount]) -> Counted:
    """Our instances by series against the series of the study at a peer."""
    there = {series.series_uid: series.instances for series in theirs}
    known = sum(there.get(series_uid, 0) for series_uid in ours)
    return Counted(
        here=sum(ours.values()),
        there=known,
        equal=all(there.get(series_uid) == count for series_uid, count in ours.items()),
        missing=known == 0 or any(there.get(series_uid, 0) > count for series_uid, count in ours.items()),
        other_ct=any(one.modality == "CT" and one.instances and one.series_uid not in ours for one in theirs),
    )


@dataclass
class _Arriving:
    """What is known of a study that is still open; ``version`` counts its instances."""

    last_s: float
    version: int = 0
    longest_pause_s: float = 0.0
    senders: int = 0
    unreleased: set[int] = field(default_factory=set)
    """Associations that sent of it and were not released: open still, or aborted."""
    look: Look | None = None
    """The latest look since the last instance."""
    looks: int = 0
    same: int = 0
    """How often in a row a peer has given the same counts."""
    look_from_s: float = 0.0

    @property
    def came_whole(self) -> bool:
        """Whether one association brought it, and was released."""
        return self.senders == 1 and not self.unreleased and self.version >= _BROUGHT_WHOLE

    @property
    def rhythm_s(self) -> float:
        """A pause that is no longer than this says nothing of this sender."""
        return _PAUSES * self.longest_pause_s


class Completeness:
    """Says which studies have arrived; times are seconds of one monotonic clock that the caller reads.

    An open association that sends nothing more postpones the study that it sent last to ``longest_wait_s`` at most,
    which counts from the last instance, as all times do. ``look_patience_s`` is how long a study waits beyond the quiet
    period for a look that is not there yet; 0 where nobody looks. Each study is handed out once, and again only after
    another ``touch``.
    """

    def __init__(
        self,
        *,
        quiet_period_s: float,
        longest_wait_s: float,
        settle_s: float = 5.0,
        look_patience_s: float = 0.0,
    ) -> None:
        self._quiet_period_s = quiet_period_s
        self._longest_wait_s = max(longest_wait_s, quiet_period_s)
        self._settle_s = settle_s
        self._look_patience_s = look_patience_s
        self._studies: dict[str, _Arriving] = {}
        self._sending: dict[int, str] = {}
        self._lock = threading.Lock()

    def touch(self, study_uid: str, now_s: float, association: int | None = None) -> None:
        """An instance of the study arrived, over this association where one is known."""
        with self._lock:
            study = self._studies.setdefault(study_uid, _Arriving(now_s))
            study.longest_pause_s = max(study.longest_pause_s, now_s - study.last_s)
            study.last_s, study.version = now_s, study.version + 1
            study.look, study.looks, study.same, study.look_from_s = None, 0, 0, now_s + _FIRST_LOOK_S
            if association is not None:
                if association not in study.unreleased:
                    study.unreleased.add(association)
                    study.senders += 1
                self._sending[association] = study_uid

    def association_closed(self, association: int) -> None:
        """The association sends no more, for whatever reason."""
        with self._lock:
            self._sending.pop(association, None)

    def association_released(self, association: int) -> None:
        """The sender has ended the association as one that has sent all it wanted."""
        with self._lock:
            self._sending.pop(association, None)
            for study in self._studies.values():
                study.unreleased.discard(association)
                if study.came_whole and study.looks == 0:
                    soon_s = study.last_s + max(_FIRST_LOOK_AT_WHOLE_S, study.rhythm_s)
                    study.look_from_s = min(study.look_from_s, soon_s)

    def due(self, now_s: float) -> list[tuple[str, int]]:
        """The studies that are to be looked at now, the longest silent first, each with its version."""
        with self._lock:
            due = [(study.last_s, uid, study.version) for uid, study in self._studies.items() if _is_due(study, now_s)]
        return [(study_uid, version) for _, study_uid, version in sorted(due)]

    def looked(self, study_uid: str, version: int, look: Look, now_s: float, *, again: bool = True) -> None:
        """What a look has found; it says nothing of a study of which more has arrived since.

        ``again`` False: another look would find the same.
        """
        with self._lock:
            study = self._studies.get(study_uid)
            if study is None or study.version != version:
                return
            before = None if study.look is None else study.look.counted
            if look.counted is None:
                study.same = 0
            else:
                study.same = study.same + 1 if before == look.counted else 1
            study.look, study.looks = look, study.looks + 1
            delay_s = min(_FIRST_LOOK_S * 2 ** (study.looks - 1), _LONGEST_LOOK_DELAY_S)
            if study.came_whole and study.looks <= _HURRIED_LOOKS:
                delay_s = _NEXT_LOOK_AT_WHOLE_S
            study.look_from_s = now_s + delay_s if again else float("inf")

    def came_whole(self, study_uid: str, version: int) -> bool:
        """Whether one association has brought this version of a study that is still open, and was released."""
        with self._lock:
            study = self._studies.get(study_uid)
            return study is not None and study.version == version and study.came_whole

    def complete(self, now_s: float) -> list[tuple[str, Evidence]]:
        """The studies that are complete now, or never will be, the longest silent first; they are forgotten here."""
        with self._lock:
            sending = set(self._sending.values())
            found = [(uid, self._evidence(uid, study, sending, now_s)) for uid, study in self._studies.items()]
            done = [(study_uid, evidence) for study_uid, evidence in found if evidence is not None]
            done.sort(key=lambda one: self._studies[one[0]].last_s)
            for study_uid, _ in done:
                del self._studies[study_uid]
            return done

    def arriving(self) -> list[str]:
        """The studies that are still open, sorted."""
        with self._lock:
            return sorted(self._studies)

    def _evidence(self, study_uid: str, study: _Arriving, sending: set[str], now_s: float) -> Evidence | None:
        silent_s, look = now_s - study.last_s, study.look
        counted = None if look is None else look.counted
        is_quiet, has_waited = silent_s >= self._quiet_period_s, silent_s >= self._longest_wait_s
        if look is not None and counted is not None:
            if counted.equal and look.gap_free and (is_quiet or not counted.other_ct):
                if study.same >= 2:
                    return Evidence(EvidenceKind.COUNTED, str(counted))
                if not has_waited:
                    return None
            if counted.missing:
                return Evidence(EvidenceKind.INCOMPLETE, str(counted)) if has_waited else None
        elif look is not None and self._is_released(study, look, silent_s):
            return Evidence(EvidenceKind.RELEASED)
        if study_uid in sending and not has_waited:
            return None
        is_looked_at = look is not None or silent_s >= self._quiet_period_s + self._look_patience_s
        return Evidence(EvidenceKind.QUIET) if is_quiet and is_looked_at else None

    def _is_released(self, study: _Arriving, look: Look, silent_s: float) -> bool:
        settled = silent_s >= max(self._settle_s, study.rhythm_s)
        return settled and look.gap_free and study.senders > 0 and not study.unreleased


def _is_due(study: _Arriving, now_s: float) -> bool:
    return now_s >= study.look_from_s
