"""The three steps of a job: render in a process of its own, deliver to the PACS, record in the twin."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo

import pydicom

from dicom_node.associations import Timeouts
from dicom_node.client import Peer
from dicom_node.store_scu import send
from twin_record.target import TwinTarget
from twin_record.update import SeriesEntry, TwinUpdate
from twin_scanner.dicom.write.companions import companion_series_uids
from twin_scanner.executor.local import LocalWorker
from twin_scanner.render.report import Companion, RenderReport, read_delivery, read_report, write_delivery
from twin_scanner.render.request import RenderRequest
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger.ledger import Job, Ledger, State
from twin_scanner.service.worker import Progress, Step

LOG = logging.getLogger("twin_scanner.delivery")

HEARTBEAT_S = 5.0
"""How often the lease is prolonged while the worker process renders; far below any sensible lease."""


@dataclass(frozen=True)
class Delivery:
    """Where a job's result goes, and how its render is asked for; all arguments, no settings."""

    ledger: Ledger
    folders: JobFolders
    executor: LocalWorker
    render: Callable[[RenderRequest], RenderReport]
    """Runs in the executor's process."""
    template: RenderRequest
    """A request whose source, result, moment and revision are replaced by the job's."""
    pacs: Peer
    calling_ae: str
    timeouts: Timeouts
    twin: TwinTarget
    zone: tzinfo
    """Of the dates in the PET where the CT names none."""

    def steps(self) -> Mapping[State, Step]:
        """The steps by the state in which a job waits for them."""
        return {
            State.QUEUED: Step("render", State.RENDERED, self._render),
            State.RENDERED: Step("deliver", State.DELIVERED, self._deliver),
            State.DELIVERED: Step("record", State.DONE, self._record),
        }

    def _render(self, job: Job, beat: Callable[[], None]) -> Progress:
        request = replace(
            self.template,
            source=self.folders.ct(job.job_id),
            result=self.folders.result(job.job_id),
            made_at=job.made_at.astimezone(self.zone),
            needs_patient_id=True,
            revision=job.revision,
        )
        report = self.executor.run(self.render, HEARTBEAT_S, beat, request)
        return Progress(report.pet_series_uid, report.model_hash)

    def _deliver(self, job: Job, beat: Callable[[], None]) -> Progress:
        folder = self.folders.result(job.job_id)
        report = read_report(folder)
        sent = send(
            [folder / name for name in report.pet_files],
            self.pacs,
            calling_ae=self.calling_ae,
            timeouts=self.timeouts,
            on_progress=lambda *_: beat(),
            where_taken=[folder / companion.file for companion in report.companions],
        )
        for sop_class_uid in sent.not_taken:
            LOG.warning(
                "the PACS does not take this class; the object stays in the job's folder",
                extra={"job_id": job.job_id, "step": "deliver", "sop_class_uid": sop_class_uid},
            )
        write_delivery(folder, (instance.sop_instance_uid for instance in sent.instances))
        return Progress()

    def _record(self, job: Job, beat: Callable[[], None]) -> Progress:
        folder = self.folders.result(job.job_id)
        report = read_report(folder)
        header = pydicom.dcmread(folder / report.pet_files[0], stop_before_pixels=True)
        earlier = self.ledger.of_study(job.study_uid, job.frame_of_reference_uid)
        replaced = tuple(o.pet_series_uid for o in earlier if o.pet_series_uid and o.revision < job.revision)
        receipt = self.twin.record(twin_update(header, report, replaced, read_delivery(folder)))
        for remark in receipt.remarks:
            LOG.warning("twin record: %s", remark, extra={"job_id": job.job_id, "step": "record"})
        return Progress()


def twin_update(
    pet: pydicom.Dataset,
    report: RenderReport,
    replaces_series_uids: tuple[str, ...],
    delivered: Collection[str],
) -> TwinUpdate:
    """What the twin record is told: identity from the PET's own header (already Unicode), the rest from the report.

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
