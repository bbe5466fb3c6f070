"""C-STORE and C-ECHO to a peer: files as they are over one association, and the status of every one."""

import logging
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.associations import (
    MAXIMUM_PDU_BYTES,
    Timeouts,
    acknowledge_at_once,
    configure_library,
    connection_of,
    send_at_once,
)
from twin_scanner.errors import Defect, Transient
from twin_scanner.progress import Progress

SUCCESS: Final = 0x0000
DUPLICATE: Final = 0x0111
"""The peer has the instance already (PS3.7 C.5.1): what we wanted."""
NO_ANSWER: Final = -1
"""Stands for the status of an instance that got none: the association ended before."""
_WARNINGS: Final = range(0xB000, 0xC000)
_OUT_OF_RESOURCES: Final = range(0xA700, 0xA800)
_MOST_CONTEXTS: Final = 128
_REST_S: Final = 5.0
"""The reactor looks every millisecond; one that does not rest by then never will."""
_REST_POLL_S: Final = 0.0002

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Peer:
    """A DICOM application on the network."""

    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"


@dataclass(frozen=True)
class InstanceStatus:
    """A peer's answer to one C-STORE: status by PS3.7 annex C and PS3.4 table B.2-1, and its ErrorComment."""

    sop_instance_uid: str
    status: int
    comment: str = ""

    @property
    def stored(self) -> bool:
        """Whether the peer has the instance: success, a warning (0xBxxx), or it had it before (0x0111)."""
        return self.status in (SUCCESS, DUPLICATE) or self.status in _WARNINGS


@dataclass(frozen=True)
class SendReport:
    """Every instance's status, in the order of the files; ``not_taken`` are SOP classes that the peer does not know."""

    instances: tuple[InstanceStatus, ...]
    not_taken: tuple[str, ...] = ()

    @property
    def not_stored(self) -> tuple[InstanceStatus, ...]:
        """Those that the peer does not have."""
        return tuple(instance for instance in self.instances if not instance.stored)


class NotStored(Transient):
    """A peer took not every instance; ``report`` has each one's status."""

    def __init__(self, message: str, report: SendReport) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class _Instance:
    file: Path
    sop_class_uid: UID
    sop_instance_uid: str
    transfer_syntax_uid: UID

    @property
    def offer(self) -> tuple[str, str]:
        """SOP class and transfer syntax."""
        return str(self.sop_class_uid), str(self.transfer_syntax_uid)


def send(
    files: Sequence[Path],
    peer: Peer,
    *,
    calling_ae: str,
    timeouts: Timeouts | None = None,
    on_progress: Progress | None = None,
    where_taken: Sequence[Path] = (),
) -> SendReport:
    """Store the files at the peer over one association, each in its own transfer syntax; safe to repeat.

    ``where_taken`` are files that the peer need not know the kind of: those whose SOP class it does not accept are
    left out and the class is named in the report's ``not_taken``.
    ``on_progress`` receives (instances answered, instances in all). Returns where the peer has every instance. Raises
    NotStored (Transient) where it has not, Transient where no association comes about, Defect where a file is no
    DICOM file.
    """
    instances = [_read_instance(file) for file in files]
    wishes = [_read_instance(file) for file in where_taken]
    offered = [*instances, *wishes]
    if not offered:
        return SendReport(())
    answers: list[InstanceStatus] = []
    with _association(peer, calling_ae, _contexts(offered), timeouts or Timeouts()) as association:
        _check_contexts(instances, association, peer)
        accepted = _accepted(association)
        instances += [wish for wish in wishes if wish.offer in accepted]
        not_taken = tuple(str(wish.sop_class_uid) for wish in wishes if wish.offer not in accepted)
        for number, instance in enumerate(instances):
            answer = _store(association, instance, number)
            answers.append(answer)
            if on_progress is not None:
                on_progress(len(answers), len(instances))
            if answer.status == NO_ANSWER or answer.status in _OUT_OF_RESOURCES:
                break
    unsent = (InstanceStatus(instance.sop_instance_uid, NO_ANSWER) for instance in instances[len(answers) :])
    report = SendReport((*answers, *unsent), not_taken)
    if report.not_stored:
        raise NotStored(_explain(report, peer), report)
    logger.info("%s stored %d instances.", peer, len(instances))
    return report


