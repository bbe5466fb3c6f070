"""From a study that is complete in the spool to jobs in the ledger; every step may be repeated after a crash."""

import hashlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

from dicom_node.evidence import Completeness, Evidence, EvidenceKind
from dicom_node.spool import Spool, snapshot
from twin_scanner.dicom.read.gantry_tilt import GantryTilt
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.dicom.read.series_choice import Choice, choose_series
from twin_scanner.errors import Held, Rejected, Transient, TwinScannerError
from twin_scanner.service.ledger import (
    IDENTITY,
    OTHER_PATIENT,
    REAL_PET_KNOWN,
    Arrival,
    DeliveryState,
    Job,
    Ledger,
    NewJob,
    Priority,
    State,
    Study,
    StudyFacts,
    StudyState,
    utc_now,
)
from twin_scanner.service.worker import Beat, Stopped

LOG = logging.getLogger("twin_scanner.intake")

MOST_ATTEMPTS: Final = 3
"""So many attempts that never ended (the process was lost) put a study into quarantine."""
MOST_REAL_PETS: Final = 1000
"""Of so many studies it is remembered that a PET of theirs was refused, until their CT comes."""
IncompletePolicy: TypeAlias = Literal["hold", "go on"]
RealPetPolicy: TypeAlias = Literal["skip", "hold", "deliver"]


REQUESTED: Final = {"STAT": Priority.URGENT, "HIGH": Priority.URGENT, "LOW": Priority.BACKFILL}
"""By RequestedProcedurePriority (PS3.3 table C.4-11); ROUTINE, MEDIUM and everything else is routine."""


class Unended(Transient):
    """The process that looked at a study's files was lost or hung: the files may be what it died of."""


@dataclass(frozen=True)
class JobFolders:
    """Where the files of each job live: ct/ (hard links into the spool), and what was rendered from them."""

    root: Path
    changing: threading.Lock = field(default_factory=threading.Lock, compare=False)
    """Whoever makes or removes a folder holds it until the ledger agrees."""

    def of(self, job_id: str) -> Path:
        """The folder of one job."""
        return self.root / job_id

    def job_ids(self) -> list[str]:
        """The jobs that have a folder here."""
        names = (folder.name for folder in self.root.iterdir()) if self.root.is_dir() else ()
        return sorted(name for name in names if not name.startswith("."))

    def ct(self, job_id: str) -> Path:
        """The CT instances that the job reads."""
        return self.of(job_id) / "ct"

    def result(self, job_id: str) -> Path:
        """What was rendered."""
        return self.of(job_id) / "result"

    def put_away(self, job_id: str) -> None:
        """Take the job's folder out of its place, whole and at once; it is for removal alone then. Raises OSError."""
        with suppress(FileNotFoundError):
            self.of(job_id).rename(self.root / f".{uuid.uuid4().hex}.{job_id}")

    def away(self) -> list[Path]:
        """The folders that were put away; the suffix of each is its job."""
        return sorted(self.root.glob(".*"))

    def with_files(self, job_ids: Sequence[str]) -> list[str]:
        """Those of these jobs of which images lie here, in their place or put away."""
        away = {folder.suffix[1:] for folder in self.away()}
        return [job_id for job_id in job_ids if job_id in away or self.of(job_id).exists()]


