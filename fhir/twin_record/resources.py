"""One twin update as FHIR R4 resources of our own making; what the server already holds is merging's affair."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fhir.resources.R4B.device import Device
from fhir.resources.R4B.imagingstudy import ImagingStudy
from fhir.resources.R4B.list import List as FhirList
from fhir.resources.R4B.patient import Patient
from fhir.resources.R4B.provenance import Provenance
from pydantic import BaseModel, ValidationError

from twin_record.dicom_values import (
    body_site,
    clean_text,
    fhir_date,
    fhir_datetime,
    fhir_gender,
    fhir_time,
    human_names,
    offset_of,
)
from twin_record.update import SeriesEntry, TwinSite, TwinUpdate
from twin_scanner.errors import Rejected

Resource = dict[str, Any]
"""A FHIR resource, or a part of one, as JSON."""

DICOM_UID_SYSTEM = "urn:dicom:uid"
URI_SYSTEM = "urn:ietf:rfc:3986"
DCM_SYSTEM = "http://dicom.nema.org/resources/ontology/DCM"
MODEL_SYSTEM = "urn:twin-scanner:model-hash"
SEGMENTER_SYSTEM = "urn:twin-scanner:segmenter-hash"
NODE_SYSTEM = "urn:twin-scanner:device-serial-number"
RECORD_SYSTEM = "urn:twin-scanner:twin-record"
CODE_SYSTEM = "urn:twin-scanner:codes"

AIAST = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
INLINE_LABELS = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
    "code": "PROCESSINLINELABEL",
    "display": "process inline security label",
}
INLINE_LABEL_EXTENSION = "http://hl7.org/fhir/uv/security-label-ds4p/StructureDefinition/extension-inline-sec-label"
TARGET_PATH_EXTENSION = "http://hl7.org/fhir/StructureDefinition/targetPath"
AI_DEVICE = {
    "system": "http://hl7.org/fhir/uv/aitransparency/CodeSystem/AIdeviceTypeCS",
    "code": "Artificial-Intelligence",
    "display": "All kinds of Artificial Intelligence",
}
PARTICIPANT_SYSTEM = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
PRODUCT = "twin-scanner"

NAMESPACE = uuid.UUID("5d2d6f6e-6a0a-5c57-9a3e-0f8c2b7f4b11")
"""The namespace of every identifier derived here; changing it would double the records of every site."""


@dataclass(frozen=True)
class PatientKey:
    """A business identifier of a patient; `configured` says that the site names this issuer's system."""

    system: str
    value: str
    assigner: str | None
    configured: bool

    def identifier(self) -> Resource:
        """As a FHIR Identifier."""
        assigner = {"assigner": {"display": self.assigner}} if self.assigner else {}
        return {"use": "usual", "system": self.system, "value": self.value, **assigner}


def patient_key(patient_id: str, issuer: str | None, site: TwinSite) -> PatientKey:
    """The key of a patient: a patient id means nothing without the domain that issued it.

    The issuer's configured system, or the site's own for an id without an issuer. An issuer that nobody configured
    gets a system of its own, derived from its name, so equal ids of two hospitals never meet.
    """
    value, issuer = clean_text(patient_id), clean_text(issuer or "")
    if not issuer:
        return PatientKey(site.patient_identifier_system, value, None, True)
    if issuer in site.systems_by_issuer:
        return PatientKey(site.systems_by_issuer[issuer], value, None, True)
    derived = uuid.uuid5(NAMESPACE, f"issuer|{site.patient_identifier_system}|{issuer}")
    return PatientKey(f"urn:uuid:{derived}", value, issuer, False)


def record_value(key: PatientKey) -> str:
    """The identifier of this patient's twin record: one per patient, and the patient id cannot be read from it."""
    return str(uuid.uuid5(NAMESPACE, f"record|{key.system}|{key.value}"))


def provenance_id(pet_series_uid: str) -> str:
    """The id of the Provenance of one PET series, the same whenever the job is repeated."""
    return str(uuid.uuid5(NAMESPACE, f"provenance|{pet_series_uid}"))


def study_value(study_uid: str) -> str:
    """The value of an ImagingStudy's DICOM identifier (system `urn:dicom:uid`)."""
    return f"urn:oid:{study_uid}"


def remarks_on(update: TwinUpdate, site: TwinSite) -> tuple[str, ...]:
    """One sentence for each value of the CT that the record cannot take, without the value."""
    key = patient_key(update.patient_id, update.issuer_of_patient_id, site)
    unread = {
        "birth date": (update.birth_date, fhir_date(update.birth_date)),
        "study date": (update.study_date, fhir_date(update.study_date)),
        "study time": (update.study_time, fhir_time(update.study_time)),
        "sex": (update.sex, fhir_gender(update.sex)),
        "time zone offset": (update.timezone_offset or "", offset_of(update.timezone_offset)),
    }
    remarks = [
        f"The CT's {name} is not valid DICOM and was left out of the record."
        for name, (given, read) in unread.items()
        if given.strip(" \0") and read is None
    ]
    if not key.configured:
        remarks.append(
            "The CT's IssuerOfPatientID is not in the configuration, so its patient ids got a domain of their own; "
            "add it to the issuers to reach the hospital's Patient."
        )
    return tuple(remarks)


