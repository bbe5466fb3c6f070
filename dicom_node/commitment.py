"""Storage commitment (PS3.4 annex J): asking a peer whether it keeps what it stored, and taking its report.

The report comes on the association of the request or on a new one, at once or after days. It is answered (PS3.7 C.4)
once ``on_report`` has kept it:

====== =========================================================================================================
0x0000 kept; the same report again is answered alike
0x0110 it cannot be kept now: report again later
0x0112 the affected SOP instance is not the well-known one of storage commitment
0x0113 the event type is neither 1 (all is kept) nor 2 (some of it is not)
0x0115 nobody here has asked for this transaction, or the report names none
====== =========================================================================================================
"""

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_context, evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.pdu import P_DATA_TF

from dicom_node.associations import PROCESSING_FAILURE, SUCCESS, Timeouts, rest_reactor
from dicom_node.client import associated
from dicom_node.peers import Peer
from dicom_node.sop_classes import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, VERIFICATION
from twin_scanner.errors import Transient, TwinScannerError

NO_SUCH_INSTANCE: Final = 0x0112
NO_SUCH_EVENT: Final = 0x0113
INVALID_ARGUMENT: Final = 0x0115
_REQUEST: Final = 1
"""The one action type (PS3.4 table J.3-1)."""
_EVENT_TYPES: Final = (1, 2)
"""All is kept, and failures exist (PS3.4 table J.3-2)."""
_LONGEST_UID: Final = 64

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CommitmentReport:
    """Which SOP instances a peer keeps of those in a transaction; of the others, the failure reason of each."""

    transaction_uid: str
    kept: frozenset[str]
    failed: dict[str, int] = field(default_factory=dict)


class NotCommitting(Transient):
    """The peer is there and does not take the request: the other ways of confirmation are left."""


def new_transaction_uid() -> str:
    """A UID that nobody can guess (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


class CommitmentReports:
    """Takes what peers report; ``on_report`` keeps it and says whether its transaction is one of ours.

    ``on_report`` is called from several threads at once; an error of ours that it raises lets the peer report again.
    """

    def __init__(self, on_report: Callable[[CommitmentReport], bool]) -> None:
        self._on_report = on_report

    def handlers(self) -> list[Any]:
        """What an association calls, whichever side opened it."""
        return [(evt.EVT_N_EVENT_REPORT, self._answer)]

    def keep(self, report: CommitmentReport) -> bool:
        """Whether the report is kept now: its transaction is one of ours."""
        return self._on_report(report)

    def _answer(self, event: evt.Event) -> tuple[int, None]:
        request = cast(N_EVENT_REPORT, event.request)
        if str(request.AffectedSOPInstanceUID) != STORAGE_COMMITMENT_INSTANCE:
            return NO_SUCH_INSTANCE, None
        if event.event_type not in _EVENT_TYPES:
            return NO_SUCH_EVENT, None
        report = read_report(event.event_information)
        try:
            known = self.keep(report)
        except TwinScannerError as error:
            logger.error("A report on storage commitment cannot be kept now: %s", error)
            return PROCESSING_FAILURE, None
        if not known:
            logger.warning("%r reported on a commitment that nobody asked for.", event.assoc.remote["ae_title"])
            return INVALID_ARGUMENT, None
        logger.info("Storage commitment: %d instances are kept, %d are not.", len(report.kept), len(report.failed))
        return SUCCESS, None


def read_report(information: Dataset) -> CommitmentReport:
    """The event information of a report (PS3.4 table J.3-2); an instance in both lists is not kept."""
    failed = {uid: int(item.get("FailureReason") or 0) for uid, item in _items(information, "FailedSOPSequence")}
    kept = {uid for uid, _ in _items(information, "ReferencedSOPSequence")}
    transaction_uid = str(information.get("TransactionUID") or "")[:_LONGEST_UID]
    return CommitmentReport(transaction_uid, frozenset(kept - failed.keys()), failed)


def ask_for_commitment(
    peer: Peer,
    transaction_uid: str,
    instances: Sequence[tuple[str, str]],
    reports: CommitmentReports,
    *,
    calling_ae: str,
    timeouts: Timeouts | None = None,
    linger_s: float = 2.0,
) -> None:
    """Ask the peer whether it keeps these ``instances``, pairs of SOP class and SOP instance UID.

    The association stays open for ``linger_s`` seconds, for a peer that reports on it; others open one to us. Raises
    NotCommitting where the peer does not take the request, Transient where no association comes about or no answer.
    """
    waiting = _ReportHere(reports, transaction_uid)
    contexts = [build_context(STORAGE_COMMITMENT), build_context(VERIFICATION)]
    with associated(peer, calling_ae, contexts, timeouts or Timeouts(), waiting.handlers()) as association:
        if STORAGE_COMMITMENT not in {str(context.abstract_syntax) for context in association.accepted_contexts}:
            raise NotCommitting(
                f"{peer} does not accept storage commitment: allow it there from '{calling_ae}', or set confirm to "
                '"query" here.'
            )
        rest_reactor(association)
        answer, _ = association.send_n_action(
            _request(transaction_uid, instances), _REQUEST, UID(STORAGE_COMMITMENT), UID(STORAGE_COMMITMENT_INSTANCE)
        )
        status = answer.get("Status")
        if status is None:
            raise Transient(f"{peer} did not answer the request for storage commitment: look into its log.")
        if status != SUCCESS:
            raise NotCommitting(f"{peer} refused storage commitment with 0x{status:04X}: look into its log.")
        waiting.answered.wait(linger_s)


class _ReportHere:
    """The report on the association of its request: ``answered`` once our answer to it has left.

    An association that is released before that hangs, with both sides waiting, until a timeout.
    """

    def __init__(self, reports: CommitmentReports, transaction_uid: str) -> None:
        self._reports = reports
        self._transaction_uid = transaction_uid
        self._came = False
        self.answered = threading.Event()

    def handlers(self) -> list[Any]:
        """What the association calls."""
        return [*CommitmentReports(self._keep).handlers(), (evt.EVT_PDU_SENT, self._note_sent)]

    def _keep(self, report: CommitmentReport) -> bool:
        known = self._reports.keep(report)
        self._came = self._came or report.transaction_uid == self._transaction_uid
        return known

    def _note_sent(self, event: evt.Event) -> None:
        if self._came and isinstance(event.pdu, P_DATA_TF):
            self.answered.set()


def _request(transaction_uid: str, instances: Sequence[tuple[str, str]]) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = []
    for sop_class_uid, sop_instance_uid in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        request.ReferencedSOPSequence.append(item)
    return request


def _items(information: Dataset, keyword: str) -> list[tuple[str, Dataset]]:
    items = information.get(keyword) or ()
    return [(str(item.get("ReferencedSOPInstanceUID") or "")[:_LONGEST_UID], item) for item in items]
