"""Bundles as the record writes them, brought to what a server takes: the endpoint that carries out a WritePlan.

The record speaks to one ideal server: it searches by identifier, creates by POST with `ifNoneExist`, and puts a
Provenance under an id of its own. Where a real server differs is known here and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from twin_record.capabilities import BY_ID_ALONE, MERGED, WritePlan, resource_id
from twin_record.endpoint import answered_entries, entries_of, is_success, location_of, status_of, version_of
from twin_record.merging import differs
from twin_record.pages import whole
from twin_record.refusals import Conflict, TooLarge
from twin_record.resources.content import Resource, held_if_invalid, literal_of, references_in, renamed
from twin_record.server_names import ServerNames, tag_query
from twin_record.single_writes import written_singly
from twin_record.uniting import united
from twin_record.writing import executed
from twin_scanner.errors import TwinScannerError, Unavailable

RESTORATIONS: Final = 5
"""How often it is tried at once to bring back what we overwrote, where others write the same resource meanwhile."""


@dataclass(frozen=True)
class Overwritten:
    """What another writer had created at `url`, and our PUT under the same id wrote over as `by_version`."""

    url: str
    by_version: str
    resource: Resource


class Wire(Protocol):
    """What carries requests to the server."""

    def exchange(self, bundle: Resource) -> Resource:
        """The Bundle that answers a Bundle."""
        ...

    def exchange_entry(self, entry: Resource) -> Resource:
        """The answer to one entry that is sent as a request of its own, in the form that a Bundle has for it."""
        ...


class PlannedExchange:
    """A BundleEndpoint for one update: it remembers what the server calls the things that we name ourselves."""

    def __init__(self, plan: WritePlan, wire: Wire, overwritten: Sequence[Overwritten] = ()) -> None:
        self.plan = plan
        """As the answers have left it: once a transaction was too large, resources are sent singly."""
        self.names = ServerNames()
        self.overwritten = list(overwritten)
        """What is still to be brought back: before anything else, at the next exchange of whoever goes on with it."""
        self._wire = wire
        self._patients: set[str] = set()

    def exchange(self, bundle: Resource) -> Resource:
        """See BundleEndpoint; Unavailable where the server can neither find nor be told what a record consists of."""
        if lost := sorted(self.plan.unreachable):
            raise Unavailable(
                f"The FHIR server finds no {' and no '.join(lost)} by identifier and takes no id of ours, so each job "
                "would double the record; allow one of the two there."
            )
        self._restore()
        if bundle["type"] == "batch":
            return {"resourceType": "Bundle", "type": "batch-response", "entry": self._read(bundle["entry"])}
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": self._write(bundle["entry"])}

    @property
    def _is_naming(self) -> bool:
        """Whether the server gives its own ids to what has nothing but an id."""
        return not self.plan.our_ids >= BY_ID_ALONE

    def _read(self, entries: Sequence[Resource]) -> list[Resource]:
        """Each entry's answer: what is asked for by identifier is asked for by the id that follows from it as well."""
        asked = [entry["request"]["url"] for entry in entries]
        ways = [self._ways(url) for url in asked]
        answers = iter(self._ask([url for urls in ways for url in urls]))
        found = [_joined(url, urls, [next(answers) for _ in urls]) for url, urls in zip(asked, ways, strict=True)]
        seen = [one for answer in found for one in _resources(answer) if one.get("resourceType") == "Patient"]
        self._patients.update(literal_of(patient) for patient in seen if "id" in patient)
        for number, url in enumerate(asked):
            kind, _, query = url.partition("?")
            if query.startswith("identifier=") and kind in self.plan.found_by_subject_alone:
                theirs = [f"{kind}?subject={patient}" for patient in sorted(self._patients)]
                found[number] = _joined(url, theirs, self._ask(theirs))
        return self._as_ours(found) if self._is_naming else found

    def _ways(self, url: str) -> list[str]:
        kind, _, query = url.partition("?")
        if query.startswith("identifier="):
            by_id = [f"{kind}/{resource_id(kind, query)}"] if kind in self.plan.our_ids else []
            return ([] if kind in self.plan.unsearchable else [url]) + by_id
        kind, _, name = url.partition("/")
        return [url, f"{kind}?{tag_query(name)}"] if kind in BY_ID_ALONE - self.plan.our_ids else [url]

    def _ask(self, urls: Sequence[str]) -> list[Resource]:
        """The answer to each, with all its pages."""
        return [whole(url, answer, self._page) for url, answer in zip(urls, self._first_pages(urls), strict=True)]

    def _page(self, url: str) -> Resource:
        if url.startswith("?"):
            return self._wire.exchange_entry({"request": {"method": "GET", "url": url}})
        return self._first_pages([url])[0]

    def _first_pages(self, urls: Sequence[str]) -> list[Resource]:
        entries: list[Resource] = [{"request": {"method": "GET", "url": url}} for url in urls]
        if not self.plan.batches:
            return [self._wire.exchange_entry(entry) for entry in entries]
        batch: Resource = {"resourceType": "Bundle", "type": "batch", "entry": entries}
        return [answer for _, answer in answered_entries(batch, self._wire)] if entries else []

    def _as_ours(self, found: list[Resource]) -> list[Resource]:
        """The answers with what we name ourselves under our names, in what a List lists too."""
        seen = [resource for answer in found for resource in _resources(answer)]
        with held_if_invalid(seen):
            self.names.learn(seen)
            listed = {name for one in seen if one.get("resourceType") == "List" for name in references_in(one)}
            unknown = [
                name for name in sorted(listed) if name.partition("/")[0] in BY_ID_ALONE and not self.names.knows(name)
            ]
            self.names.learn(resource for answer in self._ask(unknown) for resource in _resources(answer))
            return [_mapped(answer, self.names) for answer in found]

    def _write(self, entries: Sequence[Resource]) -> list[Resource]:
        planned = [self._planned(entry) for entry in entries]
        creations = {number for number, entry in enumerate(entries) if entry["request"]["method"] == "POST"}
        put = {
            one["fullUrl"]: one["request"]["url"]
            for one in planned
            if "fullUrl" in one and one["request"]["method"] == "PUT"
        }
        names = {**put, **(self.names.placeholders(planned) if self._is_naming else {})}
        planned = [{**entry, "resource": renamed(entry["resource"], names)} for entry in planned]
        answers = self._executed(planned, creations)
        for number, (entry, answer) in enumerate(zip(planned, answers, strict=True)):
            method = entry["request"]["method"]
            if (
                number in creations
                and method == "PUT"
                and status_of(answer) == 200
                and not self._overwrote(entry, answer)
            ):
                answers[number] = {**answer, "response": {**answer["response"], "status": "201"}}
            elif number not in creations and method == "POST" and is_success(answer):
                self.names.add(entries[number]["request"]["url"], location_of(entry, answer))
        self._restore()
        return answers

    def _planned(self, entry: Resource) -> Resource:
        """The entry as this server takes it."""
        resource, request = entry["resource"], entry["request"]
        kind, query = resource["resourceType"], request.get("ifNoneExist")
        if query and kind in self.plan.our_ids:
            url = f"{kind}/{resource_id(kind, query)}"
            return {
                **entry,
                "resource": {**resource, "id": resource_id(kind, query)},
                "request": {"method": "PUT", "url": url},
            }
        if query and kind in self.plan.plain_creates | self.plan.unsearchable:
            return {**entry, "request": {"method": "POST", "url": kind}}
        if request["method"] == "PUT" and kind in BY_ID_ALONE - self.plan.our_ids:
            return self.names.as_theirs(entry, with_condition=kind not in self.plan.plain_creates)
        return entry

    def _executed(self, entries: list[Resource], creations: set[int]) -> list[Resource]:
        transaction: Resource = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        if self.plan.transactions:
            try:
                return [answer for _, answer in answered_entries(transaction, self._wire)]
            except TooLarge:
                self.plan = replace(self.plan, transactions=False)
        return written_singly(entries, creations, self._wire.exchange_entry)

    def _overwrote(self, entry: Resource, answer: Resource) -> bool:
        """Whether a PUT that was to create, and says that something was there, wrote over what another has created.

        That is brought back as it was, or beside what others have written over both. The record is then read and merged
        again, as after every conflict.
        """
        kind, url = entry["resource"]["resourceType"], entry["request"]["url"]
        if kind not in MERGED:
            return False
        versions = _resources(self._ask([f"{url}/_history"])[0])
        numbers = [resource.get("meta", {}).get("versionId") for resource in versions]
        ours = version_of(answer)
        overwritten = versions[numbers.index(ours) + 1 :] if ours in numbers else versions[1:]
        self.overwritten += [Overwritten(url, ours, one) for one in overwritten[:1]]
        return bool(overwritten)

    def _restore(self) -> None:
        """Bring back what we wrote over; Conflict where others write there all the time, and it is still to be done."""
        waiting, self.overwritten = self.overwritten, []
        while waiting:
            try:
                self._bring_back(waiting[0])
            except TwinScannerError:
                self.overwritten = waiting
                raise
            del waiting[0]

    def _bring_back(self, lost: Overwritten) -> None:
        for attempt in range(1, RESTORATIONS + 1):
            current = next(iter(_resources(self._ask([lost.url])[0])), None)
            if current is None:
                return
            version = current["meta"]["versionId"]
            resource = lost.resource if version == lost.by_version else united(current, lost.resource)
            if not differs(current, resource):
                return
            request = {"method": "PUT", "url": lost.url, "ifMatch": f'W/"{version}"'}
            try:
                one = {"resource": resource, "request": request}
                executed({"resourceType": "Bundle", "type": "transaction", "entry": [one]}, self)
            except Conflict:
                if attempt == RESTORATIONS:
                    raise
            else:
                return


