"""Who may associate. Oracles: PS3.8 9.3.4 for the answers, and counting by hand."""

import socket
from pathlib import Path
from typing import Any

import pytest

from dicom_node.admission import Admission, Caller
from dicom_node.peers import ALL_ROLES, Peer, Priority, Role
from dicom_node.places import AssociationLimits, Rejection
from dicom_node.tls import TlsFiles

pytestmark = pytest.mark.unit

OURS = TlsFiles(Path("crt"), Path("key"), Path("ca"))
PACS = Peer("PACS", "10.0.0.5", 104, name="pacs")
CT = Peer("CT1", "", 104, name="ct-1", addresses=("10.1.0.0/16",), roles=frozenset({Role.SEND_CT}))
SAFE = Peer("SAFE", "10.0.0.6", 2762, name="safe", tls=OURS, certificate_name="safe.hospital")
EMERGENCY = Peer("CT1", "", 104, name="emergency", addresses=("10.2.0.0/16",), priority=Priority.URGENT)


def admission(*peers: Peer, **options: Any) -> Admission:
    return Admission("TWINSCANNER", peers or (PACS, CT, SAFE, EMERGENCY), **options)


def ask(
    node: Admission, address: str, calling: str, called: str = "TWINSCANNER", *names: str, port: int = 1
) -> Peer | Rejection:
    return node.associate((address, port), Caller(calling, called, frozenset(names) if names else None))


def rejection(outcome: Peer | Rejection) -> Rejection:
    assert isinstance(outcome, Rejection)
    return outcome


def answer(outcome: Peer | Rejection) -> tuple[int, int, int]:
    """Result, source and reason of the A-ASSOCIATE-RJ."""
    refused = rejection(outcome)
    return refused.result, refused.source, refused.reason


MAPPED = "::ffff:10.1.0.1"
"""10.1.0.1, as a socket for both families gives it."""
UNKNOWN_CALLER, UNKNOWN_CALLED = (1, 1, 3), (1, 1, 7)
"""PS3.8 table 9-21: rejected permanently by the user; calling, called AE title not recognised."""


def test_a_caller_is_the_peer_of_which_title_and_address_agree() -> None:
    node = admission()
    assert ask(node, "10.0.0.5", "PACS") is PACS
    assert ask(node, "10.1.2.3", "CT1") is CT
    assert ask(node, "10.2.2.3", "CT1") is EMERGENCY
    assert ask(node, "::ffff:10.1.2.3", "CT1") is CT


def test_an_ae_title_that_we_are_called_by_gives_the_priority() -> None:
    node = admission(other_ae_titles={"TWINSTAT": Priority.URGENT, "TWINNIGHT": Priority.BACKFILL})
    for called, priority in (("TWINSTAT", Priority.URGENT), ("TWINNIGHT", Priority.BACKFILL)):
        outcome = ask(node, "10.2.2.3", "CT1", called)
        assert isinstance(outcome, Peer) and (outcome.name, outcome.priority) == ("emergency", priority)
    assert ask(node, "10.2.2.3", "CT1") is EMERGENCY
    assert answer(ask(node, "10.2.2.3", "CT1", "OTHER")) == UNKNOWN_CALLED


def test_an_unknown_title_is_refused_by_default_also_from_this_machine() -> None:
    for address in ("10.0.0.5", "127.0.0.1", "192.0.2.1"):
        outcome = ask(admission(), address, "STRANGER")
        assert answer(outcome) == UNKNOWN_CALLER
        assert rejection(outcome).words == "no peer has this AE title; if it may call, add it to [[peers]]"


def test_a_known_title_from_another_address_is_refused() -> None:
    outcome = ask(admission(), "10.0.0.9", "PACS")
    assert answer(outcome) == UNKNOWN_CALLER
    assert (
        rejection(outcome).words
        == "the peer 'pacs' does not call from this address; if it may, add it to its addresses"
    )


def test_a_peer_that_calls_somebody_else_is_refused() -> None:
    outcome = ask(admission(), "10.0.0.5", "PACS", "OTHER")
    assert (answer(outcome), rejection(outcome).words) == (UNKNOWN_CALLED, "we are called 'TWINSCANNER'")


def test_a_peer_with_tls_must_show_a_certificate_of_its_name() -> None:
    node = admission()
    assert ask(node, "10.0.0.6", "SAFE", "TWINSCANNER", "safe.hospital") is SAFE
    assert ask(node, "10.0.0.6", "SAFE", "TWINSCANNER", "other", "Safe.Hospital") is SAFE
    assert rejection(ask(node, "10.0.0.6", "SAFE")).words == "the peer 'safe' has to call by TLS"
    wrong = ask(node, "10.0.0.6", "SAFE", "TWINSCANNER", "pacs.hospital")
    assert rejection(wrong).words == "its certificate has not the name that the peer 'safe' must have"
    assert answer(wrong) == UNKNOWN_CALLER
    assert (
        "does not call from this address"
        in rejection(ask(node, "10.0.0.5", "SAFE", "TWINSCANNER", "safe.hospital")).words
    )


