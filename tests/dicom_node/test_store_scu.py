"""C-STORE out over real associations. Oracles: Orthanc's and dcmtk's own copies, and an SCP that answers to order."""

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    PositronEmissionTomographyImageStorage,
)
from pynetdicom import AE, evt

from dicom_node.client import echo
from dicom_node.peers import Peer
from dicom_node.store_scu import NO_ANSWER, InstanceStatus, NotStored, SendingStopped, Unreadable, send
from tests.peers.orthanc import Orthanc
from tests.samples import instances
from tests.samples.loopback_node import DEADLINE_S, SHORT, eventually, sent
from twin_scanner.errors import Defect, Transient

pytestmark = pytest.mark.node

PET = PositronEmissionTomographyImageStorage


def address(orthanc: Orthanc) -> Peer:
    return Peer(orthanc.ae_title, "127.0.0.1", orthanc.dicom_port)


def held(orthanc: Orthanc) -> dict[str, bytes]:
    """What Orthanc has: data set bytes by SOP Instance UID."""
    return {
        orthanc.rest(f"/instances/{key}")["MainDicomTags"]["SOPInstanceUID"]: instances.data_set_bytes(
            orthanc.rest_bytes(f"/instances/{key}/file")
        )
        for key in orthanc.rest("/instances")
    }


def test_orthanc_has_every_byte_and_a_second_send_adds_nothing(orthanc: Orthanc, tmp_path: Path) -> None:
    files = instances.series(tmp_path / "pet", 8, sop_class_uid=PET, Modality="PT", pixels=b"p" * 300_000)
    progress: list[tuple[int, int]] = []
    report = send(
        files,
        address(orthanc),
        calling_ae="TWINSCANNER",
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert [(answer.sop_instance_uid, answer.status) for answer in report.instances] == [
        (f"1.2.3.1.{number}", 0) for number in range(1, 9)
    ]
    assert progress == [(number, 8) for number in range(1, 9)]
    send(files, address(orthanc), calling_ae="TWINSCANNER")
    assert held(orthanc) == sent(*files)
    assert len(orthanc.changes("NewInstance")) == 8


def test_orthanc_has_each_file_in_its_own_class_and_transfer_syntax(orthanc: Orthanc, tmp_path: Path) -> None:
    pairs = [
        (PET, ExplicitVRLittleEndian),
        (CTImageStorage, ImplicitVRLittleEndian),
        (CTImageStorage, ExplicitVRBigEndian),
        (CTImageStorage, JPEGLSLossless),
    ]
    files = [
        instances.write(instances.instance(number, sop_class_uid=sop_class_uid), tmp_path / f"{number}.dcm", syntax)
        for number, (sop_class_uid, syntax) in enumerate(pairs, start=1)
    ]
    send(files, address(orthanc), calling_ae="TWINSCANNER")
    assert held(orthanc) == sent(*files)


def test_orthanc_stopped_and_started_again_takes_what_was_missing(orthanc: Orthanc, tmp_path: Path) -> None:
    files = instances.series(tmp_path / "pet", 4, sop_class_uid=PET)
    send(files[:2], address(orthanc), calling_ae="TWINSCANNER")
    orthanc.stop()
    with pytest.raises(Transient, match="cannot be reached"):
        send(files, address(orthanc), calling_ae="TWINSCANNER", timeouts=SHORT)
    orthanc.start()
    send(files, address(orthanc), calling_ae="TWINSCANNER")
    assert held(orthanc) == sent(*files)


def test_dcmtk_has_every_byte(peer: Callable[[str], str], tmp_path: Path, free_port: Callable[[], int]) -> None:
    port, folder = free_port(), tmp_path / "dcmtk"
    folder.mkdir()
    files = instances.series(tmp_path / "pet", 5, sop_class_uid=PET, pixels=b"p" * 300_000)
    storescp = [peer("storescp"), "--bit-preserving", "--output-directory", str(folder), str(port)]
    process = subprocess.Popen(storescp)
    try:
        target = Peer("ANY", "127.0.0.1", port)
        assert eventually(lambda: answers_echo(target))
        send(files, target, calling_ae="TWINSCANNER")
    finally:
        process.kill()
        process.wait()
    assert sent(*folder.iterdir()) == sent(*files)


def answers_echo(target: Peer) -> bool:
    try:
        echo(target, "TWINSCANNER", SHORT)
    except Transient:
        return False
    return True


# A peer that answers to order

Listen = Callable[..., Peer]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Starts a plain pynetdicom SCP with a C-STORE handler of the test's."""
    servers: list[Any] = []

    def begin(answer: Callable[[evt.Event], Any], *classes: UID, maximum_pdu_bytes: int = 16382) -> Peer:
        application = AE(ae_title="PACS")
        application.maximum_pdu_size = maximum_pdu_bytes
        for sop_class_uid in classes or (PET,):
            application.add_supported_context(sop_class_uid, ExplicitVRLittleEndian)
        servers.append(
            application.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)])
        )
        return Peer("PACS", "127.0.0.1", servers[-1].server_address[1])

    yield begin
    for server in servers:
        server.shutdown()


