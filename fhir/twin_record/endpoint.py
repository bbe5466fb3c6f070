"""Whatever executes FHIR Bundles, and its answer entry by entry; how Bundles travel is not known here."""

from typing import Protocol

from twin_record.resources.content import Resource
from twin_scanner.errors import Transient


class BundleEndpoint(Protocol):
    """Takes Bundles of type batch (reads) and transaction (writes)."""

    def exchange(self, bundle: Resource) -> Resource:
        """The response Bundle; raises Unavailable, Conflict or Held."""
        ...


def answered_entries(bundle: Resource, endpoint: BundleEndpoint) -> list[tuple[Resource, Resource]]:
    """Each entry of a Bundle with the endpoint's answer to it; Transient where entries are unanswered."""
    answers = endpoint.exchange(bundle).get("entry", [])
    if len(answers) != len(bundle["entry"]):
        raise Transient(f"The FHIR server answered a {bundle['type']} incompletely; it will be asked again.")
    return list(zip(bundle["entry"], answers, strict=True))


def status_of(answer: Resource) -> int:
    """The HTTP status of one answered entry; 500 where it names none."""
    digits = str(answer.get("response", {}).get("status", ""))[:3]
    return int(digits) if digits.isdigit() else 500
