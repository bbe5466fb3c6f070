"""Earlier PETs of the same CT: which of their series the PACS still holds, and what was measured in them."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pydicom

from twin_record.update import SeriesEntry
from twin_scanner.dicom.write.companions import PET_CLASS, PET_MODALITY
from twin_scanner.render.report import Companion
from twin_scanner.service.answered_instances import read_answered
from twin_scanner.service.image_delivery import ImageDestination
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import REPLACED, Delivery, DeliveryState, Job, Ledger
from twin_scanner.service.rejection import instances_there, note_file


@dataclass(frozen=True)
class Superseded:
    """What earlier revisions left: the series that the PACS holds, and the keys of the values in each district."""

    series: tuple[SeriesEntry, ...] = ()
    measured: Mapping[str, Collection[str]] = field(default_factory=dict)


NOTHING_SUPERSEDED: Final = Superseded()


def superseded(
    ledger: Ledger, folders: JobFolders, job: Job, revisions: Sequence[Job], destinations: Collection[ImageDestination]
) -> Superseded:
    """What the earlier of the job's ``revisions`` left at the destinations that are required, else at any.

    A PET is gone from a destination that has taken a note which rejects it; a destination without a note keeps it.
    """
    before = [one for one in revisions if one.pet_series_uid and one.revision < job.revision]
    if not before:
        return NOTHING_SUPERSEDED
    deliveries = ledger.deliveries.of_jobs([one.job_id for one in revisions])
    wanted = {one.name: one for one in destinations if one.required} or {one.name: one for one in destinations}
    series: list[SeriesEntry] = []
    measured: dict[str, set[str]] = {}
    for earlier in before:
        result = ledger.results.of_job(earlier.job_id)
        if result is None:
            continue
        for district, values in result.report["districts"].items():
            measured.setdefault(district, set()).update(values)
        later = [one for one in revisions if earlier.revision < one.revision <= job.revision]
        held: set[str] = set()
        for delivery in deliveries[earlier.job_id]:
            destination = wanted.get(delivery.destination)
            if destination and not _is_rejected(destination, earlier, later, deliveries, folders):
                there = instances_there(result.report, delivery, folders)
                held.update(uid for uids in there.values() for uid in uids)
        series += _entries(result.report, held)
    return Superseded(tuple(series), measured)


def _is_rejected(
    destination: ImageDestination,
    earlier: Job,
    later: Iterable[Job],
    deliveries: Mapping[str, list[Delivery]],
    folders: JobFolders,
) -> bool:
    """Whether the destination has taken a note of a later revision; once its files are cleared, whether it was due."""
    if not destination.rejects:
        return False
    for job in later:
        if job.cleared_at is None:
            folder = folders.result(job.job_id)
            note = note_file(folder, destination.name, earlier.job_id)
            if note.is_file() and str(pydicom.dcmread(note).SOPInstanceUID) in read_answered(folder, destination.name):
                return True
        elif any(one.destination == destination.name and _is_kept(one) for one in deliveries[job.job_id]):
            return True
    return False


def _is_kept(delivery: Delivery) -> bool:
    return delivery.state == DeliveryState.CONFIRMED and delivery.confirmed_by != REPLACED


def _entries(report: dict[str, Any], held: Collection[str]) -> Iterator[SeriesEntry]:
    """The series of a report with the instances that are held; without those of which none is."""
    uids = [uid for uid in report["pet_instance_uids"] if uid in held]
    if uids:
        numbers = dict(zip(report["pet_instance_uids"], report.get("pet_instance_numbers", ()), strict=False))
        yield SeriesEntry(
            series_uid=report["pet_series_uid"],
            modality=PET_MODALITY,
            sop_class_uid=PET_CLASS,
            sop_instance_uids=tuple(uids),
            description=report.get("pet_description", ""),
            number=report.get("pet_number"),
            body_part_examined=report.get("pet_body_part", ""),
            asserted_by_ai=True,
            instance_numbers=tuple(numbers.get(uid) for uid in uids),
        )
    companions = [Companion(**values) for values in report["companions"]]
    yield from (companion_entry(one) for one in companions if one.sop_instance_uid in held)


def companion_entry(companion: Companion) -> SeriesEntry:
    """The series of what was made beside a PET, as the twin lists it."""
    return SeriesEntry(
        series_uid=companion.series_uid,
        modality=companion.modality,
        sop_class_uid=companion.sop_class_uid,
        sop_instance_uids=(companion.sop_instance_uid,),
        description=companion.description,
        number=companion.number,
        asserted_by_ai=companion.synthetic,
        instance_numbers=(1,),
    )