@pytest.fixture
def pet(tmp_path: Path) -> list[Path]:
    return instances.series(tmp_path / "pet", 4, sop_class_uid=PET)


@pytest.mark.parametrize("status", [0x0000, 0x0111, 0xB000, 0xB006, 0xB007])
def test_success_warnings_and_duplicates_count_as_stored(listen: Listen, pet: list[Path], status: int) -> None:
    report = send(pet, listen(lambda event: status), calling_ae="TWINSCANNER", timeouts=SHORT)
    assert [answer.status for answer in report.instances] == [status] * 4
    assert report.not_stored == ()


@pytest.mark.parametrize("status", [0x0110, 0x0117, 0x0122, 0x0124, 0xA900, 0xC000, 0xFE00])
def test_one_refused_instance_is_enough_to_raise_and_the_others_are_still_sent(
    listen: Listen, pet: list[Path], status: int
) -> None:
    def answer(event: evt.Event) -> int:
        return status if event.request.AffectedSOPInstanceUID == "1.2.3.1.2" else 0x0000

    with pytest.raises(
        NotStored, match=rf"1 of 4 instances, the first \(1\.2\.3\.1\.2\) with status 0x{status:04X}"
    ) as error:
        send(pet, listen(answer), calling_ae="TWINSCANNER", timeouts=SHORT)
    assert isinstance(error.value, Transient)
    assert [instance.status for instance in error.value.report.instances] == [0, status, 0, 0]


def test_all_files_go_over_one_association_with_the_contexts_of_the_files_and_no_others(
    listen: Listen, pet: list[Path]
) -> None:
    offered: list[tuple[object, list[tuple[str, str]]]] = []

    def answer(event: evt.Event) -> int:
        contexts = event.assoc.requestor.requested_contexts
        offered.append(
            (event.assoc, [(cx.abstract_syntax, syntax) for cx in contexts for syntax in cx.transfer_syntax])
        )
        return 0x0000

    ct = instances.write(instances.instance(9), pet[0].parent / "ct.dcm")
    send([*pet, ct], listen(answer, PET, CTImageStorage), calling_ae="TWINSCANNER", timeouts=SHORT)
    expected = [(PET, ExplicitVRLittleEndian), (CTImageStorage, ExplicitVRLittleEndian)]
    assert len(offered) == 5
    assert {association for association, _ in offered} == {offered[0][0]}
    assert sorted(offered[0][1]) == sorted(expected)


def test_a_full_peer_is_not_sent_the_rest(listen: Listen, pet: list[Path]) -> None:
    asked: list[str] = []

    def answer(event: evt.Event) -> int:
        asked.append(event.request.AffectedSOPInstanceUID)
        return 0xA700 if len(asked) == 2 else 0x0000

    with pytest.raises(NotStored, match=r"3 of 4 instances.*0xA700: out of resources") as error:
        send(pet, listen(answer), calling_ae="TWINSCANNER", timeouts=SHORT)
    assert [instance.status for instance in error.value.report.instances] == [0, 0xA700, NO_ANSWER, NO_ANSWER]
    assert len(asked) == 2


def test_a_peer_that_aborts_leaves_the_rest_without_an_answer(listen: Listen, pet: list[Path]) -> None:
    def answer(event: evt.Event) -> int:
        if event.request.AffectedSOPInstanceUID == "1.2.3.1.3":
            event.assoc.abort()
        return 0x0000

    with pytest.raises(NotStored, match="ended the association or did not answer, 2 of 4 instances") as error:
        send(pet, listen(answer), calling_ae="TWINSCANNER", timeouts=SHORT)
    assert [instance.status for instance in error.value.report.instances] == [0, 0, NO_ANSWER, NO_ANSWER]


