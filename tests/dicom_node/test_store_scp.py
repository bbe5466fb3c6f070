"""C-STORE in over real associations on loopback. Oracles: the sender's own bytes, and the answers it was given."""

import logging
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    PositronEmissionTomographyImageStorage,
)
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from dicom_node.client import echo
from dicom_node.peers import Peer, Role
from dicom_node.receipt import ReceiptLimits
from dicom_node.sop_classes import CT_CLASSES, OWN_CLASSES, TRANSFER_SYNTAXES
from dicom_node.spool import Spool, StoreOutcome
from dicom_node.store_scp import ReceivedInstance
from dicom_node.store_scu import InstanceStatus, NotStored, send
from tests.samples import instances, raw_peer
from tests.samples.loopback_node import DEADLINE_S, SHORT, Node, Start, associate, eventually, sent
from tests.samples.raw_peer import RawPeer
from twin_scanner.errors import Transient

pytestmark = pytest.mark.node

PET = PositronEmissionTomographyImageStorage


# What is kept


@pytest.mark.parametrize("transfer_syntax_uid", TRANSFER_SYNTAXES, ids=lambda uid: UID(uid).name)
def test_every_transfer_syntax_is_kept_byte_for_byte(start: Start, tmp_path: Path, transfer_syntax_uid: str) -> None:
    node = start()
    file = instances.write(instances.instance(), tmp_path / "a.dcm", UID(transfer_syntax_uid))
    node.send(file)
    assert node.kept() == sent(file)
    (kept,) = node.spool.files("1.2.3")
    assert instances.meta(kept).TransferSyntaxUID == transfer_syntax_uid
    assert dcmread(kept).PatientName == instances.PATIENT_NAME


@pytest.mark.parametrize("transfer_syntax_uid", TRANSFER_SYNTAXES, ids=lambda uid: UID(uid).name)
def test_every_transfer_syntax_that_is_taken_can_be_decoded(transfer_syntax_uid: str) -> None:
    assert get_decoder(UID(transfer_syntax_uid)).is_available


@pytest.mark.parametrize("sop_class_uid", CT_CLASSES, ids=lambda uid: UID(uid).name)
def test_every_ct_class_is_kept(start: Start, tmp_path: Path, sop_class_uid: str) -> None:
    node = start()
    file = instances.write(instances.instance(sop_class_uid=sop_class_uid), tmp_path / "a.dcm")
    node.send(file)
    assert node.kept() == sent(file)


def test_a_peer_without_the_role_to_send_ct_is_answered_not_authorised(start: Start, tmp_path: Path) -> None:
    pacs = Peer("PACS", "127.0.0.1", 104, name="pacs", roles=frozenset({Role.TAKE_PET}))
    scanner = Peer("CT1", "127.0.0.1", 104, name="ct-1", roles=frozenset({Role.SEND_CT}))
    node = start(peers=[pacs, scanner])
    files = instances.series(tmp_path, 2)
    refused = node.answers(*files)
    assert [(answer.status, answer.comment) for answer in refused] == [
        (0x0124, "This AE title may not send CT: role send_ct.")  # PS3.7 C.4.2.1.6
    ] * 2
    echo(node.peer, "PACS", SHORT)
    assert node.kept() == {} and node.received == []
    node.send(*files, calling_ae="CT1")
    assert {received.peer for received in node.received} == {scanner}


def test_what_was_kept_is_told_once_an_instance_with_who_sent_it(start: Start, tmp_path: Path) -> None:
    node = start()
    node.send(*instances.series(tmp_path, 2))
    assert eventually(lambda: bool(node.closed))
    association, guest = node.closed[0], Peer("PACS", "127.0.0.1", 0, roles=frozenset({Role.SEND_CT}))
    assert node.received == [
        ReceivedInstance(
            "1.2.3", "1.2.3.1", f"1.2.3.1.{number}", CTImageStorage, "PACS", StoreOutcome.STORED, association, guest
        )
        for number in (1, 2)
    ]


def test_every_association_has_its_own_number_and_its_end_is_told(start: Start, tmp_path: Path) -> None:
    node = start()
    (file,) = instances.series(tmp_path, 1)
    node.send(file)
    node.send(file)
    numbers = [received.association for received in node.received]
    assert len(set(numbers)) == 2
    assert eventually(lambda: set(numbers) <= set(node.closed))


