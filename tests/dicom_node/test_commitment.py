"""Storage commitment with Orthanc as the PACS, and reports of every kind from a plain pynetdicom application."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pynetdicom import AE, build_context, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from dicom_node.commitment import CommitmentReport, CommitmentReports, NotCommitting, ask_for_commitment
from dicom_node.peers import Peer
from dicom_node.spool import Spool
from dicom_node.store_scu import send
from tests.peers.orthanc import Orthanc
from tests.samples.instances import series
from tests.samples.loopback_node import SHORT, Node, eventually, start_node
from twin_scanner.errors import Transient

pytestmark = pytest.mark.node

TRANSACTION = "2.25.4711"


class Taken:
    """What was reported to our listener; ``known`` are the transactions that somebody asked for."""

    def __init__(self) -> None:
        self.reports: list[CommitmentReport] = []
        self.known = {TRANSACTION}
        self.fault: Exception | None = None
        self.came = threading.Event()

    def keep(self, report: CommitmentReport) -> bool:
        if self.fault is not None:
            raise self.fault
        self.reports.append(report)
        self.came.set()
        return report.transaction_uid in self.known


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def node(tmp_path: Path, taken: Taken) -> Iterator[Node]:
    reporting = Peer("PACS", "127.0.0.1", 0)
    running = start_node(Spool(tmp_path / "spool"), reports=CommitmentReports(taken.keep), peers=(reporting,))
    yield running
    running.listener.stop(20.0)


@pytest.fixture
def pacs(tmp_path: Path, node: Node, peer: Callable[[str], str], free_port: Callable[[], int]) -> Iterator[Orthanc]:
    """An Orthanc that knows our listener, and reports to it on a new association."""
    modalities = {"scanner": ("TWINSCANNER", "127.0.0.1", node.peer.port)}
    program = peer("Orthanc")
    with Orthanc(tmp_path / "orthanc", free_port(), free_port(), "PACS", modalities, program=program) as running:
        yield running


def test_orthanc_reports_to_our_listener_which_instances_it_keeps(pacs: Orthanc, taken: Taken, tmp_path: Path) -> None:
    files = series(tmp_path / "files", 3)
    orthanc = Peer("PACS", "127.0.0.1", pacs.dicom_port)
    send(files, orthanc, calling_ae="TWINSCANNER", timeouts=SHORT)
    asked = [(str(CTImageStorage), f"1.2.3.1.{number}") for number in (1, 2, 3, 9)]
    reports = CommitmentReports(taken.keep)
    ask_for_commitment(orthanc, TRANSACTION, asked, reports, calling_ae="TWINSCANNER", timeouts=SHORT, linger_s=0.0)
    assert eventually(taken.came.is_set)
    (report,) = taken.reports
    assert report.transaction_uid == TRANSACTION
    assert report.kept == {"1.2.3.1.1", "1.2.3.1.2", "1.2.3.1.3"}
    assert report.failed.keys() == {"1.2.3.1.9"}


def test_an_application_without_storage_commitment_is_told_from_one_that_is_not_there(
    node: Node, free_port: Callable[[], int]
) -> None:
    reports = CommitmentReports(lambda report: False)
    instances = [(str(CTImageStorage), "1.2.3.1.1")]
    with pytest.raises(NotCommitting, match=r"refused|does not accept storage commitment"):
        ask_for_commitment(node.peer, TRANSACTION, instances, reports, calling_ae="PACS", timeouts=SHORT)
    nobody = Peer("NOBODY", "127.0.0.1", free_port())
    with pytest.raises(Transient, match="cannot be reached") as raised:
        ask_for_commitment(nobody, TRANSACTION, instances, reports, calling_ae="PACS", timeouts=SHORT)
    assert not isinstance(raised.value, NotCommitting)


def report_to(
    node: Node,
    *,
    transaction_uid: str | None = TRANSACTION,
    event_type: int = 1,
    instance_uid: str = StorageCommitmentPushModelInstance,
    roles: bool = True,
    failed: bool = False,
) -> int:
    """The status that our listener answers to a report."""
    information = Dataset()
    if transaction_uid is not None:
        information.TransactionUID = transaction_uid
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, "1.2.3.1.1"
    information.ReferencedSOPSequence = [item]
    if failed:
        other = Dataset()
        other.ReferencedSOPClassUID, other.ReferencedSOPInstanceUID = CTImageStorage, "1.2.3.1.2"
        other.FailureReason = 0x0112
        information.FailedSOPSequence = [other]
    application = AE("PACS")
    negotiation: list[Any] = [build_role(StorageCommitmentPushModel, scp_role=True)] if roles else []
    association = application.associate(
        "127.0.0.1",
        node.peer.port,
        [build_context(StorageCommitmentPushModel)],
        ae_title="TWINSCANNER",
        ext_neg=negotiation,
    )
    assert association.is_established
    status, _ = association.send_n_event_report(information, event_type, StorageCommitmentPushModel, instance_uid)
    association.release()
    return int(status.Status)


@pytest.mark.parametrize("roles", [True, False])
def test_a_report_is_taken_with_and_without_role_selection(node: Node, taken: Taken, roles: bool) -> None:
    assert report_to(node, roles=roles, failed=True, event_type=2) == 0x0000
    (report,) = taken.reports
    assert (report.kept, report.failed) == ({"1.2.3.1.1"}, {"1.2.3.1.2": 0x0112})


@pytest.mark.parametrize(
    ("report", "status"),
    [
        ({"transaction_uid": "1.2.3"}, 0x0115),
        ({"transaction_uid": None}, 0x0115),
        ({"event_type": 3}, 0x0113),
        ({"instance_uid": "1.2.840.10008.1.20.1.2"}, 0x0112),
    ],
)
def test_what_is_no_report_on_anything_of_ours_is_answered_with_the_reason(
    node: Node, report: dict[str, Any], status: int
) -> None:
    assert report_to(node, **report) == status


def test_a_report_that_cannot_be_kept_now_may_come_again(node: Node, taken: Taken) -> None:
    taken.fault = Transient("The ledger's database does not answer.")
    assert report_to(node) == 0x0110
    taken.fault = None
    assert report_to(node) == 0x0000
