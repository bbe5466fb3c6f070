"""Clears away the files of jobs that ended (done, superseded, rejected) some time ago, in batches; rows stay.

The ledger gives the files up first, then they go: no retry starts on files that are not there. What a crash or the
disk leaves in between is found on the disk by the next clearing.
"""

import logging
import shutil
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Final

from dicom_node.spool import Spool
from twin_scanner.errors import Transient
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import Job, Ledger, Study, StudyState

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
    sender will not repeat what was acknowledged. A copy of what another node has a job for goes when that one has
    ended. What stays, and what cannot be removed, is looked at again next time.
    """
    before = ledger.database.steady() - timedelta(days=keep_days)

    def is_at_rest(job: Job) -> bool:
        if job.study_uid in arriving():
            return False
        study = ledger.studies.find(job.study_uid)
        return study is None or (study.state == StudyState.TAKEN and _is_as_taken(spool, study))

    count, last = 0, None
    while batch := ledger.jobs.to_clear(before, last, BATCH):
        at_rest = [job.job_id for job in batch if is_at_rest(job)]
        with folders.changing:
            cleared = ledger.jobs.clear(at_rest)
            _put_away(folders, cleared)
        count, last = count + len(cleared), batch[-1]
    _clear_folders(ledger, folders)
    _clear_spool(ledger, spool, before, arriving)
    return count


def _is_as_taken(spool: Spool, study: Study) -> bool:
    """Whether intake has seen all that lies in the spool, which is nothing where a crash ended an earlier clearing."""
    return spool.fingerprint(study.study_uid) == study.fingerprint or not spool.files(study.study_uid)


def _put_away(folders: JobFolders, job_ids: Collection[str]) -> None:
    for job_id in job_ids:
        try:
            folders.put_away(job_id)
        except OSError as error:
            LOG.error("files not cleared", extra={"job_id": job_id, "reason": error.strerror})


def _clear_folders(ledger: Ledger, folders: JobFolders) -> None:
    """Remove what no job of this node needs: what was put away, and folders that nothing will ever be done with."""
    with folders.changing:
        _put_away(folders, ledger.jobs.needless(folders.job_ids()))
    for folder in folders.away():
        try:
            shutil.rmtree(folder)
        except OSError as error:
            LOG.error("files not cleared", extra={"job_id": folder.suffix[1:], "reason": error.strerror})


def _clear_spool(ledger: Ledger, spool: Spool, before: datetime, arriving: Callable[[], Collection[str]]) -> None:
    """Remove the studies that no job needs any more."""
    for study in ledger.studies.to_clear(spool.studies(), before):

        def is_arriving(study_uid: str = study.study_uid) -> bool:
            return study_uid in arriving()

        try:
            if spool.remove(study.study_uid, study.fingerprint, unless=is_arriving):
                ledger.studies.cleared(study)
        except Transient as error:
            LOG.error("study not cleared", extra={"study_uid": study.study_uid, "reason": str(error)})