def test_a_real_ct_from_storescu_is_kept_byte_for_byte(
    start: Start, peer: Callable[[str], str], shared_data: Path
) -> None:
    node = start()
    files = sorted((shared_data / "thorax_petct" / "ct").iterdir())
    storescu = [peer("storescu"), "--propose-jls-lossless", "-aet", "MODALITY", "-aec", "TWINSCANNER"]
    subprocess.run(
        [*storescu, "127.0.0.1", str(node.listener.port), *map(str, files)],
        check=True,
        env={**os.environ, "TCP_NODELAY": "1"},
        timeout=120,
    )
    assert {received.calling_ae for received in node.received} == {"MODALITY"}
    assert len(node.kept()) == len(files) == 135
    by_uid = {dcmread(file, stop_before_pixels=True).SOPInstanceUID: file for file in files}
    for study_uid in node.spool.studies():
        for kept in node.spool.files(study_uid):
            assert dcmread(kept) == dcmread(by_uid[UID(kept.stem)])


def test_sending_twice_keeps_the_first_files_and_says_so(start: Start, tmp_path: Path) -> None:
    node = start()
    files = instances.series(tmp_path, 3)
    node.send(*files)
    fingerprint = node.spool.fingerprint("1.2.3")
    node.send(*files)
    assert node.spool.fingerprint("1.2.3") == fingerprint
    assert [received.outcome for received in node.received] == [StoreOutcome.STORED] * 3 + [StoreOutcome.IDENTICAL] * 3


