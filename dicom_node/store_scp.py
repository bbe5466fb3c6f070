"""The Storage SCP: answers a C-STORE with success only once the instance is durable in the spool.

Statuses (PS3.7 annex C, PS3.4 table B.2-1); every failure carries an ErrorComment and keeps the association open:

====== =========================================================================================================
0x0000 kept in the spool and passed to ``on_stored``; or our own equipment's object that is no CT: dropped on purpose
0x0122 SOP class not supported: neither a CT nor ours, so it is not kept
0xA700 out of resources: disk full, file system error, or the node is shutting down; sending again later may succeed
0xA900 the data set's SOP Class UID or SOP Instance UID is not the request's
0xC000 cannot understand: not a data set in its transfer syntax, or without study, series, class or instance UID
====== =========================================================================================================
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
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
from dicom_node.sop_classes import CT_CLASSES
from dicom_node.spool import Spool, StoreOutcome, is_file_name_uid
from twin_scanner.errors import Rejected, Transient, TwinScannerError

SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
OUT_OF_RESOURCES: Final = 0xA700
DOES_NOT_MATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
_COMMENT_LENGTH: Final = 64
"""ErrorComment is an LO and holds no more characters (PS3.5 6.2)."""

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


@dataclass
class _Traffic:
    """What one association did; touched only by its own threads."""

    number: int
    stored: int = 0
    dropped: int = 0
    refused: int = 0
    closed: bool = False


class _Refusal(Exception):
    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment


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
        minimum_free_bytes: int = 0,
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
        self._minimum_free_bytes = minimum_free_bytes
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
        try:
            return self._store(event, cast(C_STORE, event.request), traffic)
        except _Refusal as refusal:
            traffic.refused += 1
            logger.warning(
                "Instance %s from %r was refused with 0x%04X: %s",
                _printable_uid(cast(C_STORE, event.request).AffectedSOPInstanceUID),
                association.requestor.ae_title,
                refusal.status,
                refusal.comment,
            )
            return _failure(refusal)
        finally:
            if traffic.closed:
                self._forget_answering(association)

    def _store(self, event: evt.Event, request: C_STORE, traffic: _Traffic) -> int:
        """Decide on one instance and keep it; raises _Refusal with the status and what to say."""
        if self._refusing:
            raise _Refusal(OUT_OF_RESOURCES, "The node is shutting down; send again later.")
        data = cast(BytesIO, request.DataSet)
        transfer_syntax_uid = UID(event.context.transfer_syntax)
        header = _checked_header(request, data, transfer_syntax_uid)
        if header.sop_class_uid not in self._kept_classes:
            return self._drop_own(header, traffic)
        with data.getbuffer() as data_set:
            if self._spool_free_bytes() - len(data_set) < self._minimum_free_bytes:
                raise _Refusal(OUT_OF_RESOURCES, "Too little free disk space; send again later.")
            meta = file_meta(header.sop_class_uid, header.sop_instance_uid, transfer_syntax_uid)
            outcome = self._keep(header, (meta, data_set), event.assoc.requestor.ae_title, traffic)
        traffic.stored += 1
        logger.debug("Instance %s: %s.", header.sop_instance_uid, outcome, extra=_fields(header))
        return SUCCESS

    def _drop_own(self, header: InstanceHeader, traffic: _Traffic) -> int:
        """The loop guard: what we made and a PACS routed back is acknowledged and forgotten; nothing else is."""
        try:
            own = self._is_own(header.dataset)
        except TwinScannerError as error:
            logger.error("%s", error, extra=_fields(header))
            raise _Refusal(OUT_OF_RESOURCES, "The node cannot decide now; send again later.") from error
        if not own:
            raise _Refusal(SOP_CLASS_NOT_SUPPORTED, "Only CT images are taken here.")
        traffic.dropped += 1
        logger.info("Instance %s is our own: acknowledged, dropped.", header.sop_instance_uid, extra=_fields(header))
        return SUCCESS

    def _spool_free_bytes(self) -> int:
        try:
            return self._spool.free_bytes()
        except Transient as error:
            logger.error("%s", error)
            raise _Refusal(OUT_OF_RESOURCES, "The node's disk does not answer; send again later.") from error

    def _keep(
        self, header: InstanceHeader, parts: tuple[bytes, memoryview], calling_ae: str, traffic: _Traffic
    ) -> StoreOutcome:
        uids = (header.study_uid, header.series_uid, header.sop_instance_uid)

        def report(outcome: StoreOutcome) -> None:
            self._on_stored(ReceivedInstance(*uids, header.sop_class_uid, calling_ae, outcome, traffic.number))

        try:
            outcome = self._spool.store(parts, *uids, report)
        except TwinScannerError as error:
            logger.error("%s", error, extra=_fields(header))
            raise _Refusal(OUT_OF_RESOURCES, "The instance cannot be kept now; send again later.") from error
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


def _checked_header(request: C_STORE, data_set: BytesIO, transfer_syntax_uid: UID) -> InstanceHeader:
    try:
        header = read_header(data_set, transfer_syntax_uid)
    except Rejected as error:
        raise _Refusal(CANNOT_UNDERSTAND, str(error)) from error
    uids = (header.study_uid, header.series_uid, header.sop_instance_uid)
    if not all(is_file_name_uid(uid) for uid in uids):
        raise _Refusal(CANNOT_UNDERSTAND, "The study, series or SOP instance UID is not valid.")
    if header.sop_instance_uid != str(request.AffectedSOPInstanceUID):
        raise _Refusal(DOES_NOT_MATCH, "The data set's SOPInstanceUID is not the request's.")
    if header.sop_class_uid != str(request.AffectedSOPClassUID):
        raise _Refusal(DOES_NOT_MATCH, "The data set's SOPClassUID is not the request's.")
    return header


def _failure(refusal: _Refusal) -> Dataset:
    answer = Dataset()
    answer.Status = refusal.status
    answer.ErrorComment = refusal.comment[:_COMMENT_LENGTH]
    return answer


def _fields(header: InstanceHeader) -> dict[str, str]:
    return {"study_uid": header.study_uid, "series_uid": header.series_uid}


def _printable_uid(uid: object) -> str:
    """A peer's text goes into the log only if it is a UID."""
    return str(uid) if is_file_name_uid(str(uid)) else "(no valid UID)"
