"""C-STORE to a peer: files as they are over one association or a few, and the status of every one."""

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread, read_file_meta_info
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from dicom_node.associations import SUCCESS, RestingReactor, Timeouts, resting_reactor
from dicom_node.client import NothingAccepted, accepted_pairs, associated
from dicom_node.peers import Peer
from dicom_node.store_messages import StoreMessages
from dicom_node.store_queue import StoreQueue
from twin_scanner.errors import Defect, Transient
from twin_scanner.progress import Progress

DUPLICATE: Final = 0x0111
"""The peer has the instance already (PS3.7 C.5.1): what we wanted."""
NO_ANSWER: Final = -1
"""Stands for the status of an instance that got none: the association ended before."""
_WARNINGS: Final = range(0xB000, 0xC000)
OUT_OF_RESOURCES: Final = range(0xA700, 0xA800)
"""The peer has no room, or takes nothing now (PS3.4 table B.2-1): that concerns whatever else is meant for it."""
_MOST_CONTEXTS: Final = 128
LEAST_EACH: Final = 8
"""An association more is not worth its opening for fewer instances."""
_BESIDE_S: Final = 3.0
"""How long an association more may take to come about: a peer that takes one at a time leaves it unanswered."""
_LEAST_PDU_BYTES: Final = 1024
"""A peer that takes less at once would be sent an image in a million parts, or in none; PACS in use take 16384."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InstanceStatus:
    """A peer's answer to one C-STORE: status by PS3.7 annex C and PS3.4 table B.2-1, and its ErrorComment."""

    sop_instance_uid: str
    status: int
    comment: str = ""

    @property
    def warning(self) -> bool:
        """Whether the peer has the instance and says that it changed something of it (0xB000), or the like."""
        return self.status in _WARNINGS

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


class Unreadable(Transient):
    """A file of ours cannot be read at the moment: this says nothing of the peer."""


@dataclass(frozen=True)
class Instance:
    """A file that is to be sent."""

    file: Path
    sop_class_uid: UID
    uid: str
    transfer_syntax_uid: UID
    """In which it is sent."""
    as_it_is: bool = True

    @property
    def offer(self) -> tuple[str, str]:
        """SOP class and transfer syntax."""
        return str(self.sop_class_uid), str(self.transfer_syntax_uid)


class SendingStopped(NotStored):
    """The caller asked to stop before every instance was sent; what was stored until then is in ``report``."""


def send(
    files: Sequence[Path],
    peer: Peer,
    *,
    calling_ae: str,
    timeouts: Timeouts | None = None,
    on_progress: Progress | None = None,
    on_answer: Callable[[InstanceStatus], None] | None = None,
    check_stop: Callable[[], bool] | None = None,
    where_taken: Sequence[Path] = (),
    skip: Collection[str] = (),
    implicit: bool = False,
    associations: int = 1,
) -> SendReport:
    """Store the files at the peer, each in its own transfer syntax; safe to repeat.

    With ``implicit`` each is encoded anew in Implicit VR Little Endian, for a peer that takes nothing else. With
    ``associations`` at most so many are open at once, LEAST_EACH files or more for each: the files are begun in their
    order and may be answered in another. One association must come about; where the peer takes no more, or gives up
    another one, the first sends everything.

    ``where_taken`` are files that the peer need not know the kind of: those whose SOP class it does not accept are
    left out and the class is named in the report's ``not_taken``. They are sent once all files are answered. ``skip``
    are SOP Instance UIDs that an earlier call stored: they are neither sent nor reported.
    ``on_answer`` receives each instance's status, ``on_progress`` (instances answered, instances in all), in one thread
    at a time.
    ``check_stop`` is asked before each instance; once it says True nothing more is sent, the association is released
    and SendingStopped raised. Returns where the peer has every instance. Raises NotStored (Transient) where it has
    not, Unreadable (Transient) where a file cannot be read, Transient where no association comes about, Defect where a
    file is no DICOM file.
    """
    instances, wishes = (
        [one for one in (instance_of(file, implicit) for file in group) if one.uid not in skip]
        for group in (files, where_taken)
    )
    if not instances and not wishes:
        return SendReport(())
    work = _Work(peer, calling_ae, timeouts or Timeouts(), on_progress, on_answer, check_stop or _never)
    try:
        return _sent(instances, wishes, work, associations)
    except NothingAccepted:
        if instances:
            raise
        return SendReport((), tuple(str(wish.sop_class_uid) for wish in wishes))