def test_another_content_under_a_uid_is_kept_apart_with_a_warning_and_the_first_stays(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It used to replace the first in silence."""
    node = start()
    first = instances.write(instances.instance(), tmp_path / "a.dcm")
    other = instances.write(instances.instance(PatientName="Right^Patient"), tmp_path / "b.dcm")
    answers = node.answers(first, other, other, first)
    assert [answer.status for answer in answers] == [0x0000, 0xB000, 0xB000, 0x0000]
    assert answers[1].comment == "Another content has this UID here; this one is kept apart."
    assert node.kept() == sent(first)
    assert [instances.data_set_bytes(file) for file in node.spool.apart("1.2.3")] == [instances.data_set_bytes(other)]
    assert [received.outcome for received in node.received] == [
        StoreOutcome.STORED, StoreOutcome.KEPT_APART, StoreOutcome.KEPT_APART, StoreOutcome.IDENTICAL
    ]  # fmt: skip
    warning = next(record for record in caplog.records if "another content" in record.getMessage())
    assert warning.getMessage().startswith("Instance 1.2.3.1.1 came with another content than before")
    assert "Right" not in f"{warning.getMessage()} {warning.__dict__}"


def test_parallel_senders_never_mix(start: Start, tmp_path: Path) -> None:
    node = start()
    one = instances.series(tmp_path / "1", 20, pixels=b"1" * 200_000)
    same_series = instances.series(tmp_path / "2", 20, first=21, pixels=b"2" * 150_000)
    other_study = instances.series(tmp_path / "3", 20, study_uid="1.3", series_uid="1.3.1", pixels=b"3" * 128)
    senders = [threading.Thread(target=node.send, args=files) for files in (one, same_series, other_study)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert node.kept() == sent(*one, *same_series, *other_study)
    assert len({(received.association, received.study_uid) for received in node.received}) == 3


# What is not kept


def refused(node: Node, file: Path) -> InstanceStatus:
    """The answer to the file; a good one after it shows that the association lives on, and that only it was kept."""
    good = instances.write(instances.instance(99, study_uid="1.9", series_uid="1.9.9"), file.parent / "good.dcm")
    answer, after = node.answers(file, good)
    assert after.status == 0x0000
    assert node.kept() == sent(good)
    assert list((node.spool.folder / ".partial").iterdir()) == []
    return answer


@pytest.mark.parametrize(
    "requested", [{"requested_instance_uid": "1.2.3.1.2"}, {"requested_class_uid": EnhancedCTImageStorage}]
)
def test_an_instance_that_is_not_the_one_announced_is_answered_a900(
    start: Start, tmp_path: Path, requested: dict[str, str]
) -> None:
    file = instances.write(instances.instance(), tmp_path / "a.dcm", **requested)
    answer = refused(start(), file)
    assert answer.status == 0xA900
    assert answer.comment.endswith("is not the request's.")


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_an_instance_without_a_uid_is_answered_c000_and_told_which(start: Start, tmp_path: Path, keyword: str) -> None:
    file = instances.write(
        instances.instance(**{keyword: None}),
        tmp_path / "a.dcm",
        requested_class_uid=CTImageStorage,
        requested_instance_uid="1.2.3.1.1",
    )
    answer = refused(start(), file)
    assert (answer.status, answer.comment) == (0xC000, f"The data set has no {keyword}.")


@pytest.mark.parametrize("content", [b"\0" * 5000, b"\xff" * 5000, b"GET / HTTP/1.1\r\n" * 100])
def test_bytes_that_are_no_data_set_are_answered_c000(start: Start, tmp_path: Path, content: bytes) -> None:
    file = instances.write(instances.instance(), tmp_path / "a.dcm")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - len(instances.data_set_bytes(file))] + content)
    answer = refused(start(), file)
    assert answer.status == 0xC000
    assert 0 < len(answer.comment) <= 64


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")
@pytest.mark.parametrize("uid", ["../../etc", "1.2/../../x", "1..2", "..", "1.2\\1.3"])
def test_a_uid_that_would_leave_the_spool_is_answered_c000(start: Start, tmp_path: Path, uid: str) -> None:
    outside = {path for path in tmp_path.iterdir() if not path.name.startswith("spool")}
    file = instances.write(instances.instance(StudyInstanceUID=uid), tmp_path / "a" / "a.dcm")
    assert refused(start(), file).status == 0xC000
    assert {path for path in tmp_path.iterdir() if not path.name.startswith("spool")} == outside | {tmp_path / "a"}


def test_another_s_pet_is_answered_0122_and_not_kept(start: Start, tmp_path: Path) -> None:
    file = instances.write(instances.instance(sop_class_uid=PET, Modality="PT"), tmp_path / "a.dcm")
    answer = refused(start(), file)
    assert (answer.status, answer.comment) == (0x0122, "Only CT images are taken here.")


@pytest.mark.parametrize("sop_class_uid", OWN_CLASSES, ids=lambda uid: UID(uid).name)
def test_what_we_made_ourselves_is_acknowledged_and_dropped(start: Start, tmp_path: Path, sop_class_uid: str) -> None:
    node = start()
    own = instances.instance(sop_class_uid=sop_class_uid, Manufacturer="twin-scanner", Modality="PT")
    node.send(instances.write(own, tmp_path / "a.dcm"))
    assert (node.kept(), node.received) == ({}, [])


def test_a_ct_that_bears_our_name_is_kept(start: Start, tmp_path: Path) -> None:
    node = start()
    file = instances.write(instances.instance(Manufacturer="twin-scanner"), tmp_path / "a.dcm")
    node.send(file)
    assert node.kept() == sent(file)


def test_a_loop_guard_that_cannot_decide_is_answered_a700(start: Start, tmp_path: Path) -> None:
    def is_own(header: object) -> bool:
        raise Transient("The ledger does not answer: it is tried again.")

    node = start(is_own=is_own)
    (answer,) = node.answers(instances.write(instances.instance(sop_class_uid=PET), tmp_path / "a.dcm"))
    assert (answer.status, node.kept()) == (0xA700, {})


def test_an_error_that_nobody_foresaw_is_never_an_acknowledgement(start: Start, tmp_path: Path) -> None:
    def on_stored(received: ReceivedInstance) -> None:
        raise ZeroDivisionError

    node = start(on_stored=on_stored)
    one, other = instances.series(tmp_path, 2)
    assert [answer.status for answer in node.answers(one, other)] == [0xC211, 0xC211]


def test_a_stand_in_for_a_pacs_keeps_what_it_is_told_to_keep(start: Start, tmp_path: Path) -> None:
    node = start(kept_classes=(*CT_CLASSES, *OWN_CLASSES))
    file = instances.write(instances.instance(sop_class_uid=PET, Manufacturer="twin-scanner"), tmp_path / "a.dcm")
    node.send(file)
    assert node.kept() == sent(file)


def test_below_the_reserve_no_sender_gets_an_association_and_whoever_has_one_is_answered_a700_until_it_ends(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    free = [1000]
    spool = Spool(tmp_path / "s", free=lambda folder: free[0])
    node = start(spool=spool, receipt_limits=ReceiptLimits(minimum_free_bytes=900))
    (file,) = instances.series(tmp_path, 1)
    with RawPeer(node.listener.port).associate() as sender:
        free[0] = 899
        assert sender.store("1.2.3.1.1", instances.data_set_bytes(file)) == 0xA700
        with RawPeer(node.listener.port) as late:
            late.connection.sendall(raw_peer.association_request())
            assert late.read() == (0x03, bytes([0, 2, 3, 1])), "rejected for now: temporary congestion (PS3.8 9.3.4)"
        echo(node.peer, "PACS", SHORT)
        free[0] = 900
        assert sender.store("1.2.3.1.1", instances.data_set_bytes(file)) == 0x0000
    node.send(file)
    assert node.kept() == sent(file)
    turns = [record.getMessage() for record in caplog.records if record.getMessage().startswith("The free disk space")]
    assert [("below" in turn, "above" in turn) for turn in turns] == [(True, False), (False, True)]
    assert "was rejected: too little disk space is free (node.minimum_free_mb)" in caplog.text


@pytest.mark.parametrize(("owner", "name"), [(os, "writev"), (Path, "rename"), (os, "statvfs")])
def test_a_disk_that_fails_is_answered_a700_and_the_retry_is_kept(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    node = start()
    (file,) = instances.series(tmp_path, 1)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, fail)
        (answer,) = node.answers(file)
    assert (answer.status, node.kept(), node.received) == (0xA700, {}, [])
    node.send(file)
    assert node.kept() == sent(file)


def test_an_instance_that_could_not_be_told_is_not_acknowledged_and_told_again_at_the_retry(
    start: Start, tmp_path: Path
) -> None:
    told: list[StoreOutcome] = []

    def on_stored(received: ReceivedInstance) -> None:
        told.append(received.outcome)
        if len(told) == 1:
            raise Transient("The ledger does not answer: it is tried again.")

    node = start(on_stored=on_stored)
    (file,) = instances.series(tmp_path, 1)
    assert node.answers(file)[0].status == 0xA700
    assert node.answers(file)[0].status == 0x0000
    assert told == [StoreOutcome.STORED, StoreOutcome.IDENTICAL]


# Ends in the middle


def half_a_store(association: Association, file: Path) -> None:
    """Send the request and half of the data set's PDUs."""
    request = C_STORE()
    request.MessageID = 1
    request.Priority = 0
    meta = instances.meta(file)
    request.AffectedSOPClassUID = meta.MediaStorageSOPClassUID
    request.AffectedSOPInstanceUID = meta.MediaStorageSOPInstanceUID
    request._dataset_path = (file, len(file.read_bytes()) - len(instances.data_set_bytes(file)))  # type: ignore[assignment]
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    pdus = list(message.encode_msg(association.accepted_contexts[0].context_id, 16382))
    for pdu in pdus[: len(pdus) // 2]:
        association.dul.send_pdu(pdu)
    assert eventually(lambda: association.dul.to_provider_queue.empty())


@pytest.mark.parametrize("how", ["abort", "close"])
def test_a_store_that_ends_in_the_middle_leaves_nothing(start: Start, tmp_path: Path, how: str) -> None:
    node = start()
    file = instances.write(instances.instance(pixels=b"x" * 400_000), tmp_path / "a.dcm")
    association = associate(node)
    half_a_store(association, file)
    if how == "abort":
        association.abort()
    else:
        association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        association.dul.socket.close()
        association.kill()
    assert eventually(lambda: bool(node.closed))
    assert (node.kept(), node.received) == ({}, [])
    assert eventually(lambda: not list((node.spool.folder / ".partial").iterdir()))
    node.send(file)
    assert node.kept() == sent(file)


def test_stop_lets_a_running_store_be_answered(start: Start, tmp_path: Path) -> None:
    entered, let_go = threading.Event(), threading.Event()

    def slow_ledger(received: ReceivedInstance) -> None:
        entered.set()
        assert let_go.wait(DEADLINE_S)

    node = start(on_stored=slow_ledger)
    (file,) = instances.series(tmp_path, 1)
    answers: list[InstanceStatus] = []
    sender = threading.Thread(target=lambda: answers.extend(node.answers(file)))
    sender.start()
    assert entered.wait(DEADLINE_S)
    stopper = threading.Thread(target=node.listener.stop, args=(DEADLINE_S,))
    stopper.start()
    assert eventually(lambda: not can_connect(node))
    assert stopper.is_alive()
    let_go.set()
    stopper.join()
    sender.join()
    assert [answer.status for answer in answers] == [0x0000]
    assert node.kept() == sent(file)


def can_connect(node: Node) -> bool:
    try:
        socket.create_connection((node.peer.host, node.listener.port), timeout=1).close()
    except OSError:
        return False
    return True


def test_stop_does_not_wait_longer_than_it_may_for_a_store_that_hangs(start: Start, tmp_path: Path) -> None:
    let_go = threading.Event()
    node = start(on_stored=lambda received: let_go.wait(DEADLINE_S))
    (file,) = instances.series(tmp_path, 1)
    sender = threading.Thread(target=node.answers, args=(file,))
    sender.start()
    assert eventually(lambda: bool(node.kept()))
    node.listener.stop(0.3)
    assert sender.is_alive(), "it still waits for the answer to what hangs"
    let_go.set()
    sender.join()


# Logs


def test_no_log_record_has_patient_s_data(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    node = start()
    files = instances.series(tmp_path, 2)
    own = instances.instance(3, sop_class_uid=PET, Manufacturer="twin-scanner", Modality="PT")
    foreign = instances.instance(4, sop_class_uid=PET, Modality="PT")
    wrong = instances.write(instances.instance(5), tmp_path / "e.dcm", requested_instance_uid="1.2.3.1.9")
    node.answers(*files, instances.write(own, tmp_path / "c.dcm"), instances.write(foreign, tmp_path / "d.dcm"), wrong)
    assert eventually(lambda: "sent 2 instances that were kept, 1 of our own, 2 that were refused" in caplog.text)
    everything = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    for secret in (instances.PATIENT_NAME, instances.PATIENT_ID, instances.BIRTH_DATE, "Oberhuber"):
        assert secret not in everything
    dropped = next(record for record in caplog.records if "is our own" in record.getMessage())
    assert (dropped.__dict__["study_uid"], dropped.__dict__["series_uid"]) == ("1.2.3", "1.2.3.1")


# Killed


KILLS = 10


@pytest.mark.long
def test_kill_9_at_random_moments_loses_nothing_that_was_acknowledged(
    tmp_path: Path, project: Path, free_port: Callable[[], int]
) -> None:
    port, draw = free_port(), random.Random(20)
    folder = tmp_path / "spool"
    offered: dict[str, bytes] = {}
    acknowledged: dict[str, bytes] = {}
    first, pixels = 1, draw.randbytes(300_000)
    for _ in range(KILLS):
        process = start_process(project, folder, port)
        try:
            files = instances.series(tmp_path / "out", 60, first=first, pixels=pixels)
            offered.update(sent(*files))
            stop_after = threading.Timer(draw.uniform(0.01, 0.4), process.kill)
            stop_after.start()
            acknowledged.update(send_until_the_end(files, port))
            stop_after.join()
        finally:
            process.kill()
            process.communicate()
        first += draw.choice((60, 30))
        shutil.rmtree(tmp_path / "out")
    spool = Spool(folder)
    spool.sweep()
    kept = {file.stem: instances.data_set_bytes(file) for uid in spool.studies() for file in spool.files(uid)}
    assert KILLS <= len(acknowledged) < len(offered)
    assert [uid for uid, content in acknowledged.items() if kept.get(uid) != content] == []
    assert [uid for uid, content in kept.items() if offered[uid] != content] == []


def start_process(project: Path, folder: Path, port: int) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, str(project / "tests" / "peers" / "receiver_process.py"), str(folder), str(port)],
        stdout=subprocess.PIPE,
        cwd=project,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"listening\n"
    return process


def send_until_the_end(files: list[Path], port: int) -> dict[str, bytes]:
    """Send what the receiver takes before it is killed: the bytes of what it acknowledged."""
    try:
        answers = send(files, Peer("TWINSCANNER", "127.0.0.1", port), calling_ae="PACS", timeouts=SHORT).instances
    except NotStored as error:
        answers = error.report.instances
    except Transient:
        return {}
    contents = sent(*files)
    return {answer.sop_instance_uid: contents[answer.sop_instance_uid] for answer in answers if answer.status == 0}
