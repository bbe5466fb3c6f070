"""The Provenance: how one synthetic PET came to be."""

import uuid

from fhir.resources.R4B.provenance import Provenance

from twin_record.resources.codes import (
    AI_DEVICE,
    AIAST,
    DICOM_UID_SYSTEM,
    NAMESPACE,
    NODE_SYSTEM,
    PARTICIPANT_SYSTEM,
    PRODUCT,
    SEGMENTER_SYSTEM,
    TARGET_PATH_EXTENSION,
)
from twin_record.resources.content import Resource, valid
from twin_record.resources.dicom_values import clean_text
from twin_record.update import TwinUpdate


def provenance_id(pet_series_uid: str) -> str:
    """The id of the Provenance of one PET series, the same whenever the job is repeated."""
    return str(uuid.uuid5(NAMESPACE, f"provenance|{pet_series_uid}"))


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
            "activity": {"coding": [activity], "text": _what_was_done(update)},
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


def _what_was_done(update: TwinUpdate) -> str:
    derivation = clean_text(update.source_derivation)
    return "CT to synthetic PET" + (f". {derivation}" if derivation else "")


def _agent(code: str, who: Resource) -> Resource:
    return {"type": {"coding": [{"system": PARTICIPANT_SYSTEM, "code": code}]}, "who": who}


def _named(kind: str, identifier: Resource, display: str) -> Resource:
    return {"type": kind, "identifier": identifier, "display": clean_text(display)}


def _entity(role: str, series_uid: str, display: str) -> Resource:
    identifier = {"system": DICOM_UID_SYSTEM, "value": f"urn:oid:{series_uid}"}
    return {"role": role, "what": _named("ImagingStudy", identifier, display)}
