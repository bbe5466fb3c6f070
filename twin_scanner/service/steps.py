"""What each lane does: intake, the render, and the deliveries to each destination of images and to the twin record."""

import logging
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from datetime import datetime, tzinfo
from functools import partial
from typing import Any, Final

import pydicom

from twin_record.target import TwinTarget
from twin_record.update import SeriesEntry, TwinUpdate
from twin_scanner.dicom.write.companions import companion_series_uids
from twin_scanner.errors import Defect
from twin_scanner.render.report import Companion, RenderReport, read_delivery, read_report
from twin_scanner.render.request import RenderRequest
from twin_scanner.service.breaker import Breaker
from twin_scanner.service.image_delivery import ImageDelivery, ImageDestination, NotKept, held_companions
from twin_scanner.service.intake import Intake, JobFolders, Unended
from twin_scanner.service.ledger import (
    REPLACED,
    Delivery,
    Destination,
    IssuedSeries,
    Job,
    Ledger,
    Rendered,
    Result,
    Study,
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
    zone: tzinfo
    """The zone of the dates in the PET where the CT names none."""
    breaker: Callable[[], Breaker]
    """Makes one per destination."""
    now: Callable[[], datetime]
    threads: int = 2
    """How many each destination has."""

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
            Lane("render", 1, ledger.jobs, ledger.jobs.claim, self._render, _job_facts),
            *(self._images(destination) for destination in self.destinations),
            self._destination(TWIN, self._record),
        )

    def _images(self, destination: ImageDestination) -> Lane[Delivery]:
        work = ImageDelivery(self.ledger, self.folders, destination, self.now).work
        return replace(self._destination(destination.name, work), counts=lambda error: not isinstance(error, NotKept))

    def _destination(self, name: str, work: Callable[[Delivery, Beat], Record]) -> Lane[Delivery]:
        rows = self.ledger.deliveries
        claim, wake = partial(rows.claim, name), partial(rows.wake, name)
        return Lane(name, self.threads, rows, claim, work, self._delivery_facts, self.breaker(), wake)

    def _take(self, study: Study, beat: Beat) -> Record:
        return partial(self.ledger.studies.taken, study, self.intake.take(study, beat))

    def _render(self, job: Job, beat: Beat) -> Record:
        source = self.folders.ct(job.job_id)
        if not source.is_dir():
            raise Defect("The CT files of this job are not in its folder any more: send the study again.")
        if not self.template.accept_synthetic_ct:
            self.intake.check_real_pet(job)
        request = replace(
            self.template,
            source=source,
            result=self.folders.result(job.job_id),
            made_at=job.made_at.astimezone(self.zone),
            source_evidence=job.evidence,
            needs_patient_id=True,
            revision=job.revision,
        )
        report = self.render(request, beat)
        warn_of_phantoms(job, report)
        return partial(self.ledger.rendered, job, rendered(report, self.destinations))

    def _record(self, delivery: Delivery, beat: Beat) -> Record:
        job = self.ledger.jobs.find(delivery.job_id)
        revisions = self.ledger.jobs.of_study(job.study_uid, job.frame_of_reference_uid)
        if any(other.pet_series_uid and other.revision > job.revision for other in revisions):
            LOG.info("not recorded: a later revision of this PET replaces it", extra={**_job_facts(job), "step": TWIN})
            return partial(self.ledger.deliveries.confirmed, delivery, REPLACED)
        folder = self.folders.result(job.job_id)
        report = read_report(folder)
        header = pydicom.dcmread(folder / report.pet_files[0], stop_before_pixels=True)
        replaced = tuple(o.pet_series_uid for o in revisions if o.pet_series_uid and o.revision < job.revision)
        held = held_companions(report, self.ledger.deliveries.of_jobs([job.job_id])[job.job_id])
        receipt = self.twin.record(
            twin_update(header, report, replaced, read_delivery(folder) if held is None else held)
        )
        for remark in receipt.remarks:
            LOG.warning("twin record: %s", remark, extra={"job_id": job.job_id, "step": TWIN})
        return partial(self.ledger.deliveries.confirmed, delivery, "FHIR transaction")

    def _delivery_facts(self, delivery: Delivery) -> dict[str, str]:
        return _job_facts(self.ledger.jobs.find(delivery.job_id))


