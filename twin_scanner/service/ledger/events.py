"""Table ``events``: who did what to which row and when; append-only, a hash chain per node; row ids, no identities."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from twin_scanner.service.ledger.columns import METADATA, UtcDateTime

if TYPE_CHECKING:
    from twin_scanner.service.ledger.database import Database

EVENTS: Final = sa.Table(
    "events",
    METADATA,
    sa.Column("event_id", sa.Integer, primary_key=True),
    sa.Column("node", sa.String(64), nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("who", sa.String(128), nullable=False),
    sa.Column("what", sa.String(32), nullable=False),
    sa.Column("of_table", sa.String(16), nullable=False),
    sa.Column("row_id", sa.String(96), nullable=False),
    sa.Column("detail", sa.JSON, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Index("ix_events_row", "of_table", "row_id"),
    sa.Index("ix_events_chain", "node", "event_id"),
)
FIRST_HASH: Final = "0" * 64
"""What the first event of a node builds on."""


@dataclass(frozen=True)
class Event:
    """One row; ``detail`` holds numbers and names of ours (seconds, error class, destination), never free text."""

    event_id: int
    node: str
    at: datetime
    who: str
    what: str
    of_table: str
    row_id: str
    detail: dict[str, Any]
    hash: str


@dataclass(frozen=True)
class Note:
    """An event that a transaction is about to append."""

    of_table: str
    row_id: str
    what: str
    detail: dict[str, Any]


def append(connection: sa.Connection, node: str, who: str, at: datetime, notes: Sequence[Note]) -> None:
    """Chain the notes to the node's last event; the caller holds the node's lock until its transaction ends."""
    last = sa.select(EVENTS.c.hash).where(EVENTS.c.node == node).order_by(EVENTS.c.event_id.desc()).limit(1)
    before = connection.execute(last).scalar() or FIRST_HASH
    for note in notes:
        before = _hash(before, node, at, who, note)
        values = {"node": node, "at": at, "who": who, "hash": before, **vars(note)}
        connection.execute(EVENTS.insert().values(**values))


class Events:
    """Queries on the events; there is none that changes or removes one."""

    def __init__(self, database: "Database") -> None:
        self._database = database

    def of_row(self, of_table: str, row_id: str | int) -> list[Event]:
        """The timeline of one row, oldest first."""
        query = sa.select(EVENTS).where(EVENTS.c.of_table == of_table, EVENTS.c.row_id == str(row_id))
        with self._database.read() as connection:
            return [Event(**row._mapping) for row in connection.execute(query.order_by(EVENTS.c.event_id))]

    def first_broken(self, node: str) -> Event | None:
        """The first event of the node that was changed, or before which one was removed; None where the chain holds.

        Events missing at the end cannot be seen from the chain alone: keep the last hash elsewhere to see that too.
        """
        before = FIRST_HASH
        query = sa.select(EVENTS).where(EVENTS.c.node == node).order_by(EVENTS.c.event_id)
        with self._database.read() as connection:
            for row in connection.execute(query):
                event = Event(**row._mapping)
                note = Note(event.of_table, event.row_id, event.what, event.detail)
                before = _hash(before, node, event.at, event.who, note)
                if before != event.hash:
                    return event
        return None


def _hash(before: str, node: str, at: datetime, who: str, note: Note) -> str:
    content = [before, node, at.astimezone(UTC).isoformat(), who, note.of_table, note.row_id, note.what, note.detail]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
