"""C-GET into a folder, and C-MOVE to a node: series that a peer has, paced, and only what is not there yet."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final, cast

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_context, build_role, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from dicom_node.answer_limits import AnswerLimits, limited
from dicom_node.associations import PENDING, SUCCESS, Timeouts, rest_reactor
from dicom_node.client import associated
from dicom_node.instance_header import file_meta, read_header
from dicom_node.peers import Peer
from dicom_node.refusal import CANNOT_UNDERSTAND, DOES_NOT_MATCH, OUT_OF_RESOURCES
from dicom_node.sop_classes import (
    CT_CLASSES,
    PET_CLASSES,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    TRANSFER_SYNTAXES,
)
from dicom_node.spool import Spool, is_file_name_uid
from twin_scanner.errors import Rejected, Transient

RETRIEVED_CLASSES: Final = (*CT_CLASSES, *PET_CLASSES)
LARGEST_INSTANCE_BYTES: Final = 2**30
"""One instance is in memory while it is received here."""
_UNKNOWN_DESTINATION: Final = 0xA801
_MOST_UIDS: Final = 50
"""Instances that one request names: an element of explicit VR holds 64 KB, and peers that answer take their time."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WantedSeries:
    """A series at a peer, and which instances of it are wanted; ``whole``: all that the peer has."""

    study_uid: str
    series_uid: str
    instances: frozenset[str]
    whole: bool = True

    def requests(self) -> Iterator[Dataset]:
        """The identifiers that ask for them (PS3.4 C.4.2.1.4), the whole series by one."""
        if self.whole:
            yield _identifier("SERIES", self)
            return
        uids = sorted(self.instances)
        for first in range(0, len(uids), _MOST_UIDS):
            identifier = _identifier("IMAGE", self)
            identifier.SOPInstanceUID = uids[first : first + _MOST_UIDS]
            yield identifier


@dataclass
class Pace:
    """Keeps to so many instances a second on average; None: as fast as they come."""

    per_second: float | None
    monotonic_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _next_s: float = field(default=0.0, init=False)

    def keep(self, instances: int = 1) -> None:
        """Wait until so many more instances may have come."""
        if self.per_second is None:
            return
        now_s = self.monotonic_s()
        if self._next_s > now_s:
            self.sleep(self._next_s - now_s)
        self._next_s = max(self._next_s, now_s) + instances / self.per_second


def missing_of(wanted: WantedSeries, present: Collection[str]) -> WantedSeries:
    """What of a series is still to be fetched."""
    missing = wanted.instances - frozenset(present)
    return WantedSeries(wanted.study_uid, wanted.series_uid, missing, whole=missing == wanted.instances)


def get_series(
    peer: Peer,
    wanted: Sequence[WantedSeries],
    into: Spool,
    *,
    calling_ae: str,
    pace: Pace,
    on_instance: Callable[[], None] = lambda: None,
    timeouts: Timeouts | None = None,
) -> None:
    """C-GET into a folder that is laid out as a spool: an instance is there as a whole, and for good, or not at all.

    Raises Transient where no association comes about, or where the peer refuses or breaks off: what came until then
    stays. An instance that was not asked for is refused.
    """
    receiver = _Receiver(into, pace, on_instance)
    with associated(
        peer,
        calling_ae,
        [build_context(STUDY_ROOT_GET), *_storage_contexts()],
        timeouts or Timeouts(),
        handlers=[(evt.EVT_C_STORE, receiver.answer)],
        roles=[build_role(UID(sop_class_uid), scp_role=True) for sop_class_uid in RETRIEVED_CLASSES],
    ) as association:
        if all(context.abstract_syntax != STUDY_ROOT_GET for context in association.accepted_contexts):
            raise Transient(f"{peer} does not accept C-GET: allow it there, or pull to the node by C-MOVE (no --out).")
        with limited(association, AnswerLimits(LARGEST_INSTANCE_BYTES)):
            for series in wanted:
                receiver.wanted = series
                for identifier in series.requests():
                    rest_reactor(association)
                    _run(peer, "C-GET", association.send_c_get(identifier, STUDY_ROOT_GET))


