"""DIMSE messages that a plain socket sends, whole, broken, too long. Oracles: PS3.7 annex C, and the spool's files."""

import struct
import threading
from pathlib import Path

import pytest
from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE

from dicom_node.messages import BrokenMessage, StoreRequest, data_values, store_request, store_response
from dicom_node.receipt import MEGABYTE, ReceiptLimits
from dicom_node.spool import Spool
from dicom_node.store_scp import ReceivedInstance
from tests.samples import instances, raw_peer
from tests.samples.loopback_node import DEADLINE_S, Start, eventually, sent
from tests.samples.raw_peer import LAST_COMMAND, LAST_DATA, MORE_DATA, NO_DATA_SET, RawPeer, data_pdu, store_command

pytestmark = pytest.mark.node


def data_set_of(number: int, folder: Path, pixels: bytes = bytes(128)) -> bytes:
    return instances.data_set_bytes(instances.write(instances.instance(number, pixels=pixels), folder / "a.dcm"))


@pytest.mark.parametrize("uid", ["", "1.2/3", "9" * 65, "x"])
def test_a_request_without_a_valid_sop_instance_uid_is_answered_and_the_association_goes_on(
    start: Start, tmp_path: Path, uid: str
) -> None:
    """The empty one was never answered: the sender waited until its own time limit."""
    node = start()
    data_set = data_set_of(1, tmp_path)
    with RawPeer(node.listener.port).associate() as peer:
        assert peer.store(uid, data_set) == 0x0117
        assert peer.store("1.2.3.1.1", data_set) == 0x0000
    assert list(node.kept()) == ["1.2.3.1.1"]
    assert eventually(lambda: not list((node.spool.folder / ".partial").iterdir()))


