"""What this interface can do, in FHIR's own words: its CapabilityStatement (R4)."""

from importlib.metadata import version
from typing import Any, Final

from twin_record.reading import WITHOUT_PATIENT

STATED_ON: Final = "2026-11-29"
"""The day on which this interface last changed."""
TYPES: Final = ("Device", "DiagnosticReport", "ImagingStudy", "List", "Observation", "Patient", "Provenance")
"""What a twin record is made of; Provenance has no identifier in R4."""
_SECURITY: Final = "A session of the console or a bearer token; every read and search is written to the audit log."


def search_parameters(kind: str) -> dict[str, str]:
    """The search parameters of a type and their types."""
    of_kind = {"_lastUpdated": "date"}
    if kind != "Provenance":
        of_kind["identifier"] = "token"
    if kind not in WITHOUT_PATIENT:
        of_kind["patient"] = "reference"
    return of_kind


def capability_statement(base_url: str) -> dict[str, Any]:
    """The statement of the interface at an address."""
    resources = [
        {
            "type": kind,
            "interaction": [{"code": "read"}, {"code": "search-type"}],
            "versioning": "versioned",
            "readHistory": False,
            "searchParam": [{"name": name, "type": of} for name, of in sorted(search_parameters(kind).items())],
        }
        for kind in TYPES
    ]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": STATED_ON,
        "kind": "instance",
        "software": {"name": "twin-scanner", "version": version("twin-scanner")},
        "implementation": {"description": "The twin records of this node, read only", "url": base_url},
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "rest": [{"mode": "server", "security": {"description": _SECURITY}, "resource": resources}],
    }
