"""What a monitor reads of the ledger: queues, what is held, and what the events have counted; numbers alone.

Every process that reads the same ledger gets the same numbers, whichever node it is, or none.
"""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from twin_scanner.service.ledger.database import Database
from twin_scanner.service.ledger.deliveries import DELIVERIES
from twin_scanner.service.ledger.events import EVENTS, Event
from twin_scanner.service.ledger.jobs import JOBS
from twin_scanner.service.ledger.leases import LEASES, node_lease
from twin_scanner.service.ledger.moves import DeliveryState, State, StudyState
from twin_scanner.service.ledger.runs import RUNS
from twin_scanner.service.ledger.studies import STUDIES

BUCKETS_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Upper ends of a histogram's buckets: from a delivery of one object to a render on a slow processor."""
EVENTS_AT_ONCE: Final = 5000
INTAKE, RENDER = "intake", "render"
_UNAVAILABLE: Final = frozenset({"Unavailable", "NoCapabilityStatement"})
"""Error classes that say of a destination that it serves nobody (``errors.Unavailable`` and what is under it)."""
_FAILURES: Final = frozenset({"tried", "alarm"})
_ENDS: Final = {("studies", "taken"): INTAKE, ("jobs", "rendered"): RENDER}
_GIVEN_UP: Final = frozenset({"failed", "rejected"})


class Queue(NamedTuple):
    """What waits for a lane, and for how long (s) the oldest of it does."""

    waiting: int
    oldest_s: float


@dataclass
class StageTimes:
    """A histogram: ``buckets`` counts what took at most as long as each of BUCKETS_S, not cumulated."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    total_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.buckets[sum(seconds > end for end in BUCKETS_S)] += 1
        self.total_s += seconds


@dataclass
class Counts:
    """What the events have counted since the ledger's first one; a delivery's stage is its destination."""

    stages: dict[str, StageTimes] = field(default_factory=dict)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By stage and error class."""
    given_up: Counter[str] = field(default_factory=Counter)
    """Jobs and deliveries, by how they ended: failed, rejected."""
    last_success: dict[str, datetime] = field(default_factory=dict)
    """By destination."""
    down: set[str] = field(default_factory=set)
    """Destinations whose last answer was that they serve nobody."""


