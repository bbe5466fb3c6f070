"""What is already there: searches and reads in one batch, so that no identifier is ever in a URL."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from twin_record.endpoint import DAMAGED, BundleEndpoint, answered_entries, entries_of, status_of
from twin_record.refusals import MISSING, entry_failure
from twin_record.resources.content import Resource, held_if_invalid
from twin_scanner.errors import Transient


def identifier_query(system: str, value: str) -> str:
    """The search by one business identifier, escaped as R4 (search, 3.1.1.4.2) and then as a URL asks."""
    token = "|".join(_escaped(part) for part in (system, value))
    return f"identifier={quote(token, safe='')}"


def _escaped(part: str) -> str:
    for character in "\\|,$":
        part = part.replace(character, "\\" + character)
    return part


def search(endpoint: BundleEndpoint, identifiers: Mapping[str, tuple[str, str]]) -> dict[str, list[Resource]]:
    """The resources of each type with its identifier (system, value), in one batch.

    A server may ignore a search parameter that it does not know and answer with everything it has, so only what
    carries the identifier counts.
    """
    urls = [f"{kind}?{identifier_query(*identifier)}" for kind, identifier in identifiers.items()]
    found = read_all(endpoint, urls)
    with held_if_invalid(resource for resources in found for resource in resources):
        return {
            kind: [resource for resource in resources if identifier in identifiers_of(resource)]
            for (kind, identifier), resources in zip(identifiers.items(), found, strict=True)
        }


def identifiers_of(resource: Resource) -> set[tuple[str, str]]:
    """The business identifiers of a resource, as (system, value)."""
    return {(key.get("system", ""), key.get("value", "")) for key in resource.get("identifier", [])}


def read_all(endpoint: BundleEndpoint, urls: Sequence[str]) -> list[list[Resource]]:
    """The resources behind each search or read, in one batch: the addresses with identifiers travel in the body."""
    requests = [{"request": {"method": "GET", "url": url}} for url in urls]
    batch: Resource = {"resourceType": "Bundle", "type": "batch", "entry": requests}
    return [_read(asked["request"]["url"], answer) for asked, answer in answered_entries(batch, endpoint)]


def _read(url: str, answer: Resource) -> list[Resource]:
    status, resource = status_of(answer), answer.get("resource", {})
    kind = url.partition("?")[0].partition("/")[0]
    if status in MISSING and "?" not in url:
        return []
    if not 200 <= status < 300:
        raise entry_failure(status, answer.get("response", {}).get("outcome"), frozenset())
    if resource.get("resourceType") == "Bundle":
        found = [entry["resource"] for entry in entries_of(resource) if "resource" in entry]
        return [match for match in found if match.get("resourceType") == kind and "id" in match]
    if resource.get("resourceType") != kind or "id" not in resource:
        raise Transient(DAMAGED)
    return [resource]
