"""Who may associate, and how many at once. Oracles: PS3.8 9.3.4 for the answers, and counting by hand."""

from pathlib import Path

import pytest

from dicom_node.addresses import parsed
from dicom_node.admission import Admission, Answer, Caller, Limits, Refusal
from dicom_node.peers import ALL_ROLES, Peer, Priority, Role
from dicom_node.tls import TlsFiles, shows_name

pytestmark = pytest.mark.unit

OURS = TlsFiles(Path("crt"), Path("key"), Path("ca"))
PACS = Peer("PACS", "10.0.0.5", 104, name="pacs")
CT = Peer("CT1", "", 104, name="ct-1", addresses=("10.1.0.0/16",), roles=frozenset({Role.SEND_CT}))
SAFE = Peer("SAFE", "10.0.0.6", 2762, name="safe", tls=OURS, certificate_name="safe.hospital")
EMERGENCY = Peer("CT1", "", 104, name="emergency", addresses=("10.2.0.0/16",), priority=Priority.URGENT)


def admission(*peers: Peer, **options: object) -> Admission[str]:
    return Admission("TWINSCANNER", peers or (PACS, CT, SAFE, EMERGENCY), **options)  # type: ignore[arg-type]


def ask(
    node: Admission[str], address: str, calling: str, called: str = "TWINSCANNER", *names: str, key: object = None
) -> Peer | Refusal:
    shown = frozenset(names) if names else None
    return node.associate(key or (address, calling, called), Caller(address, calling, called, shown))


def refusal(outcome: Peer | Refusal) -> Refusal:
    assert isinstance(outcome, Refusal)
    return outcome


# Who


def test_a_caller_is_the_peer_of_which_title_and_address_agree() -> None:
    node = admission()
    assert ask(node, "10.0.0.5", "PACS") is PACS
    assert ask(node, "10.1.2.3", "CT1") is CT
    assert ask(node, "10.2.2.3", "CT1") is EMERGENCY
    assert ask(node, "::ffff:10.1.2.3", "CT1") is CT


def test_an_unknown_title_is_refused_by_default_also_from_this_machine() -> None:
    for address in ("10.0.0.5", "127.0.0.1", "192.0.2.1"):
        refused = refusal(ask(admission(), address, "STRANGER"))
        assert refused.answer is Answer.UNKNOWN_CALLER
        assert refused.words == "no peer has this AE title; if it may call, add it to [[peers]]"


def test_a_known_title_from_another_address_is_refused() -> None:
    refused = refusal(ask(admission(), "10.0.0.9", "PACS"))
    assert refused.answer is Answer.UNKNOWN_CALLER
    assert refused.words == "the peer 'pacs' does not call from this address; if it may, add it to its addresses"


def test_a_peer_that_calls_somebody_else_is_refused() -> None:
    refused = refusal(ask(admission(), "10.0.0.5", "PACS", "OTHER"))
    assert (refused.answer, refused.words) == (Answer.UNKNOWN_CALLED, "we are called 'TWINSCANNER'")


def test_the_answers_are_those_of_the_standard() -> None:
    assert [answer.value for answer in Answer] == [(1, 1, 3), (1, 1, 7), (2, 3, 1), (2, 3, 2)]


def test_a_peer_with_tls_must_show_a_certificate_of_its_name() -> None:
    node = admission()
    assert ask(node, "10.0.0.6", "SAFE", "TWINSCANNER", "safe.hospital") is SAFE
    assert ask(node, "10.0.0.6", "SAFE", "TWINSCANNER", "other", "Safe.Hospital") is SAFE
    assert refusal(ask(node, "10.0.0.6", "SAFE")).words == "the peer 'safe' has to call by TLS"
    wrong = refusal(ask(node, "10.0.0.6", "SAFE", "TWINSCANNER", "pacs.hospital"))
    assert wrong.words == "its certificate has not the name that the peer 'safe' must have"
    assert wrong.answer is Answer.UNKNOWN_CALLER
    assert (
        "does not call from this address"
        in refusal(ask(node, "10.0.0.5", "SAFE", "TWINSCANNER", "safe.hospital")).words
    )


def test_a_peer_with_tls_and_no_certificate_name_shows_that_of_its_host() -> None:
    node = admission(Peer("SAFE", "10.0.0.6", 2762, name="safe", tls=OURS))
    assert isinstance(ask(node, "10.0.0.6", "SAFE", "TWINSCANNER", "10.0.0.6"), Peer)
    assert isinstance(ask(node, "10.0.0.6", "SAFE", "TWINSCANNER", "safe.hospital"), Refusal)


@pytest.mark.parametrize("name", ["", "*.hospital", "hospital", "safe"])
def test_no_part_of_a_name_and_no_wildcard_is_the_name(name: str) -> None:
    assert not shows_name(frozenset({name}), "safe.hospital")


