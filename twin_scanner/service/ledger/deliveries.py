"""Table ``deliveries``: one job's result on its way to one destination, each with attempts and a claim of its own."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from twin_scanner.service.ledger.claims import AT_ONCE, Claims, Tokens
from twin_scanner.service.ledger.columns import METADATA, UtcDateTime, waiting_columns
from twin_scanner.service.ledger.database import Database, Transaction
from twin_scanner.service.ledger.jobs import JOBS, Job, Jobs
from twin_scanner.service.ledger.moves import DeliveryState, State

_CLAIMED: Final = sa.text("lease_owner IS NOT NULL")
DELIVERIES: Final = sa.Table(
    "deliveries",
    METADATA,
    sa.Column("delivery_id", sa.Integer, primary_key=True),
    *waiting_columns(),
    sa.Column("job_id", sa.String(32), nullable=False),
    sa.Column("destination", sa.String(32), nullable=False),
    sa.Column("after", sa.String(32)),
    sa.Column("transaction_uid", sa.String(64)),
    sa.Column("stored_at", UtcDateTime),
    sa.Column("confirmed_at", UtcDateTime),
    sa.Column("confirmed_by", sa.String(64), nullable=False),
    sa.UniqueConstraint("job_id", "destination", name="uq_deliveries_job"),
    sa.Index("ix_deliveries_lane", "state", "node", "destination", "due_at"),
    sa.Index("ix_deliveries_claimed", "node", sqlite_where=_CLAIMED, postgresql_where=_CLAIMED),
)


@dataclass(frozen=True)
class Destination:
    """Where results go; ``after`` names another one that must have confirmed before."""

    name: str
    after: str | None = None


@dataclass(frozen=True)
class Delivery:
    """One row; without ``due_at`` it waits for the delivery to ``after``."""

    delivery_id: int
    node: str | None
    state: DeliveryState
    attempts: int
    due_at: datetime | None
    waiting_since: datetime | None
    lease_owner: str | None
    reason: str
    job_id: str
    destination: str
    after: str | None
    transaction_uid: str | None
    stored_at: datetime | None
    confirmed_at: datetime | None
    confirmed_by: str


class Deliveries(Claims[Delivery]):
    """Queries on the deliveries; each destination is a lane. The job's row is always locked before its deliveries."""

    table = DELIVERIES
    key = "delivery_id"
    row_type = Delivery
    states = DeliveryState
    waits = DeliveryState.WAITING

    def __init__(self, database: Database, tokens: Tokens, jobs: Jobs) -> None:
        super().__init__(database, tokens)
        self._jobs = jobs

    def open(self, write: Transaction, job: Job, destinations: Sequence[Destination]) -> None:
        """Let a rendered job's result go to its destinations."""
        for destination in destinations:
            due_at = write.steady if destination.after is None else None
            values = {
                "node": job.node,
                "state": DeliveryState.WAITING.value,
                "attempts": 0,
                "due_at": due_at,
                "waiting_since": due_at,
                "reason": "",
                "job_id": job.job_id,
                "destination": destination.name,
                "after": destination.after,
                "confirmed_by": "",
            }
            write.execute(DELIVERIES.insert().values(**values))
        self.settle(write, job.job_id)

    def claim(self, destination: str) -> Delivery | None:
        """The delivery to this destination that has been due longest, claimed for the calling thread."""
        return self._claim(DELIVERIES.c.destination == destination)

    def stored(self, delivery: Delivery, transaction_uid: str) -> None:
        """The destination has it, and will confirm by this transaction that it keeps it."""
        facts = {"transaction_uid": transaction_uid, "reason": "", "due_at": None}
        with self._database.write() as write:
            self._jobs.locked(write, delivery.job_id)
            self._move(write, self._mine(write, delivery), DeliveryState.STORED, stored_at=write.now, **facts)

    def confirmed(self, delivery: Delivery, by: str) -> None:
        """The destination keeps it; ``by`` says how we know. What was waiting for this delivery comes due."""
        with self._database.write() as write:
            self._jobs.locked(write, delivery.job_id)
            mine = self._mine(write, delivery)
            times = {"stored_at": mine.stored_at or write.now, "confirmed_at": write.now, "due_at": None}
            self._move(write, mine, DeliveryState.CONFIRMED, confirmed_by=by, reason="", **times)
            columns = DELIVERIES.c
            following = (columns.job_id == mine.job_id, columns.after == mine.destination, columns.due_at.is_(None))
            due = {"due_at": write.steady, "waiting_since": write.steady}
            waiting = columns.state == DeliveryState.WAITING.value
            write.execute(DELIVERIES.update().where(*following, waiting).values(**due))
            self.settle(write, mine.job_id)

    def hold(self, delivery: Delivery, reason: str, held_for: str = "") -> None:
        """This destination refuses this result alone: a person must decide."""
        self._give_up(delivery, DeliveryState.HELD, reason)

    def reject(self, delivery: Delivery, reason: str) -> None:
        """Nothing outside the CT rejects a job: what a destination refuses is held."""
        self._give_up(delivery, DeliveryState.HELD, reason)

    def fail(self, delivery: Delivery, reason: str) -> None:
        """A fault of ours, or the age limit."""
        self._give_up(delivery, DeliveryState.FAILED, reason)

    def put_on(self, write: Transaction, job_id: str, state: DeliveryState) -> int:
        """The job's failed (or held) deliveries wait again; how many there were."""
        given_up = [delivery for delivery in self._of_job(write, job_id) if delivery.state == state]
        facts = {"attempts": 0, "reason": "", "due_at": AT_ONCE, "waiting_since": write.steady}
        for delivery in given_up:
            self._move(write, delivery, DeliveryState.WAITING, **facts)
        return len(given_up)

    def wake(self, destination: str) -> None:
        """The destination is there again: what was postponed meanwhile is due now."""
        columns = DELIVERIES.c
        with self._database.write() as write:
            waiting = (columns.state == DeliveryState.WAITING.value, columns.node == self._database.node)
            later = (columns.destination == destination, columns.due_at > write.steady)
            write.execute(DELIVERIES.update().where(*waiting, *later).values(due_at=write.steady))

    def of_jobs(self, job_ids: Collection[str]) -> dict[str, list[Delivery]]:
        """The deliveries of each of these jobs, in the order in which they were opened."""
        found: dict[str, list[Delivery]] = {job_id: [] for job_id in job_ids}
        query = sa.select(DELIVERIES).where(DELIVERIES.c.job_id.in_(job_ids)).order_by(DELIVERIES.c.delivery_id)
        with self._database.read() as connection:
            for row in connection.execute(query):
                found[row.job_id].append(self._row(row))
        return found

    def adopt(self) -> None:
        """The deliveries of a job lie where the job lies: after jobs of an earlier version were adopted."""
        open_states = [state.value for state in (State.RENDERED, State.HELD, State.FAILED)]
        ours = sa.select(JOBS.c.job_id).where(JOBS.c.state.in_(open_states), JOBS.c.node == self._database.node)
        with self._database.write() as write:
            homeless = (DELIVERIES.c.node.is_(None), DELIVERIES.c.job_id.in_(ours))
            write.execute(DELIVERIES.update().where(*homeless).values(node=self._database.node))

    def settle(self, write: Transaction, job_id: str) -> None:
        """End the job where nothing of it can go on any more; the job's row is locked by the caller.

        One whose deliveries are all confirmed is done; else it has failed where one has, and is held where one is.
        """
        job = self._jobs.locked(write, job_id)
        deliveries = self._of_job(write, job_id)
        states = {delivery.state for delivery in deliveries}
        going_on = any(
            delivery.state == DeliveryState.STORED
            or (delivery.state == DeliveryState.WAITING and delivery.due_at is not None)
            for delivery in deliveries
        )
        if job.state != State.RENDERED or going_on:
            return
        if states <= {DeliveryState.CONFIRMED}:
            self._jobs.move(write, job, State.DONE, reason="")
            return
        reasons = "; ".join(f"{d.destination}: {d.reason}" for d in deliveries if d.reason)
        if DeliveryState.FAILED in states:
            self._jobs.move(write, job, State.FAILED, reason=reasons, stood_at=State.RENDERED.value)
        else:
            self._jobs.move(write, job, State.HELD, reason=reasons, stood_at=State.RENDERED.value, held_for="delivery")

    def _give_up(self, delivery: Delivery, state: DeliveryState, reason: str) -> None:
        with self._database.write() as write:
            self._jobs.locked(write, delivery.job_id)
            self._move(write, self._mine(write, delivery), state, due_at=None, reason=reason)
            self.settle(write, delivery.job_id)

    def _of_job(self, write: Transaction, job_id: str) -> list[Delivery]:
        query = sa.select(DELIVERIES).where(DELIVERIES.c.job_id == job_id).order_by(DELIVERIES.c.delivery_id)
        return [self._row(row) for row in write.execute(query.with_for_update())]

    def _note(self, write: Transaction, row: Delivery, what: str, **detail: Any) -> None:
        super()._note(write, row, what, destination=row.destination, **detail)