def test_a_peer_that_aborts_between_two_instances_leaves_the_rest_without_an_answer(
    listen: Listen, pet: list[Path]
) -> None:
    """It is seen at once, not at the response's timeout, although our reactor thread rests between two instances."""
    theirs: list[Any] = []

    def answer(event: evt.Event) -> int:
        theirs.append(event.assoc)
        return 0x0000

    def end(status: InstanceStatus) -> None:
        if len(theirs) == 2 and status.stored:
            theirs[0].abort()

    begun_s = time.monotonic()
    with pytest.raises(NotStored, match="2 of 4 instances") as error:
        send(pet, listen(answer), calling_ae="TWINSCANNER", timeouts=replace(SHORT, response_s=60.0), on_answer=end)
    assert [instance.status for instance in error.value.report.instances] == [0, 0, NO_ANSWER, NO_ANSWER]
    assert time.monotonic() - begun_s < 30.0


def test_a_peer_that_never_answers_ends_at_the_response_timeout(listen: Listen, pet: list[Path]) -> None:
    let_go = threading.Event()

    def answer(event: evt.Event) -> int:
        let_go.wait(DEADLINE_S)
        return 0x0000

    target = listen(answer)
    with pytest.raises(NotStored, match="did not answer, 4 of 4 instances"):
        send(pet, target, calling_ae="TWINSCANNER", timeouts=replace(SHORT, response_s=0.3))
    let_go.set()


@pytest.mark.parametrize("maximum_pdu_bytes", [1, 6, 99])
def test_a_peer_that_takes_nearly_no_bytes_at_once_is_named_and_sent_nothing(
    listen: Listen, pet: list[Path], maximum_pdu_bytes: int
) -> None:
    target = listen(lambda event: 0x0000, maximum_pdu_bytes=maximum_pdu_bytes)
    with pytest.raises(Transient, match=f"takes PDUs of {maximum_pdu_bytes} bytes"):
        send(pet, target, calling_ae="TWINSCANNER", timeouts=SHORT)


def test_a_peer_that_sets_no_maximum_gets_every_byte(listen: Listen, pet: list[Path]) -> None:
    received: list[bytes] = []

    def answer(event: evt.Event) -> int:
        received.append(event.request.DataSet.getvalue())
        return 0x0000

    send(pet, listen(answer, maximum_pdu_bytes=0), calling_ae="TWINSCANNER", timeouts=SHORT)
    assert received == [instances.data_set_bytes(file) for file in pet]


def test_a_peer_that_takes_nothing_is_told_from_one_that_takes_another_class(listen: Listen, pet: list[Path]) -> None:
    ct = instances.write(instances.instance(9), pet[0].parent / "ct.dcm")
    only_ct = listen(lambda event: 0x0000, CTImageStorage)
    with pytest.raises(Transient, match="accepted none of what we offer"):
        send(pet, only_ct, calling_ae="TWINSCANNER", timeouts=SHORT)
    with pytest.raises(Transient, match="does not accept Positron Emission Tomography Image Storage in Explicit VR"):
        send([ct, *pet], only_ct, calling_ae="TWINSCANNER", timeouts=SHORT)


def test_a_stop_between_two_instances_reports_what_is_stored_and_a_later_call_sends_only_the_rest(
    listen: Listen, pet: list[Path]
) -> None:
    asked: list[str] = []
    answered: list[InstanceStatus] = []

    def answer(event: evt.Event) -> int:
        asked.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    target = listen(answer)
    with pytest.raises(SendingStopped, match="2 of 4 instances were not sent to PACS at") as error:
        send(
            pet,
            target,
            calling_ae="TWINSCANNER",
            timeouts=SHORT,
            check_stop=lambda: len(asked) == 2,
            on_answer=answered.append,
        )
    report = error.value.report
    assert [instance.status for instance in report.instances] == [0, 0, NO_ANSWER, NO_ANSWER]
    assert answered == list(report.instances[:2])
    stored = {instance.sop_instance_uid for instance in report.instances if instance.stored}
    rest = send(pet, target, calling_ae="TWINSCANNER", timeouts=SHORT, skip=stored)
    assert [instance.sop_instance_uid for instance in rest.instances] == ["1.2.3.1.3", "1.2.3.1.4"]
    assert asked == [f"1.2.3.1.{number}" for number in range(1, 5)]
    assert send(pet, Peer("PACS", "127.0.0.1", 1), calling_ae="TWINSCANNER", skip=set(asked)).instances == ()