class Arrivals:
    """What the receiver reports between two sweeps; kept in memory only, for the spool is the truth.

    A study without evidence of completeness is held or goes on, as ``incomplete`` says, and is marked in both cases.
    ``describe`` reads by what the hospital knows a study that lies in the spool.
    """

    def __init__(
        self,
        ledger: Ledger,
        completeness: Completeness,
        now: Callable[[], datetime] = utc_now,
        *,
        incomplete: IncompletePolicy = "hold",
        describe: Callable[[str], StudyFacts] = lambda study_uid: StudyFacts(),
    ) -> None:
        self._ledger = ledger
        self._completeness = completeness
        self._describe = describe
        self._now = now
        self._incomplete = incomplete
        self._lock = threading.Lock()
        self._arrived: dict[str, Arrival] = {}
        self._real_pets: dict[str, str] = {}

    def stored(self, study_uid: str, calling_ae: str, association: int, priority: Priority = Priority.ROUTINE) -> None:
        """An instance is durable in the spool and about to be acknowledged."""
        now = self._now()
        with self._lock:
            last = self._arrived.get(study_uid) or Arrival(study_uid, calling_ae, 0, now, now, priority)
            self._arrived[study_uid] = replace(
                last,
                calling_ae=calling_ae,
                count=last.count + 1,
                last_at=now,
                priority=min(last.priority, priority),
            )
        self._completeness.touch(study_uid, time.monotonic(), association)

    def real_pet(self, study_uid: str, series_uid: str) -> None:
        """A PET of the study that is not ours was sent to us, whether it was kept or not."""
        with self._lock:
            self._real_pets[study_uid] = series_uid
            if len(self._real_pets) > MOST_REAL_PETS:
                del self._real_pets[next(iter(self._real_pets))]

    def arriving(self) -> list[str]:
        """The studies of which more may come; one leaves this list only when the ledger has it as arriving."""
        return self._completeness.arriving()

    def sweep(self) -> bool:
        """Record what arrived and hand complete studies to the intake lane; says whether there were any.

        Raises Transient where the ledger cannot take it; nothing is forgotten then.
        """
        with self._lock:
            arrived, self._arrived = self._arrived, {}
        try:
            new = self._ledger.studies.arrived(list(arrived.values())) if arrived else []
            self._record_real_pets()
        except TwinScannerError:
            self._put_back(arrived)
            raise
        for study_uid in new:
            self._ledger.studies.describe(study_uid, self._describe(study_uid))
        complete = self._completeness.complete(time.monotonic())
        try:
            for study_uid, evidence in complete:
                self._hand_over(study_uid, evidence)
        except TwinScannerError:
            for study_uid, _ in complete:
                self._completeness.touch(study_uid, time.monotonic())
            raise
        return bool(complete)

    def _hand_over(self, study_uid: str, evidence: Evidence) -> None:
        facts = {"study_uid": study_uid, "evidence": str(evidence)}
        if evidence.kind != EvidenceKind.INCOMPLETE or self._incomplete == "go on":
            LOG.info("study complete" if evidence.kind != EvidenceKind.INCOMPLETE else "study incomplete", extra=facts)
            self._ledger.studies.complete(study_uid, str(evidence))
            return
        LOG.error("study held: it is not complete", extra=facts)
        reason = (
            f"The study is not complete ({evidence.detail}): send the rest, which lets it go on by itself, or release "
            "it as it is by its Study Instance UID."
        )
        self._ledger.studies.hold_incomplete(study_uid, str(evidence), reason)

    def _record_real_pets(self) -> None:
        with self._lock:
            pets = dict(self._real_pets)
        for study_uid, series_uid in pets.items():
            if self._ledger.studies.find(study_uid) is not None:
                self._ledger.studies.has_real_pet(study_uid, series_uid)
                with self._lock:
                    self._real_pets.pop(study_uid, None)

    def _put_back(self, arrived: dict[str, Arrival]) -> None:
        with self._lock:
            for study_uid, old in arrived.items():
                new = self._arrived.get(study_uid)
                self._arrived[study_uid] = old if new is None else replace(new, count=old.count + new.count)


