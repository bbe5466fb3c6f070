"""A patient's whole record, read as one Bundle."""

from collections.abc import Sequence
from typing import Final

from twin_record.endpoint import BundleEndpoint
from twin_record.found import person_found
from twin_record.person import keys_of_person, records_of
from twin_record.resources.content import Resource, held_if_invalid, literal_of, short_reference
from twin_record.resources.patient import PatientKey
from twin_record.search import read_all, search
from twin_scanner.errors import Rejected

NOWHERE: Final = "https://twin-scanner.invalid/fhir"
"""The address of what has none, as the embedded store; RFC 2606 keeps .invalid for that."""


def read_record(key: PatientKey, endpoint: BundleEndpoint, base_url: str = NOWHERE) -> Resource:
    """The patient's whole record as a Bundle of type collection: Patient, List, all it lists, and their Devices.

    Each entry has the address of its resource at `base_url`, so that references resolve within the Bundle.

    A patient whom the record names by identifier alone has no Patient in it. Raises Rejected where there is no record.
    """
    identifiers = keys_of_person(key)
    found = search(endpoint, identifiers)
    person, _ = person_found(found["Patient"], identifiers["Patient"], endpoint)
    records = records_of(person, identifiers["List"], found["List"], endpoint)
    if not records:
        raise Rejected("There is no twin record for this patient id; check the id and its issuer.")
    return record_bundle(person.patient, records, endpoint, base_url)


def record_bundle(
    patient: Resource | None, records: Sequence[Resource], endpoint: BundleEndpoint, base_url: str = NOWHERE
) -> Resource:
    """As ``read_record``, of a Patient and Lists that were read before."""
    with held_if_invalid(records):
        items = [entry["item"] for record in records for entry in record.get("entry", [])]
        urls = [short_reference(item["reference"]) for item in items if "reference" in item]
    listed = _read_each(endpoint, urls)
    with held_if_invalid(listed):
        agents = [agent["who"] for resource in listed for agent in resource.get("agent", [])]
        urls = [short_reference(agent["reference"]) for agent in agents if "reference" in agent]
    patients = [] if patient is None else [patient]
    resources = [*patients, *records, *listed, *_read_each(endpoint, urls)]
    entries = [{"fullUrl": f"{base_url.rstrip('/')}/{literal_of(part)}", "resource": part} for part in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def _read_each(endpoint: BundleEndpoint, urls: Sequence[str]) -> list[Resource]:
    different = list(dict.fromkeys(urls))
    return [resource for found in read_all(endpoint, different) for resource in found] if different else []
