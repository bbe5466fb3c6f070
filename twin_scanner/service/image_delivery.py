"""One result on its way to one destination that keeps images: sent, confirmed, and what it replaces rejected there.

Every step may be repeated after a crash. What was answered for is known from the result's folder, which transactions
were asked for from the ledger, and both are written before the next step begins.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from dicom_node.commitment import NotCommitting, new_transaction_uid
from dicom_node.store_scu import (
    NO_ANSWER,
    OUT_OF_RESOURCES,
    InstanceStatus,
    NotStored,
    SendingStopped,
    SendReport,
    Unreadable,
)
from twin_scanner.dicom.write.companions import PET_CLASS
from twin_scanner.errors import Defect, Rejected, Transient, Unavailable
from twin_scanner.render.report import RenderReport, read_report
from twin_scanner.service.answered_instances import Answered, answer_again, answering, forget_answered, read_answered
from twin_scanner.service.image_target import Confirm, ImageTarget
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import REPLACED, RESEND, Delivery, DeliveryState, Job, Ledger, Outcome, is_replaced
from twin_scanner.service.rejection import write_rejection_notes
from twin_scanner.service.worker import Beat, Record, Stopped

LOG: Final = logging.getLogger("twin_scanner.delivery")
SETTLING_S: Final = 600.0
"""A PACS may list what it has taken only after a while; what it does not list by then is sent again."""


class NotKept(Transient):
    """The destination answered for instances that it does not keep: they are sent again."""


class NotConfirmed(Transient):
    """The destination has not said yet that it keeps everything."""


@dataclass(frozen=True)
class ImageDestination:
    """A destination as the site wants it.

    ``rejects``: the PET that a later revision replaces is rejected there by a Key Object Selection (IHE IOCM).
    """

    name: str
    target: ImageTarget
    confirm: Confirm
    required: bool = True
    rejects: bool = False
    commitment_timeout_s: float = 3600.0


@dataclass(frozen=True)
class _Parcel:
    """What of one job goes to the destination."""

    job: Job
    folder: Path
    report: RenderReport

    def asked(self, not_taken: Collection[str]) -> dict[str, str]:
        """SOP Instance UID to SOP class, of all that a destination without these classes is to have."""
        pet = dict.fromkeys(self.report.pet_instance_uids, PET_CLASS)
        companions = {one.sop_instance_uid: one.sop_class_uid for one in self.report.companions}
        return pet | {uid: class_uid for uid, class_uid in companions.items() if class_uid not in not_taken}

    def series(self) -> list[str]:
        """Every series that was made."""
        return [self.report.pet_series_uid, *(companion.series_uid for companion in self.report.companions)]


@dataclass(frozen=True)
class ImageDelivery:
    """The work of one destination's lane."""

    ledger: Ledger
    folders: JobFolders
    destination: ImageDestination
    now: Callable[[], datetime]
    check_real_pet: Callable[[Job, bool], None]
    """Raises Rejected or Held where the job's study holds a real PET by now, Held or Transient while it is not known to
    be of the right patient; the flag says whether anything has left."""

    def work(self, delivery: Delivery, beat: Beat) -> Record:
        """What comes next for this delivery; returns what records it."""
        job = self.ledger.jobs.find(delivery.job_id)
        if job.cleared_at is not None:
            raise Defect(f"The files of job {job.job_id} were cleared before it was delivered: send the study again.")
        folder = self.folders.result(job.job_id)
        if not folder.is_dir():
            raise Defect(
                f"The result of job {job.job_id} is not in its folder any more, as after a restore on a new disk: put "
                f"the folder back, or release the job --without {self.destination.name}."
            )
        parcel = _Parcel(job, folder, read_report(folder))
        if delivery.is_resent:
            self._begin_again(delivery, parcel)
        begun = delivery.state == DeliveryState.STORED or self._has_begun(parcel)
        if not begun and is_replaced(job, self.ledger.jobs.of_study(job.study_uid, job.frame_of_reference_uid)):
            if delivery.is_resent:
                return partial(self.ledger.deliveries.not_again, delivery)
            return partial(self.ledger.deliveries.confirmed, delivery, REPLACED)
        if not begun:
            try:
                self.check_real_pet(job, self._has_left(job, folder))
            except Rejected as error:
                return partial(self.ledger.deliveries.withdraw, delivery, str(error))
        if delivery.state == DeliveryState.WAITING:
            return self._send(delivery, parcel, beat)
        return self._confirm(delivery, parcel, beat)

    def _has_left(self, job: Job, folder: Path) -> bool:
        deliveries = self.ledger.deliveries.of_jobs([job.job_id])[job.job_id]
        return any(one.was_confirmed or read_answered(folder, one.destination) for one in deliveries)

    def _has_begun(self, parcel: _Parcel) -> bool:
        """Whether the destination has taken anything of it; what rejects an earlier PET there is no part of it."""
        return not parcel.asked(()).keys().isdisjoint(read_answered(parcel.folder, self.destination.name))

    def _begin_again(self, delivery: Delivery, parcel: _Parcel) -> None:
        """What was answered before the last wish to send it again counts no more."""
        events = self.ledger.events.of_row("deliveries", delivery.delivery_id)
        wishes = [event.hash for event in events if event.what == RESEND]
        # A restored ledger may give an event's number out again, never its hash.
        answer_again(parcel.folder, self.destination.name, wishes[-1], parcel.asked(()).keys())

    def _send(self, delivery: Delivery, parcel: _Parcel, beat: Beat) -> Record:
        report = parcel.report
        files = [parcel.folder / name for name in report.pet_files]
        wishes = [parcel.folder / companion.file for companion in report.companions]
        asked = parcel.asked(())
        with answering(parcel.folder, self.destination.name) as (answered, note):
            try:
                sent = self._sent(files, wishes, answered, note, beat)
            except NotStored as error:
                self.ledger.deliveries.note_outcome(delivery, _outcome(asked, answered, error.report))
                raise self._translated(error) from error
        for sop_class_uid in sent.not_taken:
            LOG.warning(
                "the destination does not take this class; the object stays in the job's folder",
                extra={"step": self.destination.name, "sop_class_uid": sop_class_uid},
            )
        outcome = _outcome(parcel.asked(sent.not_taken), answered, sent)
        if outcome.warnings:
            counts = {status: len(uids) for status, uids in outcome.warnings.items()}
            LOG.warning("stored with warnings", extra={"step": self.destination.name, "statuses": counts})
        if self.destination.confirm == "status":
            self._reject_replaced(delivery, parcel, beat)
            return partial(self.ledger.deliveries.confirmed, delivery, self.destination.target.by_status, outcome)
        return partial(self.ledger.deliveries.stored, delivery, outcome)

    def _sent(
        self,
        files: Sequence[Path],
        wishes: Sequence[Path],
        answered: Answered,
        note: Callable[[InstanceStatus], None],
        beat: Beat,
    ) -> SendReport:
        def stops() -> bool:
            try:
                beat()
            except Stopped:
                return True
            return False

        try:
            return self.destination.target.send(
                files, where_taken=wishes, skip=frozenset(answered), on_answer=note, check_stop=stops
            )
        except (NotStored, Unreadable, Unavailable):
            raise
        except Transient as error:
            raise Unavailable(str(error)) from error

    @staticmethod
    def _translated(error: NotStored) -> Transient:
        """A destination without an answer or without room takes nothing of any other result either."""
        if isinstance(error, SendingStopped):
            return Stopped(str(error))
        statuses = [instance.status for instance in error.report.instances]
        is_down = any(status == NO_ANSWER or status in OUT_OF_RESOURCES for status in statuses)
        return Unavailable(str(error)) if is_down else error

    def _confirm(self, delivery: Delivery, parcel: _Parcel, beat: Beat) -> Record:
        asked = parcel.asked(delivery.outcome.not_taken if delivery.outcome else ())
        confirm = self.destination.confirm
        if confirm == "status":
            return self._confirmed(delivery, parcel, self.destination.target.by_status, beat)
        if confirm == "query":
            return self._by_query(delivery, parcel, asked, beat)
        commitments = self.ledger.deliveries.commitments(delivery)
        missing = asked.keys() - {uid for commitment in commitments for uid in commitment.kept}
        if not missing:
            return self._confirmed(delivery, parcel, "storage commitment", beat)
        current = next((one for one in commitments if one.transaction_uid == delivery.transaction_uid), None)
        if current is None or (current.accepted_at is None and current.reported_at is None):
            return self._ask(delivery, parcel, asked, beat)
        if current.reported_at is not None:
            return self._send_again(delivery, parcel, missing, asked, "says that it does not keep")
        waited_s = (self.now() - (current.accepted_at or current.asked_at)).total_seconds()
        left_s = self.destination.commitment_timeout_s - waited_s
        if 0.0 < left_s <= self.destination.commitment_timeout_s:
            return partial(self.ledger.deliveries.wait_for_report, delivery, current.transaction_uid, left_s)
        return self._without_report(delivery, parcel, asked, beat)

    def _ask(self, delivery: Delivery, parcel: _Parcel, asked: dict[str, str], beat: Beat) -> Record:
        transaction_uid = new_transaction_uid()
        self.ledger.deliveries.ask(delivery, transaction_uid)
        try:
            self.destination.target.commit(transaction_uid, [(asked[uid], uid) for uid in asked])
        except NotCommitting as error:
            LOG.warning("confirmed by query instead", extra={"step": self.destination.name, "reason": str(error)})
            return self._by_query(delivery, parcel, asked, beat)
        except Unavailable:
            raise
        except Transient as error:
            raise Unavailable(str(error)) from error
        timeout_s = self.destination.commitment_timeout_s
        return partial(self.ledger.deliveries.wait_for_report, delivery, transaction_uid, timeout_s)

    def _without_report(self, delivery: Delivery, parcel: _Parcel, asked: dict[str, str], beat: Beat) -> Record:
        """The report is overdue: a query says the same; else it is asked for once more, at a later attempt."""
        try:
            missing = self._missing(parcel, asked)
        except Transient as error:
            self.ledger.deliveries.ask_again(delivery)
            raise NotConfirmed(
                f"The destination '{self.destination.name}' did not report on storage commitment within "
                f"{self.destination.commitment_timeout_s:g} s, and cannot be queried: it is asked again."
            ) from error
        if missing:
            return self._send_again(delivery, parcel, missing, asked, "does not list")
        return self._confirmed(delivery, parcel, "query", beat)

    def _by_query(self, delivery: Delivery, parcel: _Parcel, asked: dict[str, str], beat: Beat) -> Record:
        try:
            missing = self._missing(parcel, asked)
        except Unavailable:
            raise
        except Transient as error:
            raise NotConfirmed(
                f'{error} A destination that answers no query needs confirm = "status", or "commitment".'
            ) from error
        if not missing:
            return self._confirmed(delivery, parcel, "query", beat)
        settling_s = (self.now() - (delivery.stored_at or self.now())).total_seconds()
        if 0.0 <= settling_s < SETTLING_S:
            raise NotConfirmed(
                f"The destination '{self.destination.name}' has answered for {len(asked)} instances and lists "
                f"{len(asked) - len(missing)} of them: it is asked again."
            )
        return self._send_again(delivery, parcel, missing, asked, "does not list")

    def _missing(self, parcel: _Parcel, asked: dict[str, str]) -> set[str]:
        return asked.keys() - self.destination.target.held(parcel.report.study_uid, parcel.series())

    def _send_again(
        self, delivery: Delivery, parcel: _Parcel, missing: set[str], asked: dict[str, str], what: str
    ) -> Record:
        forget_answered(parcel.folder, self.destination.name, missing)
        self.ledger.deliveries.not_kept(delivery)
        raise NotKept(
            f"The destination '{self.destination.name}' {what} {len(missing)} of {len(asked)} instances that it had "
            "answered for: they are sent again."
        )

    def _confirmed(self, delivery: Delivery, parcel: _Parcel, by: str, beat: Beat) -> Record:
        self._reject_replaced(delivery, parcel, beat)
        return partial(self.ledger.deliveries.confirmed, delivery, by)

    def _reject_replaced(self, delivery: Delivery, parcel: _Parcel, beat: Beat) -> None:
        """Send what rejects the earlier revisions that this destination has, where the site wants that.

        With what is sent again it is sent again too: a PACS that was restored may have lost it.
        """
        if not self.destination.rejects or parcel.job.revision == 1:
            return
        notes = write_rejection_notes(self.ledger, self.folders, parcel.job, parcel.report, self.destination.name)
        if not notes:
            return
        with answering(parcel.folder, self.destination.name) as (answered, note):
            try:
                sent = self._sent((), notes, {} if delivery.is_resent else answered, note, beat)
            except NotStored as error:
                raise self._translated(error) from error
        if sent.not_taken:
            LOG.warning(
                "the destination takes no rejection note: the replaced PET stays as it is",
                extra={"step": self.destination.name},
            )


def held_companions(report: RenderReport, deliveries: Sequence[Delivery]) -> frozenset[str] | None:
    """The companions that some destination keeps, by SOP Instance UID; None where an earlier version delivered them."""
    outcomes = [one.outcome for one in deliveries if one.was_confirmed and one.outcome is not None]
    if not outcomes:
        return None
    return frozenset(
        companion.sop_instance_uid
        for companion in report.companions
        if any(companion.sop_class_uid not in outcome.not_taken for outcome in outcomes)
    )


def _outcome(asked: Collection[str], answered: Answered, report: SendReport) -> Outcome:
    warnings, refused = (
        {status: tuple(uid for uid, one in remarks.items() if one == status) for status in sorted({*remarks.values()})}
        for remarks in (
            {uid: status for uid, status in answered.items() if status and uid in asked},
            {one.sop_instance_uid: f"0x{one.status:04X}" for one in report.not_stored if one.status != NO_ANSWER},
        )
    )
    return Outcome(len(asked), len(answered.keys() & set(asked)), warnings, refused, report.not_taken)
