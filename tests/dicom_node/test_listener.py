"""Who may associate, how many at once, and the port. Oracles: plain sockets, pynetdicom's own requestor, the log."""

import socket
import socketserver
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import build_context

from dicom_node.admission import Admission
from dicom_node.associations import Timeouts
from dicom_node.client import associated, echo
from dicom_node.commitment import CommitmentReports
from dicom_node.listener import Listener
from dicom_node.peers import Peer, Role
from dicom_node.places import AssociationLimits
from dicom_node.sop_classes import STORAGE_COMMITMENT, VERIFICATION
from dicom_node.spool import Spool
from dicom_node.store_scp import StoreScp
from dicom_node.store_scu import send
from tests.samples import instances
from tests.samples.loopback_node import DEADLINE_S, SHORT, Start, associate, eventually
from tests.samples.raw_peer import RawPeer, association_request
from twin_scanner.errors import Misconfigured, Transient

pytestmark = pytest.mark.node


# Who may send


def test_a_wrong_called_title_is_rejected_and_the_log_says_why(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = start()
    other = Peer("SOMEBODY", node.peer.host, node.peer.port)
    with pytest.raises(Transient, match=r"rejected the association .*[Cc]alled AE title"):
        send(instances.series(tmp_path, 1), other, calling_ae="PACS", timeouts=SHORT)
    assert eventually(
        lambda: "from 'PACS' at 127.0.0.1 to 'SOMEBODY' was rejected: we are called 'TWINSCANNER'" in caplog.text
    )


def test_only_peers_may_send(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node = start(peers=[Peer("CT1", "127.0.0.1", 104, name="ct-1"), Peer("FAR", "192.0.2.7", 104, name="far")])
    files = instances.series(tmp_path, 1)
    node.send(*files, calling_ae="CT1")
    for calling_ae in ("STRANGER", "FAR"):
        with pytest.raises(Transient, match=r"rejected the association .*[Cc]alling AE title"):
            node.send(*files, calling_ae=calling_ae)
    assert "'STRANGER' at 127.0.0.1 to 'TWINSCANNER' was rejected: no peer has this AE title" in caplog.text
    assert "'FAR'" not in caplog.text, "an address has one line a minute"


def test_a_dns_that_does_not_answer_holds_up_neither_the_start_nor_a_caller(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.listener._FIRST_ADDRESSES_S", 0.05)
    answers, asked = threading.Event(), threading.Event()

    def resolve(host: str) -> frozenset[str]:
        asked.set()
        answers.wait(2 * DEADLINE_S)
        return frozenset({"127.0.0.1"})

    named = Peer("CT1", "ct.hospital", 104, name="ct-1")
    node = start(peers=[named, Peer("PACS", "127.0.0.1", 104, name="pacs")], resolve=resolve)
    assert asked.wait(DEADLINE_S)
    echo(node.peer, "PACS", SHORT)
    with pytest.raises(Transient, match=r"[Cc]alling AE title"):
        echo(node.peer, "CT1", SHORT)
    answers.set()

    def is_known() -> bool:
        try:
            echo(node.peer, "CT1", SHORT)
        except Transient:
            return False
        return True

    assert eventually(is_known), "it is known as soon as the DNS has answered"


def test_a_peer_is_known_by_its_host_s_name(start: Start) -> None:
    """By the system's own resolver."""
    node = start(peers=[Peer("PACS", "localhost", 104, name="pacs")])
    echo(node.peer, "PACS", SHORT)


def test_a_scanner_of_the_network_has_one_line_in_the_log(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """As it knocks with HTTP, with half a request, and under many AE titles."""
    node = start(peers=[Peer("PACS", "192.0.2.7", 104, name="pacs")])
    for number in range(10):
        with RawPeer(node.listener.port) as http:
            http.connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert http.is_ended(DEADLINE_S)
        with RawPeer(node.listener.port) as stranger:
            stranger.connection.sendall(association_request(calling=f"STRANGER{number}"))
            assert stranger.read()[0] == 0x03  # A-ASSOCIATE-RJ
    assert len(caplog.messages) == 1
    assert "The connection from 127.0.0.1 was ended: its first PDU is of type 0x47" in caplog.messages[0]


def test_storage_commitment_is_accepted_from_who_reports_on_it_alone(start: Start) -> None:
    pacs = Peer("PACS", "127.0.0.1", 104, name="pacs")
    scanner = Peer("CT1", "127.0.0.1", 104, name="ct-1", roles=frozenset({Role.SEND_CT}))
    node = start(peers=[pacs, scanner], reports=CommitmentReports(lambda _: True))

    def accepted(calling_ae: str) -> set[str]:
        contexts = [build_context(VERIFICATION), build_context(STORAGE_COMMITMENT)]
        with associated(node.peer, calling_ae, contexts, SHORT) as association:
            return {str(context.abstract_syntax) for context in association.accepted_contexts}

    assert accepted("PACS") == {VERIFICATION, STORAGE_COMMITMENT}
    assert accepted("CT1") == {VERIFICATION}
    assert accepted("PACS") == {VERIFICATION, STORAGE_COMMITMENT}, "what one may not is no other's loss"


def test_an_offer_without_anything_we_take_is_explained(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = start()
    file = instances.write(instances.instance(sop_class_uid="1.2.840.10008.5.1.4.1.1.4"), tmp_path / "a.dcm")
    with pytest.raises(Transient, match="accepted none of what we offer"):
        node.send(file)
    assert eventually(lambda: "'PACS' offered only what is not taken here: MR Image Storage" in caplog.text)


def test_one_association_more_than_allowed_is_rejected_for_now(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    node = start(limits=AssociationLimits(associations=2))
    open_ones = [associate(node), associate(node)]
    assert all(association.is_established for association in open_ones)
    assert associate(node).is_rejected
    assert "2 associations are open" in caplog.text
    for association in open_ones:
        association.release()


def test_port_probes_take_no_association_from_anybody(start: Start) -> None:
    node = start(limits=AssociationLimits(associations=2))
    for _ in range(20):
        socket.create_connection((node.peer.host, node.peer.port)).close()

    def is_free() -> bool:
        try:
            echo(node.peer, "PACS", SHORT)
        except Transient:
            return False
        return True

    assert eventually(is_free), "the probes held both places until the negotiation's time limit"
    assert eventually(lambda: not any("AcceptorThread" in thread.name for thread in threading.enumerate()))


@pytest.mark.parametrize(
    "beginning", [b"\x01\x00\x00", struct.pack(">BBL", 1, 0, 200) + b"\0" * 50], ids=["header", "body"]
)
def test_a_peer_that_stops_inside_a_message_gives_its_place_back(start: Start, beginning: bytes) -> None:
    node = start(limits=AssociationLimits(associations=1), timeouts=replace(SHORT, negotiation_s=3, read_s=1))
    with socket.create_connection((node.peer.host, node.peer.port)) as silent:
        silent.sendall(beginning)

        def is_free() -> bool:
            try:
                echo(node.peer, "PACS", SHORT)
            except Transient:
                return False
            return True

        assert eventually(is_free)


def test_a_burst_of_connections_is_not_dropped(start: Start) -> None:
    node = start()
    began = time.monotonic()
    burst = [socket.create_connection((node.peer.host, node.peer.port), timeout=DEADLINE_S) for _ in range(60)]
    for connection in burst:
        connection.close()
    assert time.monotonic() - began < DEADLINE_S
    assert eventually(lambda: not any("AcceptorThread" in thread.name for thread in threading.enumerate()))


# The port


def test_stop_ends_idle_associations_and_all_threads_and_start_listens_again(start: Start, tmp_path: Path) -> None:
    node = start()
    idle = associate(node)
    node.listener.stop(DEADLINE_S)
    assert eventually(lambda: not idle.is_established)
    assert eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith(("Acceptor", "dicom-lis"))])
    node.listener.start()
    node.send(*instances.series(tmp_path, 1))
    assert len(node.kept()) == 1


def listener(folder: Path, host: str, port: int) -> Listener:
    store = StoreScp(spool=Spool(folder), on_stored=lambda _: None, is_own=lambda _: False)
    return Listener(host=host, port=port, store=store, admission=Admission("TWINSCANNER", open_to_loopback=True))


def open_sockets() -> int:
    """How many sockets this process holds."""
    return sum(1 for entry in Path("/proc/self/fd").iterdir() if "socket" in str(entry.resolve()))


def test_a_port_in_use_is_said_in_a_sentence_and_nothing_stays_open(start: Start, tmp_path: Path) -> None:
    node = start()
    second = listener(tmp_path, "127.0.0.1", node.listener.port)
    threads, sockets = threading.active_count(), open_sockets()
    for _ in range(3):
        with pytest.raises(Transient, match=f"Port {node.listener.port} on 127.0.0.1 is in use"):
            second.bind()
    second.stop()
    assert (threading.active_count(), open_sockets()) == (threads, sockets)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "not an address", "1.2.3.4.5"])
def test_a_host_that_is_not_this_machine_is_a_wrong_configuration(tmp_path: Path, host: str) -> None:
    with pytest.raises(Misconfigured, match=r"cannot be listened on .*: give an address of this machine"):
        listener(tmp_path, host, 0).bind()


def test_a_bound_port_is_taken_before_it_is_served_and_given_back_by_stop(start: Start, tmp_path: Path) -> None:
    first = listener(tmp_path, "127.0.0.1", 0)
    first.bind()
    second = listener(tmp_path, "127.0.0.1", first.port)
    with pytest.raises(Transient, match="is in use"):
        second.bind()
    first.stop()
    second.bind()
    second.start()
    echo(Peer("TWINSCANNER", "127.0.0.1", second.port), "PACS", SHORT)
    second.stop(DEADLINE_S)


def test_a_with_block_ends_with_a_closed_port_also_after_an_error(tmp_path: Path) -> None:
    one = listener(tmp_path, "127.0.0.1", 0)
    with pytest.raises(KeyError), one.listening() as running:
        port = running.port
        echo(Peer("TWINSCANNER", "127.0.0.1", port), "PACS", SHORT)
        raise KeyError
    with pytest.raises(Transient, match="cannot be reached"):
        echo(Peer("TWINSCANNER", "127.0.0.1", port), "PACS", SHORT)


def test_an_error_before_any_association_is_one_log_record_and_no_traceback(
    start: Start, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start()

    def fail(*arguments: Any) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "settimeout", fail)
        raw = socket.socket()
        raw.connect(("127.0.0.1", node.listener.port))
        assert eventually(lambda: "ended in an error before any association" in caplog.text)
        raw.close()
    assert "Traceback" not in capfd.readouterr().err


class OneConnectionThatIsGone(socketserver._ServerSelector):  # type: ignore[name-defined,misc]
    """Says once that a connection waits, as a system does of one that is reset before it is accepted."""

    said = threading.Event()

    def select(self, timeout: float | None = None) -> Any:
        if self.said.is_set():
            return super().select(timeout)
        self.said.set()
        return [True]


def test_a_connection_that_is_reset_before_it_is_accepted_holds_up_no_stop(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The accept loop used to wait for the next connection, up to a minute, and the stop with it."""
    OneConnectionThatIsGone.said.clear()
    monkeypatch.setattr(socketserver, "_ServerSelector", OneConnectionThatIsGone)
    node = start(timeouts=Timeouts(idle_s=2 * DEADLINE_S))
    assert OneConnectionThatIsGone.said.wait(DEADLINE_S)
    begun_s = time.monotonic()
    node.listener.stop(DEADLINE_S)
    assert time.monotonic() - begun_s < DEADLINE_S