def test_a_peer_with_tls_and_no_certificate_name_shows_that_of_its_host() -> None:
    node = admission(Peer("SAFE", "10.0.0.6", 2762, name="safe", tls=OURS))
    assert isinstance(ask(node, "10.0.0.6", "SAFE", "TWINSCANNER", "10.0.0.6"), Peer)
    assert isinstance(ask(node, "10.0.0.6", "SAFE", "TWINSCANNER", "safe.hospital"), Rejection)


def test_who_may_call_in_clear_and_who_by_tls_is_known_from_the_address() -> None:
    node = admission()
    allowed = [node.may_call_in_clear((address, 1)) for address in ("10.0.0.5", "10.1.2.3", "10.0.0.6", "192.0.2.1")]
    assert allowed == [True, True, False, True], "a stranger is rejected by what it asks for, so that its log helps it"
    by_tls = [node.may_call_by_tls((address, 1)) for address in ("10.0.0.6", "10.0.0.5", "192.0.2.1")]
    assert by_tls == [True, True, False]
    local = Peer("LOCAL", "127.0.0.1", 104, name="local", tls=OURS)
    assert not admission(local).may_call_in_clear(("127.0.0.1", 1))
    assert admission(local, open_to_loopback=True).may_call_in_clear(("127.0.0.1", 1))


def test_open_to_loopback_lets_any_program_of_this_machine_send_ct_and_nobody_else() -> None:
    node = admission(open_to_loopback=True)
    for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        guest = ask(node, address, "ANY")
        assert isinstance(guest, Peer)
        assert (guest.ae_title, guest.name, guest.roles) == ("ANY", "", {Role.SEND_CT})
    assert isinstance(ask(node, "10.0.0.9", "ANY"), Rejection)
    assert isinstance(ask(node, "127.0.0.1", "ANY", "OTHER"), Rejection)
    local = Peer("LOCAL", "127.0.0.1", 104, name="local")
    known = ask(admission(local, open_to_loopback=True), "127.0.0.1", "LOCAL")
    assert isinstance(known, Peer) and known.roles == ALL_ROLES


def test_a_share_of_the_associations_is_kept_for_the_peers() -> None:
    node = admission(limits=AssociationLimits(associations=8), open_to_loopback=True)
    outcomes = [ask(node, "127.0.0.1", "ANY", port=number) for number in range(8)]
    assert sum(isinstance(outcome, Peer) for outcome in outcomes) == 4
    assert "kept for the peers" in rejection(outcomes[-1]).words
    assert all(ask(node, "10.1.0.1", "CT1", port=number) is CT for number in range(4))


def test_one_address_cannot_take_the_places_of_the_others_however_it_is_written() -> None:
    node = admission(limits=AssociationLimits(associations_per_address=2))
    outcomes = [ask(node, *caller, port=port) for port, caller in enumerate((("10.1.0.1", "CT1"), (MAPPED, "CT1")))]
    assert outcomes == [CT, CT]
    assert "2 associations are open from this address" in rejection(ask(node, MAPPED, "CT1", port=2)).words
    assert ask(node, "10.1.0.2", "CT1") is CT
    node.ended(("10.1.0.1", 1, 0, 0))
    assert ask(node, "10.1.0.1", "CT1", port=2) is CT


def test_who_is_rejected_takes_no_place() -> None:
    node = admission(limits=AssociationLimits(associations=1))
    for number in range(5):
        assert isinstance(ask(node, "10.9.9.9", "STRANGER", port=number), Rejection)
        assert isinstance(ask(node, "10.0.0.5", "PACS", "OTHER", port=number), Rejection)
    assert ask(node, "10.0.0.5", "PACS") is PACS


def test_the_connections_of_strangers_displace_none_of_a_peer() -> None:
    node = admission(limits=AssociationLimits(waiting=1, waiting_strangers=2))
    with socket.socket() as ours, socket.socket() as theirs:
        assert node.connected(("10.0.0.5", 1), ours) is None
        gone = [node.connected((f"192.0.2.{number}", 1), theirs) for number in range(5)]
        assert gone == [None, None, theirs, theirs, theirs]
        assert node.connected(("10.1.0.1", 1), theirs) is ours
