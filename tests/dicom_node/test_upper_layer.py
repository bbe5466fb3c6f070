"""What a peer may claim and how long it may take, with bytes that a plain socket sends. Oracle: the socket's end."""

import hashlib
import inspect
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Final

import pynetdicom
import pytest
from pynetdicom import acse, association, dimse, dul, evt, transport
from pynetdicom.pdu_primitives import A_RELEASE

from dicom_node.associations import Timeouts
from dicom_node.client import echo
from dicom_node.places import AssociationLimits
from dicom_node.upper_layer import check_library
from tests.samples import instances, raw_peer
from tests.samples.loopback_node import DEADLINE_S, SHORT, Start, eventually, sent
from tests.samples.raw_peer import RawPeer
from twin_scanner.errors import Misconfigured

pytestmark = pytest.mark.node

IN_FLIGHT: Final = 16 * 2**20
"""Bytes that the system's own buffers may hold of what nobody reads."""
DRIP: Final = Timeouts(connection_s=20, negotiation_s=4, response_s=30, idle_s=30, read_s=1.5)


def drip(connection: socket.socket, content: bytes, pause_s: float = 0.05) -> bool:
    """Send byte by byte, for longer than any deadline of the node: whether it ended the connection before the last."""
    connection.settimeout(pause_s)
    for number in range(len(content)):
        try:
            connection.send(content[number : number + 1])
            if not connection.recv(4096):
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


