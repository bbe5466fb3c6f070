"""What each lane does: intake, the render, and the deliveries to each destination of images and to the twin record."""

import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, tzinfo
from functools import partial
from operator import attrgetter
from typing import Any, Final

from twin_record.target import TwinTarget
from twin_scanner.errors import Defect, TwinScannerError
from twin_scanner.render.report import RenderReport
from twin_scanner.render.request import RenderRequest
from twin_scanner.render.windows_done import read_windows
from twin_scanner.service.breaker import Breaker
from twin_scanner.service.image_delivery import ImageDelivery, ImageDestination, NotKept
from twin_scanner.service.intake import Intake, JobFolders, Unended
from twin_scanner.service.job_update import kept_update, update_of_job
from twin_scanner.service.ledger import (
    ERASED,
    REPLACED,
    Delivery,
    Destination,
    IssuedSeries,
    Job,
    Ledger,
    Rendered,
    Result,
    Study,
    is_replaced,
)
from twin_scanner.service.worker import Beat, Lane, Record

LOG = logging.getLogger("twin_scanner.steps")

TWIN: Final = "twin"
"""The one destination that every site has; it lists what the others hold, so it comes after them."""


@dataclass(frozen=True)
class Steps:
    """Where a job's result goes, and how its render is asked for; all arguments, no settings."""

    ledger: Ledger
    folders: JobFolders
    intake: Intake
    render: Callable[[RenderRequest, Beat], RenderReport]
    template: RenderRequest
    """A request whose source, result, moment and revision are replaced by the job's."""
    destinations: tuple[ImageDestination, ...]
    """Where the images go; each is a lane of its own."""
    twin: TwinTarget
    twin_name: str
    """The address of the FHIR server, or the embedded store's name: where the ledger says that a record is held."""
    zone: tzinfo
    """The zone of the dates in the PET where the CT names none."""
    breaker: Callable[[], Breaker]
    """Makes one per destination."""
    now: Callable[[], datetime]
    threads: int = 2
    """How many each destination has."""
    renders: int = 1
    """How many renders are with the executor at once."""
    preflight: Callable[[Job], None] = lambda job: None
    """Asked before any work on a job; raises Held where its CT may be of the wrong patient."""
    check_images: Callable[[Job], None] = lambda job: None
    """Asked before a job's images leave; raises Held as ``preflight`` does, Transient where they are to wait."""

    def lanes(self) -> tuple[Lane[Any], ...]:
        """Each with threads of its own: none waits for another."""
        ledger = self.ledger
        return (
            Lane(
                "intake",
                1,
                ledger.studies,
                ledger.studies.claim,
                self._take,
                _study_facts,
                counts=lambda error: isinstance(error, Unended),
            ),
            Lane("render", self.renders, ledger.jobs, ledger.jobs.claim, self._render, attrgetter("facts")),
            *(self._images(destination) for destination in self.destinations),
            self._destination(TWIN, self._record),
        )

    def _images(self, destination: ImageDestination) -> Lane[Delivery]:
        work = ImageDelivery(self.ledger, self.folders, destination, self.now, self._check_departure).work
        return replace(self._destination(destination.name, work), counts=lambda error: not isinstance(error, NotKept))

    def _destination(self, name: str, work: Callable[[Delivery, Beat], Record]) -> Lane[Delivery]:
        rows, breaker = self.ledger.deliveries, self.breaker()

        def claim() -> Delivery | None:
            return rows.claim(name, probing=breaker.is_down)

        return Lane(name, self.threads, rows, claim, work, self._delivery_facts, breaker, partial(rows.wake, name))

    def _take(self, study: Study, beat: Beat) -> Record:
        return partial(self.ledger.studies.taken, study, self.intake.take(study, beat))

    def _render(self, job: Job, beat: Beat) -> Record:
        source = self.folders.ct(job.job_id)
        if not source.is_dir():
            raise Defect("The CT files of this job are not in its folder any more: send the study again.")
        self._check_real_pet(job)
        self.preflight(job)
        request = replace(
            self.template,
            source=source,
            result=self.folders.result(job.job_id),
            made_at=job.made_at.astimezone(self.zone),
            source_evidence=job.evidence,
            needs_patient_id=True,
            revision=job.revision,
        )
        report = self.render(request, self._showing_windows(job, request, beat))
        warn_of_phantoms(job, report)
        return partial(self.ledger.rendered, job, rendered(report, self.destinations))

    def _check_departure(self, job: Job, has_left: bool) -> None:
        self._check_real_pet(job, has_left)
        self.check_images(job)

    def _showing_windows(self, job: Job, request: RenderRequest, beat: Beat) -> Beat:
        """The beat of a render that also lets the ledger know how far the networks are."""
        shown: tuple[int, int] | None = None

        def show() -> None:
            nonlocal shown
            beat()
            found = read_windows(request.result)
            if found is not None and found != shown:
                # A ledger that is away for a moment ends no render.
                with suppress(TwinScannerError):
                    self.ledger.jobs.note_windows(job, *found)
                    shown = found

        return show

    def _check_real_pet(self, job: Job, has_left: bool = False) -> None:
        if not self.template.accept_synthetic_ct:
            self.intake.check_real_pet(job, has_left=has_left)

    def _record(self, delivery: Delivery, beat: Beat) -> Record:
        job = self.ledger.jobs.find(delivery.job_id)
        revisions = self.ledger.jobs.of_study(job.study_uid, job.frame_of_reference_uid)
        # One that was delivered keeps its Provenance, whatever was recorded first.
        images = [one for one in self.ledger.deliveries.of_jobs([job.job_id])[job.job_id] if not one.after_required]
        if is_replaced(job, revisions) and all(one.confirmed_by == REPLACED for one in images):
            LOG.info(
                "not recorded: a later revision of this PET replaces it",
                extra={**job.facts, "step": TWIN},
            )
            return partial(self.ledger.deliveries.confirmed, delivery, REPLACED)
        update = update_of_job(self.ledger, self.folders, self.destinations, job, revisions)
        if not self.ledger.updates.keep(kept_update(job, update)):
            LOG.info("not recorded: the patient was erased", extra={**job.facts, "step": TWIN})
            return partial(self.ledger.deliveries.confirmed, delivery, ERASED)
        receipt = self.twin.record(update)
        for remark in receipt.remarks:
            LOG.warning("twin record: %s", remark, extra={**job.facts, "step": TWIN})
        return partial(self.ledger.recorded, delivery, self.twin_name)

    def _delivery_facts(self, delivery: Delivery) -> dict[str, str]:
        return self.ledger.jobs.find(delivery.job_id).facts


def _study_facts(study: Study) -> dict[str, str]:
    return {"study_uid": study.study_uid}


def warn_of_phantoms(job: Job, report: RenderReport) -> None:
    """Say in the job's log where its model has seen no patient."""
    if report.phantom_only:
        LOG.warning("the model was trained on phantoms only", extra={**job.facts, "step": "render"})


def rendered(report: RenderReport, destinations: Collection[ImageDestination]) -> Rendered:
    """What the ledger keeps of a render: the series that it issued, its report, the features of its input, its ways."""
    issued = [IssuedSeries(report.pet_series_uid, "PT", len(report.pet_instance_uids))]
    issued += [IssuedSeries(companion.series_uid, companion.modality, 1) for companion in report.companions]
    features = {
        "slices": len(report.source_instance_uids),
        "body_part": report.source_body_part,
        "missing_districts": list(report.missing_districts),
        "volume_ml": {name: values.get("volume_ml") for name, values in report.districts.items()},
    }
    result = Result(asdict(report), features)
    to = (*(Destination(one.name, one.required) for one in destinations), Destination(TWIN, after_required=True))
    return Rendered(report.pet_series_uid, report.model_hash, tuple(issued), result, to)
