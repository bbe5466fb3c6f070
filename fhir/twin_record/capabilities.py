"""What a FHIR server can do by its own CapabilityStatement, and the plan by which it is then read and written."""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twin_record.resources.codes import NAMESPACE

RECORDED: Final = ("Patient", "Device", "ImagingStudy", "Observation", "DiagnosticReport", "Provenance", "List")
"""The types that a record consists of, in the order in which single writes send them."""
NEEDED: Final = frozenset({"Patient", "Device", "ImagingStudy", "List"})
"""What every record has and is found by identifier."""
BY_ID_ALONE: Final = frozenset({"Provenance"})
"""R4 gives a Provenance no identifier, so that its id alone names it."""
SEARCHED: Final = frozenset(RECORDED) - BY_ID_ALONE
WITH_SUBJECT: Final = frozenset({"ImagingStudy", "List", "Observation", "DiagnosticReport"})
MERGED: Final = frozenset({"ImagingStudy", "List"})
"""What several jobs write into."""
NEVER_BY_OUR_ID: Final = frozenset({"Patient"})
"""Whoever owns the patients of a server gives them their ids."""


@dataclass(frozen=True)
class WritePlan:
    """How a server is read and written; the default suits a server that says nothing of itself.

    `our_ids` are the types that a PUT may create under an id of ours, so that two writers at once cannot create two;
    the others are searched for and created by POST, with `If-None-Exist` but for `plain_creates`. `unsearchable` are
    the types that are not found by identifier, `by_subject` those that are found by their patient. Without
    `transactions` each resource is a request of its own, and so is each search without `batches`.
    """

    transactions: bool = True
    batches: bool = True
    our_ids: frozenset[str] = BY_ID_ALONE
    plain_creates: frozenset[str] = frozenset()
    unsearchable: frozenset[str] = frozenset()
    by_subject: frozenset[str] = frozenset()

    @property
    def found_by_subject_alone(self) -> frozenset[str]:
        """The types that are looked for among all that belongs to a patient."""
        return (self.unsearchable & self.by_subject) - self.our_ids

    @property
    def unreachable(self) -> frozenset[str]:
        """The types of a record that are found in no way: each job would create them once more."""
        return (self.unsearchable - self.our_ids - self.by_subject) & NEEDED


def resource_id(kind: str, query: str) -> str:
    """The id that a resource of ours has where the server lets us choose: the same for whoever searches alike."""
    return str(uuid.uuid5(NAMESPACE, f"{kind}?{query}"))


def plan_for(statement: Mapping[str, Any]) -> WritePlan:
    """The plan for a server with this CapabilityStatement (R4); what it does not speak of is as in the default plan."""
    rest, declared = _server_side(statement), declared_types(statement)
    named: dict[str, Mapping[str, Any]] = {kind: declared[kind] for kind in RECORDED if kind in declared}
    interactions = interactions_of(rest)
    transactions = not interactions or "transaction" in interactions
    batches = transactions or "batch" in interactions
    if not named:
        return WritePlan(transactions, batches)
    our_ids = {kind for kind, entry in named.items() if _takes_our_id(kind, entry)}
    if our_ids == set(named):
        # A server that lets the client choose everywhere does so for a type that its statement forgets, too.
        our_ids = set(RECORDED)
    unsearchable = {kind for kind in SEARCHED if not _is_searchable(declared.get(kind, {}), "identifier")}
    return WritePlan(
        transactions=transactions,
        batches=batches,
        our_ids=frozenset(our_ids) - NEVER_BY_OUR_ID,
        plain_creates=frozenset(kind for kind, entry in named.items() if entry.get("conditionalCreate") is False),
        unsearchable=frozenset(unsearchable | (SEARCHED - set(named))),
        by_subject=frozenset(
            kind for kind in unsearchable & WITH_SUBJECT & set(named) if _is_searchable(named[kind], "subject")
        ),
    )


def declared_types(statement: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What a CapabilityStatement says of each type of resource."""
    listed = _objects(_server_side(statement).get("resource"))
    return {entry["type"]: entry for entry in listed if isinstance(entry.get("type"), str)}


def interactions_of(entry: Mapping[str, Any]) -> set[Any]:
    """The interactions that are listed of a type, or of the whole server; empty where none is."""
    return _names(entry, "interaction", "code")


def _is_searchable(entry: Mapping[str, Any], parameter: str) -> bool:
    names = _names(entry, "searchParam", "name")
    return not names or parameter in names


def _takes_our_id(kind: str, entry: Mapping[str, Any]) -> bool:
    """Whether a PUT creates, and what it overwrote can be brought back: two may create the same at once."""
    interactions = interactions_of(entry)
    keeps_versions = kind not in MERGED or not interactions or "history-instance" in interactions
    return entry.get("updateCreate") is True and keeps_versions


def _names(entry: Mapping[str, Any], field: str, name: str) -> set[Any]:
    return {part.get(name) for part in _objects(entry.get(field))}


def _server_side(statement: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((rest for rest in _objects(statement.get("rest")) if rest.get("mode", "server") == "server"), {})


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a list from outside; none where it is no list."""
    return (item for item in value if isinstance(item, Mapping)) if isinstance(value, list) else iter(())


def costs_of(plan: WritePlan) -> Iterator[str]:
    """One sentence for each thing that a server lacks: what that is, and what it costs."""
    if not plan.transactions:
        yield (
            "The FHIR server takes no transactions: each resource is written by itself, so that a break between two "
            "leaves a part of the record until the job is done again."
        )
    if not plan.batches:
        yield "The FHIR server takes no batches: each search is a request of its own, and a job takes longer."
    if posted := NEEDED - NEVER_BY_OUR_ID - plan.our_ids:
        yield (
            f"The FHIR server lets no PUT create a {_or(posted)}: two jobs at once may create one twice, which the "
            "next job of that patient joins; allow updateCreate where the server has it as an option."
        )
    if BY_ID_ALONE - plan.our_ids:
        yield (
            "The FHIR server gives a Provenance an id of its own: it is found by a tag, with one more search for each "
            "job that a record holds."
        )
    if plan.plain_creates:
        yield (
            f"The FHIR server creates a {_or(plan.plain_creates)} without a condition: two jobs at once may create one "
            "twice, which the next job of that patient joins."
        )
    if by_id := plan.unsearchable & plan.our_ids & NEEDED:
        yield f"The FHIR server finds no {_or(by_id)} by identifier: only what we wrote under an id of ours is found."
    if by_subject := plan.found_by_subject_alone & NEEDED:
        yield (
            f"The FHIR server finds no {_or(by_subject)} by identifier: all that a patient has are read, and none is "
            "found of a patient whom the server does not know."
        )


def _or(kinds: frozenset[str]) -> str:
    return " or ".join(sorted(kinds))
