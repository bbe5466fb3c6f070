"""The transaction of one job: read what is there, merge, write only what changes, redo where somebody was faster.

It knows the FHIR Bundles that go out and come back, and not how they travel: remote sends them by HTTP, embedded
executes them in SQL.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from twin_record.endpoint import BundleEndpoint
from twin_record.entries import entries_for, superseded_entries
from twin_record.found import Found, References, find, references_of
from twin_record.identity import check_person
from twin_record.joining import join
from twin_record.merging import listed_provenances, replaced_by, superseded_by
from twin_record.refusals import Conflict, TooLarge
from twin_record.resources.content import held_if_invalid
from twin_record.resources.provenance import provenance_id
from twin_record.resources.remarks import remarks_on
from twin_record.search import read_all
from twin_record.target import TwinReceipt
from twin_record.update import TwinSite, TwinUpdate
from twin_record.writing import executed

DEFAULT_ATTEMPTS = 5
"""How often one update is read, merged and written again where somebody writes at the same time."""
REDO_WAIT_S = 0.05
LONGEST_REDO_WAIT_S = 2.0
"""After a conflict the next attempt waits, for a random time that grows from the first to the second."""

SERIES_LEVEL: Final = (
    "The FHIR server takes no list of so many instances, so the series are recorded with the number of theirs; "
    'twin.instances = "series" asks for no more.'
)


def record_update(
    update: TwinUpdate, site: TwinSite, endpoint: BundleEndpoint, attempts: int, sleep: Callable[[float], None]
) -> TwinReceipt:
    """Bring the record to what the update says, `attempts` times at most where somebody writes at the same time.

    A server that takes no list of all instances gets the series with the number of theirs.
    """
    try:
        return _record(update, site, endpoint, attempts, sleep)
    except TooLarge:
        if site.instances == "series":
            raise
    receipt = _record(update, replace(site, instances="series"), endpoint, attempts, sleep)
    return replace(receipt, remarks=(*receipt.remarks, SERIES_LEVEL))


def _record(
    update: TwinUpdate, site: TwinSite, endpoint: BundleEndpoint, attempts: int, sleep: Callable[[float], None]
) -> TwinReceipt:
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
    found = find(update, site, endpoint)
    remarks = remarks_on(update, site)
    references = references_of(update, site, found)
    owned = [resource for resource in (found.study, *found.records) if resource is not None]
    measured = [one for several in found.measured.values() for one in several]
    owned += [one for several in found.doubles for one in several[1:] if one["resourceType"] == "ImagingStudy"]
    remarks += check_person(found.person, update.identity, site, owned, endpoint)
    if found.doubles:
        with held_if_invalid([*owned, found.device, found.provenance]):
            join(found.doubles, [one for one in (*owned, found.provenance) if one is not None], endpoint)
        raise Conflict("Two of one resource on the FHIR server were joined; the record is read again.")
    with held_if_invalid([*owned, found.device, found.provenance, *measured]):
        successor = _successor(found, update, endpoint)
        if successor is None:
            entries = list(entries_for(update, site, found, references))
        else:
            remarks = (*remarks, "Another PET already replaced this one; only how it came to be was recorded.")
            entries = list(superseded_entries(update, site, found, references, successor))
    if not entries:
        return _receipt(references, (), remarks)
    transaction = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    written = executed(transaction, endpoint)
    resolved = {entry.get("fullUrl"): literal for entry, literal in zip(entries, written, strict=True)}
    references = references.resolved(resolved)
    return _receipt(references, written, remarks)


def _successor(found: Found, update: TwinUpdate, endpoint: BundleEndpoint) -> str | None:
    """The series of the PET that has replaced this one, even before this one was recorded; None where none has."""
    if found.record is None:
        return None
    if (flagged := superseded_by(found.record, update)) is not None:
        return flagged
    listed = listed_provenances(found.record)
    if not listed or f"Provenance/{provenance_id(update.pet_series.series_uid)}" in listed:
        return None
    others = [resource for resources in read_all(endpoint, listed) for resource in resources]
    with held_if_invalid(others):
        return replaced_by(others, update)


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
