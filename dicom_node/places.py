"""How many connections the node holds: those that still negotiate, and the associations; pure, knows no socket's use.

Only an association counts against the maximum. A connection that has not asked for one counts nothing, but it has a
thread: where too many wait, the one that waits longest gives way, so a real sender, who asks at once, always gets in.
"""

import socket
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

MOST_WAITING: Final = 256
"""Connections that have not asked for an association yet, or are told that they get none."""


@dataclass(frozen=True)
class Rejection:
    """Why an association is rejected: in words for the log, and as PS3.8 9.3.4 has it for the peer."""

    words: str
    result: int
    source: int
    reason: int

    @classmethod
    def for_now(cls, words: str, *, is_congestion: bool = False) -> "Rejection":
        """It may be tried again: we are congested for a while, or have as many associations as we take."""
        return cls(words, 0x02, 0x03, 0x01 if is_congestion else 0x02)


class Places:
    """Counts connections by a key of their own, and lets the oldest that waits give way to a new one."""

    def __init__(self, maximum_associations: int, most_waiting: int = MOST_WAITING) -> None:
        self.maximum_associations = maximum_associations
        self._most_waiting = most_waiting
        self._waiting: dict[Hashable, socket.socket] = {}
        self._associated: set[Hashable] = set()
        self._lock = threading.Lock()

    def connected(self, key: Hashable, connection: socket.socket) -> socket.socket | None:
        """A connection was accepted; gives back the one that has to give way for it."""
        with self._lock:
            self._waiting[key] = connection
            if len(self._waiting) <= self._most_waiting:
                return None
            return self._waiting.pop(next(iter(self._waiting)))

    def associate(self, key: Hashable) -> bool:
        """Take a place for the connection's association; False where all are taken."""
        with self._lock:
            if len(self._associated) >= self.maximum_associations:
                return False
            self._associated.add(key)
            self._waiting.pop(key, None)
            return True

    def ended(self, key: Hashable) -> None:
        """The connection is closed."""
        with self._lock:
            self._waiting.pop(key, None)
            self._associated.discard(key)
