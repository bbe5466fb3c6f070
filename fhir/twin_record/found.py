"""What a FHIR server already holds for one update, and how the update's resources name each other."""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twin_record.endpoint import BundleEndpoint
from twin_record.joining import Doubled, doubled, doubled_patients
from twin_record.person import Person, keys_of_person, person_of, records_of
from twin_record.resources.codes import DICOM_UID_SYSTEM, MEASUREMENT_SYSTEM, MODEL_SYSTEM, NAMESPACE
from twin_record.resources.content import Resource, held_if_invalid, literal_of
from twin_record.resources.diagnostic_report import report_value
from twin_record.resources.imaging_study import study_value
from twin_record.resources.observation import measured, measurement_value
from twin_record.resources.patient import patient_key
from twin_record.resources.provenance import provenance_id
from twin_record.search import identifier_query, identifiers_of, read_all, search
from twin_record.update import TwinSite, TwinUpdate


@dataclass(frozen=True)
class Found:
    """What is already there for one update; None where it is not."""

    person: Person
    study: Resource | None
    device: Resource | None
    records: tuple[Resource, ...]
    """The person's Lists: several where two Patients were merged, or two writers made one each."""
    provenance: Resource | None
    measured: Mapping[str, tuple[Resource, ...]]
    """Observations, and the DiagnosticReport, by the identifier that is ours; several where two writers made one."""

    doubles: tuple[Doubled, ...] = ()
    """What a race created twice, to be joined before anything else is written."""

    @property
    def patient(self) -> Resource | None:
        """The Patient that the record is kept under."""
        return self.person.patient

    @property
    def record(self) -> Resource | None:
        """The List that goes on."""
        return self.records[0] if self.records else None


@dataclass(frozen=True)
class References:
    """How resources name each other in one transaction: literally, or by a placeholder until they exist.

    `patient` is empty where the record does not know the patient and none is to be created.
    """

    patient: str
    study: str
    device: str
    record: str
    provenance: str
    patient_identifier: Resource

    @property
    def subject(self) -> Resource:
        """The patient as a FHIR Reference: to the resource, else by the identifier alone (a logical reference)."""
        if self.patient:
            return {"reference": self.patient}
        return {"type": "Patient", "identifier": self.patient_identifier}

    def resolved(self, literals: Mapping[str | None, str]) -> "References":
        """With the literal reference for each placeholder."""
        names: dict[str, Any] = {
            key: literals.get(name, name) for key, name in vars(self).items() if isinstance(name, str)
        }
        return replace(self, **names)


def find(update: TwinUpdate, site: TwinSite, endpoint: BundleEndpoint) -> Found:
    """Search for all resources of an update; Held where one that is not ours exists twice."""
    keys = keys_of(update, site)
    found = search(endpoint, keys)
    ids = {kind: identifier_query(*key) for kind, key in keys.items()}
    person, patients = person_found(found["Patient"], keys["Patient"], endpoint)
    with held_if_invalid(one for several in found.values() for one in several):
        studies, devices = (doubled(found[kind], ids[kind]) for kind in ("ImagingStudy", "Device"))
    lists = records_of(person, keys["List"], found["List"], endpoint)
    with held_if_invalid(lists):
        records = doubled(lists, ids["List"])
    address = f"Provenance/{provenance_id(update.pet_series.series_uid)}"
    kinds = measurement_keys(update, site)
    queries = [f"{kind}?{identifier_query(MEASUREMENT_SYSTEM, value)}" for value, kind in kinds.items()]
    provenance, *answers = read_all(endpoint, [address, *queries])
    return Found(
        person=person,
        study=studies[0] if studies else None,
        device=devices[0] if devices else None,
        records=records,
        provenance=provenance[0] if provenance else None,
        measured=dict(_with_identifiers(kinds, answers)),
        doubles=tuple(several for several in (patients, devices, studies, records) if len(several) > 1),
    )


def person_found(
    patients: Sequence[Resource], key: tuple[str, str], endpoint: BundleEndpoint
) -> tuple[Person, Doubled]:
    """Whom the Patients with the identifier `key` are, and those of them that a race has made of one."""
    with held_if_invalid(patients):
        doubles = doubled_patients(patients)
    person = person_of(doubles[:1] or patients, key, endpoint)
    return replace(person, literals=person.literals | set(map(literal_of, doubles))), doubles


def measurement_keys(update: TwinUpdate, site: TwinSite) -> dict[str, str]:
    """The type of the resource behind each identifier of a measurement."""
    keys = {measurement_value(update, one.district, quantity): "Observation" for one, quantity in measured(update)}
    return keys | ({report_value(update): "DiagnosticReport"} if site.diagnostic_report else {})


def _with_identifiers(keys: Iterable[str], answers: list[list[Resource]]) -> Iterator[tuple[str, tuple[Resource, ...]]]:
    """Those that carry the identifier, in an order that every writer sees; without those that were withdrawn."""
    for value, found in zip(keys, answers, strict=True):
        with held_if_invalid(found):
            ours = [one for one in found if (MEASUREMENT_SYSTEM, value) in identifiers_of(one)]
            valid = [one for one in ours if one.get("status") != "entered-in-error"]
        if valid:
            yield value, tuple(sorted(valid, key=lambda one: str(one["id"])))


def keys_of(update: TwinUpdate, site: TwinSite) -> dict[str, tuple[str, str]]:
    """The business identifier by which each resource of an update is found; a Provenance has none, only its id."""
    key = patient_key(update.patient_id, update.issuer_of_patient_id, site)
    return keys_of_person(key) | {
        "Device": (MODEL_SYSTEM, update.model_hash),
        "ImagingStudy": (DICOM_UID_SYSTEM, study_value(update.study_uid)),
    }


def references_of(update: TwinUpdate, site: TwinSite, found: Found) -> References:
    """Literal references to what exists, placeholders for what a transaction is to create."""

    def name(kind: str, existing: Resource | None) -> str:
        if existing is not None:
            return literal_of(existing)
        return f"urn:uuid:{uuid.uuid5(NAMESPACE, f'placeholder|{kind}|{update.pet_series.series_uid}')}"

    creates = found.patient is not None or site.unknown_patient == "create"
    return References(
        patient=name("Patient", found.patient) if creates else "",
        study=name("ImagingStudy", found.study),
        device=name("Device", found.device),
        record=name("List", found.record),
        provenance=f"Provenance/{provenance_id(update.pet_series.series_uid)}",
        patient_identifier=patient_key(update.patient_id, update.issuer_of_patient_id, site).identifier(),
    )
