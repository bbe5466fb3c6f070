"""Before any work on a job: whether its CT is of the patient whom the PACS, the ledger and the twin record know, and of
a kind that the model was trained on.

A PET of a wrong patient cannot be called back from an archive, so what contradicts holds the job before it is rendered.
Who cannot be asked at the moment holds no render up: the twin is asked again before the images leave, and before
anything is recorded.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from twin_record.comparison import contradictions
from twin_record.patient_identity import PatientIdentity
from twin_record.target import TwinTarget
from twin_record.update import TwinUpdate
from twin_scanner.dicom.read.dicom_files import read_header
from twin_scanner.dicom.read.patient import text
from twin_scanner.errors import Held, Rejected, Transient, Unavailable
from twin_scanner.render.report import REPORT, read_report
from twin_scanner.service.breaker import Breaker
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import IDENTITY, OTHER_PATIENT, OUTSIDE_TRAINING, Job, Ledger

LOG = logging.getLogger("twin_scanner.preflight")

KEYWORDS: Final = (
    "SpecificCharacterSet",
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
)

NOT_COMPARED: Final = "identity not compared"
COMPARED: Final = "identity compared"
"""Events of a job whose CT was rendered while the twin record could not be asked, and once it was asked."""
LEFT_UNCHECKED: Final = "IdentityNotCompared"
"""The alarm of a job whose images leave although the twin record was never asked."""

FindPatients: TypeAlias = Callable[[Iterable[str]], Iterator[tuple[str, Sequence[PatientIdentity]]]]
"""Yields each study with the patients under whom a PACS has it; raises Transient where the PACS does not say."""

OutsideTraining: TypeAlias = Callable[[Path], Sequence[str]]
"""A clause for each thing of the CT in a folder that its model was not trained on."""


@dataclass(frozen=True)
class PatientSource:
    """A PACS that may be asked whose studies are."""

    name: str
    find: FindPatients
    breaker: Breaker


class Preflight:
    """``check`` raises Held; ``twin_breaker`` leaves the twin record alone while it is down.

    ``unchecked_after_s`` is how long the images of a job wait for a twin record that cannot be asked; None: they never
    leave without its answer. ``outside_training`` says what of a job's CT its model was not trained on.
    """

    def __init__(
        self,
        ledger: Ledger,
        folders: JobFolders,
        twin: TwinTarget,
        sources: Sequence[PatientSource],
        twin_breaker: Breaker,
        unchecked_after_s: float | None = None,
        outside_training: OutsideTraining = lambda _: (),
    ) -> None:
        self._ledger = ledger
        self._folders = folders
        self._twin = twin
        self._sources = tuple(sources)
        self._twin_breaker = twin_breaker
        self._unchecked_after_s = unchecked_after_s
        self._outside_training = outside_training

    def check(self, job: Job) -> None:
        """Raise Held where the job's CT is of another patient than its study was until now, or than the twin knows.

        It also is where the CT lies outside of its model's training data. A person who releases a job that was held for
        that, or for its study's patient, has decided on it; the twin is asked again.
        """
        if not self._is_decided(job, OUTSIDE_TRAINING):
            self._check_training(job)
        identity = self._identity(job)
        if identity is None:
            return
        if not self._is_decided(job, OTHER_PATIENT):
            self._check_study(job, identity)
        silence = self._ask_twin(job, identity, "preflight")
        if silence is not None:
            reason = {**job.facts, "step": "preflight", "reason": silence}
            LOG.error("identity not compared with the twin record before the render: its images wait", extra=reason)
            self._ledger.note(job.job_id, NOT_COMPARED)
        elif self._is_unchecked(job):
            self._ledger.note(job.job_id, COMPARED)

    def check_images(self, job: Job) -> None:
        """Before the first image leaves for a destination: ask the twin where the render went on without its answer.

        Raises Held as ``check`` does, and Transient while the twin cannot be asked and the images are to wait for it.
        """
        identity = self._identity(job) if self._is_unchecked(job) else None
        if identity is None:
            return
        try:
            silence = self._ask_twin(job, identity, "delivery")
        except Held:
            self._ledger.note(job.job_id, f"held for {IDENTITY}")
            raise
        if silence is None:
            self._ledger.note(job.job_id, COMPARED)
        elif self._unchecked_after_s is None or self._waited_s(job) < self._unchecked_after_s:
            raise Transient(
                f"The images wait for the twin record, which has not said yet whose this CT is: {silence} See "
                "twin.deliver_unchecked_after_hours."
            )
        else:
            reason = {**job.facts, "step": "delivery", "reason": silence}
            LOG.error("the images leave although the twin record was never asked whose the CT is", extra=reason)
            self._ledger.alarm(job.job_id, LEFT_UNCHECKED)

    def _identity(self, job: Job) -> PatientIdentity | None:
        """Who the job's CT is of; None where it does not say, for which the render rejects it."""
        identity = identity_in(sorted(self._folders.ct(job.job_id).rglob("*.dcm")))
        return identity if identity is not None and identity.patient_id.strip() else None

    def _is_unchecked(self, job: Job) -> bool:
        """Whether the twin's answer on the job is still missing, and nobody has let its images leave without."""
        for event in reversed(self._ledger.events.of_row("jobs", job.job_id)):
            if event.what == NOT_COMPARED:
                return True
            if event.what == COMPARED or event.detail.get("error") == LEFT_UNCHECKED:
                return False
        return False

    def _waited_s(self, job: Job) -> float:
        """For how long the delivery that has waited longest could have been made."""
        deliveries = self._ledger.deliveries.of_jobs([job.job_id])[job.job_id]
        return max((self._ledger.deliveries.age_s(delivery) for delivery in deliveries), default=0.0)

    def _check_training(self, job: Job) -> None:
        outside = self._outside_training(self._folders.ct(job.job_id))
        if outside:
            held = Held(
                f"The CT is unlike what the model was trained on: {'; '.join(outside)}. Release this job if its PET is "
                "wanted nevertheless: its report, SR and twin record then say so."
            )
            held.held_for = OUTSIDE_TRAINING
            raise held

    def _is_decided(self, job: Job, held_for: str) -> bool:
        events = [event.what for event in self._ledger.events.of_row("jobs", job.job_id)]
        held = f"held for {held_for}"
        return held in events and "released" in events[events.index(held) :]

    def _check_study(self, job: Job, identity: PatientIdentity) -> None:
        """The PACS knows best whose a study is; where none answers, what was rendered of it before says it."""
        for source in self._sources:
            owners = _asked(source, job.study_uid)
            if owners:
                self._compare(identity, owners, f"{source.name} has this study under another patient")
                return
        earlier = [job_identity(self._ledger, self._folders, other) for other in self._earlier(job)]
        known = [one for one in earlier if one is not None]
        self._compare(identity, known[-1:], "a PET of this study was made for another patient")

    def _earlier(self, job: Job) -> list[Job]:
        return [one for one in self._ledger.jobs.rendered_of_study(job.study_uid) if one.job_id != job.job_id]

    def _compare(self, identity: PatientIdentity, owners: Sequence[PatientIdentity], what: str) -> None:
        for owner in owners:
            if differing := contradictions(identity, owner):
                held = Held(
                    f"The CT may be of the wrong patient: {what} ({', '.join(differing)} differ), so nothing was made "
                    "of it; correct the CT and send it again, or correct the study there, or release this job as it is."
                )
                held.held_for = OTHER_PATIENT
                raise held

    def _ask_twin(self, job: Job, identity: PatientIdentity, step: str) -> str | None:
        """Ask the twin record whether the CT is of its patient; why it cannot be asked, else None. Raises Held."""
        if not self._twin_breaker.enter():
            return "The twin record is down, and is asked again by itself."
        try:
            for remark in self._twin.check_identity(identity, job.study_uid):
                LOG.warning("twin record: %s", remark, extra={**job.facts, "step": step})
            self._answered()
        except Transient as error:
            if isinstance(error, Unavailable):
                self._twin_breaker.down(error.retry_after_s)
            return str(error)
        except Held as held:
            self._answered()
            held.held_for = IDENTITY
            raise
        finally:
            self._twin_breaker.idle()
        return None

    def _answered(self) -> None:
        """What waited for the twin record is due now."""
        if self._twin_breaker.up():
            self._ledger.deliveries.wake_all()


