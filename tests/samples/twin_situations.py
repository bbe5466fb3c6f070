"""Updates of one patient in the order in which a hospital sees them, and what stands in the record after them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.samples.twin_updates import a_series, another_study, companions, measured_update, new_uid
from twin_record.update import TwinSite, TwinUpdate

Json = dict[str, Any]

KINDS = {"Patient", "ImagingStudy", "Device", "Provenance", "List", "Observation", "DiagnosticReport"}
"""What the twin writes."""
EVERYTHING: dict[str, Any] = {
    "accession_system": "urn:oid:2.999.3",
    "based_on": True,
    "endpoint": "Endpoint/wado",
    "diagnostic_report": True,
}
"""What a site may wish for beyond the default."""


def first_scan(**changes: Any) -> TwinUpdate:
    """A scan with all that is made of it; one district has no network, and the model knows phantoms only."""
    derivation = "The CT was resampled to slices of 2 mm."
    all_of_it = {"companion_series": companions(), "missing_districts": ("legs",), "source_derivation": derivation}
    return measured_update(**{**all_of_it, "phantom_only": True, **changes})


def with_late_slices(first: TwinUpdate, **changes: Any) -> TwinUpdate:
    """The same CT with two slices more: another PET, which replaces the first one, that the PACS still holds."""
    ct = first.source_series
    longer = replace(ct, sop_instance_uids=(*ct.sop_instance_uids, *a_series("CT", 2).sop_instance_uids))
    later = replace(
        first,
        source_series=longer,
        pet_series=a_series("PT", 5),
        companion_series=companions(),
        replaces_series_uids=(first.pet_series.series_uid,),
        replaces_companion_uids=tuple(series.series_uid for series in first.companion_series),
        superseded_series=first.made_series,
    )
    return replace(later, **changes)


def another_frame_of_reference(first: TwinUpdate) -> TwinUpdate:
    """A second CT of the same study, lying otherwise, and the PET of it."""
    return replace(
        first,
        source_series=a_series("CT"),
        pet_series=a_series("PT"),
        companion_series=companions(),
        frame_of_reference_uid=new_uid(),
    )


def written_resources(record: Callable[[TwinUpdate], object], read: Callable[[TwinUpdate], Json]) -> list[Json]:
    """The resources of a patient's record, as first written and as changed by late slices and by a second study."""
    first = first_scan()
    states = []
    for update in (first, with_late_slices(first), another_study(first)):
        record(update)
        states += [entry["resource"] for entry in read(update)["entry"]]
    return states


def wishing(site: TwinSite) -> TwinSite:
    """A site that wants everything that can be had."""
    return replace(site, **EVERYTHING)
