"""The ImagingStudy: the CT series, the synthetic PET, and what stands beside it in the PACS."""

from dataclasses import replace

from fhir.resources.R4B.imagingstudy import ImagingStudy

from twin_record.resources.codes import (
    AIAST,
    DCM_SYSTEM,
    DICOM_UID_SYSTEM,
    INLINE_LABEL_EXTENSION,
    INLINE_LABELS,
    PRODUCT,
    URI_SYSTEM,
)
from twin_record.resources.content import Resource, valid
from twin_record.resources.dicom_values import body_site, clean_text, fhir_datetime
from twin_record.update import SeriesEntry, TwinSite, TwinUpdate


def study_value(study_uid: str) -> str:
    """The value of an ImagingStudy's DICOM identifier (system `urn:dicom:uid`)."""
    return f"urn:oid:{study_uid}"


def new_study(update: TwinUpdate, site: TwinSite, patient: str, device: str) -> Resource:
    """The ImagingStudy with the CT series and all that was made; `patient` and `device` are literal references."""
    listed = (update.source_series, *update.made_series)
    accession = clean_text(update.accession_number)
    accession_type = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}
    identifiers: list[Resource] = [{"system": DICOM_UID_SYSTEM, "value": study_value(update.study_uid)}]
    if accession:
        identifiers.append({"type": {"coding": [accession_type]}, "value": accession})
    started = fhir_datetime(update.study_date, update.study_time, update.timezone_offset, site.zone)
    return valid(
        ImagingStudy,
        {
            "meta": {"security": [INLINE_LABELS]},
            "identifier": identifiers,
            "status": "available",
            "modality": [{"system": DCM_SYSTEM, "code": code} for code in sorted({one.modality for one in listed})],
            "subject": {"reference": patient},
            "started": started,
            "description": clean_text(update.study_description),
            "numberOfSeries": len(listed),
            "numberOfInstances": sum(len(one.sop_instance_uids) for one in listed),
            "note": [_pet_note(update)],
            "series": [
                _series(update.source_series),
                _pet_series(update, device),
                *(_made_series(one, update, device) for one in update.companion_series),
            ],
        },
    )


def note_prefix(pet_series_uid: str) -> str:
    """How the study's note on a PET series begins; merging finds it again by this."""
    return f"Series {pet_series_uid} is a synthetic PET"


def _pet_note(update: TwinUpdate) -> Resource:
    text = f"{note_prefix(update.pet_series.series_uid)}, computed from CT series {update.source_series.series_uid}."
    if update.missing_districts:
        text += f" Not synthesised: {', '.join(update.missing_districts)}."
    return {"authorString": PRODUCT, "time": update.made_at.isoformat(), "text": f"{text} For research only."}


def _series(series: SeriesEntry) -> Resource:
    sop_class = {"system": URI_SYSTEM, "code": f"urn:oid:{series.sop_class_uid}"}
    return {
        "uid": series.series_uid,
        "number": series.number if series.number is None or series.number >= 0 else None,
        "modality": {"system": DCM_SYSTEM, "code": series.modality},
        "description": clean_text(series.description),
        "bodySite": body_site(series.body_part_examined),
        "numberOfInstances": len(series.sop_instance_uids),
        "instance": [
            {"uid": uid, "sopClass": sop_class, "number": number}
            for number, uid in enumerate(series.sop_instance_uids, start=1)
        ],
    }


def _pet_series(update: TwinUpdate, device: str) -> Resource:
    series = _made_series(replace(update.pet_series, asserted_by_ai=True), update, device)
    description = series["description"]
    if "SYNTHETIC" not in description.upper():
        description = f"SYNTHETIC {description}".strip()
    return series | {"description": description}


def _made_series(series: SeriesEntry, update: TwinUpdate, device: str) -> Resource:
    """A series of ours: when it was made, and where a network had its part in it, which and that it was AI."""
    ours = _series(series) | {"started": update.made_at.isoformat()}
    if not series.asserted_by_ai:
        return ours
    performer = {"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "PRF"}
    return ours | {
        "extension": [{"url": INLINE_LABEL_EXTENSION, "valueCoding": AIAST}],
        "performer": [{"function": {"coding": [performer]}, "actor": {"reference": device}}],
    }