def new_patient(update: TwinUpdate, site: TwinSite) -> Resource:
    """The Patient as the CT describes them; used only where the server knows no such patient."""
    key = patient_key(update.patient_id, update.issuer_of_patient_id, site)
    return valid(
        Patient,
        {
            "identifier": [key.identifier()],
            "name": human_names(update.patient_name),
            "gender": fhir_gender(update.sex),
            "birthDate": fhir_date(update.birth_date),
        },
    )


def new_device(update: TwinUpdate) -> Resource:
    """The model version as a Device: only what belongs to the model, so it never changes."""
    return valid(
        Device,
        {
            "identifier": [{"system": MODEL_SYSTEM, "value": update.model_hash}],
            "status": "active",
            "manufacturer": PRODUCT,
            "deviceName": [{"name": clean_text(update.model_name), "type": "model-name"}],
            "type": {"coding": [AI_DEVICE], "text": "CT to synthetic FDG-PET translation model"},
            "version": [{"type": {"text": "plan hash"}, "value": update.plan_hash}],
            "note": [{"text": "For research only; its images are synthetic and not for diagnosis."}],
        },
    )


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
    made = _series(series) | {"started": update.made_at.isoformat()}
    if not series.asserted_by_ai:
        return made
    performer = {"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "PRF"}
    return made | {
        "extension": [{"url": INLINE_LABEL_EXTENSION, "valueCoding": AIAST}],
        "performer": [{"function": {"coding": [performer]}, "actor": {"reference": device}}],
    }


def new_provenance(update: TwinUpdate, study: str, record: str, device: str) -> Resource:
    """How this PET came to be: the model as author, the node and the segmenter beside it, the CT as source."""
    pet_uid = update.pet_series.series_uid
    path = {"url": TARGET_PATH_EXTENSION, "valueString": f"ImagingStudy.series.where(uid = '{pet_uid}')"}
    node = {"system": NODE_SYSTEM, "value": clean_text(update.device_serial_number)}
    segmenter = {"system": SEGMENTER_SYSTEM, "value": update.segmenter_hash}
    activity = {"system": "http://terminology.hl7.org/CodeSystem/v3-DataOperation", "code": "CREATE"}
    return valid(
        Provenance,
        {
            "id": provenance_id(pet_uid),
            "meta": {"security": [AIAST]},
            "target": [{"extension": [path], "reference": study}, {"reference": record}],
            "occurredDateTime": update.made_at.isoformat(),
            "recorded": update.made_at.isoformat(),
            "reason": [{"coding": [AIAST]}],
            "activity": {"coding": [activity], "text": "CT to synthetic PET"},
            "agent": [
                _agent("author", {"reference": device}) | {"role": [{"coding": [AI_DEVICE]}]},
                _agent("performer", _named("Device", segmenter, f"District segmenter {update.segmenter}")),
                _agent("assembler", _named("Device", node, f"{PRODUCT} {update.software_version}")),
            ],
            "entity": [
                _entity("source", update.source_series.series_uid, "CT series the PET was made from"),
                *(_entity("revision", uid, "PET series it replaces") for uid in update.replaces_series_uids),
            ],
        },
    )


def _agent(code: str, who: Resource) -> Resource:
    return {"type": {"coding": [{"system": PARTICIPANT_SYSTEM, "code": code}]}, "who": who}


def _named(kind: str, identifier: Resource, display: str) -> Resource:
    return {"type": kind, "identifier": identifier, "display": clean_text(display)}


def _entity(role: str, series_uid: str, display: str) -> Resource:
    identifier = {"system": DICOM_UID_SYSTEM, "value": f"urn:oid:{series_uid}"}
    return {"role": role, "what": _named("ImagingStudy", identifier, display)}


def new_record(update: TwinUpdate, site: TwinSite, patient: str, study: str, provenance: str) -> Resource:
    """The patient's List, which is the twin record: one entry a study, one a Provenance."""
    key = patient_key(update.patient_id, update.issuer_of_patient_id, site)
    made_at = update.made_at.isoformat()
    coding = {"system": CODE_SYSTEM, "code": "digital-twin-record", "display": "Digital-twin record"}
    return valid(
        FhirList,
        {
            "identifier": [{"system": RECORD_SYSTEM, "value": record_value(key)}],
            "status": "current",
            "mode": "working",
            "title": "Digital-twin record",
            "code": {"coding": [coding], "text": "digital-twin record"},
            "subject": {"reference": patient},
            "date": made_at,
            "entry": [{"date": made_at, "item": {"reference": item}} for item in (study, provenance)],
        },
    )


def valid(model: type[BaseModel], content: Mapping[str, Any]) -> Resource:
    """The content as the model writes it, without what is empty; Rejected where R4 does not allow it."""
    try:
        resource = model.model_validate(_without_empty(dict(content)))
    except ValidationError as error:
        places = sorted({".".join(str(step) for step in fault["loc"]) for fault in error.errors(include_input=False)})
        raise Rejected(
            f"The CT does not make a valid FHIR {model.__name__}: correct its {', '.join(places)}."
        ) from None
    document: Resource = resource.model_dump(mode="json", exclude_none=True)
    return document


def _without_empty(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: _without_empty(part) for key, part in value.items()}
        return {key: part for key, part in kept.items() if part not in (None, "", [], {})}
    if isinstance(value, list):
        return [part for item in value if (part := _without_empty(item)) not in (None, "", [], {})]
    return value
