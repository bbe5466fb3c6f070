"""Puts an exported twin record into the embedded store: what is missing is created, what is there is never changed."""

from typing import Any, Final

from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError
from sqlalchemy import Connection

from twin_record.identity import check_same_person
from twin_record.merging import differs
from twin_record.resources.codes import DICOM_UID_SYSTEM, MODEL_SYSTEM, RECORD_SYSTEM
from twin_record.resources.content import Resource, literal_of, places, renamed
from twin_record.stored import current, with_identifier, write_version
from twin_scanner.errors import Held, Rejected

KEY_SYSTEMS: Final = {"ImagingStudy": DICOM_UID_SYSTEM, "Device": MODEL_SYSTEM, "List": RECORD_SYSTEM}
"""The system of the identifier by which a resource is found; of other types the first one that has a system."""
SHARED: Final = ("Device", "Patient")
"""Types that are created where they are missing, and otherwise left as they are."""


def record_of(document: Any) -> list[Resource]:
    """The resources of an exported record; Rejected where the document is no Bundle of one patient with a List."""
    entries = document.get("entry") if isinstance(document, dict) else None
    if not isinstance(entries, list) or document.get("resourceType") != "Bundle":
        raise Rejected("It is no FHIR Bundle: export the record again by 'twin-scanner twin export'.")
    resources = [_checked(entry.get("resource")) for entry in entries if isinstance(entry, dict)]
    kinds = [resource["resourceType"] for resource in resources]
    if kinds.count("Patient") > 1 or "List" not in kinds:
        raise Rejected("It is no twin record: a Bundle of one has a List, and one Patient at most.")
    return resources


def _checked(value: Any) -> Resource:
    resource: Resource = value if isinstance(value, dict) else {}
    kind = resource.get("resourceType")
    try:
        get_fhir_model_class(str(kind)).model_validate(resource)
        literal_of(resource)
    except ValidationError as error:
        raise Rejected(f"It holds a {kind} that is no valid R4: correct its {places(error)}.") from None
    except (KeyError, ValueError):
        raise Rejected("It holds an entry that is no FHIR resource with an id.") from None
    return resource


def import_record(connection: Connection, resources: list[Resource], recorded_at: str) -> tuple[str, ...]:
    """Create what the store does not hold; the literal references of that.

    Raises Held, with nothing written where the caller undoes the transaction, where the store holds another state of
    the same record, or another person under the same identifier.
    """
    there = {literal_of(resource): _there(connection, resource) for resource in resources}
    literals = {literal: literal_of(theirs) for literal, theirs in there.items() if theirs is not None}
    written = []
    for resource in resources:
        theirs = there[literal_of(resource)]
        ours = renamed(resource, literals)
        if theirs is None:
            write_version(connection, ours, 1, recorded_at)
            written.append(literal_of(ours))
        elif resource["resourceType"] == "Patient":
            check_same_person(theirs, ours, identifier_alone=True)
        elif resource["resourceType"] not in SHARED and differs({**ours, "id": theirs["id"]}, theirs):
            raise Held(
                f"The store holds another state of this record ({literal_of(theirs)}), so nothing of it was imported: "
                "erase the record there first."
            )
    return tuple(written)


def _there(connection: Connection, resource: Resource) -> Resource | None:
    """What the store holds of the same identity, by the business identifier, else by the id."""
    kind = resource["resourceType"]
    for key in resource.get("identifier", []):
        if "value" in key and key.get("system") and key["system"] == KEY_SYSTEMS.get(kind, key["system"]):
            found = with_identifier(connection, kind, key["system"], key["value"])
            if found:
                return current(connection, kind, found[0])
            break
    return current(connection, kind, resource["id"])
