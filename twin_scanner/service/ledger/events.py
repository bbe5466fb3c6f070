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
CHAINS: Final = sa.Table(
    "chains",
    METADATA,
    sa.Column("node", sa.String(64), primary_key=True),
    sa.Column("event_id", sa.Integer, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("sent_id", sa.Integer, nullable=False),
)
"""Of each node its chain's last event, so that one which is missing at the end is seen, and the last one sent on."""
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


@dataclass(frozen=True)
class Chain:
    """A node's chain: its last event, and the last one that was sent to the audit repository."""

    node: str
    event_id: int
    hash: str
    sent_id: int


@dataclass(frozen=True)
class Break:
    """Where a chain does not hold; ``event`` is None where the events after ``event_id`` are missing."""

    node: str
    event_id: int
    event: Event | None


def append(connection: sa.Connection, node: str, who: str, at: datetime, notes: Sequence[Note]) -> None:
    """Chain the notes to the node's last event; the caller holds the node's lock until its transaction ends."""
    this = CHAINS.c.node == node
    found = connection.execute(sa.select(CHAINS.c.hash).where(this)).scalar()
    before, event_id = found or FIRST_HASH, 0
    for note in notes:
        before = _hash(before, node, at, who, note)
        values = {"node": node, "at": at, "who": who, "hash": before, **vars(note)}
        inserted = connection.execute(EVENTS.insert().values(**values)).inserted_primary_key
        assert inserted is not None
        event_id = inserted.event_id
    head = {"event_id": event_id, "hash": before}
    if found is None:
        connection.execute(CHAINS.insert().values(node=node, sent_id=0, **head))
    else:
        connection.execute(CHAINS.update().where(this).values(**head))


class Events:
    """Queries on the events; there is none that changes or removes one."""

    def __init__(self, database: "Database") -> None:
        self._database = database

    def of_row(self, of_table: str, row_id: str | int) -> list[Event]:
        """The timeline of one row, oldest first."""
        query = sa.select(EVENTS).where(EVENTS.c.of_table == of_table, EVENTS.c.row_id == str(row_id))
        with self._database.read() as connection:
            return [Event(**row._mapping) for row in connection.execute(query.order_by(EVENTS.c.event_id))]

    def newest(
        self, limit: int, *, since: datetime | None = None, who: str | None = None, what: str | None = None
    ) -> list[Event]:
        """The last events of all nodes, newest first."""
        query = sa.select(EVENTS).order_by(EVENTS.c.event_id.desc()).limit(limit)
        if since is not None:
            query = query.where(EVENTS.c.at >= since)
        for column, wanted in ((EVENTS.c.who, who), (EVENTS.c.what, what)):
            if wanted is not None:
                query = query.where(column == wanted)
        with self._database.read() as connection:
            return [Event(**row._mapping) for row in connection.execute(query)]

    def chains(self) -> list[Chain]:
        """The chain of each node, by name."""
        with self._database.read() as connection:
            return [Chain(**row._mapping) for row in connection.execute(sa.select(CHAINS).order_by(CHAINS.c.node))]

    def unsent(self, limit: int) -> list[Event]:
        """What this node has noted and not sent on, oldest first."""
        this = self._database.node
        sent = sa.select(CHAINS.c.sent_id).where(CHAINS.c.node == this).scalar_subquery()
        query = sa.select(EVENTS).where(EVENTS.c.node == this, EVENTS.c.event_id > sent)
        with self._database.read() as connection:
            found = connection.execute(query.order_by(EVENTS.c.event_id).limit(limit))
            return [Event(**row._mapping) for row in found]

    def sent(self, last: Event) -> None:
        """Everything up to this event of its node has been sent on."""
        with self._database.write() as write:
            write.execute(CHAINS.update().where(CHAINS.c.node == last.node).values(sent_id=last.event_id))

    def first_broken(self, node: str) -> Event | None:
        """The first event of the node that was changed, or before which one was removed; None where the chain holds."""
        broken = self.first_break(node)
        return None if broken is None else broken.event

    def first_break(self, node: str) -> Break | None:
        """Where the node's chain does not hold first, a missing end included; None where it holds.

        Whoever changes the events, every later hash and the head in ``chains`` is seen by a copy kept elsewhere alone:
        the audit repository's messages carry each event's hash.
        """
        before, last = FIRST_HASH, 0
        query = sa.select(EVENTS).where(EVENTS.c.node == node).order_by(EVENTS.c.event_id)
        with self._database.read() as connection:
            head = connection.execute(sa.select(CHAINS).where(CHAINS.c.node == node)).one_or_none()
            with connection.execute(query.execution_options(yield_per=1000)) as rows:
                for row in rows:
                    event = Event(**row._mapping)
                    note = Note(event.of_table, event.row_id, event.what, event.detail)
                    before = _hash(before, node, event.at, event.who, note)
                    if before != event.hash:
                        return Break(node, event.event_id, event)
                    last = event.event_id
        ends_well = last == 0 if head is None else (last, before) == (head.event_id, head.hash)
        return None if ends_well else Break(node, last, None)


def _hash(before: str, node: str, at: datetime, who: str, note: Note) -> str:
    content = [before, node, at.astimezone(UTC).isoformat(), who, note.of_table, note.row_id, note.what, note.detail]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