def test_who_may_call_in_clear_is_known_from_the_address() -> None:
    node = admission()
    assert node.may_call_in_clear("10.0.0.5") and node.may_call_in_clear("10.1.2.3")
    assert not node.may_call_in_clear("10.0.0.6") and not node.may_call_in_clear("127.0.0.1")
    assert admission(open_to_loopback=True).may_call_in_clear("127.0.0.1")


def test_open_to_loopback_lets_any_program_of_this_machine_send_ct_and_nobody_else() -> None:
    node = admission(open_to_loopback=True)
    for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        guest = ask(node, address, "ANY")
        assert isinstance(guest, Peer)
        assert (guest.ae_title, guest.name, guest.roles) == ("ANY", "", {Role.SEND_CT})
    assert isinstance(ask(node, "10.0.0.9", "ANY"), Refusal)
    assert isinstance(ask(node, "127.0.0.1", "ANY", "OTHER"), Refusal)
    local = Peer("LOCAL", "127.0.0.1", 104, name="local")
    known = ask(admission(local, open_to_loopback=True), "127.0.0.1", "LOCAL")
    assert isinstance(known, Peer) and known.roles == ALL_ROLES


# How many


def test_more_associations_than_the_limit_are_refused_for_now_and_an_end_makes_room() -> None:
    node = admission(limits=Limits(associations=3))
    outcomes = [ask(node, "10.1.0.1", "CT1", key=number) for number in range(4)]
    assert [isinstance(outcome, Peer) for outcome in outcomes] == [True, True, True, False]
    assert refusal(outcomes[3]) == Refusal("3 associations are open, no more are allowed", Answer.LIMIT)
    node.ended(1)
    assert ask(node, "10.1.0.1", "CT1", key=5) is CT


def test_one_address_cannot_take_the_places_of_the_others() -> None:
    node = admission(limits=Limits(associations=10, associations_per_address=4))
    outcomes = [ask(node, "10.1.0.1", "CT1", key=number) for number in range(20)]
    assert sum(isinstance(outcome, Peer) for outcome in outcomes) == 4
    assert "4 associations are open from this address" in refusal(outcomes[-1]).words
    assert ask(node, "10.1.0.2", "CT1", key="other") is CT
    assert ask(node, "::ffff:10.1.0.1", "CT1", key="same").__class__ is Refusal


def test_a_share_of_the_associations_is_kept_for_the_peers() -> None:
    node = admission(limits=Limits(associations=8), open_to_loopback=True)
    outcomes = [ask(node, "127.0.0.1", "ANY", key=number) for number in range(8)]
    assert sum(isinstance(outcome, Peer) for outcome in outcomes) == 4
    assert "kept for the peers" in refusal(outcomes[-1]).words
    assert all(ask(node, "10.1.0.1", "CT1", key=("ct", number)) is CT for number in range(4))


def test_who_is_refused_takes_no_place() -> None:
    node = admission(limits=Limits(associations=1))
    for number in range(5):
        assert isinstance(ask(node, "10.9.9.9", "STRANGER", key=number), Refusal)
    assert ask(node, "10.0.0.5", "PACS") is PACS


def test_where_too_many_wait_the_address_that_has_most_gives_way() -> None:
    node = admission(limits=Limits(waiting=4))
    assert node.connected("pacs", "10.0.0.5", "pacs") is None
    dripping = [node.connected(f"drip {number}", "10.1.0.1", f"drip {number}") for number in range(10)]
    assert dripping == [None] * 3 + [f"drip {number}" for number in range(7)]
    assert node.connected("other", "10.1.0.2", "other") == "drip 7"


def test_strangers_wait_by_themselves() -> None:
    node = admission(limits=Limits(waiting=2, waiting_strangers=2))
    assert node.connected("pacs", "10.0.0.5", "pacs") is None
    gone = [node.connected(number, f"192.0.2.{number}", f"stranger {number}") for number in range(5)]
    assert gone == [None, None, "stranger 0", "stranger 1", "stranger 2"]
    assert node.connected("ct", "10.1.0.1", "ct") is None


def test_an_association_and_a_closed_connection_wait_no_longer() -> None:
    node = admission(limits=Limits(waiting=1))
    node.connected("first", "10.0.0.5", "first")
    assert ask(node, "10.0.0.5", "PACS", key="first") is PACS
    assert node.connected("second", "10.0.0.5", "second") is None
    node.ended("second")
    assert node.connected("third", "10.0.0.5", "third") is None


def test_an_address_is_known_where_a_peer_may_call_from() -> None:
    node = admission()
    known = [node.is_known(parsed(address)) for address in ("10.0.0.5", "10.1.9.9", "192.0.2.1", "127.0.0.1")]
    assert known == [True, True, False, False]
