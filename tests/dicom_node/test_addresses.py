"""From where a peer may call. Oracle: the standard library's ipaddress, and a resolver whose answers the test sets."""

import pytest

from dicom_node.addresses import AddressBook, is_loopback, parsed
from dicom_node.peers import Peer

pytestmark = pytest.mark.unit


class Resolver:
    """A DNS of a few names, which counts the questions."""

    def __init__(self, **names: str) -> None:
        self.names = {name.replace("_", "."): address for name, address in names.items()}
        self.asked: list[str] = []

    def __call__(self, host: str) -> frozenset[str]:
        self.asked.append(host)
        if host not in self.names:
            raise OSError(-2, "Name or service not known")
        return frozenset({self.names[host]})


def caller(*addresses: str, host: str = "") -> Peer:
    return Peer("CT", host, 104, name="ct", addresses=addresses)


@pytest.mark.parametrize(
    ("listed", "address", "holds"),
    [
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.5", "10.0.0.6", False),
        ("10.1.0.0/16", "10.1.255.255", True),
        ("10.1.0.0/16", "10.2.0.0", False),
        ("10.0.0.5", "::ffff:10.0.0.5", True),
        ("fd00::/8", "fd12::1", True),
        ("fe80::1", "fe80::1%eth0", True),
        ("fd00::/8", "10.0.0.5", False),
        ("0.0.0.0/0", "192.0.2.7", True),
    ],
)
def test_an_address_or_a_network_holds_what_lies_in_it(listed: str, address: str, holds: bool) -> None:
    peer = caller(listed)
    assert AddressBook([peer]).holds(peer, parsed(address)) is holds


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [("localhost", True), ("127.3.2.1", True), ("::1", True), ("0.0.0.0", False), ("10.0.0.1", False), ("a.b", False)],
)
def test_loopback_is_known_by_name_and_by_address(host: str, is_ours: bool) -> None:
    assert is_loopback(host) is is_ours


def test_without_addresses_the_peer_calls_from_its_host() -> None:
    peer, named = caller(host="10.0.0.5"), caller(host="pacs.hospital")
    book = AddressBook([peer, named], Resolver(pacs_hospital="10.0.0.9"))
    assert book.holds(peer, parsed("10.0.0.5"))
    assert not book.holds(named, parsed("10.0.0.9")), "it was not resolved yet"
    book.refresh()
    assert book.holds(named, parsed("10.0.0.9")) and not book.holds(named, parsed("10.0.0.5"))


def test_a_host_name_is_asked_for_by_refresh_alone_and_keeps_its_last_address_where_the_dns_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    resolver = Resolver(ct_hospital="10.0.0.7")
    peer = caller("ct.hospital", "10.0.0.1")
    book = AddressBook([peer], resolver)
    assert book.host_names == {"ct.hospital"}
    book.refresh()
    for _ in range(100):
        assert book.holds(peer, parsed("10.0.0.7"))
    assert resolver.asked == ["ct.hospital"]
    del resolver.names["ct.hospital"]
    book.refresh()
    assert book.holds(peer, parsed("10.0.0.7"))
    assert "ct.hospital of a peer cannot be resolved: its last addresses stay" in caplog.text
    resolver.names["ct.hospital"] = "10.0.0.8"
    book.refresh()
    assert book.holds(peer, parsed("10.0.0.8")) and not book.holds(peer, parsed("10.0.0.7"))


def test_a_name_that_never_resolved_admits_nobody_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    peer = caller("no.such.host")
    book = AddressBook([peer], Resolver())
    book.refresh()
    assert not book.holds(peer, parsed("10.0.0.7"))
    assert "no.such.host of a peer cannot be resolved: nobody can call from there" in caplog.text
