"""What a person follows: each study that arrives and each job, with its step, its waits and its deliveries; only reads.

It works beside a running node and without one. What it costs does not grow with the jobs that have ended.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from twin_scanner.service.ledger.claims import AT_ONCE
from twin_scanner.service.ledger.database import Database, chunks
from twin_scanner.service.ledger.deliveries import DELIVERIES, Deliveries, Delivery
from twin_scanner.service.ledger.events import Event, Events
from twin_scanner.service.ledger.jobs import JOBS, Job, Jobs
from twin_scanner.service.ledger.leases import LEASES, node_lease
from twin_scanner.service.ledger.moves import DeliveryState, State, StudyState
from twin_scanner.service.ledger.priority import Priority
from twin_scanner.service.ledger.studies import STUDIES, Studies, Study

INTAKE, RENDER = "intake", "render"
UNFINISHED: Final = (State.QUEUED, State.RENDERED)
_NODES: Final = node_lease("")
SILENT: Final = timedelta(minutes=2)
"""A node that has given no sign of life for so long does not run, or cannot reach the ledger."""


class Standing(StrEnum):
    """How a study or a job stands, for a person; ``state`` is the ledger's own word."""

    ARRIVING = "arriving"
    RUNNING = "running"
    WAITING = "waiting"
    HELD = "held"
    FAILED = "failed"
    REJECTED = "rejected"
    DONE = "done"
    SUPERSEDED = "superseded"


@dataclass(frozen=True)
class Node:
    """A node and the last moment at which it has renewed its lease; None where an earlier version took it."""

    name: str
    boot: str
    renewed_at: datetime | None

    def is_alive(self, now: datetime) -> bool:
        """Whether it has given a sign of life lately."""
        return self.renewed_at is not None and now - self.renewed_at < SILENT


@dataclass(frozen=True)
class Traffic:
    """One destination: when it last confirmed a delivery, and how many are not confirmed, by their state."""

    confirmed_at: datetime | None
    unfinished: dict[str, int]


@dataclass(frozen=True)
class Work:
    """One study that is no job yet, or one job; all moments are wall times, or as close to them as steady ones are.

    ``step`` is what runs, or what it waits for: intake, render, or destinations. ``begun_at`` is None unless it runs,
    ``next_try_at`` unless a later try is set. ``study`` is None where this ledger never saw it arrive.
    """

    standing: Standing
    job: Job | None
    study: Study | None
    deliveries: tuple[Delivery, ...]
    step: str
    begun_at: datetime | None
    next_try_at: datetime | None
    reason: str

    @property
    def node(self) -> str:
        """Whose files it is made of."""
        row = self.job or self.study
        return (row.node if row is not None else None) or ""

    @property
    def priority(self) -> str:
        """The priority's name."""
        row = self.job or self.study
        return Priority(row.priority if row is not None else Priority.ROUTINE).name.lower()


