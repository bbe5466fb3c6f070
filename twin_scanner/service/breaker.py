"""The circuit breaker of one destination: while it is down, one probe at a time; what else is meant for it waits."""

import threading
from collections.abc import Callable
from typing import Final

LONGEST_REQUEST_S: Final = 3600.0
"""A destination that asks to be left alone for longer is asked again then: it may have meant something else."""


class Breaker:
    """Whether work for a destination may begin; ``delay_s`` gives the wait after so many failed probes in a row."""

    def __init__(self, delay_s: Callable[[int], float], monotonic_s: Callable[[], float]) -> None:
        self._delay_s = delay_s
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._failures = 0
        self._probe_from_s = 0.0
        self._probing: int | None = None
        """The thread that probes."""

    @property
    def is_down(self) -> bool:
        """Whether the destination's last answer was that it serves nobody."""
        with self._lock:
            return self._failures > 0

    def enter(self) -> bool:
        """Whether this thread may begin; it then calls one of ``idle``, ``up`` and ``down``."""
        with self._lock:
            if self._failures == 0:
                return True
            if self._probing is not None or self._monotonic_s() < self._probe_from_s:
                return False
            self._probing = threading.get_ident()
            return True

    def idle(self) -> None:
        """Nothing was tried, or what was tried says nothing of the destination."""
        with self._lock:
            if self._probing == threading.get_ident():
                self._probing = None

    def up(self) -> bool:
        """The destination answered; says whether it had been down."""
        with self._lock:
            was_down = self._failures > 0
            self._failures, self._probing = 0, None
            return was_down

    def down(self, at_least_s: float = 0.0) -> bool:
        """The destination serves nobody; says whether that is news.

        Of several that began while it was up the first counts, then only probes do. ``at_least_s`` is how long the
        destination asks to be left alone, which is heard up to ``LONGEST_REQUEST_S``.
        """
        with self._lock:
            is_news = self._failures == 0
            is_probe = self._probing == threading.get_ident()
            if is_news or is_probe:
                self._failures += 1
                asked_s = min(at_least_s, LONGEST_REQUEST_S)
                self._probe_from_s = self._monotonic_s() + max(self._delay_s(self._failures), asked_s)
            if is_probe:
                self._probing = None
            return is_news
