"""The patients' identity: the FHIR server knows Patients by the identifier systems that the configuration names."""

from collections.abc import Iterator
from contextlib import closing
from typing import Final
from urllib.parse import quote

from twin_record.person import whole_identifiers
from twin_record.remote import FhirClient
from twin_record.search import read_all
from twin_scanner.app import open_twin
from twin_scanner.doctor.finding import Finding
from twin_scanner.settings import Settings

UNKNOWN: Final = {
    "hold": "holds its job",
    "create": "gets a new Patient",
    "reference": "is named by the identifier alone",
}


def check_identity_systems(settings: Settings) -> Iterator[Finding]:
    """Ask for one Patient of each system; the embedded store has its own patients. Nothing is written."""
    target = open_twin(settings) if settings.twin.url else None
    if not isinstance(target, FhirClient):
        return
    with closing(target):
        systems = list(dict.fromkeys([settings.twin.identifier_system, *settings.twin.issuer_systems.values()]))
        urls = [f"Patient?identifier={quote(f'{system}|', safe='')}&_count=1" for system in systems]
        found = read_all(target, urls)
    known = {system for patients in found for patient in patients for system, _ in whole_identifiers(patient)}
    missing = [system for system in systems if system not in known]
    policy = f"A patient whom it does not know {UNKNOWN[settings.twin.policy_for_unknown]} (twin.unknown_patient)."
    if missing:
        fact = f"The FHIR server has no Patient with an identifier in the system {', '.join(missing)}"
        advice = "make sure that it is the one of the hospital's Patient IDs, in twin.patient_identifier_system"
        yield Finding("patient identity", "warning", f"{fact}: {advice} or twin.issuer_systems. {policy}")
    else:
        yield Finding("patient identity", "ok", f"The FHIR server knows Patients by the configured systems. {policy}")