def echo(peer: Peer, calling_ae: str, timeouts: Timeouts | None = None) -> None:
    """Verify by C-ECHO that the peer answers; raises Transient where it does not."""
    with _association(peer, calling_ae, [build_context(Verification)], timeouts or Timeouts()) as association:
        if not association.accepted_contexts:
            raise Transient(f"{peer} does not accept Verification: allow C-ECHO from '{calling_ae}' there.")
        status = association.send_c_echo().get("Status")
    if status != SUCCESS:
        said = "nothing" if status is None else f"0x{status:04X}"
        raise Transient(f"{peer} answered C-ECHO with {said}: check that DICOM service.")


def accepted_offers(
    peer: Peer, offers: Sequence[tuple[str, str]], *, calling_ae: str, timeouts: Timeouts | None = None
) -> frozenset[tuple[str, str]]:
    """Which pairs of SOP class and transfer syntax UIDs the peer would accept from us; nothing is sent.

    Verification is offered beside them, so that a peer that takes none of them is told from one that is not there.
    Raises Transient where no association comes about.
    """
    contexts = [build_context(UID(sop_class_uid), UID(syntax_uid)) for sop_class_uid, syntax_uid in offers]
    with _association(
        peer, calling_ae, [*contexts, build_context(Verification)], timeouts or Timeouts()
    ) as association:
        return frozenset(offers) & _accepted(association)


@contextmanager
def _association(
    peer: Peer, calling_ae: str, contexts: list[PresentationContext], timeouts: Timeouts
) -> Iterator[Association]:
    """An established association, released at the end, aborted on an error; raises Transient where there is none."""
    application = _application(calling_ae, timeouts)
    connections: list[socket.socket] = []
    connected: list[bool] = []
    rejections: list[A_ASSOCIATE_RJ] = []

    def keep_connection(event: evt.Event) -> None:
        connections.extend(filter(None, [connection_of(event.assoc)]))

    def on_open(event: evt.Event) -> None:
        connected.append(True)
        send_at_once(event)

    def keep_rejection(event: evt.Event) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            rejections.append(event.pdu)

    try:
        association = application.associate(
            peer.host,
            peer.port,
            contexts=contexts,
            ae_title=peer.ae_title,
            max_pdu=MAXIMUM_PDU_BYTES,
            evt_handlers=[
                (evt.EVT_ACSE_SENT, keep_connection),
                (evt.EVT_CONN_OPEN, on_open),
                (evt.EVT_PDU_RECV, keep_rejection),
                (evt.EVT_DATA_SENT, acknowledge_at_once),
            ],
        )
    except OSError as error:
        raise Transient(f"{peer} cannot be found ({error.strerror}): check the host name.") from error
    try:
        if not association.is_established:
            raise Transient(_why_not_established(association, peer, calling_ae, bool(connected), rejections))
        yield association
        association.release()
    finally:
        if association.is_established:
            association.abort()
        for connection in connections:
            connection.close()


def _application(calling_ae: str, timeouts: Timeouts) -> AE:
    configure_library()
    application = AE(ae_title=calling_ae)
    application.connection_timeout = timeouts.connection_s
    application.acse_timeout = timeouts.negotiation_s
    application.dimse_timeout = timeouts.response_s
    application.network_timeout = timeouts.idle_s
    return application


