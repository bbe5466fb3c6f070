"""Whatever executes FHIR Bundles, and its answer entry by entry; how Bundles travel is not known here."""

import re
from typing import Any, Protocol

from twin_record.resources.content import Resource, literal_of, short_reference
from twin_scanner.errors import Transient

DAMAGED = "The FHIR server's answer is damaged; it will be asked again."


class BundleEndpoint(Protocol):
    """Takes Bundles of type batch (reads) and transaction (writes)."""

    def exchange(self, bundle: Resource) -> Resource:
        """The response Bundle; raises Unavailable, Conflict or Held."""
        ...


def answered_entries(bundle: Resource, endpoint: BundleEndpoint) -> list[tuple[Resource, Resource]]:
    """Each entry of a Bundle with the endpoint's answer to it; Transient where entries are unanswered."""
    answers = entries_of(endpoint.exchange(bundle))
    if len(answers) != len(bundle["entry"]):
        raise Transient(f"The FHIR server answered a {bundle['type']} incompletely; it will be asked again.")
    return list(zip(bundle["entry"], answers, strict=True))


def entries_of(bundle: Resource) -> list[Resource]:
    """The entries of a Bundle from outside; Transient where it is not built as one."""
    entries = bundle.get("entry", [])
    if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        raise Transient(DAMAGED)
    return entries


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    response, resource = entry.get("response", {}), entry.get("resource", {})
    return isinstance(response, dict) and isinstance(resource, dict) and isinstance(response.get("location", ""), str)


def status_of(answer: Resource) -> int:
    """The HTTP status of one answered entry; 500 where it names none."""
    digits = str(answer.get("response", {}).get("status", ""))[:3]
    return int(digits) if digits.isdigit() else 500


def is_success(answer: Resource) -> bool:
    """Whether one answered entry was carried out."""
    return 200 <= status_of(answer) < 300


def location_of(entry: Resource, answer: Resource) -> str:
    """The literal reference of what an entry wrote; Transient where the server does not say."""
    location = answer.get("response", {}).get("location")
    if location:
        return short_reference(location)
    if answer.get("resource", {}).get("id"):
        return literal_of(answer["resource"])
    if entry["request"]["method"] == "PUT":
        return str(entry["request"]["url"])
    raise Transient("The FHIR server did not say where it stored a resource; it will be asked again.")


def version_of(answer: Resource) -> str:
    """The version that an entry wrote; empty where the server does not say."""
    response = answer.get("response", {})
    if tag := re.fullmatch(r'(?:W/)?"([^"]+)"', str(response.get("etag", ""))):
        return tag[1]
    _, _, version = str(response.get("location", "")).partition("/_history/")
    return version or str(answer.get("resource", {}).get("meta", {}).get("versionId", ""))