class Measures:
    """Queries for a monitor; the events are read once, and then only what was appended since."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}
        self._counts = Counts()

    def queues(self) -> dict[str, Queue]:
        """By lane: intake, render, and each destination that has anything waiting."""
        studies, jobs, deliveries = STUDIES.c, JOBS.c, DELIVERIES.c
        waits = [DeliveryState.WAITING.value, DeliveryState.STORED.value]
        count = sa.func.count()
        intake = sa.select(count, sa.func.min(studies.waiting_since)).where(
            studies.state == StudyState.ARRIVING.value, studies.due_at.is_not(None)
        )
        render = sa.select(count, sa.func.min(jobs.waiting_since)).where(jobs.state == State.QUEUED.value)
        rows: list[tuple[str, int, datetime | None]] = []
        with self._database.read() as connection:
            rows += [(INTAKE, *connection.execute(intake).one()), (RENDER, *connection.execute(render).one())]
            # Each destination's deliveries that could go: what waits for another delivery has no due time yet.
            query = sa.select(deliveries.destination, count, sa.func.min(deliveries.waiting_since))
            due = query.where(deliveries.state.in_(waits), deliveries.due_at.is_not(None))
            rows += [tuple(row) for row in connection.execute(due.group_by(deliveries.destination))]
        now = self._database.steady()
        return {
            lane: Queue(waiting, 0.0 if since is None else max(0.0, (now - since).total_seconds()))
            for lane, waiting, since in rows
        }

    def jobs(self) -> dict[State, int]:
        """All jobs by state."""
        query = sa.select(JOBS.c.state, sa.func.count()).group_by(JOBS.c.state)
        with self._database.read() as connection:
            found = {State(state): count for state, count in connection.execute(query)}
        return {state: found.get(state, 0) for state in State}

    def held(self) -> dict[tuple[str, str], int]:
        """What waits for a person: by what it is (study, job, delivery) and what it is held for."""
        jobs = sa.select(JOBS.c.held_for, sa.func.count()).where(JOBS.c.state == State.HELD.value)
        studies = sa.select(sa.func.count()).where(STUDIES.c.state == StudyState.HELD.value)
        deliveries = sa.select(DELIVERIES.c.destination, sa.func.count())
        deliveries = deliveries.where(DELIVERIES.c.state == DeliveryState.HELD.value)
        with self._database.read() as connection:
            found = {("study", "incomplete"): connection.execute(studies).scalar_one()}
            for reason, count in connection.execute(jobs.group_by(JOBS.c.held_for)):
                found["job", reason or "other"] = count
            for destination, count in connection.execute(deliveries.group_by(DELIVERIES.c.destination)):
                found["delivery", destination] = count
        return found

    def silence_s(self) -> dict[str, float]:
        """For how long each node has not renewed its lease, by the clock of whoever reads; one that stopped counts."""
        held = (LEASES.c.name.startswith(node_lease("")), LEASES.c.owner.is_not(None), LEASES.c.renewed_at.is_not(None))
        with self._database.read() as connection:
            rows = connection.execute(sa.select(LEASES.c.node, LEASES.c.renewed_at).where(*held)).all()
        now = self._database.now()
        return {node: max(0.0, (now - renewed_at).total_seconds()) for node, renewed_at in rows}

    def last_runs(self) -> dict[str, int]:
        """The exit code of each scheduled command's last run that has ended, by the command's name."""
        last = sa.select(sa.func.max(RUNS.c.run_id)).where(RUNS.c.exit_code.is_not(None)).group_by(RUNS.c.name)
        with self._database.read() as connection:
            rows = connection.execute(sa.select(RUNS.c.name, RUNS.c.exit_code).where(RUNS.c.run_id.in_(last)))
            return {str(name): int(code) for name, code in rows}

    def latest_events(self, limit: int) -> list[Event]:
        """The events of all nodes that were appended last, the latest first."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(EVENTS).order_by(EVENTS.c.event_id.desc()).limit(limit))
            return [Event(**row._mapping) for row in rows]

    def largest_ct(self) -> int:
        """The images of the largest CT that was ever opened as a job."""
        with self._database.read() as connection:
            return connection.execute(sa.select(sa.func.max(JOBS.c.instance_count))).scalar() or 0

    def counts(self) -> Counts:
        """What all events have counted. The caller must not change it."""
        with self._lock:
            for node in self._nodes():
                while self._read_on(node):
                    pass
            return self._counts

    def _nodes(self) -> Sequence[str]:
        with self._database.read() as connection:
            found = connection.execute(sa.select(LEASES.c.node).where(LEASES.c.node.is_not(None)).distinct())
            return sorted({self._database.node, *found.scalars()})

    def _read_on(self, node: str) -> bool:
        """Count the node's next events; whether there may be more. A node's events become visible in their order."""
        columns = EVENTS.c
        query = sa.select(EVENTS).where(columns.node == node, columns.event_id > self._seen.get(node, 0))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(columns.event_id).limit(EVENTS_AT_ONCE)).all()
        for row in rows:
            self._count(row)
            self._seen[node] = row.event_id
        return len(rows) == EVENTS_AT_ONCE

    def _count(self, event: sa.Row[Any]) -> None:
        counts, detail = self._counts, event.detail
        destination = detail.get("destination", "")
        stage = destination or {"studies": INTAKE, "jobs": RENDER}.get(event.of_table, "")
        has_ended = (event.of_table, event.what) in _ENDS or (destination and event.what in ("stored", "confirmed"))
        if has_ended and "seconds" in detail:
            counts.stages.setdefault(stage, StageTimes()).add(detail["seconds"])
        if event.what in _FAILURES and stage:
            counts.failures[stage, detail.get("error") or "other"] += 1
        if event.what in _GIVEN_UP:
            counts.given_up[event.what] += 1
        if destination:
            self._note_destination(destination, event)

    def _note_destination(self, destination: str, event: sa.Row[Any]) -> None:
        if event.what == "confirmed":
            known = self._counts.last_success.get(destination, event.at)
            self._counts.last_success[destination] = max(known, event.at)
        if event.what in _FAILURES and event.detail.get("error") in _UNAVAILABLE:
            self._counts.down.add(destination)
        elif event.what in ("stored", "confirmed", "held", "failed", "rejected"):
            self._counts.down.discard(destination)