def _study_facts(study: Study) -> dict[str, str]:
    return {"study_uid": study.study_uid}


def _job_facts(job: Job) -> dict[str, str]:
    return {"job_id": job.job_id, "study_uid": job.study_uid, "series_uid": job.series_uid}


def warn_of_phantoms(job: Job, report: RenderReport) -> None:
    """Say in the job's log where its model has seen no patient."""
    if report.phantom_only:
        LOG.warning("the model was trained on phantoms only", extra={**_job_facts(job), "step": "render"})


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


def twin_update(
    pet: pydicom.Dataset,
    report: RenderReport,
    replaces_series_uids: tuple[str, ...],
    delivered: Collection[str],
) -> TwinUpdate:
    """What goes into the twin record: identity from the PET's own header (already Unicode), the rest from the report.

    Of the companions only those that the PACS holds: ``delivered`` are SOP Instance UIDs.
    """
    return TwinUpdate(
        patient_id=str(pet.get("PatientID") or ""),
        issuer_of_patient_id=str(pet.get("IssuerOfPatientID") or "") or None,
        patient_name=str(pet.get("PatientName") or ""),
        birth_date=str(pet.get("PatientBirthDate") or ""),
        sex=str(pet.get("PatientSex") or ""),
        study_uid=str(pet.StudyInstanceUID),
        accession_number=str(pet.get("AccessionNumber") or ""),
        study_description=str(pet.get("StudyDescription") or ""),
        study_date=str(pet.get("StudyDate") or ""),
        study_time=str(pet.get("StudyTime") or ""),
        timezone_offset=str(pet.get("TimezoneOffsetFromUTC") or "") or None,
        source_series=_source_entry(report),
        pet_series=_pet_entry(pet, report),
        model_name=report.model_name,
        model_hash=report.model_hash,
        plan_hash=report.plan_hash,
        segmenter=report.segmenter,
        segmenter_hash=report.segmenter_hash,
        software_version=report.software_version,
        device_serial_number=str(pet.DeviceSerialNumber),
        made_at=datetime.fromisoformat(report.made_at),
        missing_districts=report.missing_districts,
        replaces_series_uids=replaces_series_uids,
        companion_series=tuple(
            _series_entry(companion) for companion in report.companions if companion.sop_instance_uid in delivered
        ),
        replaces_companion_uids=tuple(
            uid for replaced in replaces_series_uids for uid in companion_series_uids(replaced)
        ),
        phantom_only=report.phantom_only,
        source_derivation=report.source_derivation,
    )


def _source_entry(report: RenderReport) -> SeriesEntry:
    return SeriesEntry(
        series_uid=report.source_series_uid,
        modality="CT",
        sop_class_uid=report.source_sop_class_uid,
        sop_instance_uids=report.source_instance_uids,
        description=report.source_description,
        number=report.source_number,
        body_part_examined=report.source_body_part,
    )


def _pet_entry(pet: pydicom.Dataset, report: RenderReport) -> SeriesEntry:
    return SeriesEntry(
        series_uid=report.pet_series_uid,
        modality="PT",
        sop_class_uid=str(pet.SOPClassUID),
        sop_instance_uids=report.pet_instance_uids,
        description=str(pet.get("SeriesDescription", "")),
        number=int(pet.SeriesNumber) if pet.get("SeriesNumber") is not None else None,
    )


def _series_entry(companion: Companion) -> SeriesEntry:
    return SeriesEntry(
        series_uid=companion.series_uid,
        modality=companion.modality,
        sop_class_uid=companion.sop_class_uid,
        sop_instance_uids=(companion.sop_instance_uid,),
        description=companion.description,
        number=companion.number,
        asserted_by_ai=companion.synthetic,
    )