def move_series(
    peer: Peer,
    wanted: Sequence[WantedSeries],
    destination_ae: str,
    *,
    calling_ae: str,
    pace: Pace,
    on_instances: Callable[[int], None] = lambda count: None,
    timeouts: Timeouts | None = None,
) -> None:
    """C-MOVE: the peer sends the series to the node that it knows by this AE title; raises Transient where it does not.

    The pace is kept between two series.
    """
    with associated(peer, calling_ae, [build_context(STUDY_ROOT_MOVE)], timeouts or Timeouts()) as association:
        if not association.accepted_contexts:
            raise Transient(f"{peer} does not accept C-MOVE: allow it there for '{calling_ae}'.")
        with limited(association, AnswerLimits(65_536)):
            for series in wanted:
                pace.keep(len(series.instances))
                for identifier in series.requests():
                    rest_reactor(association)
                    _run(peer, "C-MOVE", association.send_c_move(identifier, destination_ae, STUDY_ROOT_MOVE))
                on_instances(len(series.instances))


def _storage_contexts() -> list[PresentationContext]:
    """A context for each class and transfer syntax: the peer sends each instance as it has it."""
    return [
        build_context(UID(sop_class_uid), UID(syntax_uid))
        for sop_class_uid in RETRIEVED_CLASSES
        for syntax_uid in TRANSFER_SYNTAXES
    ]


def _identifier(level: str, series: WantedSeries) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    identifier.StudyInstanceUID = series.study_uid
    identifier.SeriesInstanceUID = series.series_uid
    return identifier


class _Receiver:
    """Answers the C-STOREs of a C-GET, and keeps the instances of the series that is asked for."""

    def __init__(self, into: Spool, pace: Pace, on_instance: Callable[[], None]) -> None:
        self.wanted: WantedSeries | None = None
        self._into = into
        self._pace = pace
        self._on_instance = on_instance

    def answer(self, event: evt.Event) -> int:
        """The status of one C-STORE (PS3.4 table B.2-1)."""
        wanted, request = self.wanted, cast(C_STORE, event.request)
        data, transfer_syntax_uid = cast(BytesIO, request.DataSet), UID(event.context.transfer_syntax)
        try:
            with data.getbuffer() as data_set:
                header = read_header(lambda most: bytes(data_set[:most]), transfer_syntax_uid)
                uids = (header.study_uid, header.series_uid, header.sop_instance_uid)
                asked_for = wanted is not None and uids[:2] == (wanted.study_uid, wanted.series_uid)
                if not asked_for or not is_file_name_uid(header.sop_instance_uid):
                    return DOES_NOT_MATCH
                meta = file_meta(header.sop_class_uid, header.sop_instance_uid, transfer_syntax_uid)
                self._into.store((meta, data_set), *uids)
        except Rejected:
            return CANNOT_UNDERSTAND
        except Transient as error:
            logger.error("%s", error)
            return OUT_OF_RESOURCES
        self._on_instance()
        self._pace.keep()
        return SUCCESS


def _run(peer: Peer, service: str, answers: Iterator[tuple[Dataset, Dataset | None]]) -> None:
    """Follow a retrieval to its end; raises Transient where not every instance of it came."""
    status: Any = None
    failed = 0
    for answer, _ in answers:
        status = answer.get("Status")
        if status not in PENDING:
            failed = int(answer.get("NumberOfFailedSuboperations", 0) or 0)
            break
    if status == _UNKNOWN_DESTINATION:
        raise Transient(f"{peer} does not know where to send to: add this node, with its AE title and port, there.")
    if status is None or status in PENDING:
        raise Transient(f"{peer} broke off {service}: start the pull again, it goes on where it stopped.")
    if failed:
        raise Transient(f"{peer} could not send {failed} instances by {service}: start the pull again later.")
    if status != SUCCESS:
        raise Transient(f"{peer} refused {service} with 0x{status:04X}: check that it allows retrieval by us.")
