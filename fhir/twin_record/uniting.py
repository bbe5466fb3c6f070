"""Two versions of one resource in one: nothing that either says is lost, and the first wins where they contradict."""

import json
from collections.abc import Mapping
from typing import Any, Final

from twin_record.merging import content_of
from twin_record.resources.content import Resource

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "series": ("uid",),
    "instance": ("uid",),
    "entry": ("item",),
    "identifier": ("system", "value"),
    "modality": ("system", "code"),
    "security": ("system", "code"),
    "tag": ("system", "code"),
    "note": ("text",),
}
"""What makes two items of a list one and the same; where nothing is said here, all of it."""


def united(kept: Resource, other: Resource) -> Resource:
    """The first resource with what only the second says."""
    one: Resource = _united("", kept, other)
    if one["resourceType"] == "ImagingStudy":
        series = one.get("series", [])
        one |= _at_least(one, other, "numberOfSeries", len(series))
        one |= _at_least(one, other, "numberOfInstances", sum(part.get("numberOfInstances", 0) for part in series))
    return one


def _united(field: str, kept: Any, other: Any) -> Any:
    if isinstance(kept, Mapping) and isinstance(other, Mapping):
        one = {
            key: _united(key, kept[key], other[key]) if key in kept and key in other else part
            for key, part in {**other, **kept}.items()
        }
        return one | (_at_least(one, other, "numberOfInstances", len(one["instance"])) if "instance" in one else {})
    if isinstance(kept, list) and isinstance(other, list):
        others = {_key(field, item): item for item in other}
        ours = [_united("", item, others.pop(_key(field, item), item)) for item in kept]
        return [*ours, *others.values()]
    return kept


def _key(field: str, item: Any) -> str:
    said = content_of(item)
    if isinstance(said, Mapping) and field in KEYS:
        said = [said.get(name) for name in KEYS[field]]
    return json.dumps(said, sort_keys=True)


def _at_least(one: Resource, other: Mapping[str, Any], field: str, listed: int) -> Resource:
    return {field: max(one[field], other.get(field, 0), listed)} if field in one else {}