def test_an_error_of_the_caller_s_own_ends_the_association(listen: Listen, pet: list[Path]) -> None:
    closed = threading.Event()

    def answer(event: evt.Event) -> int:
        event.assoc.bind(evt.EVT_CONN_CLOSE, lambda event: closed.set())
        return 0x0000

    def on_progress(done: int, total: int) -> None:
        raise KeyError("caller")

    with pytest.raises(KeyError):
        send(pet, listen(answer), calling_ae="TWINSCANNER", timeouts=SHORT, on_progress=on_progress)
    assert closed.wait(DEADLINE_S)


def test_a_file_that_is_no_dicom_file_is_a_defect_and_a_missing_one_transient(tmp_path: Path) -> None:
    nowhere = Peer("PACS", "127.0.0.1", 1)
    (tmp_path / "a.dcm").write_bytes(b"not DICOM" * 100)
    with pytest.raises(Defect, match=r"a\.dcm is not a DICOM file"):
        send([tmp_path / "a.dcm"], nowhere, calling_ae="TWINSCANNER")
    with pytest.raises(Unreadable, match=r"b\.dcm cannot be read \(No such file"):
        send([tmp_path / "b.dcm"], nowhere, calling_ae="TWINSCANNER")


def test_a_file_that_vanishes_while_others_are_sent_is_told_from_a_peer_that_fails(
    listen: Listen, pet: list[Path]
) -> None:
    def vanish() -> bool:
        pet[1].unlink(missing_ok=True)
        return False

    with pytest.raises(Unreadable, match=rf"{pet[1].name} cannot be read \(No such file"):
        send(pet, listen(lambda event: 0x0000), calling_ae="TWINSCANNER", timeouts=SHORT, check_stop=vanish)


def test_nothing_to_send_opens_no_association() -> None:
    assert send([], Peer("PACS", "127.0.0.1", 1), calling_ae="TWINSCANNER").instances == ()


def test_no_thread_and_no_open_file_is_left(listen: Listen, pet: list[Path]) -> None:
    target = listen(lambda event: 0x0000)
    for _ in range(3):
        send(pet, target, calling_ae="TWINSCANNER", timeouts=SHORT)
    shutil.rmtree(pet[0].parent)
    assert eventually(
        lambda: not [t for t in threading.enumerate() if t.name.startswith(("Requestor", "AcceptorThread"))]
    )


# Several associations at once


class Taker:
    """A peer that notes who sent what, in its order, and answers as it is told by the number of the association."""

    def __init__(self, answer: Callable[["Taker", evt.Event, int], int] = lambda taker, event, number: 0x0000) -> None:
        self._answer = answer
        self._lock = threading.Lock()
        self._associations: list[object] = []
        self.taken: list[tuple[str, int]] = []
        """SOP Instance UID and number of the association, of all that was stored."""
        self.two_came = threading.Event()

    def __call__(self, event: evt.Event) -> int:
        with self._lock:
            if event.assoc not in self._associations:
                self._associations.append(event.assoc)
            number = self._associations.index(event.assoc)
            if number == 1:
                self.two_came.set()
        status = self._answer(self, event, number)
        with self._lock:
            if status == 0x0000:
                self.taken.append((event.request.AffectedSOPInstanceUID, number))
        return status


@pytest.fixture
def long_pet(tmp_path: Path) -> list[Path]:
    return instances.series(tmp_path / "long", 24, sop_class_uid=PET)


UIDS = [f"1.2.3.1.{number}" for number in range(1, 25)]
SEG = UID("1.2.840.10008.5.1.4.1.1.66.4")


def waiting_for_both(taker: Taker, event: evt.Event, number: int) -> int:
    """Nothing is answered until two associations have come: neither is too fast for the other."""
    assert taker.two_came.wait(DEADLINE_S)
    return 0x0000