class Intake:
    """Turns a complete study into jobs: one a frame of reference, of the series that the preference chooses.

    ``look`` reads the headers (``choices_of``), elsewhere than in this process: what kills it kills no receiver.
    ``look_for_pet`` asks the peers whether a study holds a real PET by now, and lets the ledger know.
    """

    def __init__(
        self,
        ledger: Ledger,
        spool: Spool,
        folders: JobFolders,
        look: Callable[[str, Sequence[Path], Beat], list[Choice]],
        real_pet: RealPetPolicy = "skip",
        look_for_pet: Callable[[str], None] = lambda study_uid: None,
    ) -> None:
        self._ledger = ledger
        self._real_pet = real_pet
        self._spool = spool
        self._folders = folders
        self._look = look
        self._look_for_pet = look_for_pet

    def waiting(self) -> list[str]:
        """Studies that still arrive, or have changed since intake: after a restart, all that was missed."""
        return [study_uid for study_uid in self._spool.studies() if self._waits(study_uid)]

    def take(self, study: Study, beat: Beat) -> str:
        """Open the jobs of a study as it now lies in the spool, and return the fingerprint of what was looked at.

        Raises Held where looking at it never ended so many times, Unended where it did not end this time.
        """
        if study.attempts > MOST_ATTEMPTS:
            raise Held(
                f"Reading this study's headers never ended in {MOST_ATTEMPTS} attempts: look at its files in the "
                "spool, then release it by its Study Instance UID."
            )
        self._take_correction(study)
        self._report_apart(study)
        fingerprint = self._spool.fingerprint(study.study_uid)
        if fingerprint != study.fingerprint:
            files = self._spool.files(study.study_uid)
            try:
                choices = self._look(study.study_uid, files, beat)
            except Stopped:
                raise
            except (Transient, MemoryError) as error:
                reason = str(error) if isinstance(error, Transient) else "Reading the headers took too much memory."
                raise Unended(reason) from error
            for choice in choices:
                self._open(choice, study)
        return fingerprint

    def _report_apart(self, study: Study) -> None:
        """Say of a study that instances of it came with two contents: the first is translated, a person may compare."""
        apart = self._spool.apart(study.study_uid)
        if len(apart) != study.kept_apart:
            self._ledger.studies.note_apart(study, len(apart))
            LOG.warning(
                "%d instances of the study came again with another content; the first is translated",
                len(apart),
                extra={"study_uid": study.study_uid, "step": "intake"},
            )

    def _take_correction(self, study: Study) -> None:
        """A CT that comes again, whole and with another content, corrects one that is held for its patient."""
        if not any(map(self._waits_for_correction, self._ledger.jobs.held_of_study(study.study_uid))):
            return
        taken = self._spool.take_apart(study.study_uid)
        if taken:
            LOG.info(
                "the CT of a held job was sent again with another content: that one is taken",
                extra={
                    "study_uid": study.study_uid,
                    "step": "intake",
                    "instances": taken,
                },
            )

    def _waits_for_correction(self, job: Job) -> bool:
        """Whether a job is held for its patient before its render, or for what the twin record said of it later."""
        deliveries = self._ledger.deliveries.of_jobs([job.job_id])[job.job_id]
        last = (delivery for delivery in deliveries if delivery.after_required)
        if job.held_for in (IDENTITY, OTHER_PATIENT) or any(one.state == DeliveryState.HELD for one in last):
            return True
        # Images that the record held before any of them left.
        return any(event.what == f"held for {IDENTITY}" for event in self._ledger.events.of_row("jobs", job.job_id))

    def check_real_pet(self, job: Job, *, has_left: bool = False) -> None:
        """Raise Rejected or Held where the study holds a real PET by now; the peers are asked once more.

        Who released or retried the job since it was known has decided. A job of which something ``has_left`` for a
        destination is held whatever the configuration says: a person must look at what is there.
        """
        if self._real_pet == "deliver":
            return
        known = self._ledger.studies.find(job.study_uid)
        if known is None or not known.real_pet:
            self._look_for_pet(job.study_uid)
            known = self._ledger.studies.find(job.study_uid)
        if known is None or not known.real_pet or self._is_decided(job, known):
            return
        skips = self._real_pet == "skip" and not has_left
        raise (Rejected if skips else Held)(_beside_real_pet(known.real_pet, "retry" if skips else "release"))

    def _is_decided(self, job: Job, study: Study) -> bool:
        """Whether a person let the job go on after the real PET was known."""
        known = [e.event_id for e in self._ledger.events.of_row("studies", study.study_id) if e.what == REAL_PET_KNOWN]
        decisions = ("retried", "released")
        decided = [e.event_id for e in self._ledger.events.of_row("jobs", job.job_id) if e.what in decisions]
        return bool(decided) and max(decided) > max(known, default=0)

    def _waits(self, study_uid: str) -> bool:
        known = self._ledger.studies.find(study_uid)
        if known is None or known.state == StudyState.ARRIVING:
            return True
        if known.state != StudyState.TAKEN:
            return False
        # What was kept apart just before a crash is in no fingerprint.
        unreported = len(self._spool.apart(study_uid)) != known.kept_apart
        return unreported or known.fingerprint != self._spool.fingerprint(study_uid)

    def _open(self, choice: Choice, study: Study) -> Job:
        if choice.series_uid is None:
            return self._reject(choice, study)
        earlier = self._translated_already(choice)
        if earlier is not None:
            LOG.info(
                "series arrived after the study's PET was made from another one; skipped",
                extra={"job_id": earlier.job_id, "series_uid": choice.series_uid},
            )
            self._ledger.jobs.keep_files_again(earlier)
            return earlier
        new = NewJob(
            study_uid=choice.study_uid,
            frame_of_reference_uid=choice.frame_of_reference_uid,
            series_uid=choice.series_uid,
            source_digest=choice.source_digest,
            instance_count=len(choice.files),
            skipped=choice.skipped,
            priority=priority_of(choice, study),
            evidence=study.evidence,
        )
        hazard = self._hazard(choice, study)
        skips = hazard is not None and self._real_pet == "skip"
        with self._folders.changing:
            snapshot(choice.files, self._folders.ct(new.job_id))
            job = self._ledger.jobs.open(new, rejection=hazard if skips else None, hold=hazard)
        facts = {"job_id": job.job_id, "series_uid": job.series_uid, "step": "intake"}
        if job.state in (State.HELD, State.REJECTED):
            LOG.error(f"job {job.state}", extra={**facts, "reason": job.reason})
        else:
            LOG.info("job opened", extra=facts)
        return job

    def _hazard(self, choice: Choice, study: Study) -> str | None:
        """Why a synthetic PET beside what the study holds could be taken for a real one; None where it could not."""
        known = self._ledger.studies.find(study.study_uid)
        series_uid = choice.real_pet or (known or study).real_pet
        if not series_uid or choice.synthetic or self._real_pet == "deliver":
            return None
        return _beside_real_pet(series_uid, "retry" if self._real_pet == "skip" else "release")

    def _reject(self, choice: Choice, study: Study) -> Job:
        reasons = "; ".join(dict.fromkeys(reason for _, reason in choice.skipped))
        reason = f"No series of the study can be translated: {reasons or 'it holds no CT.'}"
        new = NewJob(
            study_uid=choice.study_uid,
            frame_of_reference_uid=choice.frame_of_reference_uid,
            series_uid="",
            source_digest=hashlib.sha256(repr(choice.skipped).encode()).hexdigest(),
            instance_count=len(choice.files),
            skipped=choice.skipped,
            evidence=study.evidence,
        )
        job = self._ledger.jobs.open(new, rejection=reason)
        for series_uid, why in choice.skipped:
            LOG.warning("series rejected", extra={"job_id": job.job_id, "series_uid": series_uid, "reason": why})
        LOG.warning("study rejected", extra={"job_id": job.job_id, "step": "intake", "reason": reason})
        return job

    def _translated_already(self, choice: Choice) -> Job | None:
        """One PET per study and frame of reference: once rendered, only other slices of its own CT count."""
        jobs = self._ledger.jobs.of_study(choice.study_uid, choice.frame_of_reference_uid)
        rendered = [job for job in jobs if job.pet_series_uid is not None and job.state != State.SUPERSEDED]
        return rendered[-1] if rendered and rendered[-1].series_uid != choice.series_uid else None


def _beside_real_pet(series_uid: str, go_on: str) -> str:
    return (
        f"The study holds a real PET (series {series_uid}), beside which a synthetic one is a hazard: {go_on} this "
        "job if it is wanted all the same, or set selection.real_pet."
    )


def priority_of(choice: Choice, study: Study) -> Priority:
    """The sender's priority; that of the requested procedure, where the sender's is routine."""
    if study.priority != Priority.ROUTINE:
        return Priority(study.priority)
    return REQUESTED.get(choice.requested_priority.upper(), Priority.ROUTINE)


def choices_of(
    study_uid: str,
    files: Sequence[Path],
    preference: Preference,
    accept_synthetic: bool,
    gantry_tilt: GantryTilt = "reject",
) -> list[Choice]:
    """Read a study's headers: its choices; where its files cannot even be told apart, one that says why."""
    try:
        return choose_series(files, preference, accept_synthetic=accept_synthetic, gantry_tilt=gantry_tilt)
    except Rejected as error:
        return [Choice(study_uid, "", None, tuple(files), (("", str(error)),))]