def _never() -> bool:
    return False


@dataclass
class _Work:
    """One sending: where to, who wants to know, and what was answered so far, by the place of the instance."""

    peer: Peer
    calling_ae: str
    timeouts: Timeouts
    on_progress: Progress | None
    on_answer: Callable[[InstanceStatus], None] | None
    check_stop: Callable[[], bool]
    answers: dict[int, InstanceStatus] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def association(self, instances: Sequence[Instance], timeouts: Timeouts) -> Iterator[Association]:
        """An association with the contexts of these instances; raises Transient where there is none."""
        with associated(self.peer, self.calling_ae, _contexts(instances), timeouts) as association:
            association.dimse = StoreMessages(association)
            yield association

    def note(self, place: int, answer: InstanceStatus, total: int) -> None:
        """Keep an answer, and tell whoever wants to know."""
        with self.lock:
            self.answers[place] = answer
            if self.on_answer is not None:
                self.on_answer(answer)
            if self.on_progress is not None:
                self.on_progress(len(self.answers), total)

    def report(self, instances: Sequence[Instance], not_taken: tuple[str, ...]) -> SendReport:
        """Every instance's status; NO_ANSWER of those that were not sent."""
        found = (self.answers.get(place, InstanceStatus(one.uid, NO_ANSWER)) for place, one in enumerate(instances))
        return SendReport(tuple(found), not_taken)


