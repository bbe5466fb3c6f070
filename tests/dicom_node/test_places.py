"""Who has a place and who gives way. The oracle is the count."""

import socket
from collections.abc import Callable, Iterator

import pytest

from dicom_node.places import AssociationLimits, Places, Rejection

pytestmark = pytest.mark.unit

Sockets = Callable[[int], list[socket.socket]]


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """So many sockets as are asked for, closed at the end."""
    opened: list[socket.socket] = []

    def give(count: int) -> list[socket.socket]:
        opened.extend(socket.socket() for _ in range(count))
        return opened[-count:]

    yield give
    for each in opened:
        each.close()


def words(rejection: Rejection | None) -> str:
    return "" if rejection is None else rejection.words


def test_a_connection_takes_a_place_only_with_its_association_and_gives_it_back_at_its_end(sockets: Sockets) -> None:
    places = Places(AssociationLimits(associations=1))
    one, other = sockets(2)
    assert places.connected("a", one, "here") is None
    assert places.connected("b", other, "here") is None
    assert places.associate("b", "here") is None
    assert words(places.associate("a", "here")) == "1 associations are open, no more are allowed"
    places.ended("b")
    assert places.associate("a", "here") is None


def test_where_too_many_wait_the_one_that_waits_longest_gives_way(sockets: Sockets) -> None:
    places = Places(AssociationLimits(associations=2, waiting=2))
    five = sockets(5)
    assert places.connected(0, five[0], "here") is None
    assert places.connected(1, five[1], "here") is None
    assert places.associate(0, "here") is None, "it waits no longer"
    assert places.connected(2, five[2], "here") is None
    assert places.connected(3, five[3], "here") is five[1]
    places.ended(2)
    assert places.connected(4, five[4], "here") is None


def test_it_is_one_of_the_address_that_has_most(sockets: Sockets) -> None:
    places = Places(AssociationLimits(waiting=3))
    patient, *hurried = sockets(5)
    assert places.connected("patient", patient, "ct") is None
    gone = [places.connected(number, one, "flood") for number, one in enumerate(hurried)]
    assert gone == [None, None, hurried[0], hurried[1]]


def test_strangers_wait_by_themselves(sockets: Sockets) -> None:
    places = Places(AssociationLimits(waiting=1, waiting_strangers=1))
    known, first, second, other = sockets(4)
    assert places.connected("known", known, "ct") is None
    assert places.connected(1, first, "x", is_stranger=True) is None
    assert places.connected(2, second, "y", is_stranger=True) is first
    assert places.connected("other", other, "pacs") is known


def test_one_address_has_no_more_associations_than_its_own_limit() -> None:
    places = Places(AssociationLimits(associations=10, associations_per_address=2))
    outcomes = [words(places.associate(number, "flood")) for number in range(3)]
    assert outcomes == ["", "", "2 associations are open from this address, no more are allowed"]
    assert places.associate("ct", "ct") is None
    places.ended(0)
    assert places.associate(3, "flood") is None


def test_guests_have_half_of_the_associations_where_a_share_is_kept() -> None:
    for keeps_share, most in ((True, 2), (False, 4)):
        places = Places(AssociationLimits(associations=4), keeps_share=keeps_share)
        taken = [places.associate(number, "here", is_guest=True) is None for number in range(4)]
        assert sum(taken) == most
        assert (places.associate("peer", "there") is None) is keeps_share


def test_each_rejection_is_that_of_the_standard() -> None:
    """PS3.8 table 9-21."""
    full, congested = Rejection.for_now("full"), Rejection.for_now("no disk", is_congestion=True)
    assert (full.result, full.source, full.reason) == (2, 3, 2)  # local limit exceeded
    assert (congested.result, congested.source, congested.reason) == (2, 3, 1)  # temporary congestion
    calling, called = Rejection.of_caller("who"), Rejection.of_called("whom")
    assert (calling.result, calling.source, calling.reason) == (1, 1, 3)  # calling AE title not recognised
    assert (called.result, called.source, called.reason) == (1, 1, 7)  # called AE title not recognised
