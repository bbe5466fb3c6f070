"""Which rights to write a record are not there, as far as a server says so before anything is written."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from twin_record.capabilities import declared_types, interactions_of
from twin_record.update import TwinSite

CHANGED: Final = frozenset({"ImagingStudy", "List", "Observation"})
"""What later jobs change."""
_SCOPE: Final = re.compile(r"(?:system|user|patient)/(\*|[A-Za-z]+)\.(\*|read|write|[cruds]+)(?:\?\S*)?")
"""A scope of SMART App Launch, of version 1 (read, write, *) or 2 (letters of cruds, perhaps with a search)."""
_GRANTS: Final[Mapping[str, str]] = {"*": "cruds", "read": "rs", "write": "cud"}


def lacking_rights(statement: Mapping[str, Any], scope: str | None, site: TwinSite) -> tuple[str, ...]:
    """One sentence for each thing that the CapabilityStatement, or the `scope` of our token, does not allow.

    A type of which a statement lists no interactions, or of which it does not speak, says nothing; nor does a scope
    that names no resource. None is a server whose access we do not ask for.
    """
    sentences = []
    if denied := sorted(_denied_by_statement(statement, site)):
        sentences.append(
            f"The FHIR server's CapabilityStatement does not allow to {_and(denied)}, so nothing of a job can be "
            "recorded there: allow it, or set twin.url to the server's address for writing."
        )
    if denied := sorted(_denied_by_scope(scope or "", site)):
        sentences.append(
            f"The token from the token endpoint does not allow to {_and(denied)}: let the client have system/*.crus "
            "there, and set twin.scope to it."
        )
    return tuple(sentences)


def _needed(site: TwinSite) -> Iterator[tuple[str, str]]:
    """Each interaction with a type that a job of this site needs."""
    for kind in ("Device", "ImagingStudy", "List", "Observation", "Provenance"):
        yield "create", kind
    for kind in sorted(CHANGED):
        yield "update", kind
    if site.unknown_patient == "create":
        yield "create", "Patient"
    if site.diagnostic_report:
        yield "create", "DiagnosticReport"


def _denied_by_statement(statement: Mapping[str, Any], site: TwinSite) -> Iterator[str]:
    declared = declared_types(statement)
    for interaction, kind in _needed(site):
        allowed = interactions_of(declared.get(kind, {}))
        creates_by_put = declared.get(kind, {}).get("updateCreate") is True and "update" in allowed
        if allowed and interaction not in allowed and not (interaction == "create" and creates_by_put):
            yield f"{interaction} {kind} resources"


def _denied_by_scope(scope: str, site: TwinSite) -> Iterator[str]:
    granted: dict[str, set[str]] = {}
    for kind, rights in (match.groups() for match in map(_SCOPE.fullmatch, scope.split()) if match):
        granted.setdefault(kind, set()).update(_GRANTS.get(rights, rights))
    for interaction, kind in _needed(site):
        if granted and interaction[0] not in granted.get(kind, set()) | granted.get("*", set()):
            yield f"{interaction} {kind} resources"


def _and(parts: list[str]) -> str:
    return " and to ".join(parts)
