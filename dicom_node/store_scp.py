"""The Storage SCP: answers a C-STORE with success only once the instance is durable in the spool.

Statuses (PS3.7 annex C, PS3.4 table B.2-1); every failure carries an ErrorComment and keeps the association open:

====== =========================================================================================================
0x0000 kept in the spool and passed to ``on_stored``, now or before with the same content; or our own equipment's
       object that is no CT: dropped on purpose
0xB000 (warning) another content has this UID here: this one is kept apart and passed to ``on_stored``. A sender takes
       a warning for stored, so it neither loses the instance nor sends it for ever
0x0117 the request has no valid SOP Instance UID
0x0122 SOP class not supported: neither a CT nor ours, so it is not kept; or not its presentation context's class
0x0124 not authorised: the peer has not the role send_ct
0xA700 out of resources: disk full or below its reserve, file system error, an instance above the largest size, or the
       node is shutting down; sending again later may succeed
0xA900 the data set's SOP Class UID or SOP Instance UID is not the request's
0xC000 cannot understand: no data set, not one in its transfer syntax, or without study, series, class or instance UID
====== =========================================================================================================
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF

from dicom_node.associations import SUCCESS
from dicom_node.instance_header import InstanceHeader, file_meta, read_header
from dicom_node.messages import StoreRequest, receipt_of
from dicom_node.peers import Peer, Role
from dicom_node.receipt import MEGABYTE, Receipt, ReceiptLimits
from dicom_node.refusal import (
    CANNOT_UNDERSTAND,
    COMMENT_LENGTH,
    DOES_NOT_MATCH,
    NOT_AUTHORISED,
    OUT_OF_RESOURCES,
    SOP_CLASS_NOT_SUPPORTED,
    Refusal,
)
from dicom_node.sop_classes import CT_CLASSES
from dicom_node.spool import Partial, Spool, StoreOutcome, is_file_name_uid
from twin_scanner.errors import Rejected, Transient, TwinScannerError

KEPT_APART: Final = 0xB000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReceivedInstance:
    """An instance that is durable in the spool and about to be acknowledged; ``association`` numbers the sender's."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    calling_ae: str
    outcome: StoreOutcome
    association: int
    peer: Peer | None = None
    """Who sent it, where that is known."""


@dataclass
class _Traffic:
    """What one association did; touched only by its own threads."""

    number: int
    peer: Peer | None = None
    stored: int = 0
    dropped: int = 0
    refused: int = 0
    closed: bool = False


