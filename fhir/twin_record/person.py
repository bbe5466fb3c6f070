"""Whom a patient id leads to: the Patient that lives on after every merge (R4 Patient.link), and all that led there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from twin_record.endpoint import BundleEndpoint
from twin_record.resources.codes import RECORD_SYSTEM
from twin_record.resources.content import Resource, held_if_invalid, is_literal, literal_of, short_reference
from twin_record.resources.patient import PatientKey
from twin_record.resources.record_list import record_value
from twin_record.search import identifier_query, identifiers_of, read_all
from twin_scanner.errors import Held

LONGEST_MERGE: Final = 8
"""So many Patients, each merged into the next, are followed; a person has decided on more than any hospital does."""


@dataclass(frozen=True)
class Person:
    """The living Patient, None where there is none; `literals` and `identifiers` are also those merged into it."""

    patient: Resource | None
    literals: frozenset[str]
    identifiers: frozenset[tuple[str, str]]

    @property
    def systems(self) -> frozenset[str]:
        """The identifier systems in which this person has an identifier."""
        return frozenset(system for system, _ in self.identifiers)


def keys_of_person(key: PatientKey) -> dict[str, tuple[str, str]]:
    """The business identifiers by which a patient's Patient and twin record (List) are found."""
    return {
        "Patient": (key.system, key.value),
        "List": (RECORD_SYSTEM, record_value(key.system, key.value)),
    }


def person_of(patients: Sequence[Resource], key: tuple[str, str], endpoint: BundleEndpoint) -> Person:
    """Whom these Patients are who carry the identifier `key`.

    A survivor that keeps the old identifier is followed to like one that does not. Raises Held where they are several
    people, and where a merge leads nowhere, round in a circle, or through too many Patients.
    """
    chains = []
    with held_if_invalid(patients):
        replaced = {name for patient in patients for name in _linked(patient, "replaces")}
        for patient in patients:
            if literal_of(patient) not in replaced or _linked(patient, "replaced-by"):
                chains.append(followed(patient, endpoint))
        survivors = {literal_of(chain[-1]): chain[-1] for chain in chains}
        active = [literal for literal, patient in survivors.items() if patient.get("active") is not False]
        if len(survivors) > 1 and len(active) != 1:
            raise Held("The FHIR server holds more than one Patient with the CT's patient id: merge them there first.")
        living = survivors[active[0] if active else next(iter(survivors))] if survivors else None
        known = [*patients, *(one for chain in chains for one in chain)]
        if living is not None:
            known += _replaced(living, endpoint)
        return Person(
            patient=living,
            literals=frozenset(map(literal_of, known)),
            identifiers=frozenset({key, *(identifier for one in known for identifier in identifiers_of(one))}),
        )


def followed(patient: Resource, endpoint: BundleEndpoint) -> list[Resource]:
    """The Patient and those that it was merged into, the one that lives on last; raises Held as ``person_of`` does."""
    chain = [patient]
    with held_if_invalid(chain):
        while targets := _linked(chain[-1], "replaced-by"):
            if len(set(targets)) > 1:
                raise Held("A Patient on the FHIR server is merged into several others: correct its links there.")
            if targets[0] in map(literal_of, chain):
                raise Held("Patients on the FHIR server are merged into each other in a circle: correct it there.")
            if len(chain) > LONGEST_MERGE or not is_literal(targets[0]):
                raise Held("The merge of a Patient on the FHIR server cannot be followed: correct its links there.")
            found = read_all(endpoint, [targets[0]])[0]
            if not found:
                raise Held("A Patient on the FHIR server is merged into one that is not there: correct it there.")
            chain.append(found[0])
    return chain


def _replaced(survivor: Resource, endpoint: BundleEndpoint) -> list[Resource]:
    """The Patients that a survivor says were merged into it, and those merged into them."""
    found: dict[str, Resource] = {}
    names = _linked(survivor, "replaces")
    for _ in range(LONGEST_MERGE):
        urls = [name for name in dict.fromkeys(names) if is_literal(name) and name not in found]
        read = [one for resources in (read_all(endpoint, urls) if urls else []) for one in resources]
        with held_if_invalid(read):
            found |= {literal_of(one): one for one in read}
            names = [name for one in read for name in _linked(one, "replaces")]
    return list(found.values())


def records_of(
    person: Person, key: tuple[str, str], found: Sequence[Resource], endpoint: BundleEndpoint
) -> tuple[Resource, ...]:
    """The twin records (Lists) of a person, by id: those `found` by the identifier `key`, and those of merged Patients.

    Each identifier of a person may have a List of its own. One that is entered in error is none.
    """
    values = {record_value(*identifier) for identifier in person.identifiers} - {key[1]}
    urls = [f"List?{identifier_query(RECORD_SYSTEM, value)}" for value in sorted(values)]
    others = [one for resources in (read_all(endpoint, urls) if urls else []) for one in resources]
    with held_if_invalid(others):
        asked = {(RECORD_SYSTEM, value) for value in values}
        records = [*found, *(one for one in others if not asked.isdisjoint(identifiers_of(one)))]
        current = {literal_of(one): one for one in records if one.get("status") != "entered-in-error"}
    return tuple(current[literal] for literal in sorted(current))


def _linked(patient: Resource, kind: str) -> list[str]:
    links = [link for link in patient.get("link", []) if link.get("type") == kind]
    return [short_reference(link.get("other", {}).get("reference", "")) for link in links]


def whole_identifiers(resource: Resource) -> set[tuple[str, str]]:
    """The identifiers of a resource, the old ones too, that have both a system and a value."""
    return {identifier for identifier in identifiers_of(resource) if all(identifier)}
