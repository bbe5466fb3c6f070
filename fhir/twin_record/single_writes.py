"""A transaction as single requests, in an order that can be repeated: whatever is sent refers only to what is there."""

from collections.abc import Callable, Collection, Iterator
from typing import Final

from twin_record.capabilities import RECORDED
from twin_record.endpoint import is_success, location_of, status_of, version_of
from twin_record.resources.content import Resource, references_in, renamed

UNSENT: Final[Resource] = {"response": {"status": "409"}}
"""Stands for the answer to a request that was not made, because somebody else had created what it builds on."""


def written_singly(
    entries: list[Resource], creations: Collection[int], send: Callable[[Resource], Resource]
) -> list[Resource]:
    """The answer to each entry of a transaction, sent as requests of their own until one fails.

    A List names what it lists and is the target of a Provenance that it lists. So a List that is to be created is
    created without what is still to come, and completed at the end.
    """
    answers: dict[int, Resource] = {}
    names: dict[str, str] = {}
    for number in _steps(entries, creations):
        entry = {**entries[number], "resource": renamed(entries[number]["resource"], names)}
        if number in answers:
            entry = _completion(entry, names[_name(entry)], answers[number])
        elif entry["resource"]["resourceType"] == "List":
            entry = _without(entry, {_name(other) for other in entries} - set(names))
        answer = send(entry)
        failed = not is_success(answer)
        if failed or (_was_there(entry, answer) and number in creations):
            answers[number] = answer
            return [answers.get(place, answer if failed else UNSENT) for place in range(len(entries))]
        answers.setdefault(number, answer)
        names[_name(entries[number])] = location_of(entry, answer)
    return [answers[number] for number in range(len(entries))]


def _steps(entries: list[Resource], creations: Collection[int]) -> Iterator[int]:
    """The entries' numbers in the order of `RECORDED`; a List to be created comes twice, before what aims at it too."""
    kinds = [entry["resource"]["resourceType"] for entry in entries]
    order = sorted(range(len(entries)), key=lambda number: RECORDED.index(kinds[number]))
    lists = [number for number in order if kinds[number] == "List" and number in creations]
    yield from (number for number in order if kinds[number] not in ("Provenance", "List"))
    yield from lists
    yield from (number for number in order if kinds[number] == "Provenance")
    yield from (number for number in order if kinds[number] == "List")


def _was_there(entry: Resource, answer: Resource) -> bool:
    """Whether a conditional create found what somebody else had created: our part is not in it."""
    return entry["request"]["method"] == "POST" and status_of(answer) == 200


def _name(entry: Resource) -> str:
    """How the other entries refer to this one."""
    request = entry["request"]
    return str(entry["fullUrl"] if request["method"] == "POST" and "fullUrl" in entry else request["url"])


def _without(entry: Resource, unwritten: set[str]) -> Resource:
    resource = entry["resource"]
    listed = [item for item in resource.get("entry", []) if not unwritten.intersection(references_in(item))]
    return {**entry, "resource": {**resource, "entry": listed}}


def _completion(entry: Resource, location: str, answer: Resource) -> Resource:
    version = version_of(answer)
    match = {"ifMatch": f'W/"{version}"'} if version else {}
    resource = {**entry["resource"], "id": location.partition("/")[2]}
    return {"resource": resource, "request": {"method": "PUT", "url": location, **match}}