def _joined(url: str, ways: Sequence[str], answers: Sequence[Resource]) -> Resource:
    """One answer to what was asked in several ways: everything found, or the first failure."""
    if ways == [url]:
        return answers[0]
    found: dict[str, Resource] = {}
    for answer in answers:
        if not is_success(answer) and status_of(answer) not in (404, 410):
            return answer
        found |= {literal_of(resource): resource for resource in _resources(answer) if "id" in resource}
    if "?" not in url:
        first = next(iter(found.values()), None)
        return {"response": {"status": "200"}, "resource": first} if first else {"response": {"status": "404"}}
    matches: Resource = {
        "resourceType": "Bundle",
        "type": "searchset",
        "entry": [{"resource": one} for one in found.values()],
    }
    return {"response": {"status": "200"}, "resource": matches}


def _resources(answer: Resource) -> list[Resource]:
    """What an answer holds: the matches of a search, or the resource that was read."""
    resource = answer.get("resource", {})
    if resource.get("resourceType") == "Bundle":
        return [entry["resource"] for entry in entries_of(resource) if "resource" in entry]
    return [resource] if is_success(answer) and resource else []


def _mapped(answer: Resource, names: ServerNames) -> Resource:
    resource = answer.get("resource")
    if resource is None:
        return answer
    if resource.get("resourceType") != "Bundle":
        return {**answer, "resource": names.as_ours(resource)}
    entries = [
        {**entry, "resource": names.as_ours(entry["resource"])} for entry in entries_of(resource) if "resource" in entry
    ]
    return {**answer, "resource": {**resource, "entry": entries}}
