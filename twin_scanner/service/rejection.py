"""Rejection notes: what tells an image manager of IHE's IOCM that a later revision has replaced a PET of ours."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pydicom

from twin_scanner.dicom.write.companions import PET_CLASS
from twin_scanner.errors import Transient
from twin_scanner.render.report import RenderReport
from twin_scanner.service.answered_instances import read_answered
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import Delivery, DeliveryState, Job, Ledger

FOLDER: Final = "rejected"
"""In the later revision's result: a folder for each destination, and in it one for each earlier job."""
NOTE: Final = "rejection-note.dcm"
DESCRIPTION: Final = "REJECTED synthetic PET, replaced"
EXPLANATION: Final = "A later revision from the whole CT replaces this synthetic PET and what was made from it."


def write_rejection_notes(
    ledger: Ledger, folders: JobFolders, job: Job, report: RenderReport, destination: str
) -> list[Path]:
    """A note (113001, DCM) for each earlier revision of which the destination has something, written once, durably.

    Raises Transient while one of them is still on its way there, or where the disk fails.
    """
    notes = []
    for earlier, instances in _earlier(ledger, folders, job, destination):
        note = note_file(folders.result(job.job_id), destination, earlier.job_id)
        if not note.is_file():
            _write(note.parent, instances, job, report, earlier, folders)
        notes.append(note)
    return notes


def _earlier(
    ledger: Ledger, folders: JobFolders, job: Job, destination: str
) -> Iterator[tuple[Job, dict[tuple[str, str], list[str]]]]:
    """The revisions back to the last that was wholly there, each with its instances by series and SOP class."""
    revisions = ledger.jobs.of_study(job.study_uid, job.frame_of_reference_uid)
    before = [one for one in revisions if one.pet_series_uid and one.revision < job.revision]
    deliveries = ledger.deliveries.of_jobs([one.job_id for one in before])
    for earlier in reversed(before):
        delivery = next((one for one in deliveries[earlier.job_id] if one.destination == destination), None)
        if delivery is None:
            continue
        if delivery.state == DeliveryState.WAITING:
            raise Transient("The PET that this one replaces is still on its way: it is rejected after that.")
        result = ledger.results.of_job(earlier.job_id)
        if result is not None:
            instances = instances_there(result.report, delivery, folders)
            if instances:
                yield earlier, instances
        if is_wholly_there(delivery):
            return


def note_file(result: Path, destination: str, earlier_job_id: str) -> Path:
    """The note that rejects an earlier job's PET at a destination, in the later revision's result."""
    return result / FOLDER / destination / earlier_job_id / NOTE


def is_wholly_there(delivery: Delivery) -> bool:
    """Whether the destination has taken everything of this delivery that it takes."""
    return delivery.was_confirmed or delivery.state == DeliveryState.STORED


def instances_there(
    report: dict[str, Any], delivery: Delivery, folders: JobFolders
) -> dict[tuple[str, str], list[str]]:
    """What a destination has of a delivery, by series and SOP class.

    Of one that is wholly there all but the classes that it does not take; of another what it has answered.
    """
    is_whole = is_wholly_there(delivery)
    sent = None if is_whole else read_answered(folders.result(delivery.job_id), delivery.destination)
    not_taken = delivery.outcome.not_taken if delivery.outcome else ()
    made = {(report["pet_series_uid"], PET_CLASS): list(report["pet_instance_uids"])}
    for companion in report["companions"]:
        made[companion["series_uid"], companion["sop_class_uid"]] = [companion["sop_instance_uid"]]
    there = {
        series: [uid for uid in uids if (series[1] not in not_taken if sent is None else uid in sent)]
        for series, uids in made.items()
    }
    return {series: uids for series, uids in there.items() if uids}


def _write(
    folder: Path,
    instances: dict[tuple[str, str], list[str]],
    job: Job,
    report: RenderReport,
    earlier: Job,
    folders: JobFolders,
) -> None:
    # highdicom is loaded only where a note is written.
    from twin_scanner.dicom.write.key_objects import REJECTED_FOR_QUALITY, SelectedSeries, write_key_objects

    header = pydicom.dcmread(folders.result(job.job_id) / report.pet_files[0], stop_before_pixels=True)
    selected = [SelectedSeries(series, class_uid, tuple(uids)) for (series, class_uid), uids in instances.items()]
    folder.mkdir(parents=True, exist_ok=True)
    write_key_objects(
        "rejection-note",
        REJECTED_FOR_QUALITY,
        selected,
        header,
        datetime.fromisoformat(report.made_at),
        folder,
        series_description=DESCRIPTION,
        explanation=EXPLANATION,
        pet_series_uid=earlier.pet_series_uid or "",
    )
