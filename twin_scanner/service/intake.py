"""From a study that went quiet in the spool to jobs in the ledger; every step may be repeated after a crash."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from dicom_node.spool import Spool, snapshot
from twin_scanner.dicom.read.series_choice import Choice, Preference, choose_series
from twin_scanner.errors import Rejected
from twin_scanner.service.ledger.ledger import Job, Ledger, NewJob, State

LOG = logging.getLogger("twin_scanner.intake")


@dataclass(frozen=True)
class JobFolders:
    """Where the files of each job live: ct/ (hard links into the spool), and what was rendered from them."""

    root: Path

    def of(self, job_id: str) -> Path:
        """The folder of one job."""
        return self.root / job_id

    def ct(self, job_id: str) -> Path:
        """The CT instances that the job reads."""
        return self.of(job_id) / "ct"

    def result(self, job_id: str) -> Path:
        """What was rendered."""
        return self.of(job_id) / "result"


class Intake:
    """Turns a quiet study into jobs: one a frame of reference, of the series that the preference chooses."""

    def __init__(
        self, ledger: Ledger, spool: Spool, folders: JobFolders, preference: Preference, accept_synthetic: bool
    ) -> None:
        self._ledger = ledger
        self._spool = spool
        self._folders = folders
        self._preference = preference
        self._accept_synthetic = accept_synthetic

    def waiting(self) -> list[str]:
        """Studies that changed since intake last went through them: after a restart, all that was missed."""
        return [
            study_uid
            for study_uid in self._spool.studies()
            if self._spool.fingerprint(study_uid) != self._ledger.intake_fingerprint(study_uid)
        ]

    def take(self, study_uid: str) -> list[Job]:
        """Open the jobs of a study as it now lies in the spool."""
        fingerprint = self._spool.fingerprint(study_uid)
        if fingerprint == self._ledger.intake_fingerprint(study_uid):
            return []
        choices = self._choices(study_uid)
        jobs = [self._open(choice) for choice in choices]
        self._ledger.intake_done(study_uid, fingerprint)
        return jobs

    def _choices(self, study_uid: str) -> list[Choice]:
        """The study's choices; where its files cannot even be told apart, one that chooses nothing and says why."""
        files = self._spool.files(study_uid)
        try:
            return choose_series(files, self._preference, accept_synthetic=self._accept_synthetic)
        except Rejected as error:
            return [Choice(study_uid, "", None, files, (("", str(error)),))]

    def _open(self, choice: Choice) -> Job:
        if choice.series_uid is None:
            return self._reject(choice)
        earlier = self._translated_already(choice)
        if earlier is not None:
            LOG.info(
                "series arrived after the study's PET was made from another one; skipped",
                extra={"job_id": earlier.job_id, "series_uid": choice.series_uid},
            )
            return earlier
        new = NewJob(
            study_uid=choice.study_uid,
            frame_of_reference_uid=choice.frame_of_reference_uid,
            series_uid=choice.series_uid,
            source_digest=choice.source_digest,
            instance_count=len(choice.files),
            skipped=choice.skipped,
        )
        snapshot(choice.files, self._folders.ct(new.job_id))
        job = self._ledger.open_job(new)
        LOG.info("job opened", extra={"job_id": job.job_id, "series_uid": job.series_uid, "step": "intake"})
        return job

    def _reject(self, choice: Choice) -> Job:
        reasons = "; ".join(dict.fromkeys(reason for _, reason in choice.skipped))
        reason = f"No series of the study can be translated: {reasons or 'it holds no CT.'}"
        new = NewJob(
            study_uid=choice.study_uid,
            frame_of_reference_uid=choice.frame_of_reference_uid,
            series_uid="",
            source_digest=hashlib.sha256(repr(choice.skipped).encode()).hexdigest(),
            instance_count=len(choice.files),
            skipped=choice.skipped,
        )
        job = self._ledger.open_job(new, rejection=reason)
        LOG.warning("study rejected", extra={"job_id": job.job_id, "step": "intake", "reason": reason})
        return job

    def _translated_already(self, choice: Choice) -> Job | None:
        """One PET a study and frame of reference: once rendered, only other slices of its own CT count."""
        jobs = self._ledger.of_study(choice.study_uid, choice.frame_of_reference_uid)
        rendered = [job for job in jobs if job.pet_series_uid is not None and job.state != State.SUPERSEDED]
        return rendered[-1] if rendered and rendered[-1].series_uid != choice.series_uid else None