def _sent(instances: list[Instance], wishes: Sequence[Instance], work: _Work, associations: int) -> SendReport:
    peer, shared = work.peer, len(instances)
    more = min(associations, shared // LEAST_EACH) - 1
    # The first sends nothing while it waits for an answer over another one.
    limits = replace(work.timeouts, idle_s=work.timeouts.idle_s + work.timeouts.response_s)
    # Left last: an association that the peer takes only once the first is released, ends at once then.
    with (
        ThreadPoolExecutor(max(1, more), "store") as pool,
        work.association([*instances, *wishes], limits) as first,
    ):
        _check_contexts(instances, first, peer)
        accepted = accepted_pairs(first)
        everything = [*instances, *(wish for wish in wishes if wish.offer in accepted)]
        not_taken = tuple(str(wish.sop_class_uid) for wish in wishes if wish.offer not in accepted)
        queue = StoreQueue(len(everything), shared, work.check_stop)
        beside = [pool.submit(copy_context().run, _send_beside, everything, shared, queue, work) for _ in range(more)]
        _send_over(first, everything, queue, work, shared=True)
        queue.settle()
        _send_over(first, everything, queue, work, shared=False)
    for one in beside:
        one.result()
    report = work.report(everything, not_taken)
    if queue.stopped:
        raise SendingStopped(f"{_missing(report)} were not sent to {peer}, for this program was asked to stop.", report)
    if report.not_stored:
        raise NotStored(_explain(report, peer), report)
    logger.info("%s stored %d instances.", peer, len(everything))
    return report


def _send_over(
    first: Association, instances: Sequence[Instance], queue: StoreQueue, work: _Work, *, shared: bool
) -> None:
    """Store what the queue has; an answer that says that the peer takes no more is the last."""
    with resting_reactor(first) as reactor:
        while (place := queue.take(shared=shared)) is not None:
            with queue.working():
                answer = _store(first, reactor, instances[place], place)
                if _is_last(answer):
                    queue.end()
                work.note(place, answer, len(instances))


def _send_beside(instances: Sequence[Instance], shared: int, queue: StoreQueue, work: _Work) -> None:
    """Help over one association more; what it gets no answer for, or no room, is left to the first."""
    limits = work.timeouts
    opening = replace(
        limits,
        connection_s=min(limits.connection_s, _BESIDE_S),
        negotiation_s=min(limits.negotiation_s, _BESIDE_S),
    )
    with ExitStack() as closing:
        try:
            another = closing.enter_context(work.association(instances[:shared], opening))
            _check_contexts(instances[:shared], another, work.peer)
        except Transient as error:
            logger.info("%s is sent to over fewer associations: %s", work.peer, error)
            return
        reactor = closing.enter_context(resting_reactor(another))
        while (place := queue.take(shared=True)) is not None:
            with queue.working():
                answer = _store(another, reactor, instances[place], place)
                if _is_last(answer):
                    queue.give_back(place)
                    return
                work.note(place, answer, len(instances))


def _is_last(answer: InstanceStatus) -> bool:
    return answer.status == NO_ANSWER or answer.status in OUT_OF_RESOURCES


def instance_of(file: Path, implicit: bool = False) -> Instance:
    """What a file's meta information says of it; raises Unreadable, or Defect where it is no DICOM file."""
    try:
        meta = read_file_meta_info(file)
        written = UID(meta.TransferSyntaxUID)
        sent = UID(ImplicitVRLittleEndian) if implicit else written
        class_uid, uid = UID(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
        return Instance(file, class_uid, uid, sent, sent == written)
    except OSError as error:
        raise _unreadable(file, error) from error
    except (InvalidDicomError, AttributeError) as error:
        raise Defect(f"{file.name} is not a DICOM file that can be sent: write it again.") from error


def _unreadable(file: Path, error: OSError) -> Unreadable:
    return Unreadable(f"{file.name} cannot be read ({error.strerror}): check the disk.")


def _contexts(instances: Sequence[Instance]) -> list[PresentationContext]:
    pairs = sorted({(instance.sop_class_uid, instance.transfer_syntax_uid) for instance in instances})
    if len(pairs) > _MOST_CONTEXTS:
        raise Defect(f"{len(pairs)} presentation contexts are needed, an association has {_MOST_CONTEXTS}: send fewer.")
    return [build_context(sop_class_uid, transfer_syntax_uid) for sop_class_uid, transfer_syntax_uid in pairs]


def _check_contexts(instances: Sequence[Instance], association: Association, peer: Peer) -> None:
    accepted, most = accepted_pairs(association), association.acceptor.maximum_length
    if most and most < _LEAST_PDU_BYTES:
        raise Transient(f"{peer} takes PDUs of {most} bytes, {_LEAST_PDU_BYTES} are needed: set its maximum higher.")
    for instance in instances:
        if instance.offer not in accepted:
            raise Transient(
                f"{peer} does not accept {instance.sop_class_uid.name} in {instance.transfer_syntax_uid.name}: "
                "allow it there."
            )


def _store(association: Association, reactor: RestingReactor, instance: Instance, number: int) -> InstanceStatus:
    reactor.rest()
    if not association.is_established:
        return InstanceStatus(instance.uid, NO_ANSWER)
    try:
        content = instance.file if instance.as_it_is else _in_implicit_vr(instance.file)
        answer = association.send_c_store(content, msg_id=number % 0xFFFF + 1, priority=0)
    except OSError as error:
        raise _unreadable(instance.file, error) from error
    except RuntimeError:
        reactor.let_go()
        return InstanceStatus(instance.uid, NO_ANSWER)
    if "Status" not in answer:
        return InstanceStatus(instance.uid, NO_ANSWER)
    return InstanceStatus(instance.uid, int(answer.Status), str(answer.get("ErrorComment") or ""))


def _in_implicit_vr(file: Path) -> Dataset:
    """The file's data set with the transfer syntax to encode it in; compressed pixels become plain ones."""
    written = dcmread(file)
    if written.file_meta.TransferSyntaxUID.is_compressed and "PixelData" in written:
        written.decompress(generate_instance_uid=False)
    written.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    plain = Dataset(written)
    plain.file_meta = written.file_meta
    return plain


def _missing(report: SendReport) -> str:
    return f"{len(report.not_stored)} of {len(report.instances)} instances"


def _explain(report: SendReport, peer: Peer) -> str:
    first = report.not_stored[0]
    missing = _missing(report)
    if first.status == NO_ANSWER:
        return f"{peer} ended the association or did not answer, {missing} are not stored: look into its log."
    meaning = "out of resources, " if first.status in OUT_OF_RESOURCES else ""
    return (
        f"{peer} did not store {missing}, the first ({first.sop_instance_uid}) with status "
        f"0x{first.status:04X}: {meaning}look into its log."
    )
