"""From where each peer may call: networks as they are, host names as they were resolved last; pure but for ``resolve``.

A question to the DNS may take long, so it is asked by ``refresh`` alone, never while a caller waits.
"""

import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence
from typing import TypeAlias

from dicom_node.peers import Peer

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve: TypeAlias = Callable[[str], frozenset[str]]
"""The IP addresses of a host name; raises OSError where it has none."""

logger = logging.getLogger(__name__)


def resolve_by_system(host: str) -> frozenset[str]:
    """The IP addresses of a host name, by the system's resolver."""
    return frozenset(str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))


def parsed(address: str) -> Address:
    """The address of a connection's other end; an IPv4 address inside an IPv6 one is the former."""
    ip = ipaddress.ip_address(address.split("%")[0])
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at this name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def network_of(text: str) -> Network | None:
    """The text as a network or a single address; None where it is a host name."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def caller_names(peer: Peer) -> tuple[str, ...]:
    """The addresses, networks and host names from which the peer may call."""
    return peer.addresses or ((peer.host,) if peer.host else ())


class AddressBook:
    """The networks of each peer; a host name counts for nothing before it was resolved, and then for what it was last.

    ``resolve`` asks for a host name.
    """

    def __init__(self, peers: Sequence[Peer], resolve: Resolve = resolve_by_system) -> None:
        self._resolve = resolve
        self._networks: dict[str, tuple[Network, ...]] = {}
        names = {name for peer in peers for name in caller_names(peer)}
        self.host_names = frozenset(name for name in names if network_of(name) is None)
        """Those that must be resolved."""
        for name in names - self.host_names:
            network = network_of(name)
            self._networks[name] = () if network is None else (network,)

    def refresh(self) -> None:
        """Resolve every host name again; where that fails its last addresses stay."""
        for name in sorted(self.host_names):
            try:
                found = tuple(ipaddress.ip_network(parsed(address)) for address in sorted(self._resolve(name)))
            except (OSError, UnicodeError):
                what = "its last addresses stay" if self._networks.get(name) else "nobody can call from there"
                logger.warning("The host name %s of a peer cannot be resolved: %s.", name, what)
                continue
            self._networks[name] = found

    def holds(self, peer: Peer, address: Address) -> bool:
        """Whether the peer may call from this address."""
        return any(address in network for name in caller_names(peer) for network in self._networks.get(name, ()))
