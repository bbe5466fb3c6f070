"""Duplicates that a race left on a server: of each resource of ours one goes on with the content of all of them.

Servers check "create if none exists" before they lock, so two writers may create the same at once. Only what we made is
ever joined: our Device and List by their identifier systems, a Patient or a study by its meta.source or its id.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Final, TypeAlias

from twin_record.capabilities import resource_id
from twin_record.endpoint import BundleEndpoint
from twin_record.merging import content_of, differs
from twin_record.resources.codes import SOURCE
from twin_record.resources.content import Resource, is_literal, literal_of, references_in, renamed
from twin_record.search import read_all
from twin_record.uniting import united
from twin_record.writing import executed
from twin_scanner.errors import Held

OURS_ALONE: Final = frozenset({"Device", "List"})
"""Found by identifier systems that nobody else has."""

Doubled: TypeAlias = tuple[Resource, ...]
"""What stands for one thing: the resource that goes on, and the others, which are all ours."""


def doubled(found: Sequence[Resource], query: str) -> Doubled:
    """Several resources found by one identifier, what goes on first: theirs, or of ours the one with our id.

    What is entered in error counts only where there is nothing else. Raises Held where several are not ours.
    """
    living = [one for one in found if one.get("status") != "entered-in-error"] or list(found)
    ours = {literal_of(one): is_ours(one, query) for one in living}
    if sum(not one for one in ours.values()) > 1:
        kind = living[0]["resourceType"]
        raise Held(f"The FHIR server holds more than one {kind} with the same identifier: merge them there first.")
    order = [(ours[literal_of(one)], one["id"] != resource_id(one["resourceType"], query), one["id"]) for one in living]
    return tuple(living[number] for number in sorted(range(len(living)), key=order.__getitem__))


def doubled_patients(found: Sequence[Resource]) -> Doubled:
    """Patients of one identifier, if all of them are ours and say the same; else none: a person must look at them."""
    living = sorted((one for one in found if one.get("active") is not False), key=lambda one: str(one["id"]))
    contents = [content_of({key: part for key, part in one.items() if key not in ("id", "meta")}) for one in living]
    same = all(content == contents[0] for content in contents)
    return tuple(living) if len(living) > 1 and same and all(is_ours(one, "") for one in living) else ()


def is_ours(resource: Resource, query: str) -> bool:
    """Whether we created it: a server may add a fragment to meta.source."""
    kind, source = resource["resourceType"], str(resource.get("meta", {}).get("source", ""))
    return kind in OURS_ALONE or source.partition("#")[0] == SOURCE or resource["id"] == resource_id(kind, query)


def join(doubles: Sequence[Doubled], others: Sequence[Resource], endpoint: BundleEndpoint) -> None:
    """Let the first of each go on, with the content of all; then enter the others in error.

    `others` are resources of the same record that may refer to them; what its Lists list is read. A server that is not
    atomic may stop at any point: nothing is entered in error before what it says is written elsewhere.
    """
    names = {literal_of(one): literal_of(several[0]) for several in doubles for one in several[1:]}
    first = [(several[0], _one(several, names)) for several in doubles]
    known = {literal_of(one) for several in doubles for one in several}
    lists = [one for one in (*others, *(one for several in doubles for one in several)) if _is(one, "List")]
    listed = {name for one in lists for name in references_in(one.get("entry", [])) if is_literal(name)} - known
    read = [one for resources in read_all(endpoint, sorted(listed)) for one in resources] if listed else []
    referring = {literal_of(one): one for one in (*others, *read) if literal_of(one) not in known}
    first += [(one, renamed(one, names)) for one in referring.values()]
    _put([(theirs, one) for theirs, one in first if differs(theirs, one)], endpoint)
    _put([(one, _in_error(one, several[0])) for several in doubles for one in several[1:]], endpoint)


def _one(several: Doubled, names: dict[str, str]) -> Resource:
    """What goes on, and lists nothing twice that was two things before."""
    one: Resource = renamed(reduce(united, several), names)
    if _is(one, "Patient"):
        replaced = [{"other": {"reference": literal_of(other)}, "type": "replaces"} for other in several[1:]]
        return {**one, "link": [*one.get("link", []), *replaced]}
    return one | ({"entry": _different(one["entry"])} if _is(one, "List") and "entry" in one else {})


def _different(entries: Sequence[Resource]) -> list[Resource]:
    kept: dict[str, Resource] = {}
    for entry in entries:
        name = str(content_of(entry.get("item")))
        kept[name] = {**entry, **kept.get(name, {})}
    return list(kept.values())


def _in_error(resource: Resource, kept: Resource) -> Resource:
    """A Patient has no status: R4 has a link to the one that lives on (Patient.link)."""
    if not _is(resource, "Patient"):
        return {**resource, "status": "entered-in-error"}
    link = {"other": {"reference": literal_of(kept)}, "type": "replaced-by"}
    return {**resource, "active": False, "link": [link]}


def _is(resource: Resource, kind: str) -> bool:
    return bool(resource["resourceType"] == kind)


def _put(changes: Sequence[tuple[Resource, Resource]], endpoint: BundleEndpoint) -> None:
    entries = list(_changes(changes))
    if entries:
        executed({"resourceType": "Bundle", "type": "transaction", "entry": entries}, endpoint)


def _changes(changes: Sequence[tuple[Resource, Resource]]) -> Iterator[Resource]:
    for theirs, changed in changes:
        version = theirs.get("meta", {}).get("versionId")
        match = {"ifMatch": f'W/"{version}"'} if version else {}
        yield {"resource": changed, "request": {"method": "PUT", "url": literal_of(theirs), **match}}
