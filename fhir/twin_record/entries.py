"""What one update writes: a creation for what is missing, a change for what would say something else."""

from collections.abc import Iterator, Mapping

from twin_record.found import Found, References, keys_of
from twin_record.identity import owned_by
from twin_record.merging import (
    differs,
    merged_history,
    merged_measurement,
    merged_provenance,
    merged_record,
    merged_study,
)
from twin_record.resources.codes import MEASUREMENT_SYSTEM
from twin_record.resources.content import Resource, literal_of
from twin_record.resources.device import new_device
from twin_record.resources.diagnostic_report import new_report, report_value
from twin_record.resources.imaging_study import new_study
from twin_record.resources.observation import new_observations
from twin_record.resources.patient import new_patient
from twin_record.resources.provenance import new_provenance
from twin_record.resources.record_list import new_record
from twin_record.search import identifier_query
from twin_record.update import TwinSite, TwinUpdate


def entries_for(update: TwinUpdate, site: TwinSite, found: Found, references: References) -> Iterator[Resource]:
    """The entries of the transaction: only what is missing or would change."""
    queries = {kind: identifier_query(*identifier) for kind, identifier in keys_of(update, site).items()}
    subject = references.subject
    if found.patient is None and references.patient:
        yield _creation(new_patient(update.identity, site), references.patient, queries["Patient"])
    if found.device is None:
        yield _creation(new_device(update), references.device, queries["Device"])
    study = new_study(update, site, subject, references.device)
    if found.study is None:
        yield _creation(study, references.study, queries["ImagingStudy"])
    else:
        yield from _change(found.study, merged_study(owned_by(found.study, subject), study, update))
    measurements = _measurements(update, site, found, references, subject)
    yield from _measured_entries(measurements, found)
    items = (references.study, references.provenance, *measurements)
    record = new_record(update, site, subject, items)
    if found.record is None:
        yield _creation(record, references.record, queries["List"])
    else:
        yield from _change(found.record, merged_record(owned_by(found.record, subject), record, update))
    yield from _provenance_entries(update, found, references)


def superseded_entries(
    update: TwinUpdate, site: TwinSite, found: Found, references: References, successor: str
) -> Iterator[Resource]:
    """The entries for a PET that another one had replaced before it was recorded: how it came to be, and no more."""
    if found.provenance is None and found.device is None:
        query = identifier_query(*keys_of(update, site)["Device"])
        yield _creation(new_device(update), references.device, query)
    if found.record is not None:
        ours = new_record(update, site, references.subject, [references.provenance])
        yield from _change(found.record, merged_history(found.record, ours, update, successor))
    if found.study is not None:
        yield from _provenance_entries(update, found, references)


def _provenance_entries(update: TwinUpdate, found: Found, references: References) -> Iterator[Resource]:
    provenance = new_provenance(update, references.subject, references.study, references.record, references.device)
    if found.provenance is None:
        yield {"resource": provenance, "request": {"method": "PUT", "url": references.provenance}}
    else:
        yield from _change(found.provenance, merged_provenance(found.provenance, provenance))


def _measurements(
    update: TwinUpdate, site: TwinSite, found: Found, references: References, subject: Resource
) -> dict[str, tuple[str, Resource]]:
    """Each Observation, and the DiagnosticReport where the site wants it, with its identifier, by its reference.

    What is not measured any more is corrected where it is recorded; it is never recorded for that.
    """

    def name(value: str) -> str:
        if value in found.measured:
            return literal_of(found.measured[value][0])
        return f"urn:uuid:{value}"

    observations = new_observations(update, site, subject, references.study, references.device)
    made = {
        name(value): (value, observation)
        for value, observation in observations.items()
        if value in found.measured or "valueQuantity" in observation
    }
    if made and site.diagnostic_report:
        value = report_value(update)
        made[name(value)] = (value, new_report(update, site, subject, references.study, list(made)))
    return made


def _measured_entries(measurements: Mapping[str, tuple[str, Resource]], found: Found) -> Iterator[Resource]:
    for reference, (value, resource) in measurements.items():
        if value in found.measured:
            theirs, *doubled = found.measured[value]
            yield from _change(theirs, merged_measurement(theirs, resource))
            for other in doubled:
                yield from _change(other, {**other, "status": "entered-in-error"})
        else:
            yield _creation(resource, reference, identifier_query(MEASUREMENT_SYSTEM, value))


def _creation(resource: Resource, placeholder: str, query: str) -> Resource:
    request = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": query}
    return {"fullUrl": placeholder, "resource": resource, "request": request}


def _change(theirs: Resource, merged: Resource) -> Iterator[Resource]:
    if not differs(theirs, merged):
        return
    literal, version = literal_of(theirs), theirs.get("meta", {}).get("versionId")
    match = {"ifMatch": f'W/"{version}"'} if version else {}
    yield {"resource": merged, "request": {"method": "PUT", "url": literal, **match}}
