"""Whose the delivered studies are now: each PACS is asked again (IHE PIR), for patients are corrected after the images.

A study that became another patient's has a PET, and a twin record, of the wrong one: an alarm, and nothing is changed.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from twin_record.comparison import contradictions
from twin_record.patient_identity import PatientIdentity
from twin_scanner.errors import Transient
from twin_scanner.progress import Progress
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import Job, Ledger
from twin_scanner.service.preflight import FindPatients, job_identity

LOG = logging.getLogger("twin_scanner.identity_check")

PATIENT_CHANGED: Final = "PatientChanged"
"""What the alarm of a job is called in the events."""
STUDIES_PER_ASSOCIATION: Final = 100


@dataclass(frozen=True)
class ChangedPatient:
    """A study whose patient at a PACS is not the one for whom its PET was made; ``differing`` names the values."""

    job_id: str
    study_uid: str
    pacs: str
    differing: tuple[str, ...]


@dataclass
class IdentityReport:
    """What the PACS say of ``asked`` studies; ``unknown`` are jobs of which neither ledger nor files say for whom."""

    asked: int = 0
    changed: list[ChangedPatient] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    silent: dict[str, str] = field(default_factory=dict)
    """Why a PACS did not say, by its name."""


def check_identities(
    ledger: Ledger, folders: JobFolders, finders: Mapping[str, FindPatients], since: datetime | None, progress: Progress
) -> IdentityReport:
    """Ask for the newest PET of each study that was made ``since`` then, or ever; what differs becomes an alarm."""
    report = IdentityReport()
    known: dict[str, tuple[Job, PatientIdentity]] = {}
    for study_uid, job in {job.study_uid: job for job in ledger.jobs.rendered_since(since)}.items():
        identity = job_identity(ledger, folders, job)
        if identity is None:
            report.unknown.append(job.job_id)
        else:
            known[study_uid] = (job, identity)
    report.asked = len(known)
    for name, find in finders.items():
        _ask(name, find, known, report, progress)
    for changed in report.changed:
        _alarm(ledger, changed)
    return report


def _ask(
    name: str,
    find: FindPatients,
    known: Mapping[str, tuple[Job, PatientIdentity]],
    report: IdentityReport,
    progress: Progress,
) -> None:
    done = 0
    try:
        studies = list(known)
        for start in range(0, len(studies), STUDIES_PER_ASSOCIATION):
            for study_uid, owners in find(studies[start : start + STUDIES_PER_ASSOCIATION]):
                job, identity = known[study_uid]
                differing = {value for owner in owners for value in contradictions(identity, owner)}
                if differing:
                    report.changed.append(ChangedPatient(job.job_id, study_uid, name, tuple(sorted(differing))))
                done += 1
                progress(done, len(known))
    except Transient as error:
        report.silent[name] = str(error)
        LOG.error("the PACS does not say whose its studies are", extra={"step": "twin check", "reason": str(error)})


def _alarm(ledger: Ledger, changed: ChangedPatient) -> None:
    """In the log each time; in the job's events once."""
    LOG.error(
        "a study became another patient's at the PACS: send the corrected CT again, or withdraw its synthetic PET",
        extra={
            "job_id": changed.job_id,
            "study_uid": changed.study_uid,
            "step": "twin check",
            "reason": f"{changed.pacs}: {', '.join(changed.differing)} differ",
        },
    )
    events = ledger.events.of_row("jobs", changed.job_id)
    if not any(event.what == "alarm" and event.detail.get("error") == PATIENT_CHANGED for event in events):
        ledger.alarm(changed.job_id, PATIENT_CHANGED)
