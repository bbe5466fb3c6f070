"""Who may associate with us: a peer whose AE title, address and, by TLS, certificate agree; pure, knows no library."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from dicom_node.addresses import Address, AddressBook, Resolve, parsed, resolve_by_system
from dicom_node.peers import Peer, Priority, Role
from dicom_node.places import AssociationLimits, Places, Rejection

ConnectionKey: TypeAlias = tuple[str | int, ...]
"""A connection's own: the address and port of its other end, as the system gives them."""


@dataclass(frozen=True)
class Caller:
    """What a caller says and shows; ``certificate_names`` is None without TLS."""

    calling_ae: str
    called_ae: str
    certificate_names: frozenset[str] | None = None


class Admission:
    """Decides on connections and on the associations that they ask for, and counts both.

    Who calls us by one of ``other_ae_titles`` is served with the priority that it stands for.
    With ``open_to_loopback`` every caller on this machine may send CT, whatever its AE title. ``resolve`` asks the DNS;
    it is called by ``addresses.refresh`` alone.
    """

    def __init__(
        self,
        ae_title: str,
        peers: Sequence[Peer] = (),
        *,
        other_ae_titles: Mapping[str, Priority] = MappingProxyType({}),
        open_to_loopback: bool = False,
        limits: AssociationLimits | None = None,
        resolve: Resolve = resolve_by_system,
    ) -> None:
        self.ae_title = ae_title
        """What we must be called, if it is none of the others."""
        self._priorities = dict(other_ae_titles)
        self.addresses = AddressBook(peers, resolve)
        self._peers = tuple(peers)
        self._open_to_loopback = open_to_loopback
        self._places = Places(limits or AssociationLimits(), keeps_share=bool(peers))

    def connected(self, key: ConnectionKey, connection: socket.socket) -> socket.socket | None:
        """A connection was accepted; gives back the one that has to give way for it, or None."""
        address = _address_of(key)
        return self._places.connected(_plain(key), connection, address, is_stranger=not self._is_known(address))

    def may_call_in_clear(self, key: ConnectionKey) -> bool:
        """Whether its address may call without TLS; it may where no peer is, to be told so by the rejection."""
        address = _address_of(key)
        here = [peer for peer in self._peers if self.addresses.holds(peer, address)]
        return self._is_guest(address) or not here or any(peer.tls is None for peer in here)

    def may_call_by_tls(self, key: ConnectionKey) -> bool:
        """Whether a handshake with its address is worth its arithmetic: a peer is there."""
        return self._is_known(_address_of(key))

    def associate(self, key: ConnectionKey, caller: Caller) -> Peer | Rejection:
        """Take a place for the connection's association, and say who calls; or why it gets none."""
        address = _address_of(key)
        peer = self._identify(address, caller)
        if isinstance(peer, Rejection):
            return peer
        if caller.called_ae not in (self.ae_title, *self._priorities):
            return Rejection.of_called(f"we are called '{self.ae_title}'")
        rejection = self._places.associate(_plain(key), address, is_guest=peer not in self._peers)
        if rejection is not None or caller.called_ae == self.ae_title:
            return rejection or peer
        return replace(peer, priority=self._priorities[caller.called_ae])

    def ended(self, key: ConnectionKey) -> None:
        """The connection is closed."""
        self._places.ended(_plain(key))

    def _is_guest(self, address: Address) -> bool:
        return self._open_to_loopback and address.is_loopback

    def _is_known(self, address: Address) -> bool:
        return self._is_guest(address) or any(self.addresses.holds(peer, address) for peer in self._peers)

    def _identify(self, address: Address, caller: Caller) -> Peer | Rejection:
        words = "no peer has this AE title; if it may call, add it to [[peers]]"
        for peer in self._peers:
            if peer.ae_title == caller.calling_ae:
                fault = self._disagreement(peer, address, caller.certificate_names)
                if fault is None:
                    return peer
                words = fault
        if self._is_guest(address):
            return Peer(caller.calling_ae, str(address), 0, roles=frozenset({Role.SEND_CT}))
        return Rejection.of_caller(words)

    def _disagreement(self, peer: Peer, address: Address, certificate_names: frozenset[str] | None) -> str | None:
        """What speaks against the caller being this peer; None where all agrees."""
        if not self.addresses.holds(peer, address):
            return f"the peer '{peer.name}' does not call from this address; if it may, add it to its addresses"
        if peer.tls is None:
            return None
        if certificate_names is None:
            return f"the peer '{peer.name}' has to call by TLS"
        if not peer.is_shown_by(certificate_names):
            return f"its certificate has not the name that the peer '{peer.name}' must have"
        return None


def _plain(key: ConnectionKey) -> ConnectionKey:
    """The same for a connection however its address is written: by IPv6 there are two ways."""
    return str(_address_of(key)), key[1]


def _address_of(key: ConnectionKey) -> Address:
    return parsed(str(key[0]))
