"""The ImagingStudy: the CT series, the synthetic PET, and what stands beside it in the PACS."""

import re
from dataclasses import replace
from typing import Final

from fhir.resources.R4B.imagingstudy import ImagingStudy, ImagingStudySeriesInstance
from pydicom.sr.codedict import codes

from twin_record.resources.codes import (
    AIAST,
    DCM_SYSTEM,
    DICOM_UID_SYSTEM,
    INLINE_LABEL_EXTENSION,
    INLINE_LABELS,
    PRODUCT,
    SOURCE,
    URI_SYSTEM,
)
from twin_record.resources.content import Resource, valid
from twin_record.resources.dicom_values import body_site, clean_text, fhir_datetime
from twin_record.update import MOST_LISTED_INSTANCES, SeriesEntry, TwinSite, TwinUpdate

ACQUISITION_MODALITIES: Final = frozenset(getattr(codes.cid29, name).value for name in codes.cid29.dir())
_UID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
"""What R4 takes as an instance's uid (datatypes, id)."""
SUPERSEDED: Final = "SUPERSEDED"
"""How the description of a series begins that a later one supersedes, for as long as the PACS holds it."""
_AI_MARK: Final = {"extension": [{"url": INLINE_LABEL_EXTENSION, "valueCoding": AIAST}]}


def study_value(study_uid: str) -> str:
    """The value of an ImagingStudy's DICOM identifier (system `urn:dicom:uid`)."""
    return f"urn:oid:{study_uid}"


def new_study(update: TwinUpdate, site: TwinSite, subject: Resource, device: str) -> Resource:
    """The ImagingStudy with the CT series and all that was made; `device` is a literal reference.

    What this PET supersedes and the PACS still holds is listed too, and marked.
    """
    listed = (update.source_series, *update.made_series, *update.superseded_series)
    accession = accession_identifier(update, site)
    order = {"type": "ServiceRequest", "identifier": accession} if site.based_on else None
    series = [
        _series(update.source_series, site),
        _pet_series(update, site, device),
        *(_made_series(one, update, site, device) for one in update.companion_series),
        *(_superseded_series(one, update, site) for one in update.superseded_series),
    ]
    instances = {one["uid"]: one.pop("instance") for one in series}
    study = valid(
        ImagingStudy,
        {
            "meta": {"source": SOURCE, "security": [INLINE_LABELS]},
            "identifier": [{"system": DICOM_UID_SYSTEM, "value": study_value(update.study_uid)}, accession],
            "status": "available",
            "modality": [{"system": DCM_SYSTEM, "code": code} for code in _acquired({one.modality for one in listed})],
            "subject": subject,
            "started": fhir_datetime(update.study_date, update.study_time, update.timezone_offset, site.zone),
            "basedOn": [order] if accession else [],
            "endpoint": [{"reference": site.endpoint}] if site.endpoint else [],
            "numberOfSeries": len(listed),
            "numberOfInstances": sum(len(one.sop_instance_uids) for one in listed),
            "description": clean_text(update.study_description),
            "note": [_pet_note(update), *_superseded_notes(update)],
            "series": series,
        },
    )
    for one in study["series"]:
        if its_instances := _valid_instances(instances[one["uid"]]):
            one["instance"] = its_instances
    return study


def _valid_instances(instances: list[Resource]) -> list[Resource]:
    """The instances of a series, of which the models see only those whose UID is none: they take 0.1 ms for each."""
    for number, one in enumerate(instances):
        if number == 0 or not _UID.fullmatch(one["uid"]):
            valid(ImagingStudySeriesInstance, one)
    return instances


def accession_identifier(update: TwinUpdate, site: TwinSite) -> Resource | None:
    """The accession number within the domain that the site configures; None where the CT has none."""
    accession = clean_text(update.accession_number)
    kind = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}
    named = {"type": {"coding": [kind]}, "system": site.accession_system, "value": accession}
    return {key: part for key, part in named.items() if part is not None} if accession else None