class Overview:
    """Queries over studies, jobs and deliveries of every node on the ledger."""

    def __init__(
        self, database: Database, studies: Studies, jobs: Jobs, deliveries: Deliveries, events: Events
    ) -> None:
        self._database = database
        self._studies = studies
        self._jobs = jobs
        self._deliveries = deliveries
        self._events = events

    def nodes(self) -> list[Node]:
        """The nodes that there are, or were, by name."""
        held = sa.select(LEASES).where(LEASES.c.name.startswith(_NODES), LEASES.c.owner.is_not(None))
        with self._database.read() as connection:
            rows = connection.execute(held.order_by(LEASES.c.name))
            return [Node(row.name.removeprefix(_NODES), row.owner.split("/")[0], row.renewed_at) for row in rows]

    def counts(self, since: datetime) -> dict[State, int]:
        """The jobs that were opened since a moment, and all that are unfinished, by state."""
        unfinished = (*UNFINISHED, State.HELD, State.FAILED)
        found: dict[State, int] = {}
        with self._database.read() as connection:
            for state in State:  # one index answers each, without a look at the rows
                query = sa.select(sa.func.count()).where(JOBS.c.state == state.value)
                query = query if state in unfinished else query.where(JOBS.c.made_at >= since)
                found[state] = connection.execute(query).scalar_one()
        return found

    def arriving(self, limit: int) -> list[Work]:
        """Studies whose instances still come, the latest first, and those that wait for intake or are in it."""
        columns = STUDIES.c
        query = sa.select(STUDIES).where(columns.state == StudyState.ARRIVING.value)
        found = self._studies.all_of(query.order_by(columns.last_instance_at.desc(), columns.study_id).limit(limit))
        return self._of_studies(found)

    def running(self) -> list[Work]:
        """What a thread of a node works on."""
        of_deliveries = sa.select(DELIVERIES.c.job_id).where(DELIVERIES.c.lease_owner.is_not(None))
        jobs = self._by_id(sa.select(JOBS.c.job_id).where(JOBS.c.lease_owner.is_not(None)), of_deliveries)
        jobs.sort(key=lambda job: job.turn_at or job.made_at)
        studies = self._studies.all_of(sa.select(STUDIES).where(STUDIES.c.lease_owner.is_not(None)))
        works = [*self._of_studies(studies), *self.of(jobs)]
        return [work for work in works if work.standing == Standing.RUNNING]

    def waiting(self, limit: int) -> list[Work]:
        """Jobs that a lane will take up, in the order of their turns."""
        found: list[Job] = []
        for state in UNFINISHED:
            query = sa.select(JOBS).where(JOBS.c.state == state.value).order_by(JOBS.c.turn_at, JOBS.c.job_id)
            found += self._jobs.all_of(query.limit(limit))
        found.sort(key=lambda job: (job.turn_at or job.made_at, job.job_id))
        return [work for work in self.of(found) if work.standing == Standing.WAITING][:limit]

    def held(self, limit: int) -> list[Work]:
        """Studies and jobs that wait for a person, and jobs of which a delivery does."""
        return [*self.held_studies(limit), *self._given_up(State.HELD, DeliveryState.HELD, limit)]

    def held_studies(self, limit: int) -> list[Work]:
        """Studies that wait for a person before there is a job, the newest first."""
        query = sa.select(STUDIES).where(STUDIES.c.state == StudyState.HELD.value)
        return self._of_studies(self._studies.all_of(query.order_by(STUDIES.c.study_id.desc()).limit(limit)))

    def failed(self, limit: int) -> list[Work]:
        """Jobs that have failed, and those of which a delivery has."""
        return self._given_up(State.FAILED, DeliveryState.FAILED, limit)

    def jobs(
        self,
        limit: int,
        *,
        since: datetime | None = None,
        state: State | None = None,
        before: tuple[datetime, str] | None = None,
    ) -> list[Work]:
        """The newest jobs, newest first; ``before`` is the moment and the id of the job that comes before them."""
        query = sa.select(JOBS).order_by(JOBS.c.made_at.desc(), JOBS.c.job_id.desc()).limit(limit)
        if since is not None:
            query = query.where(JOBS.c.made_at >= since)
        if state is not None:
            query = query.where(JOBS.c.state == state.value)
        if before is not None:
            at, job_id = before
            same = sa.and_(JOBS.c.made_at == at, JOBS.c.job_id < job_id)
            query = query.where(JOBS.c.made_at <= at, sa.or_(JOBS.c.made_at < at, same))
        return self.of(self._jobs.all_of(query))

    def traffic(self) -> dict[str, Traffic]:
        """What has gone to each destination, by its name."""
        columns = DELIVERIES.c
        following = sa.select(sa.func.min(columns.destination))
        latest = sa.select(sa.func.max(columns.confirmed_at))
        unfinished = [state.value for state in DeliveryState if state != DeliveryState.CONFIRMED]
        counts = sa.select(columns.destination, columns.state, sa.func.count()).where(columns.state.in_(unfinished))
        found: dict[str, Traffic] = {}
        with self._database.read() as connection:
            name: str | None = ""
            # Name by name, each by one look into an index: a GROUP BY reads every delivery that ever was.
            while (name := connection.execute(following.where(columns.destination > name)).scalar()) is not None:
                confirmed_at = connection.execute(latest.where(columns.destination == name)).scalar()
                found[name] = Traffic(confirmed_at, {})
            for name, state, count in connection.execute(counts.group_by(columns.destination, columns.state)):
                found.setdefault(name, Traffic(None, {})).unfinished[state] = count
        return found

    def apart(self, limit: int) -> list[Study]:
        """The newest studies of which contents are kept apart."""
        query = sa.select(STUDIES).where(STUDIES.c.kept_apart > 0).order_by(STUDIES.c.study_id.desc())
        return self._studies.all_of(query.limit(limit))

    def timeline(self, work: Work) -> list[Event]:
        """What has happened to a job, to its study and to its deliveries, oldest first."""
        found = [] if work.study is None else self._events.of_row("studies", work.study.study_id)
        if work.job is not None:
            found += self._events.of_row("jobs", work.job.job_id)
        for delivery in work.deliveries:
            found += self._events.of_row("deliveries", delivery.delivery_id)
        return sorted(found, key=lambda event: (event.at, event.event_id))

    def of(self, jobs: Sequence[Job]) -> list[Work]:
        """These jobs with all that belongs to them."""
        deliveries = self._deliveries.of_jobs([job.job_id for job in jobs])
        studies = self._studies_of({job.study_uid for job in jobs})
        boots = {node.name: node.boot for node in self.nodes()}
        works = []
        for job in jobs:
            study = studies.get((job.node, job.study_uid))
            works.append(_of_job(job, study, tuple(deliveries[job.job_id]), boots))
        return works

    def _of_studies(self, studies: Sequence[Study]) -> list[Work]:
        boots = {node.name: node.boot for node in self.nodes()}
        return [_of_study(study, boots) for study in studies]

    def _given_up(self, state: State, of_delivery: DeliveryState, limit: int) -> list[Work]:
        newest = (JOBS.c.made_at.desc(), JOBS.c.job_id.desc())
        by_job = sa.select(JOBS.c.job_id).where(JOBS.c.state == state.value).order_by(*newest).limit(limit)
        by_delivery = sa.select(DELIVERIES.c.job_id).where(DELIVERIES.c.state == of_delivery.value)
        jobs = self._by_id(by_job, by_delivery.order_by(DELIVERIES.c.delivery_id.desc()).limit(limit))
        jobs.sort(key=lambda job: (job.made_at, job.job_id), reverse=True)
        return [work for work in self.of(jobs) if work.standing == state.value][:limit]

    def _by_id(self, *queries: sa.Select[Any]) -> list[Job]:
        """The jobs whose ids these queries find: asked one after the other, each is answered by an index."""
        found: set[str] = set()
        with self._database.read() as connection:
            for query in queries:
                found |= set(connection.execute(query).scalars())
        return [
            job
            for some in chunks(sorted(found))
            for job in self._jobs.all_of(sa.select(JOBS).where(JOBS.c.job_id.in_(some)))
        ]

    def _studies_of(self, study_uids: Collection[str]) -> dict[tuple[str | None, str], Study]:
        found: dict[tuple[str | None, str], Study] = {}
        for some in chunks(sorted(study_uids)):
            for study in self._studies.all_of(sa.select(STUDIES).where(STUDIES.c.study_uid.in_(some))):
                found[study.node, study.study_uid] = study
        return found


