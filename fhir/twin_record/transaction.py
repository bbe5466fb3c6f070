"""The transaction of one job: read what is there, merge, write only what changes, redo where somebody was faster.

It knows the FHIR Bundles that go out and come back, and not how they travel: remote sends them by HTTP, embedded
executes them in SQL.
"""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from twin_record.endpoint import BundleEndpoint, answered_entries, status_of
from twin_record.merging import (
    check_same_person,
    differs,
    is_replaced,
    is_superseded,
    listed_provenances,
    merged_provenance,
    merged_record,
    merged_study,
)
from twin_record.refusals import Conflict, entry_failure, private_words
from twin_record.resources.codes import DICOM_UID_SYSTEM, MODEL_SYSTEM, NAMESPACE, RECORD_SYSTEM
from twin_record.resources.content import Resource, held_if_invalid, short_reference
from twin_record.resources.device import new_device
from twin_record.resources.imaging_study import new_study, study_value
from twin_record.resources.patient import new_patient, patient_key
from twin_record.resources.provenance import new_provenance, provenance_id
from twin_record.resources.record_list import new_record, record_value
from twin_record.resources.remarks import remarks_on
from twin_record.search import identifier_query, read_all, search
from twin_record.target import TwinReceipt
from twin_record.update import TwinSite, TwinUpdate
from twin_scanner.errors import Held, Transient

DEFAULT_ATTEMPTS = 5
"""How often one update is read, merged and written again where somebody writes at the same time."""
REDO_WAIT_S = 0.05
LONGEST_REDO_WAIT_S = 2.0
"""After a conflict the next attempt waits, for a random time that grows from the first to the second."""


@dataclass(frozen=True)
class Found:
    """What is already there for one update; None where it is not."""

    patient: Resource | None
    study: Resource | None
    device: Resource | None
    record: Resource | None
    provenance: Resource | None


@dataclass(frozen=True)
class References:
    """How resources name each other in one transaction: literally, or by a placeholder until they exist."""

    patient: str
    study: str
    device: str
    record: str
    provenance: str


def record_update(
    update: TwinUpdate, site: TwinSite, endpoint: BundleEndpoint, attempts: int, sleep: Callable[[float], None]
) -> TwinReceipt:
    """Bring the record to what the update says, `attempts` times at most where somebody writes at the same time."""
    for attempt in Retrying(
        retry=retry_if_exception_type(Conflict),
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=REDO_WAIT_S, max=LONGEST_REDO_WAIT_S),
        sleep=sleep,
        reraise=True,
    ):
        with attempt:
            receipt = _record_once(update, site, endpoint)
    return receipt


def _record_once(update: TwinUpdate, site: TwinSite, endpoint: BundleEndpoint) -> TwinReceipt:
    found = _find(update, site, endpoint)
    remarks = remarks_on(update, site)
    references = _references(update, found)
    with held_if_invalid(vars(found).values()):
        if found.patient is not None:
            remarks += check_same_person(found.patient, new_patient(update, site))
        for theirs in (found.study, found.record):
            _check_subject(theirs, references.patient, endpoint)
        if _is_superseded(found, update, endpoint):
            return _receipt(references, (), (*remarks, "Another PET already replaced this one; nothing was written."))
        entries = list(_entries(update, site, found, references))
    if not entries:
        return _receipt(references, (), remarks)
    transaction = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    written = _executed(transaction, endpoint)
    resolved = {entry.get("fullUrl"): literal for entry, literal in zip(entries, written, strict=True)}
    references = References(*(resolved.get(name, name) for name in vars(references).values()))
    return _receipt(references, written, remarks)


def _is_superseded(found: Found, update: TwinUpdate, endpoint: BundleEndpoint) -> bool:
    """Whether another PET has replaced this one, even before this one was recorded: it was under way for longer."""
    if found.record is None:
        return False
    if is_superseded(found.record, update):
        return True
    listed = listed_provenances(found.record)
    if not listed or f"Provenance/{provenance_id(update.pet_series.series_uid)}" in listed:
        return False
    others = [resource for resources in read_all(endpoint, listed) for resource in resources]
    with held_if_invalid(others):
        return is_replaced(others, update)


def _receipt(references: References, written: tuple[str, ...], remarks: tuple[str, ...]) -> TwinReceipt:
    return TwinReceipt(
        patient=references.patient,
        imaging_study=references.study,
        device=references.device,
        provenance=references.provenance,
        record=references.record,
        written=written,
        remarks=remarks,
    )


def _find(update: TwinUpdate, site: TwinSite, endpoint: BundleEndpoint) -> Found:
    found = search(endpoint, _keys(update, site))
    provenance = read_all(endpoint, [f"Provenance/{provenance_id(update.pet_series.series_uid)}"])[0]
    return Found(
        patient=_the_one("Patient", found),
        study=_the_one("ImagingStudy", found),
        device=min(found["Device"], key=lambda device: str(device["id"]), default=None),
        record=_the_one("List", found),
        provenance=provenance[0] if provenance else None,
    )