def is_acquired(modality: str) -> bool:
    """Whether a modality acquires (PS3.16 CID 29); segmentations, reports and key objects are made of what did."""
    return modality in ACQUISITION_MODALITIES


def _acquired(modalities: set[str]) -> list[str]:
    return sorted(filter(is_acquired, modalities))


def note_prefix(pet_series_uid: str) -> str:
    """How the study's note on a PET series begins; merging finds it again by this."""
    return f"Series {pet_series_uid} is a synthetic PET"


def _pet_note(update: TwinUpdate) -> Resource:
    text = f"{note_prefix(update.pet_series.series_uid)}, computed from CT series {update.source_series.series_uid}."
    if update.missing_districts:
        text += f" Not synthesised: {', '.join(update.missing_districts)}."
    return _note(update, f"{text} For research only.")


def _superseded_notes(update: TwinUpdate) -> list[Resource]:
    by, held = update.pet_series.series_uid, {one.series_uid for one in update.superseded_series}
    return [
        _note(update, f"{note_prefix(uid)}, superseded by series {by}. For research only.")
        for uid in update.replaces_series_uids
        if uid in held
    ]


def _note(update: TwinUpdate, text: str) -> Resource:
    return {"authorString": PRODUCT, "time": update.made_at.isoformat(), "text": text}


def _series(series: SeriesEntry, site: TwinSite) -> Resource:
    is_listed = site.instances == "list" or (
        site.instances == "auto" and len(series.sop_instance_uids) <= MOST_LISTED_INSTANCES
    )
    return {
        "uid": series.series_uid,
        "number": series.number if series.number is None or series.number >= 0 else None,
        "modality": {"system": DCM_SYSTEM, "code": series.modality},
        "description": clean_text(series.description),
        "bodySite": body_site(series.body_part_examined),
        "numberOfInstances": len(series.sop_instance_uids),
        "endpoint": [{"reference": site.endpoint}] if site.endpoint else [],
        "instance": instances_of(series) if is_listed else [],
    }


def instances_of(series: SeriesEntry) -> list[Resource]:
    """Each instance with its InstanceNumber, where it has one that FHIR can say."""
    sop_class = {"system": URI_SYSTEM, "code": f"urn:oid:{series.sop_class_uid}"}
    numbers = series.instance_numbers or (None,) * len(series.sop_instance_uids)
    return [
        {"uid": uid, "sopClass": sop_class} | ({} if number is None or number < 0 else {"number": number})
        for uid, number in zip(series.sop_instance_uids, numbers, strict=True)
    ]


def _pet_series(update: TwinUpdate, site: TwinSite, device: str) -> Resource:
    series = _made_series(replace(update.pet_series, asserted_by_ai=True), update, site, device)
    return series | {"description": _named_synthetic(series["description"])}


def _named_synthetic(description: str) -> str:
    return description if "SYNTHETIC" in description.upper() else f"SYNTHETIC {description}".strip()


def _superseded_series(series: SeriesEntry, update: TwinUpdate, site: TwinSite) -> Resource:
    """One that a later PET supersedes; when and by which model it was made stands in the Provenance of that PET."""
    is_pet = series.series_uid in update.replaces_series_uids
    ours = _series(series, site)
    description = _named_synthetic(ours["description"]) if is_pet else ours["description"]
    marked = ours | {"description": f"{SUPERSEDED} {description}".strip()}
    return marked | _AI_MARK if is_pet or series.asserted_by_ai else marked


def _made_series(series: SeriesEntry, update: TwinUpdate, site: TwinSite, device: str) -> Resource:
    """A series of ours: when it was made, and where a network had its part in it, which and that it was AI."""
    ours = _series(series, site) | {"started": update.made_at.isoformat()}
    if not series.asserted_by_ai:
        return ours
    performer = {"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "PRF"}
    return ours | _AI_MARK | {"performer": [{"function": {"coding": [performer]}, "actor": {"reference": device}}]}
