"""Makes the twin record again from the updates that the ledger keeps: at another target, or at the same one."""

from collections.abc import Collection
from dataclasses import dataclass, field

from pydicom.errors import InvalidDicomError

from twin_record.target import TwinTarget
from twin_record.update import TwinUpdate
from twin_scanner.errors import Defect, Held, Misconfigured, Rejected, Transient, TwinScannerError, Unavailable
from twin_scanner.progress import Progress
from twin_scanner.render.report import REPORT
from twin_scanner.service.image_delivery import ImageDestination
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.job_update import kept_update, update_of_job, update_without_files
from twin_scanner.service.ledger import Job, KeptUpdate, Ledger, Which

EVERY = Which()


@dataclass
class SyncReport:
    """What became of the updates: job ids, each with the sentence of its refusal where there is one.

    ``unkept`` were recorded by an earlier version, which kept no update, and nothing is left to make it from: they
    cannot be recorded again. ``stopped`` says why the run ended before its time, and ``left`` how many updates
    it did not come to.
    """

    written: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unkept: list[str] = field(default_factory=list)
    stopped: str = ""
    left: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether the target holds all that was meant."""
        return not self.refused and not self.stopped


def keep_missing(ledger: Ledger, folders: JobFolders, destinations: Collection[ImageDestination]) -> list[str]:
    """Keep the updates of jobs that an earlier version recorded without; returns their ids.

    They are made from the job's files, else from its result and from what is kept of another job of its study.
    """
    kept = []
    for job_id in ledger.updates.unkept():
        try:
            job = ledger.jobs.find(job_id)
            update = _made_again(ledger, folders, destinations, job)
        except (TwinScannerError, OSError, TypeError, KeyError, AttributeError, InvalidDicomError):
            # Files or a result that are damaged, or of a version that wrote less: the job stays without.
            update = None
        if update is not None and ledger.updates.keep(kept_update(job, update)):
            kept.append(job_id)
    return kept


def _made_again(
    ledger: Ledger, folders: JobFolders, destinations: Collection[ImageDestination], job: Job
) -> TwinUpdate | None:
    revisions = ledger.jobs.of_study(job.study_uid, job.frame_of_reference_uid)
    if (folders.result(job.job_id) / REPORT).is_file():
        return update_of_job(ledger, folders, destinations, job, revisions)
    others = ledger.updates.of_study(job.study_uid)
    known = TwinUpdate.from_json(others[-1].document) if others else None
    return known and update_without_files(ledger, folders, destinations, job, revisions, known)


def to_sync(ledger: Ledger, name: str, again: Which | None) -> int:
    """How many updates ``sync`` would record at the target of this name."""
    return ledger.updates.count(name, only=_only(again), again=again)


def sync(ledger: Ledger, target: TwinTarget, name: str, again: Which | None, progress: Progress) -> SyncReport:
    """Record what the target of this name does not hold, and whatever it holds of ``again``, in the order of making.

    What was recorded is noted one by one, so a run that ends early is gone on with by the next one. One update that is
    refused does not end the run; a target that cannot be used does.
    """
    report = SyncReport(unkept=ledger.updates.unkept())
    if again is not None:
        ledger.updates.record_again(again)
    only = _only(again)
    total = ledger.updates.count(name, only=only)
    progress(0, total)
    for done, kept in enumerate(ledger.updates.to_record(name, only=only), start=1):
        try:
            _record(ledger, target, name, kept, report)
        except (Unavailable, Misconfigured) as error:
            report.stopped, report.left = str(error), total - done + 1
            break
        except (Transient, Held, Rejected, Defect) as error:
            report.refused[kept.job_id] = str(error)
        progress(done, max(done, total))
    return report


def _only(again: Which | None) -> Which:
    """A run for one patient records nobody else; any other goes on with all that is missing."""
    return EVERY if again is None or again.patient_id is None else again


def _record(ledger: Ledger, target: TwinTarget, name: str, kept: KeptUpdate, report: SyncReport) -> None:
    receipt = target.record(TwinUpdate.from_json(kept.document))
    ledger.updates.recorded(kept.job_id, name)
    (report.written if receipt.written else report.there).append(kept.job_id)
    if receipt.remarks:
        report.remarks[kept.job_id] = receipt.remarks
