"""The search parameters as R4 writes them: tokens, references and moments with a prefix, into a query of the store."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from twin_record.reading import WITHOUT_PATIENT, RecordQuery, Token

COUNT: Final = 50
MOST: Final = 200
LONGEST: Final = 1000
"""Characters of one parameter's value."""
MOST_VALUES: Final = 50
"""Alternatives of one parameter, and parameters of one search."""
_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")
"""R4 datatypes, 2.24.0.1."""
_MOMENT: Final = re.compile(
    r"(?P<prefix>eq|ne|gt|lt|ge|le|sa|eb|ap)?(?P<year>\d{4})(-(?P<month>\d\d)(-(?P<day>\d\d)"
    r"(T(?P<hour>\d\d):(?P<minute>\d\d)(:(?P<second>\d\d)(?P<fraction>\.\d{1,6})?)?(?P<zone>Z|[+-]\d\d:\d\d)?)?)?)?"
)
Range = tuple[datetime | None, datetime | None]


class Unsearchable(ValueError):
    """What a search asks for is not understood or not supported; its words may be shown: they repeat no value."""


@dataclass(frozen=True)
class Search:
    """A query, how many matches a page has, and the id after which the page begins."""

    query: RecordQuery
    count: int
    after: str


def is_id(text: str) -> bool:
    """Whether a text may be a resource's logical id."""
    return _ID.fullmatch(text) is not None


def parsed_search(kind: str, parameters: Sequence[tuple[str, str]]) -> Search:
    """What a search of a type asks for; raises Unsearchable.

    A parameter that is not known is refused, not ignored: with a filter misspelt, everybody's records would answer.
    """
    if len(parameters) > MOST_VALUES:
        raise Unsearchable(f"A search has at most {MOST_VALUES} parameters.")
    identifiers, patients, updated = [], [], []
    count, after = COUNT, ""
    for name, value in parameters:
        if len(value) > LONGEST:
            raise Unsearchable(f"The value of a parameter is longer than {LONGEST} characters.")
        if name == "identifier":
            identifiers.append(tuple(_token(part) for part in _alternatives(value)))
        elif name == "patient" and kind not in WITHOUT_PATIENT:
            patients.append(tuple(_patient(part) for part in _alternatives(value)))
        elif name == "_lastUpdated":
            updated.append(_range(value))
        elif name == "_count":
            count = _count(value)
        elif name == "_after":
            after = _after(value)
        elif name != "_format":
            raise Unsearchable("A search parameter is not supported for this type: see /fhir/metadata.")
    return Search(RecordQuery(kind, tuple(identifiers), tuple(patients), tuple(updated)), count, after)


def _alternatives(value: str) -> list[str]:
    """The parts between commas that no backslash escapes, still escaped (R4 search, 3.1.1.4.2)."""
    parts = re.findall(r"(?:[^\\,]|\\.)+", value)
    if not parts or len(parts) > MOST_VALUES:
        raise Unsearchable("A search parameter is empty, or has too many alternatives.")
    return parts


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _token(part: str) -> Token:
    pieces = re.split(r"(?<!\\)\|", part)
    if len(pieces) > 2 or not any(pieces):
        raise Unsearchable("An identifier is looked for as system|value, value, |value or system|.")
    if len(pieces) == 1:
        return Token(None, _unescaped(pieces[0]))
    system, value = (_unescaped(piece) for piece in pieces)
    return Token(system, value or None)


def _patient(part: str) -> str:
    patient_id = part.removeprefix("Patient/")
    if not is_id(patient_id):
        raise Unsearchable("A patient is looked for as Patient/id or id.")
    return patient_id


def _count(value: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise Unsearchable("_count is a whole number.")
    return min(int(value), MOST)


def _after(value: str) -> str:
    if not is_id(value):
        raise Unsearchable("_after is the id of the last resource of a page.")
    return value


def _range(value: str) -> Range:
    """The half-open range of a moment with its prefix (R4 search, 3.1.1.4.6); without a zone it is taken as UTC."""
    found = _MOMENT.fullmatch(value)
    if found is None:
        raise Unsearchable("_lastUpdated is a date or a dateTime with a prefix such as ge or lt.")
    try:
        begin, end = _interval(found)
    except (ValueError, OverflowError) as error:
        raise Unsearchable("_lastUpdated names a moment that does not exist.") from error
    ranges: dict[str, Range] = {
        "eq": (begin, end), "ge": (begin, None), "gt": (end, None), "sa": (end, None),
        "lt": (None, begin), "eb": (None, begin), "le": (None, end),
    }  # fmt: skip
    prefix = found["prefix"] or "eq"
    if prefix not in ranges:
        raise Unsearchable("The prefixes ne and ap of _lastUpdated are not supported.")
    return ranges[prefix]


def _interval(found: re.Match[str]) -> tuple[datetime, datetime]:
    """The first instant of a moment of some precision, and the first one after it."""
    year, month, day, hour, minute, second = (
        int(found[part] or least)
        for part, least in (("year", 1), ("month", 1), ("day", 1), ("hour", 0), ("minute", 0), ("second", 0))
    )
    zone = found["zone"]
    tz = datetime.fromisoformat(f"2000-01-01T00:00:00{zone.replace('Z', '+00:00')}").tzinfo if zone else UTC
    fraction = found["fraction"] or ""
    begin = datetime(year, month, day, hour, minute, second, int(float(f"0{fraction}") * 1e6 + 0.5), tzinfo=tz)
    if fraction:
        end = begin + timedelta(microseconds=10 ** (7 - len(fraction)))
    elif found["second"]:
        end = begin + timedelta(seconds=1)
    elif found["hour"]:
        end = begin + timedelta(minutes=1)
    elif found["day"]:
        end = begin + timedelta(days=1)
    elif found["month"]:
        end = begin.replace(year=year + month // 12, month=month % 12 + 1)
    else:
        end = begin.replace(year=year + 1)
    return begin.astimezone(UTC), end.astimezone(UTC)
