"""Who may associate with us, and how many at once; pure, knows no socket and no library.

Before it has asked for an association a connection counts nothing, but it has a thread: where too many wait, one of the
address that has most of them gives way, so a real sender, who asks at once, always gets in. Those of addresses where
no peer is wait by themselves, and take nothing from the peers.
"""

import threading
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeAlias, TypeVar

from dicom_node.addresses import Address, AddressBook, Resolve, parsed, resolve_by_system
from dicom_node.peers import Peer, Role

Connection = TypeVar("Connection")
Key: TypeAlias = Hashable
"""Of one connection."""
GUEST_SHARE: Final = 0.5
"""So much of all associations callers that no peer names (node.open_to_loopback) may have; the rest is the peers'."""


class Answer(Enum):
    """The A-ASSOCIATE-RJ for a refusal: result, source and reason (PS3.8 9.3.4)."""

    UNKNOWN_CALLER = (1, 1, 3)
    UNKNOWN_CALLED = (1, 1, 7)
    CONGESTION = (2, 3, 1)
    LIMIT = (2, 3, 2)


@dataclass(frozen=True)
class Refusal:
    """Why a caller gets no association: in ``words`` for the log, and what it is answered."""

    words: str
    answer: Answer


@dataclass(frozen=True)
class Limits:
    """How many connections are held at once."""

    associations: int = 64
    """Negotiated ones."""
    associations_per_address: int = 64
    waiting: int = 256
    """Connections of peers' addresses that have not asked for an association yet."""
    waiting_strangers: int = 64
    """The same of all other addresses."""


@dataclass(frozen=True)
class _Held(Generic[Connection]):
    """A connection that waits."""

    address: Address
    is_stranger: bool
    connection: Connection


@dataclass(frozen=True)
class Caller:
    """What a caller says and shows: ``certificate_names`` is None without TLS."""

    address: str
    calling_ae: str
    called_ae: str
    certificate_names: frozenset[str] | None = None


class Admission(Generic[Connection]):
    """Decides on connections and associations, and counts them by a key of their own.

    With ``open_to_loopback`` every caller on this machine may send CT, whatever its AE title.
    """

    def __init__(
        self,
        ae_title: str,
        peers: Sequence[Peer],
        *,
        open_to_loopback: bool = False,
        limits: Limits = Limits(),
        resolve: Resolve = resolve_by_system,
    ) -> None:
        self._ae_title = ae_title
        self._peers = tuple(peers)
        self._open_to_loopback = open_to_loopback
        self._limits = limits
        self.addresses = AddressBook(peers, resolve)
        self._waiting: dict[Key, _Held[Connection]] = {}
        self._associated: dict[Key, tuple[Address, bool]] = {}
        """Of each association the caller's address, and whether it is a guest."""
        self._lock = threading.Lock()

    def connected(self, key: Key, address: str, connection: Connection) -> Connection | None:
        """A connection was accepted; gives back one that has to give way, or None."""
        ip = parsed(address)
        is_stranger = not self.is_known(ip)
        most = self._limits.waiting_strangers if is_stranger else self._limits.waiting
        with self._lock:
            self._waiting[key] = _Held(ip, is_stranger, connection)
            alike = {one: held for one, held in self._waiting.items() if held.is_stranger is is_stranger}
            if len(alike) <= most:
                return None
            crowded, _ = Counter(held.address for held in alike.values()).most_common(1)[0]
            return self._waiting.pop(next(one for one, held in alike.items() if held.address == crowded)).connection

    def is_known(self, address: Address) -> bool:
        """Whether a peer may call from there, or everybody may."""
        if self._open_to_loopback and address.is_loopback:
            return True
        return any(self.addresses.holds(peer, address) for peer in self._peers)

    def may_call_in_clear(self, address: str) -> bool:
        """Whether anybody at this address may call without TLS."""
        ip = parsed(address)
        if self._open_to_loopback and ip.is_loopback:
            return True
        return any(peer.tls is None and self.addresses.holds(peer, ip) for peer in self._peers)

    def associate(self, key: Key, caller: Caller) -> Peer | Refusal:
        """Take a place for the connection's association, and say who calls; or why it gets none."""
        peer = self._identify(caller)
        if isinstance(peer, Refusal):
            return peer
        if caller.called_ae != self._ae_title:
            return Refusal(f"we are called '{self._ae_title}'", Answer.UNKNOWN_CALLED)
        with self._lock:
            fault = self._full(parsed(caller.address), is_guest=peer not in self._peers)
            if fault is not None:
                return Refusal(fault, Answer.LIMIT)
            self._waiting.pop(key, None)
            self._associated[key] = (parsed(caller.address), peer not in self._peers)
        return peer

    def ended(self, key: Key) -> None:
        """The connection is closed."""
        with self._lock:
            self._waiting.pop(key, None)
            self._associated.pop(key, None)

    def _identify(self, caller: Caller) -> Peer | Refusal:
        """The peer of which AE title, address and certificate agree."""
        ip = parsed(caller.address)
        words = "no peer has this AE title; if it may call, add it to [[peers]]"
        for peer in self._peers:
            if peer.ae_title != caller.calling_ae:
                continue
            fault = self._disagreement(peer, ip, caller.certificate_names)
            if fault is None:
                return peer
            words = fault
        if self._open_to_loopback and ip.is_loopback:
            return Peer(caller.calling_ae, caller.address, 0, roles=frozenset({Role.SEND_CT}))
        return Refusal(words, Answer.UNKNOWN_CALLER)

    def _disagreement(self, peer: Peer, address: Address, certificate_names: frozenset[str] | None) -> str | None:
        if not self.addresses.holds(peer, address):
            return f"the peer '{peer.name}' does not call from this address; if it may, add it to its addresses"
        if peer.tls is None:
            return None
        if certificate_names is None:
            return f"the peer '{peer.name}' has to call by TLS"
        if not peer.is_shown_by(certificate_names):
            return f"its certificate has not the name that the peer '{peer.name}' must have"
        return None

    def _full(self, address: Address, *, is_guest: bool) -> str | None:
        """Why there is no place for one association more; None where there is."""
        limits, held = self._limits, self._associated.values()
        if len(held) >= limits.associations:
            return f"{len(held)} associations are open, no more are allowed"
        from_there = sum(one == address for one, _ in held)
        if from_there >= limits.associations_per_address:
            return f"{from_there} associations are open from this address, no more are allowed"
        guests = sum(guest for _, guest in held)
        if is_guest and self._peers and guests >= GUEST_SHARE * limits.associations:
            return f"{guests} associations are open that no peer has, the other places are kept for the peers"
        return None
