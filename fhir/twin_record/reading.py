"""Read-only searches of the embedded store, as its HTTP interface asks them: current versions, page by page."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from twin_record.resources.content import Resource
from twin_record.stored import resource_of


@dataclass(frozen=True)
class Token:
    """An identifier that is looked for (R4 search, 3.1.1.5.11); None is any system, or any value of a system."""

    system: str | None
    value: str | None


@dataclass(frozen=True)
class RecordQuery:
    """Which resources of a type are wanted.

    Of each group in ``identifiers`` one must be there. ``patients`` are groups of ids likewise. ``updated`` are
    half-open ranges [begin, end) in which the version was recorded, None without a bound.
    """

    kind: str
    identifiers: tuple[tuple[Token, ...], ...] = ()
    patients: tuple[tuple[str, ...], ...] = ()
    updated: tuple[tuple[datetime | None, datetime | None], ...] = ()


@dataclass(frozen=True)
class RecordPage:
    """Some of the resources, in the order of their ids; ``total`` counts all, ``following`` says that more follow."""

    resources: tuple[Resource, ...]
    total: int
    following: bool


_NEWEST = (
    "FROM resource AS r WHERE r.type = ? "
    "AND r.version = (SELECT max(version) FROM resource AS v WHERE v.type = r.type AND v.id = r.id)"
)
_SUBJECT = "json_extract(r.content, '$.subject.reference')"
_IS_TARGET = (
    "EXISTS (SELECT 1 FROM json_each(r.content, '$.target') AS t "
    "WHERE json_extract(t.value, '$.reference') IN ({}))"
)  # fmt: skip
WITHOUT_PATIENT = frozenset({"Patient", "Device"})
"""Types that are of no patient: they have no search parameter of that name."""


def record_page(connection: Connection, query: RecordQuery, count: int, after: str) -> RecordPage:
    """The first ``count`` matches whose id comes after another one's."""
    where, values = _conditions(query)
    total = connection.exec_driver_sql(f"SELECT count(*) {_NEWEST}{where}", tuple(values)).scalar()
    select = f"SELECT r.version, r.recorded_at, r.content {_NEWEST}{where} AND r.id > ? ORDER BY r.id LIMIT ?"
    rows = connection.exec_driver_sql(select, (*values, after, count + 1)).all()
    return RecordPage(tuple(resource_of(row) for row in rows[:count]), int(total or 0), len(rows) > count)


def _conditions(query: RecordQuery) -> tuple[str, list[str]]:
    """SQL of our own words only; all that was asked for is among the values."""
    where, values = [""], [query.kind]
    for tokens in query.identifiers:
        where.append("(" + " OR ".join(_identifier(query.kind, token, values) for token in tokens) + ")")
    for patients in query.patients:
        marks = ", ".join("?" for _ in patients)
        where.append(_IS_TARGET.format(marks) if query.kind == "Provenance" else f"{_SUBJECT} IN ({marks})")
        values += [f"Patient/{patient}" for patient in patients]
    for begin, end in query.updated:
        for sign, moment in ((">=", begin), ("<", end)):
            if moment is not None:
                where.append(f"r.recorded_at {sign} ?")
                values.append(moment.isoformat())
    return " AND ".join(where), values


def _identifier(kind: str, token: Token, values: list[str]) -> str:
    conditions = ["i.type = ?"]
    values.append(kind)
    for column, wanted in (("system", token.system), ("value", token.value)):
        if wanted is not None:
            conditions.append(f"i.{column} = ?")
            values.append(wanted)
    return f"r.id IN (SELECT i.id FROM identifier AS i WHERE {' AND '.join(conditions)})"  # noqa: S608
