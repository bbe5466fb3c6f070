"""A PACS stand-in on loopback whose faults a test chooses: C-STORE, C-FIND of instances, and storage commitment."""

import hashlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from dicom_node.peers import Peer

AE_TITLE = "PACS"
FAILURE = 0x0112


class Archive:
    """Listens while the ``with`` block runs, on a port that stays its own; ``stop`` and ``start`` are its outages."""

    def __init__(self) -> None:
        self.stored: dict[str, list[str]] = defaultdict(list)
        """By SOP Instance UID, the hash of the data set of each C-STORE in the order in which they came."""
        self.series: dict[str, str] = {}
        """Series by SOP Instance UID, of what it keeps."""
        self.datasets: dict[str, Dataset] = {}
        self.patients: dict[str, list[Dataset]] = {}
        """By study, whose it is where that was corrected after its images had come."""
        self.statuses: dict[str, int] = {}
        """The status of an instance that is not 0x0000; what it refuses it does not keep."""
        self.full = False
        """Whether every C-STORE is answered 0xA700."""
        self.loses: set[str] = set()
        """Instances that it answers for and does not keep."""
        self.finds = self.commits = True
        self.on_same_association = False
        self.reports = True
        """Whether it reports at all, by itself; else ``report`` does."""
        self.asked: list[Dataset] = []
        """Every N-ACTION's information."""
        self.answers: list[int] = []
        """What its reports were answered."""
        self.caller: tuple[str, int] | None = None
        """AE title and port of whom it reports to on a new association."""
        self.transfer_syntaxes: list[str] | None = None
        self.classes: list[str] | None = None
        """The SOP classes that it takes; None: all."""
        self._lock = threading.Lock()
        self._port = 0
        self._server: Any = None
        self._threads: list[threading.Thread] = []

    @property
    def peer(self) -> Peer:
        """How it is called."""
        return Peer(AE_TITLE, "127.0.0.1", self._port)

    def kept(self) -> set[str]:
        """The SOP Instance UIDs that it has."""
        with self._lock:
            return set(self.series)

    def counts(self) -> list[int]:
        """How often each instance was sent."""
        return [len(contents) for contents in self.stored.values()]

    def start(self) -> None:
        """Listen."""
        application = AE(AE_TITLE)
        application.maximum_associations = 50
        for context in AllStoragePresentationContexts:
            if self.classes is None or context.abstract_syntax in self.classes:
                syntaxes = self.transfer_syntaxes or context.transfer_syntax
                application.add_supported_context(context.abstract_syntax, syntaxes)
        application.add_supported_context(Verification)
        if self.finds:
            application.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        if self.commits:
            application.add_supported_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find), (evt.EVT_N_ACTION, self._action)]
        self._server = application.start_server(
            ("127.0.0.1", self._port), block=False, evt_handlers=[*handlers, (evt.EVT_PDU_SENT, self._report_here)]
        )
        self._port = self._server.server_address[1]

    def stop(self) -> None:
        """Be away."""
        for thread in self._threads:
            thread.join(30)
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def __enter__(self) -> "Archive":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def report(self, request: Dataset) -> None:
        """Report on a request on a new association; what it answers is kept."""
        assert self.caller is not None
        application = AE(AE_TITLE)
        application.acse_timeout = application.dimse_timeout = 30
        roles: list[Any] = [build_role(StorageCommitmentPushModel, scp_role=True)]
        association = application.associate(
            "127.0.0.1",
            self.caller[1],
            [build_context(StorageCommitmentPushModel)],
            ae_title=self.caller[0],
            ext_neg=roles,
        )
        self._send_report(association, request)
        association.release()

    def _store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        content = hashlib.sha256(event.request.DataSet.getvalue()).hexdigest()
        status = 0xA700 if self.full else self.statuses.get(uid, 0x0000)
        with self._lock:
            self.stored[uid].append(content)
            if (status == 0x0000 or status >> 12 == 0xB) and uid not in self.loses:
                dataset = event.dataset
                dataset.file_meta = event.file_meta
                self.series[uid], self.datasets[uid] = str(dataset.SeriesInstanceUID), dataset
        return status

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        if event.identifier.QueryRetrieveLevel == "STUDY":
            yield from self._find_studies(event.identifier)
            return
        wanted = str(event.identifier.SeriesInstanceUID)
        with self._lock:
            found = [uid for uid, series_uid in self.series.items() if series_uid == wanted]
        for uid in found:
            answer = Dataset()
            answer.QueryRetrieveLevel, answer.StudyInstanceUID = "IMAGE", event.identifier.StudyInstanceUID
            answer.SeriesInstanceUID, answer.SOPInstanceUID = wanted, uid
            yield 0xFF00, answer

    def _find_studies(self, identifier: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        """Each patient under whom a study is filed; ``patients`` says otherwise than its images."""
        wanted = str(identifier.StudyInstanceUID)
        with self._lock:
            kept = [one for one in self.datasets.values() if one.StudyInstanceUID == wanted]
        for patient in self.patients.get(wanted, kept[:1]):
            answer = Dataset()
            answer.SpecificCharacterSet, answer.QueryRetrieveLevel = "ISO_IR 192", "STUDY"
            answer.StudyInstanceUID = wanted
            for keyword in ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex"):
                setattr(answer, keyword, patient.get(keyword, ""))
            yield 0xFF00, answer

    def _action(self, event: evt.Event) -> tuple[int, None]:
        request = event.action_information
        with self._lock:
            self.asked.append(request)
        if self.reports and not self.on_same_association:
            self._threads.append(threading.Thread(target=self.report, args=(request,)))
            self._threads[-1].start()
        elif self.reports:
            event.assoc.reports_on = request
        return 0x0000, None

    def _report_here(self, event: evt.Event) -> None:
        """For EVT_PDU_SENT: after the answer to the request, as a PACS does that reports on its association."""
        request = getattr(event.assoc, "reports_on", None)
        if request is None or type(event.pdu).__name__ != "P_DATA_TF":
            return
        event.assoc.reports_on = None
        self._threads.append(threading.Thread(target=self._send_report, args=(event.assoc, request)))
        self._threads[-1].start()

    def _send_report(self, association: Any, request: Dataset) -> None:
        information = Dataset()
        information.TransactionUID = request.TransactionUID
        kept = self.kept()
        there = [item for item in request.ReferencedSOPSequence if item.ReferencedSOPInstanceUID in kept]
        missing = [item for item in request.ReferencedSOPSequence if item.ReferencedSOPInstanceUID not in kept]
        if there:
            information.ReferencedSOPSequence = there
        for item in missing:
            item.FailureReason = FAILURE
        if missing:
            information.FailedSOPSequence = missing
        status, _ = association.send_n_event_report(
            information, 2 if missing else 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.answers.append(int(status.get("Status", -1)))
