"""Table ``deliveries``: one job's result on its way to one destination, each with attempts and a claim of its own."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from twin_scanner.errors import Rejected
from twin_scanner.service.ledger.claims import AT_ONCE, Claims, Tokens
from twin_scanner.service.ledger.columns import METADATA, UtcDateTime, waiting_columns
from twin_scanner.service.ledger.commitments import (
    COMMITMENTS,
    Commitment,
    accept_commitment,
    add_commitment,
    commitment_row,
    forget_commitments,
    report_commitment,
)
from twin_scanner.service.ledger.database import Database, Transaction
from twin_scanner.service.ledger.jobs import JOBS, Job, Jobs
from twin_scanner.service.ledger.moves import DeliveryState, ResendReason, State
from twin_scanner.service.ledger.priority import turn_at

_CLAIMED: Final = sa.text("lease_owner IS NOT NULL")
DELIVERIES: Final = sa.Table(
    "deliveries",
    METADATA,
    sa.Column("delivery_id", sa.Integer, primary_key=True),
    *waiting_columns(),
    sa.Column("job_id", sa.String(32), nullable=False),
    sa.Column("destination", sa.String(32), nullable=False),
    sa.Column("transaction_uid", sa.String(64)),
    sa.Column("stored_at", UtcDateTime),
    sa.Column("confirmed_at", UtcDateTime),
    sa.Column("confirmed_by", sa.String(64), nullable=False),
    sa.Column("required", sa.Boolean, nullable=False),
    sa.Column("after_required", sa.Boolean, nullable=False),
    sa.Column("outcome", sa.JSON),
    sa.Column("turn_at", UtcDateTime),
    sa.UniqueConstraint("job_id", "destination", name="uq_deliveries_job"),
    sa.Index("ix_deliveries_lane", "state", "node", "destination", "turn_at", "due_at", "delivery_id"),
    sa.Index("ix_deliveries_confirmed", "destination", "confirmed_at"),
    sa.Index("ix_deliveries_claimed", "node", sqlite_where=_CLAIMED, postgresql_where=_CLAIMED),
)


GONE: Final = (
    "The configuration has no destination '{}' any more: give it back and release this job, or release it without "
    "that destination (jobs release --without)."
)
PATIENCE: Final = 5
"""So many failed attempts in a row put a delivery behind what came before that moment: one that never succeeds holds up
nothing else."""
REPLACED: Final = "replaced by a later revision"
"""Confirms a delivery that is not made any more: its destination gets the later revision instead."""
RESEND: Final = "resend asked"
"""The event of a delivery that a person lets be made again."""
ERASED: Final = "the patient was erased"
"""Confirms a delivery to the twin record that is not made any more: `twin erase` is not undone by what still waits."""


@dataclass(frozen=True)
class Destination:
    """Where results go.

    Without ``required`` the job is done whether or not this delivery is. ``after_required``: it begins once every
    other delivery that the job requires is confirmed.
    """

    name: str
    required: bool = True
    after_required: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a delivery's instances; of those with a remark the SOP Instance UIDs, by DIMSE status (0xB000).

    ``not_taken`` are SOP classes that the destination does not know, whose instances were not sent.
    """

    asked: int
    stored: int
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    not_taken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Delivery:
    """One row; a waiting one without ``due_at`` waits for the other deliveries of its job.

    ``turn_at`` is its job's turn, a steady time: of two deliveries the earlier turn is first.
    """

    delivery_id: int
    node: str | None
    state: DeliveryState
    attempts: int
    due_at: datetime | None
    waiting_since: datetime | None
    lease_owner: str | None
    begun_at: datetime | None
    reason: str
    job_id: str
    destination: str
    transaction_uid: str | None
    stored_at: datetime | None
    confirmed_at: datetime | None
    confirmed_by: str
    required: bool
    after_required: bool
    outcome: Outcome | None
    turn_at: datetime | None

    @property
    def was_confirmed(self) -> bool:
        """Whether the destination has said that it keeps it; also while it is sent there again."""
        confirmed = self.state == DeliveryState.CONFIRMED or self.confirmed_at is not None
        return confirmed and self.confirmed_by != REPLACED

    @property
    def is_resent(self) -> bool:
        """Whether it was confirmed once, and is sent again."""
        return self.confirmed_at is not None and self.state != DeliveryState.CONFIRMED


