"""Clears away the files of jobs that ended (done, superseded, rejected) some time ago, in batches; rows stay."""

import logging
import shutil
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Final

from dicom_node.spool import Spool
from twin_scanner.errors import Transient
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import Job, Ledger, StudyState

LOG = logging.getLogger("twin_scanner.retention")

BATCH: Final = 100
"""Jobs per transaction: memory and locks stay small, however much is due."""


def clear_aged(
    ledger: Ledger,
    spool: Spool,
    folders: JobFolders,
    keep_days: float,
    arriving: Callable[[], Collection[str]],
) -> int:
    """Remove the files of this node's jobs that ended longer than ``keep_days`` ago, and say how many jobs they were.

    A study leaves the spool with the last of its jobs, never while it is among the studies that are ``arriving``: the
    sender will not repeat what was acknowledged. What stays, and what cannot be removed, is looked at again next time.
    """
    before = ledger.database.steady() - timedelta(days=keep_days)

    def is_at_rest(study_uid: str) -> bool:
        if study_uid in arriving():
            return False
        study = ledger.studies.find(study_uid)
        return study is None or study.state == StudyState.TAKEN

    count, last = 0, None
    while batch := ledger.jobs.to_clear(before, last, BATCH):
        removed = [job for job in batch if is_at_rest(job.study_uid) and _removed(ledger, folders, job)]
        gone = _clear_spool(ledger, spool, removed, is_at_rest)
        ledger.jobs.cleared([job.job_id for job in gone])
        count, last = count + len(gone), batch[-1]
    return count


def _removed(ledger: Ledger, folders: JobFolders, job: Job) -> bool:
    """Whether the job's folder is gone; it stays where a retry has come between."""
    if ledger.jobs.find(job.job_id).ended_at is None:
        return False
    try:
        shutil.rmtree(folders.of(job.job_id))
    except FileNotFoundError:
        return True
    except OSError as error:
        LOG.error("files not cleared", extra={"job_id": job.job_id, "reason": error.strerror})
        return False
    return True


def _clear_spool(ledger: Ledger, spool: Spool, removed: list[Job], is_at_rest: Callable[[str], bool]) -> list[Job]:
    """Remove the studies that no other job needs, and return the jobs of which nothing is left to remove."""
    job_ids = [job.job_id for job in removed]
    staying = set()
    for study_uid in {job.study_uid for job in removed}:
        study = ledger.studies.find(study_uid)
        if study is None or ledger.jobs.need_files(study_uid, job_ids):
            continue
        try:
            is_gone = is_at_rest(study_uid) and (
                spool.remove(study_uid, study.fingerprint) or not spool.files(study_uid)
            )
        except Transient as error:
            LOG.error("study not cleared", extra={"study_uid": study_uid, "reason": str(error)})
            is_gone = False
        if not is_gone:
            staying.add(study_uid)
    return [job for job in removed if job.study_uid not in staying]
