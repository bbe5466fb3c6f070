"""The Provenance: how one synthetic PET came to be."""

import re
import uuid

from fhir.resources.R4B.provenance import Provenance

from twin_record.resources.codes import (
    AI_DEVICE,
    AIAST,
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


def new_provenance(update: TwinUpdate, subject: Resource, study: str, record: str, device: str) -> Resource:
    """How this PET came to be: the model as author, the node and the segmenter beside it, the CT as source.

    The patient (``subject``) is a target too: so a search by patient finds it, and `Patient/$everything` holds it.
    """
    pet_uid = update.pet_series.series_uid
    node = {"system": NODE_SYSTEM, "value": clean_text(update.device_serial_number)}
    segmenter = {"system": SEGMENTER_SYSTEM, "value": update.segmenter_hash}
    activity = {"system": "http://terminology.hl7.org/CodeSystem/v3-DataOperation", "code": "CREATE"}
    return valid(
        Provenance,
        {
            "id": provenance_id(pet_uid),
            "meta": {"security": [AIAST]},
            "target": [series_reference(study, pet_uid), {"reference": record}, subject],
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
                _entity("source", study, update.source_series.series_uid, "CT series the PET was made from"),
                *(_entity("revision", study, uid, "PET series it replaces") for uid in update.replaces_series_uids),
            ],
        },
    )


def _what_was_done(update: TwinUpdate) -> str:
    outside = "; ".join(update.outside_training)
    said = (update.source_derivation, f"The CT is outside of the training data: {outside}." if outside else "")
    return ". ".join(["CT to synthetic PET", *(clean_text(sentence) for sentence in said if sentence)])


def _agent(code: str, who: Resource) -> Resource:
    return {"type": {"coding": [{"system": PARTICIPANT_SYSTEM, "code": code}]}, "who": who}


def _named(kind: str, identifier: Resource, display: str) -> Resource:
    return {"type": kind, "identifier": identifier, "display": clean_text(display)}


def _entity(role: str, study: str, series_uid: str, display: str) -> Resource:
    return {"role": role, "what": {**series_reference(study, series_uid), "display": display}}


def series_reference(study: str, series_uid: str) -> Resource:
    """A reference to one series of a study: the study, and the FHIRPath to the series in it."""
    return {"extension": [{"url": TARGET_PATH_EXTENSION, "valueString": series_path(series_uid)}], "reference": study}


def series_path(series_uid: str) -> str:
    """The FHIRPath to one series of an ImagingStudy."""
    return f"ImagingStudy.series.where(uid = '{series_uid}')"


def made_series(provenance: Resource) -> str:
    """The UID of the series that a Provenance is about; empty where its target does not say."""
    paths = [
        extension.get("valueString", "")
        for target in provenance.get("target", [])
        for extension in target.get("extension", [])
    ]
    found = [re.fullmatch(r"ImagingStudy\.series\.where\(uid = '([0-9.]+)'\)", str(path)) for path in paths]
    return next((match[1] for match in found if match), "")
