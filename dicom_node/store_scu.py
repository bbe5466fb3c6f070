"""C-STORE to a peer: files as they are over one association, and the status of every one."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread, read_file_meta_info
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from dicom_node.associations import SUCCESS, Timeouts, rest_reactor
from dicom_node.client import NothingAccepted, accepted_pairs, associated
from dicom_node.peers import Peer
from dicom_node.store_messages import StoreMessages
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
) -> SendReport:
    """Store the files at the peer over one association, each in its own transfer syntax; safe to repeat.

    With ``implicit`` each is encoded anew in Implicit VR Little Endian, for a peer that takes nothing else.

    ``where_taken`` are files that the peer need not know the kind of: those whose SOP class it does not accept are
    left out and the class is named in the report's ``not_taken``. ``skip`` are SOP Instance UIDs that an earlier call
    stored: they are neither sent nor reported.
    ``on_answer`` receives each instance's status, ``on_progress`` (instances answered, instances in all).
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
    try:
        return _sent(instances, wishes, peer, calling_ae, timeouts, on_progress, on_answer, check_stop)
    except NothingAccepted:
        if instances:
            raise
        return SendReport((), tuple(str(wish.sop_class_uid) for wish in wishes))


def _sent(
    instances: list[Instance],
    wishes: Sequence[Instance],
    peer: Peer,
    calling_ae: str,
    timeouts: Timeouts | None,
    on_progress: Progress | None,
    on_answer: Callable[[InstanceStatus], None] | None,
    check_stop: Callable[[], bool] | None,
) -> SendReport:
    answers: list[InstanceStatus] = []
    stopped = False
    with associated(peer, calling_ae, _contexts([*instances, *wishes]), timeouts or Timeouts()) as association:
        association.dimse = StoreMessages(association)
        _check_contexts(instances, association, peer)
        accepted = accepted_pairs(association)
        instances += [wish for wish in wishes if wish.offer in accepted]
        not_taken = tuple(str(wish.sop_class_uid) for wish in wishes if wish.offer not in accepted)
        for number, instance in enumerate(instances):
            stopped = check_stop is not None and check_stop()
            if stopped:
                break
            answer = _store(association, instance, number)
            answers.append(answer)
            if on_answer is not None:
                on_answer(answer)
            if on_progress is not None:
                on_progress(len(answers), len(instances))
            if answer.status == NO_ANSWER or answer.status in OUT_OF_RESOURCES:
                break
    unsent = (InstanceStatus(instance.uid, NO_ANSWER) for instance in instances[len(answers) :])
    report = SendReport((*answers, *unsent), not_taken)
    if stopped:
        raise SendingStopped(f"{_missing(report)} were not sent to {peer}, for this program was asked to stop.", report)
    if report.not_stored:
        raise NotStored(_explain(report, peer), report)
    logger.info("%s stored %d instances.", peer, len(instances))
    return report


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


def _store(association: Association, instance: Instance, number: int) -> InstanceStatus:
    if not association.is_established:
        return InstanceStatus(instance.uid, NO_ANSWER)
    rest_reactor(association)
    try:
        content = instance.file if instance.as_it_is else _in_implicit_vr(instance.file)
        answer = association.send_c_store(content, msg_id=number % 0xFFFF + 1, priority=0)
    except OSError as error:
        raise _unreadable(instance.file, error) from error
    except RuntimeError:
        association._reactor_checkpoint.set()
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
