"""C-FIND at a peer. Oracles: what Orthanc was given, and what a hostile peer (pynetdicom) may cost."""

import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from dicom_node.client import Peer
from dicom_node.query import QueryLimits, SeriesCount, find_series_counts, querying
from dicom_node.sop_classes import STUDY_ROOT_FIND
from dicom_node.store_scu import send
from tests.peers.orthanc import Orthanc
from tests.samples import instances
from tests.samples.loopback_node import SHORT
from twin_scanner.errors import Rejected, Transient

pytestmark = pytest.mark.node

STUDY, AXIAL, LUNG = "1.2.3", "1.2.3.1", "1.2.3.2"


def _pacs(orthanc: Orthanc) -> Peer:
    return Peer(orthanc.ae_title, "127.0.0.1", orthanc.dicom_port)


@pytest.fixture
def filled(orthanc: Orthanc, tmp_path: Path) -> Peer:
    """An Orthanc with a study of two series, and one of another patient."""
    files = instances.series(tmp_path / "axial", 5, StudyDate="20260102", AccessionNumber="A1")
    files += instances.series(tmp_path / "lung", 3, series_uid=LUNG, SeriesDescription="LUNG", AccessionNumber="A1")
    files += instances.series(
        tmp_path / "other", 2, study_uid="1.2.4", series_uid="1.2.4.1", PatientID="JOS\u00c9", StudyDate="20260301"
    )
    send(files, _pacs(orthanc), calling_ae="SCANNER", timeouts=SHORT)
    return _pacs(orthanc)


def test_series_are_counted_as_orthanc_has_them(filled: Peer) -> None:
    counted = find_series_counts(filled, STUDY, calling_ae="US", timeouts=SHORT)
    assert counted == [SeriesCount(AXIAL, "CT", "", 5), SeriesCount(LUNG, "CT", "LUNG", 3)]
    assert find_series_counts(filled, "1.2.99", calling_ae="US", timeouts=SHORT) == []


def test_the_instances_of_a_series_are_listed_one_by_one(filled: Peer) -> None:
    with querying(filled, calling_ae="US", timeouts=SHORT) as query:
        assert len(query.instances(STUDY, AXIAL)) == 5
        assert query.instances(STUDY, "1.2.99") == frozenset()
        assert query.instances(STUDY, LUNG) == {f"{LUNG}.{number}" for number in (1, 2, 3)}


class HeldCheckpoint(threading.Event):
    """A busy machine: the reactor has passed its checkpoint and does not get the processor for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.set()
        self.passed = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        found = super().wait(timeout)
        self.passed.set()
        time.sleep(0.5)
        return found


def test_no_answer_is_lost_to_the_reactor_on_a_busy_machine(filled: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reactor took the first answer and dropped it: a peer with five instances was believed to have four."""
    with querying(filled, calling_ae="US", timeouts=SHORT) as query:
        association = query._association
        take = association.dimse.get_msg

        def take_late(block: bool = False) -> Any:
            if block:
                time.sleep(1.0)
            return take(block)

        monkeypatch.setattr(association.dimse, "get_msg", take_late)
        association._reactor_checkpoint = held = HeldCheckpoint()
        assert held.passed.wait(SHORT.response_s)
        assert len(query.instances(STUDY, AXIAL)) == 5


def test_studies_are_found_by_what_names_them(filled: Peer) -> None:
    wanted_and_found: list[tuple[dict[str, str], list[str]]] = [
        ({"PatientID": instances.PATIENT_ID}, ["1.2.3"]),
        ({"PatientID": "JOS\u00c9"}, ["1.2.4"]),
        ({"AccessionNumber": "A1"}, ["1.2.3"]),
        ({"StudyInstanceUID": "1.2.4"}, ["1.2.4"]),
        ({"StudyDate": "20260101-"}, ["1.2.3", "1.2.4"]),
        ({"StudyDate": "20260201-"}, ["1.2.4"]),
        ({"PatientID": "nobody"}, []),
    ]
    with querying(filled, calling_ae="US", timeouts=SHORT) as query:
        for wanted, found in wanted_and_found:
            assert [study.study_uid for study in query.studies(wanted)] == found, wanted


def test_a_wildcard_is_refused_before_it_asks_for_every_patient(filled: Peer) -> None:
    with (
        querying(filled, calling_ae="US", timeouts=SHORT) as query,
        pytest.raises(Rejected, match="PatientID must be given in full"),
    ):
        query.studies({"PatientID": "*"})