def _why_not_established(
    association: Association, peer: Peer, calling_ae: str, connected: bool, rejections: Sequence[A_ASSOCIATE_RJ]
) -> str:
    """In words; a rejection is taken from the PDU, for pynetdicom overlooks one that comes before it waits for it."""
    if not connected:
        return f"{peer} cannot be reached: check that it runs and that no firewall lies between."
    if rejections:
        reason = rejections[0].reason_str
        return f"{peer} rejected the association from '{calling_ae}' ({reason}): check both AE titles there."
    answer = association.acceptor.primitive
    if answer is not None and answer.result == 0:
        return f"{peer} accepted none of what we offer: allow these SOP classes from '{calling_ae}' there."
    return f"{peer} ended the association before accepting it: check that a DICOM service listens there."


def _read_instance(file: Path) -> _Instance:
    try:
        meta = read_file_meta_info(file)
        return _Instance(
            file,
            UID(meta.MediaStorageSOPClassUID),
            str(meta.MediaStorageSOPInstanceUID),
            UID(meta.TransferSyntaxUID),
        )
    except OSError as error:
        raise Transient(f"{file.name} cannot be read ({error.strerror}): check the disk.") from error
    except (InvalidDicomError, AttributeError) as error:
        raise Defect(f"{file.name} is not a DICOM file that can be sent: write it again.") from error


def _contexts(instances: Sequence[_Instance]) -> list[PresentationContext]:
    pairs = sorted({(instance.sop_class_uid, instance.transfer_syntax_uid) for instance in instances})
    if len(pairs) > _MOST_CONTEXTS:
        raise Defect(f"{len(pairs)} presentation contexts are needed, an association has {_MOST_CONTEXTS}: send fewer.")
    return [build_context(sop_class_uid, transfer_syntax_uid) for sop_class_uid, transfer_syntax_uid in pairs]


def _accepted(association: Association) -> frozenset[tuple[str, str]]:
    """SOP class and transfer syntax of what the peer takes."""
    return frozenset((str(cx.abstract_syntax), str(cx.transfer_syntax[0])) for cx in association.accepted_contexts)


def _check_contexts(instances: Sequence[_Instance], association: Association, peer: Peer) -> None:
    accepted = _accepted(association)
    for instance in instances:
        if instance.offer not in accepted:
            raise Transient(
                f"{peer} does not accept {instance.sop_class_uid.name} in {instance.transfer_syntax_uid.name}: "
                "allow it there."
            )


def _store(association: Association, instance: _Instance, number: int) -> InstanceStatus:
    if not association.is_established:
        return InstanceStatus(instance.sop_instance_uid, NO_ANSWER)
    _rest_reactor(association)
    try:
        answer = association.send_c_store(instance.file, msg_id=number % 0xFFFF + 1, priority=0)
    except RuntimeError:
        association._reactor_checkpoint.set()
        return InstanceStatus(instance.sop_instance_uid, NO_ANSWER)
    if "Status" not in answer:
        return InstanceStatus(instance.sop_instance_uid, NO_ANSWER)
    return InstanceStatus(instance.sop_instance_uid, int(answer.Status), str(answer.get("ErrorComment") or ""))


def _rest_reactor(association: Association) -> None:
    """Wait until pynetdicom's reactor thread really rests, so that it cannot take the answer that we wait for.

    Its own check looks at a flag that the reactor also raises while it runs on: on a busy machine the reactor then
    takes a C-STORE response as an unexpected message and drops it, and the send ends in a timeout.
    """
    checkpoint = association._reactor_checkpoint
    checkpoint.clear()
    deadline = time.monotonic() + _REST_S
    while not checkpoint._cond._waiters and association.is_alive() and time.monotonic() < deadline:  # type: ignore[attr-defined]
        time.sleep(_REST_POLL_S)


def _explain(report: SendReport, peer: Peer) -> str:
    first = report.not_stored[0]
    missing = f"{len(report.not_stored)} of {len(report.instances)} instances"
    if first.status == NO_ANSWER:
        return f"{peer} ended the association or did not answer, {missing} are not stored: look into its log."
    meaning = "out of resources, " if first.status in _OUT_OF_RESOURCES else ""
    return (
        f"{peer} did not store {missing}, the first ({first.sop_instance_uid}) with status "
        f"0x{first.status:04X}: {meaning}look into its log."
    )