def test_a_request_that_claims_2_gib_is_ended_before_it_is_read(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    node = start()
    with RawPeer(node.listener.port) as peer:
        peer.connection.sendall(raw_peer.pdu(0x01, b"", claimed=2**31 - 1))
        assert peer.pour(4 * IN_FLIGHT) < IN_FLIGHT
    assert eventually(lambda: "claims 2147483647 bytes, 131072 are allowed" in caplog.text)
    echo(node.peer, "PACS", SHORT)


def test_a_data_pdu_longer_than_announced_ends_the_association(start: Start) -> None:
    node = start()
    with RawPeer(node.listener.port).associate() as peer:
        peer.connection.sendall(raw_peer.pdu(0x04, b"", claimed=300 * 2**20))
        assert peer.pour(4 * IN_FLIGHT) < IN_FLIGHT
    assert eventually(lambda: bool(node.closed))
    assert node.kept() == {}


@pytest.mark.parametrize("first", [b"\x04\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01"])
def test_what_begins_with_anything_but_a_request_is_ended_at_once(start: Start, first: bytes) -> None:
    node = start()
    with RawPeer(node.listener.port) as peer:
        peer.connection.sendall(first.ljust(8, b"\0"))
        assert peer.is_ended(DEADLINE_S / 4)


def test_a_request_that_comes_a_byte_at_a_time_has_one_deadline(start: Start) -> None:
    node = start(timeouts=DRIP)
    with RawPeer(node.listener.port) as peer:
        assert drip(peer.connection, raw_peer.association_request())
    echo(node.peer, "PACS", SHORT)


def test_a_data_pdu_that_comes_a_byte_at_a_time_has_one_deadline(start: Start) -> None:
    node = start(timeouts=DRIP)
    with RawPeer(node.listener.port).associate() as peer:
        assert drip(peer.connection, raw_peer.data_pdu(raw_peer.LAST_COMMAND, bytes(200)))
    assert eventually(lambda: bool(node.closed))


def test_a_sender_that_is_slow_but_whole_in_each_pdu_is_served(start: Start, tmp_path: Path) -> None:
    node = start(timeouts=DRIP)
    file = instances.write(instances.instance(pixels=b"x" * 32_000), tmp_path / "a.dcm")
    pdus = raw_peer.store_pdus("1.2.3.1.1", instances.data_set_bytes(file), size=2_000)
    with RawPeer(node.listener.port).associate() as peer:
        began_s = time.monotonic()
        for each in pdus:
            for half in (each[: len(each) // 2], each[len(each) // 2 :]):
                peer.connection.sendall(half)
                time.sleep(0.1)  # the peer is a slow line; there is no clock to drive in it
        assert time.monotonic() - began_s > 2 * DRIP.read_s
        assert peer.status() == 0x0000
    assert node.kept() == sent(file)


def test_connections_that_ask_for_nothing_take_no_association_from_anybody(start: Start) -> None:
    node = start(limits=AssociationLimits(associations=1), timeouts=Timeouts(negotiation_s=60))
    silent = [socket.create_connection(("127.0.0.1", node.listener.port)) for _ in range(70)]
    for connection in silent[:35]:
        connection.sendall(raw_peer.association_request()[:40])
    began_s = time.monotonic()
    echo(node.peer, "PACS")
    assert time.monotonic() - began_s < DEADLINE_S
    for connection in silent:
        connection.close()
    assert eventually(lambda: not any("AcceptorThread" in thread.name for thread in threading.enumerate()))


def test_where_too_many_connections_wait_the_oldest_are_closed(start: Start) -> None:
    node = start(limits=AssociationLimits(waiting=4), timeouts=Timeouts(negotiation_s=60))
    peers = [RawPeer(node.listener.port) for _ in range(6)]
    assert [peer.is_ended(DEADLINE_S) for peer in peers[:2]] == [True, True]
    assert [peer.associate() for peer in peers[2:]]
    for peer in peers:
        peer.connection.close()


def test_a_release_and_an_abort_of_more_than_their_length_end_the_association(start: Start) -> None:
    node = start()
    for pdu_type in (0x05, 0x07):
        with RawPeer(node.listener.port).associate() as peer:
            peer.connection.sendall(raw_peer.pdu(pdu_type, bytes(5)))
            assert peer.is_ended(DEADLINE_S / 4)


def test_a_release_that_we_answer_while_we_abort_ends_the_association_and_no_thread_stays(start: Start) -> None:
    """The thread that answers is held until the other one aborts, and that one until there is an answer to be sent."""
    node, aborts = start(), threading.Event()
    with RawPeer(node.listener.port).associate() as peer:
        assert node.listener._server is not None
        (association,) = node.listener._server.active_associations

        def hold_answer(event: evt.Event) -> None:
            if isinstance(event.primitive, A_RELEASE):
                aborts.wait(DEADLINE_S)

        def hold_abort(event: evt.Event) -> None:
            if event.next_state == "Sta13":
                aborts.set()
                eventually(lambda: not association.dul.to_provider_queue.empty())

        association.bind(evt.EVT_ACSE_RECV, hold_answer)
        association.bind(evt.EVT_FSM_TRANSITION, hold_abort)
        peer.connection.sendall(raw_peer.pdu(0x05, bytes(4)) + raw_peer.pdu(0x09, b""))
        assert peer.is_ended(DEADLINE_S / 4)
    assert aborts.is_set() and eventually(lambda: len(node.closed) > 0)
    assert eventually(lambda: not any("AcceptorThread" in thread.name for thread in threading.enumerate()))
    echo(node.peer, "PACS", SHORT)


def test_bytes_that_are_no_pdu_inside_end_the_association_and_no_thread_stays(start: Start) -> None:
    node = start()
    for body in (b"\0" * 5, struct.pack(">LB", 2**31, 1), b"\xff" * 300, struct.pack(">LBB", 2, 99, 3)):
        with RawPeer(node.listener.port).associate() as peer:
            peer.connection.sendall(raw_peer.pdu(0x04, body))
            assert peer.is_ended(DEADLINE_S / 4)
    assert eventually(lambda: not any("AcceptorThread" in thread.name for thread in threading.enumerate()))


# The library


REPLACED: Final = {
    acse.ACSE._negotiate_as_acceptor: "fffd360957c4",
    association.Association._run_reactor: "f28838c5559e",
    association.Association.kill: "8f9713666a7f",
    association.Association.run_reactor: "ed8bbbe3b3d6",
    association.Association.send_c_store: "fa5a8127f349",
    dimse.DIMSEServiceProvider.receive_primitive: "5f99c86b14a1",
    dimse.DIMSEServiceProvider.send_msg: "a839cf2fb469",
    dul.DULServiceProvider.__init__: "c82dafa9438d",
    dul.DULServiceProvider._is_transport_event: "8725ed03bb8f",
    dul.DULServiceProvider._read_pdu_data: "19f2d4e38c13",
    dul.DULServiceProvider.run_reactor: "e3a10eb3a093",
    dul.DULServiceProvider.stop_dul: "28a7e0be126e",
    transport.RequestHandler._create_association: "05c8d12b7986",
}
"""What is replaced or relied on in private, and the beginning of its source's SHA-256 as it was read."""


@pytest.mark.parametrize(("part", "digest"), REPLACED.items(), ids=lambda value: getattr(value, "__qualname__", ""))
def test_the_private_parts_of_the_library_are_those_that_were_read(part: object, digest: str) -> None:
    source = inspect.getsource(part)  # type: ignore[arg-type]
    assert hashlib.sha256(source.encode()).hexdigest()[:12] == digest


def test_another_release_of_the_library_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    check_library()
    monkeypatch.setattr(pynetdicom, "__version__", "3.1.0")
    with pytest.raises(Misconfigured, match=r"pynetdicom 3\.1\.0 is installed, 3\.0\.x is needed"):
        check_library()
