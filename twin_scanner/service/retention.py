"""Clears away the files of jobs that ended (done, superseded, rejected) some time ago, in batches; rows stay."""

import logging
import shutil
from datetime import timedelta
from typing import Final

from dicom_node.spool import Spool
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import Job, Ledger, StudyState

LOG = logging.getLogger("twin_scanner.retention")

BATCH: Final = 100
"""Jobs per transaction: memory and locks stay small, however much is due."""


def clear_aged(ledger: Ledger, spool: Spool, folders: JobFolders, keep_days: float) -> int:
    """Remove the files of this node's jobs that ended longer than ``keep_days`` ago, and say how many jobs they were.

    A study leaves the spool with the last of its jobs. What cannot be removed is logged and tried again next time.
    """
    before = ledger.database.steady() - timedelta(days=keep_days)
    count, last = 0, None
    while batch := ledger.jobs.to_clear(before, last, BATCH):
        gone = [job for job in batch if _removed(folders, job)]
        _clear_spool(ledger, spool, gone)
        ledger.jobs.cleared([job.job_id for job in gone])
        count, last = count + len(gone), batch[-1]
    return count


def _removed(folders: JobFolders, job: Job) -> bool:
    try:
        shutil.rmtree(folders.of(job.job_id))
    except FileNotFoundError:
        return True
    except OSError as error:
        LOG.error("files not cleared", extra={"job_id": job.job_id, "reason": error.strerror})
        return False
    return True


def _clear_spool(ledger: Ledger, spool: Spool, gone: list[Job]) -> None:
    job_ids = [job.job_id for job in gone]
    for study_uid in {job.study_uid for job in gone}:
        study = ledger.studies.find(study_uid)
        if study is not None and study.state == StudyState.TAKEN and not ledger.jobs.need_files(study_uid, job_ids):
            spool.remove(study_uid, study.fingerprint)
