"""When a study has arrived: nothing more came for the quiet period, and nobody is still sending it. Pure, no clock."""

import threading


class QuietPeriod:
    """Says which studies have fallen silent; times are seconds of one monotonic clock that the caller reads.

    A study is complete when nothing came for ``quiet_period_s`` and no open association has it as the last study it
    sent; an open association that sends nothing more postpones it to ``longest_wait_s`` at most. Both count from
    the last instance. Each study is handed out once, and again only after another ``touch``.
    """

    def __init__(self, *, quiet_period_s: float, longest_wait_s: float) -> None:
        self._quiet_period_s = quiet_period_s
        self._longest_wait_s = max(longest_wait_s, quiet_period_s)
        self._last_s: dict[str, float] = {}
        self._sending: dict[int, str] = {}
        self._lock = threading.Lock()

    def touch(self, study_uid: str, now_s: float, association: int | None = None) -> None:
        """An instance of the study arrived, over this association where one is known."""
        with self._lock:
            self._last_s[study_uid] = now_s
            if association is not None:
                self._sending[association] = study_uid

    def association_closed(self, association: int) -> None:
        """The association sends no more."""
        with self._lock:
            self._sending.pop(association, None)

    def complete(self, now_s: float) -> list[str]:
        """The studies that are complete now, the longest silent first; they are forgotten here."""
        with self._lock:
            sending = set(self._sending.values())
            done = [uid for uid, last_s in self._last_s.items() if now_s - last_s >= self._wait_s(uid, sending)]
            done.sort(key=self._last_s.__getitem__)
            for study_uid in done:
                del self._last_s[study_uid]
            return done

    def arriving(self) -> list[str]:
        """The studies that are still open, sorted."""
        with self._lock:
            return sorted(self._last_s)

    def _wait_s(self, study_uid: str, sending: set[str]) -> float:
        return self._longest_wait_s if study_uid in sending else self._quiet_period_s
