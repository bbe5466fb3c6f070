"""What one job adds to the twin record, from its result's files and from what the ledger knows of its deliveries."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime

import pydicom
from pydicom.sr.coding import Code

from twin_record.resources.dicom_values import clean_text
from twin_record.update import DistrictValues, SeriesEntry, TwinUpdate
from twin_scanner.dicom.district_measurements import QUANTITIES, code_of
from twin_scanner.dicom.write.companions import PET_CLASS, companion_series_uids
from twin_scanner.render.report import RenderReport, read_delivery, read_report, report_of
from twin_scanner.service.image_delivery import ImageDestination, held_companions
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import Job, KeptUpdate, Ledger
from twin_scanner.service.superseded import NOTHING_SUPERSEDED, Superseded, companion_entry, superseded


def update_of_job(
    ledger: Ledger,
    folders: JobFolders,
    destinations: Collection[ImageDestination],
    job: Job,
    revisions: Sequence[Job],
) -> TwinUpdate:
    """The update of a rendered job whose files are kept; ``revisions`` are the jobs of its study and frame."""
    folder = folders.result(job.job_id)
    report = read_report(folder)
    header = pydicom.dcmread(folder / report.pet_files[0], stop_before_pixels=True)
    held = held_companions(report, ledger.deliveries.of_jobs([job.job_id])[job.job_id])
    delivered = read_delivery(folder) if held is None else held
    earlier = superseded(ledger, folders, job, revisions, destinations)
    return twin_update(header, report, _replaced_pets(job, revisions), delivered, earlier)


def update_without_files(
    ledger: Ledger,
    folders: JobFolders,
    destinations: Collection[ImageDestination],
    job: Job,
    revisions: Sequence[Job],
    known: TwinUpdate,
) -> TwinUpdate | None:
    """The same of a job whose files were cleared; None where the ledger has no result of it.

    The result says what was made, and the update that is kept of another job of the study whose it is.
    """
    result = ledger.results.of_job(job.job_id)
    if result is None:
        return None
    report = report_of(result.report)
    held = held_companions(report, ledger.deliveries.of_jobs([job.job_id])[job.job_id]) or frozenset()
    earlier = superseded(ledger, folders, job, revisions, destinations)
    header = _header(known, report, job)
    return twin_update(header, report, _replaced_pets(job, revisions), held, earlier)


def _replaced_pets(job: Job, revisions: Sequence[Job]) -> tuple[str, ...]:
    return tuple(one.pet_series_uid for one in revisions if one.pet_series_uid and one.revision < job.revision)


def _header(known: TwinUpdate, report: RenderReport, job: Job) -> pydicom.Dataset:
    """What the PET of a job has in common with another one of its study, and what the report says of it."""
    pet = pydicom.Dataset()
    pet.PatientID, pet.IssuerOfPatientID = known.patient_id, known.issuer_of_patient_id or ""
    pet.PatientName, pet.PatientBirthDate, pet.PatientSex = known.patient_name, known.birth_date, known.sex
    pet.StudyInstanceUID, pet.AccessionNumber = known.study_uid, known.accession_number
    pet.StudyDescription, pet.StudyDate, pet.StudyTime = known.study_description, known.study_date, known.study_time
    pet.TimezoneOffsetFromUTC, pet.DeviceSerialNumber = known.timezone_offset or "", known.device_serial_number
    pet.FrameOfReferenceUID, pet.SOPClassUID = job.frame_of_reference_uid, PET_CLASS
    pet.SeriesDescription = report.pet_description
    if report.pet_number is not None:
        pet.SeriesNumber = report.pet_number
    return pet


def kept_update(job: Job, update: TwinUpdate) -> KeptUpdate:
    """An update as the ledger keeps it."""
    return KeptUpdate(job.job_id, job.made_at, clean_text(update.patient_id), update.as_json())


def twin_update(
    pet: pydicom.Dataset,
    report: RenderReport,
    replaces_series_uids: tuple[str, ...],
    delivered: Collection[str],
    earlier: Superseded = NOTHING_SUPERSEDED,
) -> TwinUpdate:
    """What goes into the twin record: identity from the PET's own header (already Unicode), the rest from the report.

    Of the companions only those that the PACS holds: ``delivered`` are SOP Instance UIDs. ``earlier`` is what earlier
    revisions left there.
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
            companion_entry(companion) for companion in report.companions if companion.sop_instance_uid in delivered
        ),
        replaces_companion_uids=_replaced_companions(replaces_series_uids, earlier),
        phantom_only=report.phantom_only,
        source_derivation=report.source_derivation,
        outside_training=report.outside_training,
        superseded_series=earlier.series,
        frame_of_reference_uid=str(pet.get("FrameOfReferenceUID") or ""),
        districts=tuple(_district_values(report, earlier.measured)),
    )


def _replaced_companions(replaces_series_uids: tuple[str, ...], earlier: Superseded) -> tuple[str, ...]:
    """Every companion that a replaced PET may have, and those that the PACS holds of it."""
    derived = [uid for replaced in replaces_series_uids for uid in companion_series_uids(replaced)]
    held = [series.series_uid for series in earlier.series if series.series_uid not in replaces_series_uids]
    return tuple(dict.fromkeys((*derived, *held)))


def _district_values(report: RenderReport, measured: Mapping[str, Collection[str]]) -> Iterator[DistrictValues]:
    """What was measured in each district, and what an earlier PET had and this one has not."""
    deviations, calibrated = report.uncertainty.get("districts", {}), bool(report.uncertainty.get("calibrated"))
    keys = [quantity.key for quantity in QUANTITIES]
    for name in dict.fromkeys((*report.districts, *measured)):
        values, own = report.districts.get(name, {}), report.district_codes.get(name)
        code = Code(own["value"], own["scheme"], own["meaning"]) if own else code_of(name)
        yield DistrictValues(
            district=name,
            site=(code.value, code.scheme_designator, code.meaning),
            **{key: values.get(key) for key in keys},
            remark=report.district_remarks.get(name, ""),
            suv_deviation=deviations.get(name),
            calibrated=calibrated,
            withdrawn=tuple(key for key in keys if key in measured.get(name, ()) and key not in values),
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
        instance_numbers=report.source_instance_numbers,
    )


def _pet_entry(pet: pydicom.Dataset, report: RenderReport) -> SeriesEntry:
    return SeriesEntry(
        series_uid=report.pet_series_uid,
        modality="PT",
        sop_class_uid=str(pet.SOPClassUID),
        sop_instance_uids=report.pet_instance_uids,
        description=str(pet.get("SeriesDescription", "")),
        number=int(pet.SeriesNumber) if pet.get("SeriesNumber") is not None else None,
        body_part_examined=report.pet_body_part,
        instance_numbers=report.pet_instance_numbers,
    )
