"""How many connections the node holds: those that still negotiate, and the associations; pure, knows no socket's use.

Only an association counts against the maximum. A connection that has not asked for one counts nothing, but it has a
thread: where too many wait, one of the address that has most of them gives way, the one that waits longest, so a real
sender, who asks at once, always gets in. Those of addresses where no peer is wait by themselves and take nothing from
the peers.
"""

import socket
import threading
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

GUEST_SHARE: Final = 0.5
"""So much of all associations callers that no peer names (node.open_to_loopback) may have; the rest is the peers'."""


@dataclass(frozen=True)
class AssociationLimits:
    """How many connections are held at once."""

    associations: int = 64
    """Negotiated ones."""
    associations_per_address: int = 64
    waiting: int = 256
    """Connections of peers' addresses that have not asked for an association yet, or are told that they get none."""
    waiting_strangers: int = 64
    """The same of all other addresses."""


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

    @classmethod
    def of_caller(cls, words: str) -> "Rejection":
        """The calling AE title is none that we know, or not from there, or not with this certificate."""
        return cls(words, 0x01, 0x01, 0x03)

    @classmethod
    def of_called(cls, words: str) -> "Rejection":
        """The called AE title is not ours."""
        return cls(words, 0x01, 0x01, 0x07)


@dataclass(frozen=True)
class _Waiting:
    """A connection without an association."""

    address: Hashable
    is_stranger: bool
    connection: socket.socket


class Places:
    """Counts connections by a key of their own; ``keeps_share``: callers that no peer names get a share alone."""

    def __init__(self, limits: AssociationLimits, *, keeps_share: bool = False) -> None:
        self._limits = limits
        self._keeps_share = keeps_share
        self._waiting: dict[Hashable, _Waiting] = {}
        self._associated: dict[Hashable, tuple[Hashable, bool]] = {}
        """Of each association its address, and whether the caller is a guest: none that a peer names."""
        self._lock = threading.Lock()

    def connected(
        self, key: Hashable, connection: socket.socket, address: Hashable, *, is_stranger: bool = False
    ) -> socket.socket | None:
        """A connection was accepted; gives back the one that has to give way for it."""
        most = self._limits.waiting_strangers if is_stranger else self._limits.waiting
        with self._lock:
            self._waiting[key] = _Waiting(address, is_stranger, connection)
            alike = {one: held for one, held in self._waiting.items() if held.is_stranger is is_stranger}
            if len(alike) <= most:
                return None
            crowded, _ = Counter(held.address for held in alike.values()).most_common(1)[0]
            return self._waiting.pop(next(one for one, held in alike.items() if held.address == crowded)).connection

    def associate(self, key: Hashable, address: Hashable, *, is_guest: bool = False) -> Rejection | None:
        """Take a place for the connection's association, or say why there is none."""
        with self._lock:
            fault = self._full(address, is_guest=is_guest)
            if fault is not None:
                return Rejection.for_now(fault)
            self._associated[key] = (address, is_guest)
            self._waiting.pop(key, None)
            return None

    def ended(self, key: Hashable) -> None:
        """The connection is closed."""
        with self._lock:
            self._waiting.pop(key, None)
            self._associated.pop(key, None)

    def _full(self, address: Hashable, *, is_guest: bool) -> str | None:
        limits, held = self._limits, self._associated.values()
        if len(held) >= limits.associations:
            return f"{len(held)} associations are open, no more are allowed"
        from_there = sum(one == address for one, _ in held)
        if from_there >= limits.associations_per_address:
            return f"{from_there} associations are open from this address, no more are allowed"
        guests = sum(guest for _, guest in held)
        if is_guest and self._keeps_share and guests >= GUEST_SHARE * limits.associations:
            return f"{guests} associations are open that no peer has, the other places are kept for the peers"
        return None