class StoreScp:
    """Keeps in the ``spool`` what other nodes send, and answers each C-STORE.

    ``on_stored`` is called before the acknowledgement, also for the same instance again, from several threads at
    once; it must not use the spool. An error of ours that it raises becomes 0xA700, and the sender tries again.
    ``is_own`` decides on a header with ``instance_header.DECIDING_TAGS``, and is asked only where the SOP class is none
    of ``kept_classes``. ``on_association_closed`` is given the number that the association's instances had, and
    ``on_association_released`` too where the sender ended it in order.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        on_stored: Callable[[ReceivedInstance], None],
        is_own: Callable[[Dataset], bool],
        receipt_limits: ReceiptLimits | None = None,
        on_association_closed: Callable[[int], None] | None = None,
        on_association_released: Callable[[int], None] | None = None,
        kept_classes: Sequence[str] = CT_CLASSES,
    ) -> None:
        self._spool = spool
        self._on_stored = on_stored
        self._is_own = is_own
        self._on_association_closed = on_association_closed
        self._on_association_released = on_association_released
        self._kept_classes = frozenset(kept_classes)
        self._limits = receipt_limits or ReceiptLimits()
        self._congested = False
        self._numbers = count(1)
        self._traffic: WeakKeyDictionary[Association, _Traffic] = WeakKeyDictionary()
        self._answering: set[Association] = set()
        self._answered = threading.Condition()
        self._refusing = False

    def handlers(self) -> list[Any]:
        """What an association server of pynetdicom calls."""
        return [
            (evt.EVT_C_STORE, self._answer_store),
            (evt.EVT_CONN_CLOSE, self._note_closed),
            (evt.EVT_PDU_SENT, self._note_answered),
            (evt.EVT_RELEASED, self._note_released),
        ]

    def begin(self, association: Association, request: StoreRequest) -> Receipt:
        """Open the receipt of an instance that was announced; what cannot be kept is refused when it has come."""
        receipt = Receipt(self._spool, self._limits)
        if self._refusing:
            receipt.refuse(Refusal(OUT_OF_RESOURCES, "The node is shutting down; send again later."))
        elif not (is_file_name_uid(request.sop_instance_uid) and is_file_name_uid(request.sop_class_uid)):
            receipt.refuse(Refusal(CANNOT_UNDERSTAND, "The request cannot be understood."))
        else:
            transfer_syntax_uid = association._accepted_cx[request.context_id].transfer_syntax[0]
            receipt.begin(file_meta(request.sop_class_uid, request.sop_instance_uid, transfer_syntax_uid))
        return receipt

    def admit(self, association: Association, peer: Peer) -> None:
        """The association is this peer's, whose roles say what it may do; called before anything comes over it."""
        self._traffic_of(association).peer = peer

    def congestion(self) -> str | None:
        """Why nobody may begin to send now, in words; None where everybody may. It ends by itself."""
        try:
            free_bytes = self._spool.free_bytes()
        except Transient:
            return None  # each C-STORE is answered 0xA700, with the reason in the log
        congested = free_bytes < self._limits.minimum_free_bytes
        if congested != self._congested:
            self._congested = congested
            said = "fell below its reserve: no more is taken" if congested else "is above its reserve: more is taken"
            logger.warning("The free disk space %s (%d MB are free).", said, free_bytes // MEGABYTE)
        return "too little disk space is free (node.minimum_free_mb)" if congested else None

    def resume(self) -> None:
        """Take instances, again or for the first time."""
        self._refusing = False

    def refuse_more(self) -> None:
        """Answer every further C-STORE with 0xA700: the node is shutting down."""
        self._refusing = True

    def wait_until_answered(self, timeout_s: float) -> None:
        """Wait until the stores under way have their answers, at most so long."""
        with self._answered:
            if not self._answered.wait_for(lambda: not self._answering, timeout_s):
                logger.warning(
                    "%d stores were not answered in %g s; they stay unacknowledged.", len(self._answering), timeout_s
                )

    def _answer_store(self, event: evt.Event) -> Dataset | int:
        association = event.assoc
        traffic = self._traffic_of(association)
        with self._answered:
            self._answering.add(association)
        receipt = receipt_of(event.request)
        try:
            if receipt is None:
                raise Refusal(CANNOT_UNDERSTAND, "The request has no data set.")
            return self._store(event, receipt, traffic)
        except Refusal as refusal:
            traffic.refused += 1
            logger.warning(
                "Instance %s from %r was refused with 0x%04X: %s",
                _printable_uid(cast(C_STORE, event.request).AffectedSOPInstanceUID),
                association.requestor.ae_title,
                refusal.status,
                refusal.comment,
            )
            return _answer(refusal.status, refusal.comment)
        finally:
            if receipt is not None:
                receipt.close()
            if traffic.closed:
                self._forget_answering(association)

    def _store(self, event: evt.Event, receipt: Receipt, traffic: _Traffic) -> Dataset | int:
        """Decide on one instance and keep it; raises Refusal with the status and what to say."""
        if self._refusing:
            raise Refusal(OUT_OF_RESOURCES, "The node is shutting down; send again later.")
        partial = receipt.whole()
        header = _checked_header(cast(C_STORE, event.request), receipt, UID(event.context.transfer_syntax))
        if header.sop_class_uid not in self._kept_classes:
            return self._drop_own(header, traffic)
        if traffic.peer is not None and Role.SEND_CT not in traffic.peer.roles:
            raise Refusal(NOT_AUTHORISED, "This AE title may not send CT: role send_ct.")
        outcome = self._keep(header, partial, event.assoc.requestor.ae_title, traffic)
        traffic.stored += 1
        if outcome is StoreOutcome.KEPT_APART:
            return self._warn_of_another(header)
        logger.debug("Instance %s: %s.", header.sop_instance_uid, outcome, extra=_fields(header))
        return SUCCESS

    def _warn_of_another(self, header: InstanceHeader) -> Dataset:
        logger.warning(
            "Instance %s came with another content than before: the first stays, this one is kept apart.",
            header.sop_instance_uid,
            extra=_fields(header),
        )
        return _answer(KEPT_APART, "Another content has this UID here; this one is kept apart.")

    def _drop_own(self, header: InstanceHeader, traffic: _Traffic) -> int:
        """The loop guard: what we made and a PACS routed back is acknowledged and forgotten; nothing else is."""
        try:
            own = self._is_own(header.dataset)
        except TwinScannerError as error:
            logger.error("%s", error, extra=_fields(header))
            raise Refusal(OUT_OF_RESOURCES, "The node cannot decide now; send again later.") from error
        if not own:
            raise Refusal(SOP_CLASS_NOT_SUPPORTED, "Only CT images are taken here.")
        traffic.dropped += 1
        logger.info("Instance %s is our own: acknowledged, dropped.", header.sop_instance_uid, extra=_fields(header))
        return SUCCESS

    def _keep(self, header: InstanceHeader, partial: Partial, calling_ae: str, traffic: _Traffic) -> StoreOutcome:
        uids = (header.study_uid, header.series_uid, header.sop_instance_uid)

        def report(outcome: StoreOutcome) -> None:
            self._on_stored(
                ReceivedInstance(*uids, header.sop_class_uid, calling_ae, outcome, traffic.number, traffic.peer)
            )

        try:
            outcome = self._spool.keep(partial, *uids, report)
        except TwinScannerError as error:
            logger.error("%s", error, extra=_fields(header))
            raise Refusal(OUT_OF_RESOURCES, "The instance cannot be kept now; send again later.") from error
        if traffic.closed:
            self._tell_closed(traffic)
        return outcome

    def _traffic_of(self, association: Association) -> _Traffic:
        with self._answered:
            if association not in self._traffic:
                self._traffic[association] = _Traffic(next(self._numbers))
            return self._traffic[association]

    def _note_answered(self, event: evt.Event) -> None:
        if isinstance(event.pdu, P_DATA_TF):
            self._forget_answering(event.assoc)

    def _note_released(self, event: evt.Event) -> None:
        if self._on_association_released is not None:
            self._on_association_released(self._traffic_of(event.assoc).number)

    def _note_closed(self, event: evt.Event) -> None:
        traffic = self._traffic_of(event.assoc)
        traffic.closed = True
        self._forget_answering(event.assoc)
        self._tell_closed(traffic)
        if traffic.stored or traffic.dropped or traffic.refused:
            logger.info(
                "%r sent %d instances that were kept, %d of our own, %d that were refused.",
                event.assoc.requestor.ae_title,
                traffic.stored,
                traffic.dropped,
                traffic.refused,
            )

    def _tell_closed(self, traffic: _Traffic) -> None:
        if self._on_association_closed is not None:
            self._on_association_closed(traffic.number)

    def _forget_answering(self, association: Association) -> None:
        with self._answered:
            self._answering.discard(association)
            self._answered.notify_all()


def _checked_header(request: C_STORE, receipt: Receipt, transfer_syntax_uid: UID) -> InstanceHeader:
    try:
        header = read_header(receipt.start, transfer_syntax_uid)
    except Transient as error:
        logger.error("%s", error)
        raise Refusal(OUT_OF_RESOURCES, "The instance cannot be read back; send again later.") from error
    except Rejected as error:
        raise Refusal(CANNOT_UNDERSTAND, str(error)) from error
    uids = (header.study_uid, header.series_uid, header.sop_instance_uid)
    if not all(is_file_name_uid(uid) for uid in uids):
        raise Refusal(CANNOT_UNDERSTAND, "The study, series or SOP instance UID is not valid.")
    if header.sop_instance_uid != str(request.AffectedSOPInstanceUID):
        raise Refusal(DOES_NOT_MATCH, "The data set's SOPInstanceUID is not the request's.")
    if header.sop_class_uid != str(request.AffectedSOPClassUID):
        raise Refusal(DOES_NOT_MATCH, "The data set's SOPClassUID is not the request's.")
    return header


def _answer(status: int, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status = status
    answer.ErrorComment = comment[:COMMENT_LENGTH]
    return answer


def _fields(header: InstanceHeader) -> dict[str, str]:
    return {"study_uid": header.study_uid, "series_uid": header.series_uid}


def _printable_uid(uid: object) -> str:
    """A peer's text goes into the log only if it is a UID."""
    return str(uid) if is_file_name_uid(str(uid)) else "(no valid UID)"