class Deliveries(Claims[Delivery]):
    """Queries on the deliveries; each destination is a lane. The job's row is always locked before its deliveries."""

    table = DELIVERIES
    key = "delivery_id"
    row_type = Delivery
    states = DeliveryState
    waits = (DeliveryState.STORED, DeliveryState.WAITING)

    def __init__(self, database: Database, tokens: Tokens, jobs: Jobs) -> None:
        super().__init__(database, tokens)
        self._jobs = jobs

    def open(self, write: Transaction, job: Job, destinations: Sequence[Destination]) -> None:
        """Let a rendered job's result go to its destinations."""
        for destination in destinations:
            due_at = None if destination.after_required else write.steady
            values = {
                "node": job.node,
                "state": DeliveryState.WAITING.value,
                "attempts": 0,
                "due_at": due_at,
                "waiting_since": due_at,
                "reason": "",
                "job_id": job.job_id,
                "destination": destination.name,
                "confirmed_by": "",
                "required": destination.required,
                "after_required": destination.after_required,
                "turn_at": job.turn_at or write.steady,
            }
            write.execute(DELIVERIES.insert().values(**values))
        self._begin_last(write, job.job_id)
        self.settle(write, job.job_id)

    def claim(self, destination: str, *, probing: bool = False) -> Delivery | None:
        """The delivery to this destination whose turn it is, claimed for the calling thread.

        ``probing``: the destination is down, and the one that has been due longest is tried, so that each is in turn.
        """
        return self._claim(DELIVERIES.c.destination == destination, order=super()._order() if probing else None)

    def note_outcome(self, delivery: Delivery, outcome: Outcome) -> None:
        """Keep what became of each instance so far, while the work goes on."""
        with self._database.write() as write:
            self._update(write, self._mine(write, delivery), outcome=asdict(outcome))

    def stored(self, delivery: Delivery, outcome: Outcome) -> None:
        """The destination has answered for every instance; whether it keeps them is asked next."""
        facts = {"transaction_uid": None, "reason": "", "attempts": 0, "outcome": asdict(outcome)}
        with self._database.write() as write:
            self._jobs.locked(write, delivery.job_id)
            mine = self._mine(write, delivery)
            self._move(write, mine, DeliveryState.STORED, stored_at=write.now, due_at=write.steady, **facts)

    def ask(self, delivery: Delivery, transaction_uid: str) -> None:
        """Write a storage commitment down that is asked for next."""
        with self._database.write() as write:
            self._jobs.locked(write, delivery.job_id)
            mine = self._mine(write, delivery)
            add_commitment(write, mine.delivery_id, transaction_uid)
            self._update(write, mine, transaction_uid=transaction_uid)
            self._note(write, mine, "commitment asked")

    def wait_for_report(self, delivery: Delivery, transaction_uid: str, look_after_s: float) -> None:
        """The destination will report on this transaction: the delivery is looked at then, or after so many seconds."""
        with self._database.write() as write:
            self._jobs.locked(write, delivery.job_id)
            mine = self._mine(write, delivery)
            reported = accept_commitment(write, transaction_uid)
            due_at = AT_ONCE if reported else write.steady + timedelta(seconds=look_after_s)
            self._update(write, mine, due_at=due_at, attempts=0, reason="", lease_owner=None)

    def reported(self, transaction_uid: str, kept: Collection[str]) -> bool:
        """A destination's report, to whichever node; False where nobody asked for this transaction.

        When this returns, the report is kept; one that comes twice changes nothing.
        """
        columns = DELIVERIES.c
        of_transaction = sa.select(columns.delivery_id, columns.job_id).join(
            COMMITMENTS, COMMITMENTS.c.delivery_id == columns.delivery_id
        )
        with self._database.write() as write:
            asked = COMMITMENTS.c.transaction_uid == transaction_uid
            found = write.execute(of_transaction.where(asked)).one_or_none()
            if found is None:
                return False
            self._jobs.locked(write, found.job_id)
            if report_commitment(write, transaction_uid, kept):
                stored = (columns.delivery_id == found.delivery_id, columns.state == DeliveryState.STORED.value)
                write.execute(DELIVERIES.update().where(*stored).values(due_at=AT_ONCE))
                write.note(self.table.name, found.delivery_id, "commitment reported", kept=len(kept))
            return True

    def commitments(self, delivery: Delivery) -> list[Commitment]:
        """What was asked for this delivery, oldest first."""
        with self._database.read() as connection:
            return [commitment_row(row) for row in connection.execute(_commitments_of(delivery))]

    def ask_again(self, delivery: Delivery) -> None:
        """No report came in time: another transaction is asked for at the claim's next attempt."""
        with self._database.write() as write:
            self._jobs.locked(write, delivery.job_id)
            self._update(write, self._mine(write, delivery), transaction_uid=None)

    def not_kept(self, delivery: Delivery) -> None:
        """The destination does not keep all of it: it is sent again, by the same claim's next attempt."""
        facts = {"transaction_uid": None, "lease_owner": delivery.lease_owner}
        with self._database.write() as write:
            self._jobs.locked(write, delivery.job_id)
            self._move(write, self._mine(write, delivery), DeliveryState.WAITING, **facts)

    def confirmed(self, delivery: Delivery, by: str, outcome: Outcome | None = None) -> None:
        """The destination keeps it; ``by`` says how we know. What was waiting for this delivery comes due."""
        with self._database.write() as write:
            self.confirm(write, delivery, by, outcome)

    def confirm(self, write: Transaction, delivery: Delivery, by: str, outcome: Outcome | None = None) -> None:
        """As ``confirmed``, in the caller's transaction."""
        self._jobs.locked(write, delivery.job_id)
        mine = self._mine(write, delivery)
        values: dict[str, Any] = {
            "stored_at": mine.stored_at or write.now,
            "confirmed_at": write.now,
            "due_at": None,
        }
        if outcome is not None:
            values["outcome"] = asdict(outcome)
        self._move(write, mine, DeliveryState.CONFIRMED, confirmed_by=by, reason="", **values)
        self._begin_last(write, mine.job_id)
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

    def withdraw(self, delivery: Delivery, reason: str) -> None:
        """Nothing of the job has left for anywhere, and nothing is to: it is rejected, its deliveries wait for a retry.

        Where another thread delivers meanwhile, or the job has ended, this delivery alone is held.
        """
        with self._database.write() as write:
            job = self._jobs.locked(write, delivery.job_id)
            mine = self._mine(write, delivery)
            others = [other for other in self._of_job(write, job.job_id) if other.delivery_id != mine.delivery_id]
            under_way = (DeliveryState.STORED, DeliveryState.CONFIRMED)
            alone = any(other.lease_owner is not None or other.state in under_way for other in others)
            alone = alone or job.state != State.RENDERED
            waiting = [other for other in others if other.state == DeliveryState.WAITING and other.due_at is not None]
            for each in [mine] if alone else [mine, *waiting]:
                self._move(write, each, DeliveryState.HELD, due_at=None, reason=reason)
            if alone:
                self.settle(write, job.job_id)
            else:
                self._jobs.move(write, job, State.REJECTED, reason=reason, stood_at=State.RENDERED.value)

    def put_on(self, write: Transaction, job_id: str, state: DeliveryState) -> int:
        """The job's failed (or held) deliveries wait again; how many there were."""
        given_up = [delivery for delivery in self._of_job(write, job_id) if delivery.state == state]
        facts = {"attempts": 0, "reason": "", "due_at": AT_ONCE, "waiting_since": write.steady}
        for delivery in given_up:
            self._move(write, delivery, DeliveryState.WAITING, **facts)
        return len(given_up)

    def send_again(self, write: Transaction, job: Job, destination: str, reason: ResendReason) -> None:
        """What the destination has confirmed goes there once more; the job's row is locked by the caller.

        Raises Rejected where the destination has confirmed no images of the job.
        """
        found = next((one for one in self._of_job(write, job.job_id) if one.destination == destination), None)
        if found is not None and found.after_required:
            raise Rejected("The twin record holds no images: 'twin-scanner twin sync' records it again.")
        if found is None or found.state != DeliveryState.CONFIRMED or not found.was_confirmed:
            raise Rejected(
                f"Job {job.job_id} has no delivery that '{destination}' has confirmed: 'twin-scanner jobs show' lists "
                "them."
            )
        forget_commitments(write, found.delivery_id)
        facts = {"attempts": 0, "due_at": AT_ONCE, "waiting_since": write.steady, "transaction_uid": None}
        facts |= {"turn_at": turn_at(write.steady, job.priority), "stored_at": None}
        self._note(write, found, RESEND, reason=reason.value)
        self._move(write, found, DeliveryState.WAITING, **facts)

    def not_again(self, delivery: Delivery) -> None:
        """It was to be sent again, and is not: what the destination confirmed before still counts."""
        with self._database.write() as write:
            self._jobs.locked(write, delivery.job_id)
            mine = self._mine(write, delivery)
            self._move(write, mine, DeliveryState.CONFIRMED, due_at=None, reason="", stored_at=mine.confirmed_at)
            self._begin_last(write, mine.job_id)
            self.settle(write, mine.job_id)

    def wake_replaced(self, write: Transaction, job: Job) -> None:
        """A later revision was rendered: what of the earlier ones still waits is looked at now, and given up."""
        columns = DELIVERIES.c
        of_study = (JOBS.c.study_uid == job.study_uid, JOBS.c.frame_of_reference_uid == job.frame_of_reference_uid)
        earlier = sa.select(JOBS.c.job_id).where(*of_study, JOBS.c.revision < job.revision)
        waiting = (columns.state == DeliveryState.WAITING.value, columns.due_at.is_not(None))
        write.execute(DELIVERIES.update().where(columns.job_id.in_(earlier), *waiting).values(due_at=AT_ONCE))

    def release_without(self, write: Transaction, job_id: str, destination: str) -> bool:
        """The job needs this held or failed delivery no more; False where there is none."""
        given_up = (DeliveryState.HELD, DeliveryState.FAILED)
        found = [d for d in self._of_job(write, job_id) if d.destination == destination and d.state in given_up]
        for delivery in found:
            self._update(write, delivery, required=False)
            self._note(write, delivery, "not required")
            self._begin_last(write, job_id)
        return bool(found)

    def wake(self, destination: str) -> None:
        """The destination is there again: what was postponed meanwhile is due now."""
        columns = DELIVERIES.c
        with self._database.write() as write:
            waiting = (columns.state == DeliveryState.WAITING.value, columns.node == self._database.node)
            later = (columns.destination == destination, columns.due_at > write.steady)
            write.execute(DELIVERIES.update().where(*waiting, *later).values(due_at=write.steady))

    def hold_for_unknown(self, destinations: Collection[str]) -> int:
        """Hold this node's open deliveries to destinations that are none of these, and say how many there were."""
        columns, held = DELIVERIES.c, 0
        states = [state.value for state in self.waits]
        strange = (columns.node == self._database.node, columns.destination.not_in(destinations))
        with self._database.read() as connection:
            query = sa.select(DELIVERIES).where(columns.state.in_(states), *strange)
            found = [self._row(row) for row in connection.execute(query)]
        for delivery in found:
            with self._database.write() as write:
                self._jobs.locked(write, delivery.job_id)
                current = self._row(write.execute(self._select(delivery)).one())
                if current.state in self.waits:
                    reason = GONE.format(current.destination)
                    self._move(write, current, DeliveryState.HELD, due_at=None, reason=reason)
                    self.settle(write, current.job_id)
                    held += 1
        return held

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
        """End the job where nothing that it requires can go on any more; the job's row is locked by the caller.

        One whose required deliveries are all confirmed is done; else it has failed where one has, and is held where
        one is.
        """
        job = self._jobs.locked(write, job_id)
        deliveries = [delivery for delivery in self._of_job(write, job_id) if delivery.required]
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

    def _begin_last(self, write: Transaction, job_id: str) -> None:
        """What comes after the required deliveries comes due once each of them is confirmed."""
        deliveries = self._of_job(write, job_id)
        first = [delivery for delivery in deliveries if delivery.required and not delivery.after_required]
        if any(delivery.state != DeliveryState.CONFIRMED for delivery in first):
            return
        for delivery in deliveries:
            if delivery.after_required and delivery.state == DeliveryState.WAITING and delivery.due_at is None:
                self._update(write, delivery, due_at=write.steady, waiting_since=write.steady)

    def _give_up(self, delivery: Delivery, state: DeliveryState, reason: str) -> None:
        with self._database.write() as write:
            self._jobs.locked(write, delivery.job_id)
            self._move(write, self._mine(write, delivery), state, due_at=None, reason=reason)
            self.settle(write, delivery.job_id)

    def _order(self) -> tuple[sa.ColumnElement[Any], ...]:
        return (DELIVERIES.c.turn_at, *super()._order())

    def _postponed(self, write: Transaction, row: Delivery) -> dict[str, Any]:
        if row.attempts < PATIENCE:
            return {}
        priority = write.execute(sa.select(JOBS.c.priority).where(JOBS.c.job_id == row.job_id)).scalar_one()
        return {"turn_at": turn_at(write.steady, priority)}

    def _of_job(self, write: Transaction, job_id: str) -> list[Delivery]:
        query = sa.select(DELIVERIES).where(DELIVERIES.c.job_id == job_id).order_by(DELIVERIES.c.delivery_id)
        return [self._row(row) for row in write.execute(query.with_for_update())]

    def _note(self, write: Transaction, row: Delivery, what: str, **detail: Any) -> None:
        super()._note(write, row, what, destination=row.destination, **detail)

    def _row(self, found: sa.Row[Any]) -> Delivery:
        delivery = super()._row(found)
        stored: Any = delivery.outcome
        return delivery if stored is None else replace(delivery, outcome=_outcome(stored))


def _outcome(stored: Mapping[str, Any]) -> Outcome:
    by_status = {
        name: {status: tuple(uids) for status, uids in stored[name].items()} for name in ("warnings", "refused")
    }
    return Outcome(**{**stored, **by_status, "not_taken": tuple(stored["not_taken"])})


def _commitments_of(delivery: Delivery) -> sa.Select[Any]:
    mine = COMMITMENTS.c.delivery_id == delivery.delivery_id
    return sa.select(COMMITMENTS).where(mine).order_by(COMMITMENTS.c.asked_at, COMMITMENTS.c.transaction_uid)