def _of_study(study: Study, boots: dict[str, str]) -> Work:
    begun_at = study.begun_at if _is_claimed(study, boots) else None
    standing, step = Standing.ARRIVING, ""
    if begun_at is not None:
        standing, step = Standing.RUNNING, INTAKE
    elif study.state == StudyState.HELD:
        standing = Standing.HELD
    elif study.due_at is not None:
        standing, step = Standing.WAITING, INTAKE
    return Work(standing, None, study, (), step, begun_at, _later(study.due_at), study.reason)


def _of_job(job: Job, study: Study | None, deliveries: tuple[Delivery, ...], boots: dict[str, str]) -> Work:
    running = [delivery for delivery in deliveries if _is_claimed(delivery, boots)]
    reason = job.reason or "; ".join(f"{one.destination}: {one.reason}" for one in deliveries if one.reason)

    def work(standing: Standing, step: str = "", begun_at: datetime | None = None, due: datetime | None = None) -> Work:
        return Work(standing, job, study, deliveries, step, begun_at, _later(due), reason)

    if _is_claimed(job, boots):
        return work(Standing.RUNNING, RENDER, job.begun_at)
    if running:
        begun = min((one.begun_at for one in running if one.begun_at is not None), default=None)
        return work(Standing.RUNNING, ", ".join(one.destination for one in running), begun)
    if job.state == State.QUEUED:
        return work(Standing.WAITING, RENDER, due=job.due_at)
    if job.state == State.RENDERED:
        open_ones = [d for d in deliveries if d.state in (DeliveryState.WAITING, DeliveryState.STORED) and d.due_at]
        due = min((one.due_at for one in open_ones if one.due_at is not None), default=None)
        return work(Standing.WAITING, ", ".join(one.destination for one in open_ones), due=due)
    if job.state == State.DONE:
        # A destination that the job does not require may still need a person.
        for state in (DeliveryState.FAILED, DeliveryState.HELD):
            if any(one.state == state for one in deliveries if one.reason):
                return work(Standing(state.value))
    return work(Standing(job.state.value))


def _is_claimed(row: Study | Job | Delivery, boots: dict[str, str]) -> bool:
    """Whether a thread works on the row: the claim of a process that is its node no more is a dead one's."""
    if row.lease_owner is None:
        return False
    boot = boots.get(row.node or "")
    return boot is None or row.lease_owner.split("/")[-2:-1] == [boot]


def _later(due_at: datetime | None) -> datetime | None:
    return None if due_at is None or due_at == AT_ONCE else due_at