def _asked(source: PatientSource, study_uid: str) -> Sequence[PatientIdentity]:
    if not source.breaker.enter():
        return ()
    try:
        owners = [owner for _, found in source.find([study_uid]) for owner in found]
    except Transient as error:
        if source.breaker.down():
            LOG.warning("%s does not say whose studies are: %s", source.name, error)
        return ()
    source.breaker.up()
    return owners


def identity_in(files: Sequence[Path]) -> PatientIdentity | None:
    """Who the first of these DICOM files is of; None where there is none, or where the render says what is wrong."""
    try:
        for file in files[:1]:
            header = read_header(file, KEYWORDS)
            values = [text(header, keyword) for keyword in KEYWORDS[1:]]
            return PatientIdentity(values[0], values[1] or None, *values[2:])
    except Rejected:
        pass
    return None


def job_identity(ledger: Ledger, folders: JobFolders, job: Job) -> PatientIdentity | None:
    """For whom a job's PET was made: from what the ledger keeps of its record, else from its files; None where gone."""
    kept = ledger.updates.of_job(job.job_id)
    if kept is not None:
        return TwinUpdate.from_json(kept.document).identity
    folder = folders.result(job.job_id)
    if not (folder / REPORT).is_file():
        return None
    return identity_in([folder / file for file in read_report(folder).pet_files[:1]])
