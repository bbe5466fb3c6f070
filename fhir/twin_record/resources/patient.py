"""The Patient, and the key by which a patient is found: an id within the domain that issued it."""

import uuid
from dataclasses import dataclass

from fhir.resources.R4B.patient import Patient

from twin_record.patient_identity import PatientIdentity
from twin_record.resources.codes import NAMESPACE, SOURCE
from twin_record.resources.content import Resource, valid
from twin_record.resources.dicom_values import clean_text, fhir_date, fhir_gender, human_names
from twin_record.update import TwinSite

MEDICAL_RECORD_NUMBER = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}


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


def new_patient(identity: PatientIdentity, site: TwinSite) -> Resource:
    """The Patient as the CT describes them; used only where the server knows no such patient."""
    key = patient_key(identity.patient_id, identity.issuer_of_patient_id, site)
    return valid(
        Patient,
        {
            "meta": {"source": SOURCE},
            "identifier": [{**key.identifier(), "type": {"coding": [MEDICAL_RECORD_NUMBER]}}],
            "active": True,
            "name": human_names(identity.patient_name),
            "gender": fhir_gender(identity.sex),
            "birthDate": fhir_date(identity.birth_date),
        },
    )
