"""Who has a place and who gives way. The oracle is the count."""

import socket

import pytest

from dicom_node.places import Places, Rejection

pytestmark = pytest.mark.unit


def test_a_connection_takes_a_place_only_with_its_association_and_gives_it_back_at_its_end() -> None:
    places = Places(maximum_associations=1)
    with socket.socket() as one, socket.socket() as other:
        assert places.connected("a", one) is None
        assert places.connected("b", other) is None
    assert places.associate("b")
    assert not places.associate("a")
    places.ended("b")
    assert places.associate("a")


def test_where_too_many_wait_the_one_that_waits_longest_gives_way() -> None:
    places = Places(maximum_associations=2, most_waiting=2)
    sockets = [socket.socket() for _ in range(5)]
    assert places.connected(0, sockets[0]) is None
    assert places.connected(1, sockets[1]) is None
    assert places.associate(0), "it waits no longer"
    assert places.connected(2, sockets[2]) is None
    assert places.connected(3, sockets[3]) is sockets[1]
    places.ended(2)
    assert places.connected(4, sockets[4]) is None
    for each in sockets:
        each.close()


def test_a_rejection_for_now_is_transient_and_says_which_of_two_reasons() -> None:
    full, congested = Rejection.for_now("full"), Rejection.for_now("no disk", is_congestion=True)
    assert (full.result, full.source, full.reason) == (2, 3, 2)  # PS3.8 table 9-21: local limit exceeded
    assert (congested.result, congested.source, congested.reason) == (2, 3, 1)  # temporary congestion