def test_forty_instances_are_answered_one_after_the_other_without_a_pause(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer once waited for the next look of the thread that sends it: here that would be too late."""
    monkeypatch.setattr("dicom_node.upper_layer._LOOK_S", 4 * DEADLINE_S)
    node = start()
    data_sets = {f"1.2.3.1.{number}": data_set_of(number, tmp_path) for number in range(1, 41)}
    with RawPeer(node.listener.port).associate() as peer:
        assert [peer.store(uid, data_set) for uid, data_set in data_sets.items()] == [0x0000] * 40


def test_a_request_without_a_data_set_is_answered_c000(start: Start, tmp_path: Path) -> None:
    node = start()
    with RawPeer(node.listener.port).associate() as peer:
        peer.connection.sendall(data_pdu(LAST_COMMAND, store_command("1.2.3.1.1", data_set=NO_DATA_SET)))
        assert peer.status() == 0xC000
        assert peer.store("1.2.3.1.1", data_set_of(1, tmp_path)) == 0x0000


def test_an_instance_above_the_largest_size_is_answered_a700_and_the_next_is_kept(start: Start, tmp_path: Path) -> None:
    node = start(receipt_limits=ReceiptLimits(maximum_bytes=MEGABYTE))
    large, small = (data_set_of(number, tmp_path, bytes(size)) for number, size in ((1, 3 * MEGABYTE), (2, 9000)))
    with RawPeer(node.listener.port).associate() as peer:
        for each in raw_peer.store_pdus("1.2.3.1.1", large)[:-1]:
            peer.connection.sendall(each)
        assert eventually(lambda: not list((node.spool.folder / ".partial").iterdir())), "it is given up on the way"
        peer.connection.sendall(raw_peer.store_pdus("1.2.3.1.1", large)[-1])
        assert peer.status() == 0xA700
        assert peer.store("1.2.3.1.2", small) == 0x0000
    assert list(node.kept()) == ["1.2.3.1.2"]


def test_a_disk_that_falls_below_its_reserve_within_an_instance_gives_it_up(start: Start, tmp_path: Path) -> None:
    free = [40 * MEGABYTE, *[10 * MEGABYTE] * 9]
    spool = Spool(tmp_path / "s", free=lambda folder: free.pop(0) if len(free) > 1 else free[0])
    node = start(spool=spool, receipt_limits=ReceiptLimits(minimum_free_bytes=20 * MEGABYTE))
    with RawPeer(node.listener.port).associate() as peer:
        peer.connection.sendall(data_pdu(LAST_COMMAND, store_command("1.2.3.1.1")))
        for _ in range(34 * 8):
            peer.connection.sendall(data_pdu(MORE_DATA, bytes(131_000)))
        peer.connection.sendall(data_pdu(LAST_DATA, b"ab"))
        assert peer.status() == 0xA700
    assert node.kept() == {}


def test_who_sends_without_waiting_for_answers_fills_no_disk_and_is_answered_in_turn(
    start: Start, tmp_path: Path
) -> None:
    let_go = threading.Event()

    def hold(received: ReceivedInstance) -> None:
        assert let_go.wait(DEADLINE_S)

    node = start(on_stored=hold)
    pdus = b"".join(
        b"".join(raw_peer.store_pdus(f"1.2.3.1.{number}", data_set_of(number, tmp_path))) for number in range(1, 21)
    )
    with RawPeer(node.listener.port).associate() as peer:
        peer.connection.sendall(pdus)
        assert eventually(lambda: len(node.kept()) == 1)
        assert len(list((node.spool.folder / ".partial").iterdir())) <= 2
        let_go.set()
        assert [peer.status() for _ in range(20)] == [0x0000] * 20
    assert len(node.kept()) == 20


def test_a_command_set_that_never_ends_ends_the_association(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    node = start()
    with RawPeer(node.listener.port).associate() as peer:
        part = data_pdu(0x01, bytes(16000))
        assert peer.pour(64 * MEGABYTE, part) < 32 * MEGABYTE
    assert eventually(lambda: "its message is longer than any that we take" in caplog.text)


def test_a_data_set_that_no_store_announced_ends_the_association_at_its_limit(start: Start) -> None:
    node = start()
    with RawPeer(node.listener.port).associate() as peer:
        assert peer.pour(64 * MEGABYTE, data_pdu(MORE_DATA, bytes(100_000))) < 32 * MEGABYTE


def test_a_store_on_a_context_that_was_not_accepted_ends_the_association(start: Start) -> None:
    node = start()
    with RawPeer(node.listener.port).associate() as peer:
        message = struct.pack(">LBB", len(store_command("1.2.3")) + 2, 99, LAST_COMMAND) + store_command("1.2.3")
        peer.connection.sendall(raw_peer.pdu(0x04, message))
        assert peer.is_ended(DEADLINE_S / 2)


def test_a_command_and_its_data_in_one_pdu_are_kept(start: Start, tmp_path: Path) -> None:
    node = start()
    file = instances.write(instances.instance(), tmp_path / "a.dcm")
    parts = raw_peer.store_pdus("1.2.3.1.1", instances.data_set_bytes(file), size=100)
    with RawPeer(node.listener.port).associate() as peer:
        peer.connection.sendall(raw_peer.pdu(0x04, b"".join(part[6:] for part in parts)))
        assert peer.status() == 0x0000
    assert node.kept() == sent(file)


@pytest.mark.parametrize(
    "body", [b"\0", b"\0\0\0\2\1", struct.pack(">LBB", 1, 1, 3), struct.pack(">LBB", 3, 1, 3), b"\xff" * 20]
)
def test_a_value_that_is_not_as_long_as_it_says_is_broken(body: bytes) -> None:
    with pytest.raises(BrokenMessage):
        list(data_values(memoryview(body)))


def test_the_values_of_a_pdu_are_its_parts() -> None:
    body = struct.pack(">LBB", 4, 1, 3) + b"ab" + struct.pack(">LBB", 2, 5, 0) + struct.pack(">LBB", 3, 7, 2) + b"c"
    values = [(context_id, control, bytes(value)) for context_id, control, value in data_values(memoryview(body))]
    assert values == [(1, 3, b"ab"), (5, 0, b""), (7, 2, b"c")]


def test_the_answer_to_a_store_is_what_the_library_would_encode() -> None:
    answer = C_STORE()
    answer.MessageIDBeingRespondedTo = 513
    answer.AffectedSOPClassUID = raw_peer.CT_IMAGE
    answer.AffectedSOPInstanceUID = "1.2.3.45"
    answer.Status = 0xB000
    answer.ErrorComment = "Another content has this UID here."  # type: ignore[assignment]
    message = C_STORE_RSP()
    message.primitive_to_message(answer)
    (whole,) = message.encode_msg(1, 16384)
    assert b"\x03" + store_response(answer) == whole.presentation_data_value_list[0][1]


def test_the_request_is_what_a_sender_s_bytes_say_and_other_commands_are_passed_on() -> None:
    request = store_request(3, store_command("1.2.3.45", number=513))
    assert request == StoreRequest(3, 513, raw_peer.CT_IMAGE, "1.2.3.45", has_data_set=True)
    echo = store_command("1.2.3.45").replace(
        struct.pack("<HHLH", 0, 0x0100, 2, 1), struct.pack("<HHLH", 0, 0x0100, 2, 0x30)
    )
    assert store_request(3, echo) is None


@pytest.mark.parametrize(
    "damage", [b"", b"\0" * 8, store_command("1.2")[:-1], store_command("1.2") + b"\1\0\0\0\0\0\0\0"]
)
def test_a_command_set_that_is_none_is_broken(damage: bytes) -> None:
    with pytest.raises(BrokenMessage):
        store_request(1, damage)
