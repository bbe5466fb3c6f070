"""The List: one per patient, the twin record itself."""

import uuid
from collections.abc import Sequence

from fhir.resources.R4B.list import List as FhirList

from twin_record.resources.codes import CODE_SYSTEM, NAMESPACE, RECORD_SYSTEM
from twin_record.resources.content import Resource, valid
from twin_record.resources.patient import patient_key
from twin_record.update import TwinSite, TwinUpdate


def record_value(system: str, value: str) -> str:
    """The identifier of this patient's twin record: one per patient, and the patient id cannot be read from it."""
    return str(uuid.uuid5(NAMESPACE, f"record|{system}|{value}"))


def new_record(update: TwinUpdate, site: TwinSite, subject: Resource, items: Sequence[str]) -> Resource:
    """The patient's List, which is the twin record: an entry for each study, Provenance, measurement and report."""
    key = patient_key(update.patient_id, update.issuer_of_patient_id, site)
    made_at = update.made_at.isoformat()
    coding = {"system": CODE_SYSTEM, "code": "digital-twin-record", "display": "Digital-twin record"}
    return valid(
        FhirList,
        {
            "identifier": [{"system": RECORD_SYSTEM, "value": record_value(key.system, key.value)}],
            "status": "current",
            "mode": "working",
            "title": "Digital-twin record",
            "code": {"coding": [coding], "text": "digital-twin record"},
            "subject": subject,
            "date": made_at,
            "entry": [{"date": made_at, "item": {"reference": item}} for item in items],
        },
    )
