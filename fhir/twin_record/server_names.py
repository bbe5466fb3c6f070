"""What a server calls a resource that R4 gives no identifier, where it takes no id of ours: our name is then a tag."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from twin_record.capabilities import BY_ID_ALONE
from twin_record.resources.codes import NAME_SYSTEM
from twin_record.resources.content import Resource, literal_of, renamed


def tag_query(name: str) -> str:
    """The search for what bears our name."""
    return f"_tag={quote(f'{NAME_SYSTEM}|{name}', safe='')}"


class ServerNames:
    """The server's Type/id for each Type/id of ours, as far as its answers have shown them."""

    def __init__(self) -> None:
        self._theirs: dict[str, str] = {}

    def learn(self, resources: Iterable[Resource]) -> None:
        """Remember what bears our name."""
        for resource in resources:
            for tag in resource.get("meta", {}).get("tag", []):
                if tag.get("system") == NAME_SYSTEM and resource["resourceType"] in BY_ID_ALONE:
                    self._theirs[f"{resource['resourceType']}/{tag['code']}"] = literal_of(resource)

    def add(self, ours: str, theirs: str) -> None:
        """Remember what the server called what it has just created."""
        self._theirs[ours] = theirs

    def knows(self, theirs: str) -> bool:
        """Whether the server's Type/id is one of ours."""
        return theirs in self._theirs.values()

    def theirs(self, ours: str) -> str | None:
        """What the server calls it; None where it was not seen there."""
        return self._theirs.get(ours)

    def as_ours(self, resource: Resource) -> Resource:
        """A resource of the server's, named and referring as we do."""
        names = {theirs: ours for ours, theirs in self._theirs.items()}
        name = names.get(literal_of(resource)) if "id" in resource else None
        return renamed(resource, names) | ({"id": name.partition("/")[2]} if name else {})

    def as_theirs(self, entry: Resource, *, with_condition: bool) -> Resource:
        """A PUT under our name as the server takes it: a PUT under its own, or a POST of what bears ours as a tag."""
        resource, ours = entry["resource"], entry["request"]["url"]
        kind, _, name = ours.partition("/")
        tagged = {**resource, "meta": _tagged(resource.get("meta", {}), name)}
        if theirs := self._theirs.get(ours):
            tagged["id"] = theirs.partition("/")[2]
            return {**entry, "resource": tagged, "request": {**entry["request"], "url": theirs}}
        del tagged["id"]
        condition = {"ifNoneExist": tag_query(name)} if with_condition else {}
        return {
            "fullUrl": f"urn:uuid:{name}",
            "resource": tagged,
            "request": {"method": "POST", "url": kind, **condition},
        }

    def placeholders(self, entries: Iterable[Resource]) -> Mapping[str, str]:
        """How a transaction of these entries, as the server takes them, refers to each of our names."""
        created = {
            f"{entry['request']['url']}/{entry['fullUrl'].removeprefix('urn:uuid:')}": entry["fullUrl"]
            for entry in entries
            if entry["request"]["method"] == "POST" and entry["request"]["url"] in BY_ID_ALONE
        }
        return self._theirs | created


def _tagged(meta: Mapping[str, Any], name: str) -> Resource:
    others = [tag for tag in meta.get("tag", []) if tag.get("system") != NAME_SYSTEM]
    return {**meta, "tag": [*others, {"system": NAME_SYSTEM, "code": name}]}