@contextmanager
def _peer(answer: Callable[[evt.Event], Iterator[Any]]) -> Iterator[Peer]:
    """A peer that answers C-FIND as a test wants."""
    application = AE("HOSTILE")
    application.add_supported_context(STUDY_ROOT_FIND)
    server = application.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, answer)])
    assert server is not None
    try:
        yield Peer("HOSTILE", "127.0.0.1", server.server_address[1])
    finally:
        server.shutdown()


def _series(number: int = 1, **attributes: Any) -> Dataset:
    answer = Dataset()
    answer.SeriesInstanceUID = f"1.2.3.{number}"
    for keyword, value in attributes.items():
        setattr(answer, keyword, value)
    return answer


def _ask(peer: Peer, **limits: Any) -> list[SeriesCount]:
    return find_series_counts(peer, STUDY, calling_ae="US", timeouts=SHORT, limits=QueryLimits(**limits))


def test_a_peer_that_never_ends_its_answers_is_left() -> None:
    def endless(event: evt.Event) -> Iterator[Any]:
        while not event.assoc.is_aborted:
            yield 0xFF00, _series(NumberOfSeriesRelatedInstances=1)

    with _peer(endless) as peer, pytest.raises(Transient, match="more than 50 answers"):
        _ask(peer, answers=50)


def test_a_peer_that_answers_slowly_for_ever_is_left_when_the_time_is_over() -> None:
    def slow(event: evt.Event) -> Iterator[Any]:
        while not event.assoc.is_aborted:
            time.sleep(0.05)
            yield 0xFF00, _series(NumberOfSeriesRelatedInstances=1)

    with _peer(slow) as peer, pytest.raises(Transient, match="broke off C-FIND"):
        _ask(peer, seconds=0.5)


def test_an_answer_of_many_megabytes_is_not_decoded() -> None:
    def huge(event: evt.Event) -> Iterator[Any]:
        items = [Dataset() for _ in range(10_000)]
        yield 0xFF00, _series(NumberOfSeriesRelatedInstances=1, ReferencedSeriesSequence=items)

    with _peer(huge) as peer, pytest.raises(Transient, match="gave more than we take"):
        _ask(peer)


def test_more_bytes_than_allowed_are_not_received() -> None:
    def much(event: evt.Event) -> Iterator[Any]:
        for _ in range(1000):
            yield 0xFF00, _series(NumberOfSeriesRelatedInstances=1, ImageComments="x" * 1000)

    with _peer(much) as peer, pytest.raises(Transient, match="gave more than we take"):
        _ask(peer, received_bytes=100_000)


def test_a_pdu_that_claims_two_gigabytes_costs_no_memory() -> None:
    def claim(event: evt.Event) -> Iterator[Any]:
        transport = event.assoc.dul.socket
        transport.socket.sendall(b"\x04\x00\x7f\xff\xff\xff" + bytes(2**20))
        yield 0x0000, None

    tracemalloc.start()
    try:
        with _peer(claim) as peer, pytest.raises(Transient, match="gave more than we take"):
            _ask(peer)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


def test_series_of_another_study_and_values_that_are_none_are_not_believed() -> None:
    def confused(event: evt.Event) -> Iterator[Any]:
        if event.identifier.QueryRetrieveLevel == "IMAGE":
            for number in (1, 2, 2):
                answer = Dataset()
                answer.SOPInstanceUID = f"1.2.3.1.{number}"
                yield 0xFF00, answer
        else:
            yield 0xFF00, _series(1, StudyInstanceUID=STUDY)
            yield 0xFF00, _series(2, StudyInstanceUID="9.9", NumberOfSeriesRelatedInstances=7)
            evil = _series(3, NumberOfSeriesRelatedInstances=7)
            evil.add_new(0x0020000E, "LO", "../../evil")
            yield 0xFF00, evil

    with _peer(confused) as peer:
        assert _ask(peer) == [SeriesCount("1.2.3.1", "", "", 2)], "without a count the instances are counted"


def test_a_refusal_and_a_peer_without_c_find_are_said_in_a_sentence() -> None:
    def refuse(event: evt.Event) -> Iterator[Any]:
        yield 0xA700, None

    with _peer(refuse) as peer, pytest.raises(Transient, match="refused C-FIND with 0xA700"):
        _ask(peer)
    application = AE("ECHO")
    application.add_supported_context("1.2.840.10008.1.1")
    server = application.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    try:
        with pytest.raises(Transient, match="accepted none of what we offer"):
            _ask(Peer("ECHO", "127.0.0.1", server.server_address[1]))
    finally:
        server.shutdown()