def test_several_associations_store_every_file_once_and_what_the_peer_need_not_take_after_them(
    listen: Listen, long_pet: list[Path], tmp_path: Path
) -> None:
    seg = instances.series(tmp_path / "seg", 1, sop_class_uid=SEG, SOPInstanceUID="1.2.3.8.1", Modality="SEG")
    taker, answered, progress = Taker(waiting_for_both), list[str](), list[tuple[int, int]]()
    report = send(
        long_pet,
        listen(taker, PET, SEG),
        calling_ae="TWINSCANNER",
        timeouts=SHORT,
        where_taken=seg,
        associations=2,
        on_answer=lambda answer: answered.append(answer.sop_instance_uid),
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert {number for _, number in taker.taken} == {0, 1}
    assert sorted(uid for uid, _ in taker.taken) == sorted([*UIDS, "1.2.3.8.1"])
    assert taker.taken[-1][0] == answered[-1] == "1.2.3.8.1"
    assert [answer.sop_instance_uid for answer in report.instances] == [*UIDS, "1.2.3.8.1"]
    assert sorted(answered) == sorted([*UIDS, "1.2.3.8.1"])
    assert progress == [(number, 25) for number in range(1, 26)]


def test_few_files_go_over_one_association_although_several_are_allowed(listen: Listen, pet: list[Path]) -> None:
    taker = Taker()
    send(pet, listen(taker), calling_ae="TWINSCANNER", timeouts=SHORT, associations=4)
    assert taker.taken == [(uid, 0) for uid in UIDS[:4]]


def test_a_peer_that_takes_one_association_gets_everything_over_it(long_pet: list[Path]) -> None:
    taker = Taker()
    application = AE(ae_title="PACS")
    application.maximum_associations = 1
    application.add_supported_context(PET, ExplicitVRLittleEndian)
    server = application.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, taker)])
    assert server is not None
    try:
        target = Peer("PACS", "127.0.0.1", server.server_address[1])
        send(long_pet, target, calling_ae="TWINSCANNER", timeouts=SHORT, associations=3)
    finally:
        server.shutdown()
    assert taker.taken == [(uid, 0) for uid in UIDS]


