"""A site behind the render: a ledger, results of jobs, and the lanes of some destinations and of the twin, no threads.

What a thread of the worker does, ``run`` does until nothing is due; time passes where the test says so.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pydicom
from pydicom.uid import ComprehensiveSRStorage

from dicom_node.associations import Timeouts
from dicom_node.commitment import CommitmentReports
from tests.fakes import scanner_node
from tests.fakes.archive import Archive
from tests.fakes.clock import Clock
from tests.fakes.scanner_node import fake_render
from tests.samples.small_ct import write_series
from twin_record.update import TwinUpdate
from twin_scanner.render.report import Companion, RenderReport, read_report, write_report
from twin_scanner.render.request import RenderRequest
from twin_scanner.service.breaker import Breaker
from twin_scanner.service.image_delivery import ImageDestination
from twin_scanner.service.image_target import DicomTarget
from twin_scanner.service.intake import Intake, JobFolders, RealPetPolicy
from twin_scanner.service.ledger import Delivery, Job, Ledger, NewJob, Outcome
from twin_scanner.service.retry import DAY_S, RetryPolicy
from twin_scanner.service.steps import Steps, rendered
from twin_scanner.service.worker import Lane, Worker

CALLING_AE = "TWINSCANNER"
TIMEOUTS = Timeouts(30.0, 30.0, 30.0, 30.0, 30.0)
POLICY = RetryPolicy(first_delay_s=15.0, longest_delay_s=3600.0, age_limit_s=30 * DAY_S)
HOUR_S = 3600.0
PROBE_S = 60.0


def archive_destination(
    archive: Archive, name: str = "pacs", *, reports: CommitmentReports | None = None, **options: Any
) -> ImageDestination:
    """The archive as a destination."""
    taken = reports or CommitmentReports(lambda report: False)
    target = DicomTarget(archive.peer, CALLING_AE, TIMEOUTS, taken, options.pop("implicit", False))
    return ImageDestination(name, target, **{"confirm": "query", **options})


class DeliverySite:
    """One node's part behind the render."""

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        clock: Clock,
        *destinations: ImageDestination,
        real_pet: RealPetPolicy = "skip",
    ) -> None:
        self.ledger = ledger
        self.real_pets: dict[str, str] = {}
        """What a peer lists when it is asked: the real PET series of a study."""
        self._real_pet: RealPetPolicy = real_pet
        self.clock = clock
        self.folders = JobFolders(folder / "jobs")
        self.destinations = destinations
        self.recorded: list[TwinUpdate] = []
        self.steps = self._steps()
        self.worker = Worker(ledger=ledger, lanes=(), policy=POLICY, on_fatal=lambda: None, draw=lambda: 0.999)

    def lanes(self) -> list[Lane[Any]]:
        """Those of the destinations, then the twin's."""
        names = {destination.name for destination in self.destinations} | {"twin"}
        return [lane for lane in self._lanes if lane.name in names]

    def run(self, *names: str) -> int:
        """Work until nothing is due, in all lanes or in these; how many pieces of work that was."""
        lanes = [lane for lane in self.lanes() if not names or lane.name in names]
        count = 0
        while any(self.worker.run_once(lane) for lane in lanes):
            count += 1
        return count

    def job(self, number: int = 1, *, study: int = 1, slices: int = 2, companions: int = 1) -> Job:
        """A rendered job with its files; the same ``study`` with another number is its next revision."""
        new = NewJob(f"1.2.{study}", "1.9", "1.2.3", f"{number:064x}", slices)
        job = self.ledger.jobs.open(new)
        claimed = self.ledger.jobs.claim()
        assert claimed is not None and claimed.job_id == job.job_id
        names = {"StudyInstanceUID": f"1.2.{study}", "SeriesInstanceUID": f"1.2.{study}.4"}
        write_series(self.folders.ct(job.job_id), slices=slices, **names)
        report = self._render(claimed, companions)
        self.ledger.rendered(claimed, rendered(report, self.destinations))
        return self.ledger.jobs.find(job.job_id)

    def report(self, job: Job) -> RenderReport:
        """What the job's render reported."""
        return read_report(self.folders.result(job.job_id))

    def issued(self, job: Job) -> list[str]:
        """The SOP Instance UIDs of the job's result, the companions last."""
        report = self.report(job)
        return [*report.pet_instance_uids, *(companion.sop_instance_uid for companion in report.companions)]

    def delivery(self, job: Job, destination: str = "pacs") -> Delivery:
        """The job's row of a destination."""
        rows = self.ledger.deliveries.of_jobs([job.job_id])[job.job_id]
        return next(row for row in rows if row.destination == destination)

    def outcome(self, job: Job, destination: str = "pacs") -> Outcome:
        """What became of its instances there."""
        outcome = self.delivery(job, destination).outcome
        assert outcome is not None
        return outcome

    def state(self, job: Job) -> str:
        """The job's."""
        return self.ledger.jobs.find(job.job_id).state

    def _render(self, job: Job, companions: int) -> RenderReport:
        scanner_node.RENDER_S = 0.0
        result = self.folders.result(job.job_id)
        request = SimpleNamespace(
            source=self.folders.ct(job.job_id),
            result=result,
            made_at=job.made_at,
            revision=job.revision,
            device_serial_number=f"TS-{job.study_uid}",
        )
        report = fake_render(cast(RenderRequest, request), lambda: None)
        made = tuple(_companion(result, report, job, number) for number in range(1, companions + 1))
        report = replace(report, companions=made)
        write_report(result, report)
        return report

    def _steps(self) -> Steps:
        nothing: Any = SimpleNamespace()

        def record(update: TwinUpdate) -> SimpleNamespace:
            self.recorded.append(update)
            return SimpleNamespace(remarks=())

        def look_for_pet(study_uid: str) -> None:
            if study_uid in self.real_pets:
                self.ledger.studies.has_real_pet(study_uid, self.real_pets[study_uid])

        twin: Any = SimpleNamespace(record=record)
        steps = Steps(
            ledger=self.ledger,
            folders=self.folders,
            intake=Intake(self.ledger, nothing, self.folders, nothing, self._real_pet, look_for_pet),
            render=nothing,
            template=cast(RenderRequest, SimpleNamespace(accept_synthetic_ct=False)),
            destinations=self.destinations,
            twin=twin,
            twin_name="embedded",
            zone=UTC,
            breaker=lambda: Breaker(lambda failures: PROBE_S, self.clock.monotonic_s),
            now=self.clock,
        )
        self._lanes = [lane for lane in steps.lanes() if lane.name not in ("intake", "render")]
        return steps


def _companion(result: Path, report: RenderReport, job: Job, number: int) -> Companion:
    """A small report beside the PET; its content is of no matter."""
    dataset = pydicom.dcmread(result / report.pet_files[0])
    del dataset.PixelData
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    dataset.Modality, dataset.SeriesInstanceUID = "SR", f"{report.pet_series_uid[:50]}.{number}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SeriesInstanceUID}.1"
    (result / "sr").mkdir(exist_ok=True)
    file = f"sr/{number}.dcm"
    dataset.save_as(result / file, enforce_file_format=True)
    series_uid, uid = str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID)
    return Companion("SR", series_uid, str(ComprehensiveSRStorage), uid, file, "SUV", 2010 + number, True)


def eventually(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait for another thread, such as a PACS that reports."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