def _keys(update: TwinUpdate, site: TwinSite) -> dict[str, tuple[str, str]]:
    """The business identifier by which each resource of an update is found; a Provenance has none, only its id."""
    key = patient_key(update.patient_id, update.issuer_of_patient_id, site)
    return {
        "Patient": (key.system, key.value),
        "Device": (MODEL_SYSTEM, update.model_hash),
        "ImagingStudy": (DICOM_UID_SYSTEM, study_value(update.study_uid)),
        "List": (RECORD_SYSTEM, record_value(key)),
    }


def _the_one(kind: str, found: dict[str, list[Resource]]) -> Resource | None:
    if len(found[kind]) > 1:
        raise Held(f"The FHIR server holds more than one {kind} with the same identifier: merge them there first.")
    return found[kind][0] if found[kind] else None


def _literal(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def _references(update: TwinUpdate, found: Found) -> References:
    def name(kind: str, existing: Resource | None) -> str:
        if existing is not None:
            return _literal(existing)
        return f"urn:uuid:{uuid.uuid5(NAMESPACE, f'placeholder|{kind}|{update.pet_series.series_uid}')}"

    return References(
        patient=name("Patient", found.patient),
        study=name("ImagingStudy", found.study),
        device=name("Device", found.device),
        record=name("List", found.record),
        provenance=f"Provenance/{provenance_id(update.pet_series.series_uid)}",
    )


def _check_subject(theirs: Resource | None, patient: str, endpoint: BundleEndpoint) -> None:
    """Raise Held where the resource belongs to another Patient; a Patient that does not exist owns nothing."""
    subject = (theirs or {}).get("subject", {}).get("reference")
    if theirs is None or subject is None or short_reference(subject) == patient:
        return
    if read_all(endpoint, [short_reference(subject)])[0]:
        raise Held(
            f"The {theirs['resourceType']} on the FHIR server belongs to another Patient than the CT's patient id "
            "leads to, so nothing was recorded; correct the patient or the configured identifier system."
        )


def _entries(update: TwinUpdate, site: TwinSite, found: Found, references: References) -> Iterator[Resource]:
    """The entries of the transaction: only what is missing or would change."""
    queries = {kind: identifier_query(*identifier) for kind, identifier in _keys(update, site).items()}
    if found.patient is None:
        yield _creation(new_patient(update, site), references.patient, queries)
    if found.device is None:
        yield _creation(new_device(update), references.device, queries)
    study = new_study(update, site, references.patient, references.device)
    if found.study is None:
        yield _creation(study, references.study, queries)
    else:
        yield from _change(found.study, merged_study(_owned(found.study, references), study, update))
    record = new_record(update, site, references.patient, references.study, references.provenance)
    if found.record is None:
        yield _creation(record, references.record, queries)
    else:
        yield from _change(found.record, merged_record(_owned(found.record, references), record, update))
    provenance = new_provenance(update, references.study, references.record, references.device)
    if found.provenance is None:
        yield {"resource": provenance, "request": {"method": "PUT", "url": references.provenance}}
    else:
        yield from _change(found.provenance, merged_provenance(found.provenance, provenance))


def _owned(theirs: Resource, references: References) -> Resource:
    """Theirs with our Patient as subject where their own no longer exists (`_check_subject` has seen to that)."""
    subject = theirs.get("subject", {})
    if "reference" not in subject or short_reference(subject["reference"]) == references.patient:
        return theirs
    return {**theirs, "subject": {"reference": references.patient}}


def _creation(resource: Resource, placeholder: str, queries: dict[str, str]) -> Resource:
    kind = resource["resourceType"]
    request = {"method": "POST", "url": kind, "ifNoneExist": queries[kind]}
    return {"fullUrl": placeholder, "resource": resource, "request": request}


def _change(theirs: Resource, merged: Resource) -> Iterator[Resource]:
    if not differs(theirs, merged):
        return
    literal, version = _literal(theirs), theirs.get("meta", {}).get("versionId")
    match = {"ifMatch": f'W/"{version}"'} if version else {}
    yield {"resource": merged, "request": {"method": "PUT", "url": literal, **match}}


def _executed(transaction: Resource, endpoint: BundleEndpoint) -> tuple[str, ...]:
    """The literal references of what was written; one failed entry is the failure of all.

    A server that is not atomic answers 200 with failed entries inside. A conditional create that found something
    (200 instead of 201) means that somebody created it after we read: our part is not merged into it yet.
    """
    private = private_words(transaction)
    written = []
    for entry, answer in answered_entries(transaction, endpoint):
        status = status_of(answer)
        if not 200 <= status < 300:
            raise entry_failure(status, answer.get("response", {}).get("outcome"), private)
        if entry["request"]["method"] == "POST" and status == 200:
            raise Conflict("Somebody created the same resource on the FHIR server at the same time; try again.")
        written.append(_written(entry, answer))
    return tuple(written)


def _written(entry: Resource, answer: Resource) -> str:
    location = answer.get("response", {}).get("location")
    if location:
        return short_reference(location)
    if answer.get("resource", {}).get("id"):
        return _literal(answer["resource"])
    if entry["request"]["method"] == "PUT":
        return str(entry["request"]["url"])
    raise Transient("The FHIR server did not say where it stored a resource; it will be asked again.")