def test_dcmtk_which_serves_one_association_after_the_other_has_every_byte(
    peer: Callable[[str], str], tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port, folder = free_port(), tmp_path / "dcmtk"
    folder.mkdir()
    files = instances.series(tmp_path / "pet", 24, sop_class_uid=PET)
    storescp = [peer("storescp"), "--bit-preserving", "--output-directory", str(folder), str(port)]
    process = subprocess.Popen(storescp)
    try:
        target = Peer("ANY", "127.0.0.1", port)
        assert eventually(lambda: answers_echo(target))
        send(files, target, calling_ae="TWINSCANNER", associations=2)
    finally:
        process.kill()
        process.wait()
    assert sent(*folder.iterdir()) == sent(*files)


@pytest.mark.parametrize("status", [NO_ANSWER, 0xA700])
def test_what_an_association_more_gets_no_answer_or_no_room_for_is_sent_over_the_first(
    listen: Listen, long_pet: list[Path], status: int
) -> None:
    def answer(taker: Taker, event: evt.Event, number: int) -> int:
        waiting_for_both(taker, event, number)
        if number == 1 and status == NO_ANSWER:
            event.assoc.abort()
        return 0x0000 if number == 0 else 0xA700

    taker, answered = Taker(answer), list[InstanceStatus]()
    report = send(
        long_pet,
        listen(taker),
        calling_ae="TWINSCANNER",
        timeouts=SHORT,
        associations=2,
        on_answer=answered.append,
    )
    assert {answer.status for answer in (*report.instances, *answered)} == {0}
    assert len(answered) == 24
    assert sorted(taker.taken) == sorted((uid, 0) for uid in UIDS)


def test_the_first_association_outlives_the_wait_for_an_answer_over_another(
    listen: Listen, long_pet: list[Path]
) -> None:
    """It has nothing to send meanwhile, and an association that is idle for too long would be aborted by us."""
    ended = threading.Event()

    def answer(taker: Taker, event: evt.Event, number: int) -> int:
        waiting_for_both(taker, event, number)
        if number == 1:
            assert ended.wait(DEADLINE_S)
        return 0x0000

    taker = Taker(answer)
    try:
        limits = replace(SHORT, response_s=1.0, idle_s=0.3)
        report = send(long_pet, listen(taker), calling_ae="TWINSCANNER", timeouts=limits, associations=2)
    finally:
        ended.set()
    assert {one.status for one in report.instances} == {0}
    assert {uid for uid, number in taker.taken if number == 0} == set(UIDS)


def test_a_full_peer_is_not_sent_the_rest_over_any_association(listen: Listen, long_pet: list[Path]) -> None:
    def answer(taker: Taker, event: evt.Event, number: int) -> int:
        waiting_for_both(taker, event, number)
        return 0xA700 if len(taker.taken) >= 6 else 0x0000

    taker = Taker(answer)
    with pytest.raises(NotStored, match=r"0xA700: out of resources|did not answer") as error:
        send(long_pet, listen(taker), calling_ae="TWINSCANNER", timeouts=SHORT, associations=2)
    report = error.value.report
    assert {answer.sop_instance_uid for answer in report.instances if answer.stored} == {uid for uid, _ in taker.taken}
    assert [answer.status for answer in report.instances].count(0xA700) == 1
    assert len(taker.taken) <= 7


def test_a_stop_ends_all_associations_and_a_later_call_sends_only_the_rest(
    listen: Listen, long_pet: list[Path]
) -> None:
    taker = Taker(waiting_for_both)
    target = listen(taker)
    with pytest.raises(SendingStopped) as error:
        send(
            long_pet,
            target,
            calling_ae="TWINSCANNER",
            timeouts=SHORT,
            associations=2,
            check_stop=lambda: len(taker.taken) >= 5,
        )
    stored = {answer.sop_instance_uid for answer in error.value.report.instances if answer.stored}
    assert stored == {uid for uid, _ in taker.taken}
    assert 5 <= len(stored) <= 7
    send(long_pet, target, calling_ae="TWINSCANNER", timeouts=SHORT, associations=2, skip=stored)
    assert sorted(uid for uid, _ in taker.taken) == sorted(UIDS)


def test_an_error_of_the_caller_s_own_in_any_association_ends_all_of_them(listen: Listen, long_pet: list[Path]) -> None:
    taker = Taker(waiting_for_both)

    def on_answer(answer: InstanceStatus) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise KeyError("caller")

    with pytest.raises(KeyError):
        send(long_pet, listen(taker), calling_ae="TWINSCANNER", timeouts=SHORT, associations=2, on_answer=on_answer)
    assert len(taker.taken) <= 4


def test_what_the_peer_need_not_take_is_sent_where_it_does_and_named_where_it_does_not(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    """Orthanc 1.10 knows Segmentation and not Label Map Segmentation."""
    pet = instances.series(tmp_path / "pet", 2, sop_class_uid=PET, Modality="PT")
    label_map = "1.2.840.10008.5.1.4.1.1.66.7"
    one, other = (
        instances.series(
            tmp_path / name,
            1,
            sop_class_uid=UID(uid),
            SeriesInstanceUID=series,
            SOPInstanceUID=f"{series}.1",
            Modality="SEG",
        )[0]
        for name, uid, series in (("seg", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.3.8"), ("map", label_map, "1.2.3.9"))
    )
    report = send(pet, address(orthanc), calling_ae="TWINSCANNER", where_taken=[one, other])
    assert report.not_taken == (label_map,)
    assert len(report.instances) == 3
    assert held(orthanc) == sent(*pet, one)


def test_a_peer_that_takes_nothing_of_what_it_need_not_take_is_no_failure(
    listen: Listen, pet: list[Path], tmp_path: Path
) -> None:
    """A rejection note alone, for a PACS that knows no key objects."""
    seg_class = UID("1.2.840.10008.5.1.4.1.1.66.4")
    seg = instances.series(tmp_path / "seg", 1, sop_class_uid=seg_class, SOPInstanceUID="1.2.3.8.1", Modality="SEG")
    peer_ = listen(lambda event: 0x0000)
    there = {status.sop_instance_uid for status in send(pet, peer_, calling_ae="TWINSCANNER").instances}
    report = send(pet, peer_, calling_ae="TWINSCANNER", where_taken=seg, skip=there)
    assert (report.instances, report.not_taken) == ((), (seg_class,))


def test_what_must_be_taken_is_still_refused_aloud(listen: Listen, pet: list[Path], tmp_path: Path) -> None:
    seg = instances.series(tmp_path / "seg", 1, sop_class_uid=UID("1.2.840.10008.5.1.4.1.1.66.4"), Modality="SEG")
    peer_ = listen(lambda event: 0x0000)
    with pytest.raises(Transient, match="does not accept Segmentation Storage"):
        send([*pet, *seg], peer_, calling_ae="TWINSCANNER")
