"""Table ``jobs``: one render each, of one CT series of a study and frame of reference, and what has become of it."""

import hashlib
import string
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from twin_scanner.errors import Rejected
from twin_scanner.service.ledger.claims import AT_ONCE, Claims
from twin_scanner.service.ledger.columns import METADATA, UtcDateTime, waiting_columns
from twin_scanner.service.ledger.database import Transaction, chunks
from twin_scanner.service.ledger.moves import ENDED, State
from twin_scanner.service.ledger.priority import Priority, turn_at

RENDER: Final = "render"
"""The kind of job that there is today."""
OTHER_NODE: Final = "other node"
"""What a job is held for whose series another node has more of."""
REAL_PET: Final = "real PET"
"""What a job is held for whose study holds a PET that is not ours."""
IDENTITY: Final = "identity"
"""What a job is held for whose CT contradicts the twin record's patient."""
OTHER_PATIENT: Final = "other patient"
"""What a job is held for whose study was another patient's until now."""
OUTSIDE_TRAINING: Final = "outside training"
"""What a job is held for whose CT is of a kind that its model was not trained on."""
_NOT_CLEARED: Final = sa.text("cleared_at IS NULL")
_CLAIMED: Final = sa.text("lease_owner IS NOT NULL")
JOBS: Final = sa.Table(
    "jobs",
    METADATA,
    sa.Column("job_id", sa.String(32), primary_key=True),
    *waiting_columns(),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("study_uid", sa.String(64), nullable=False, index=True),
    sa.Column("frame_of_reference_uid", sa.String(64), nullable=False),
    sa.Column("series_uid", sa.String(64), nullable=False),
    sa.Column("source_digest", sa.String(64), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("made_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("cleared_at", UtcDateTime),
    sa.Column("stood_at", sa.String(16)),
    sa.Column("held_for", sa.String(32), nullable=False),
    sa.Column("skipped", sa.JSON, nullable=False),
    sa.Column("instance_count", sa.Integer, nullable=False),
    sa.Column("pet_series_uid", sa.String(64), unique=True),
    sa.Column("model_hash", sa.String(64)),
    sa.Column("turn_at", UtcDateTime),
    sa.Column("evidence", sa.String(64), nullable=False, server_default=""),
    sa.Column("windows_done", sa.Integer),
    sa.Column("windows", sa.Integer),
    sa.Index("ix_jobs_lane", "state", "node", "turn_at", "due_at", "job_id"),
    sa.Index("ix_jobs_newest", "made_at", "job_id"),
    sa.Index("ix_jobs_newest_in_state", "state", "made_at", "job_id"),
    sa.Index("ix_jobs_clearing", "ended_at", "job_id", sqlite_where=_NOT_CLEARED, postgresql_where=_NOT_CLEARED),
    sa.Index("ix_jobs_claimed", "node", sqlite_where=_CLAIMED, postgresql_where=_CLAIMED),
)


@dataclass(frozen=True)
class Job:
    """One row. ``stood_at`` is where it goes on after a release or a retry; of two jobs the earlier turn is first.

    ``evidence`` says why the CT was taken for complete, ``windows_done`` of ``windows`` how far the networks are in the
    render that runs, or came in the last one. ``made_at`` and ``updated_at`` are wall times, ``ended_at``,
    ``due_at``, ``turn_at`` and ``waiting_since`` steady ones.
    """

    job_id: str
    node: str | None
    state: State
    attempts: int
    due_at: datetime | None
    waiting_since: datetime | None
    lease_owner: str | None
    begun_at: datetime | None
    reason: str
    kind: str
    priority: int
    study_uid: str
    frame_of_reference_uid: str
    series_uid: str
    source_digest: str
    revision: int
    made_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    cleared_at: datetime | None
    stood_at: State | None
    held_for: str
    skipped: tuple[tuple[str, str], ...]
    instance_count: int
    pet_series_uid: str | None
    model_hash: str | None
    turn_at: datetime | None
    evidence: str
    windows_done: int | None
    windows: int | None

    @property
    def facts(self) -> dict[str, str]:
        """What each line of the log on this job says of it."""
        return {"job_id": self.job_id, "study_uid": self.study_uid, "series_uid": self.series_uid}


@dataclass(frozen=True)
class NewJob:
    """What intake knows of a series that is to be translated."""

    study_uid: str
    frame_of_reference_uid: str
    series_uid: str
    source_digest: str
    instance_count: int
    skipped: tuple[tuple[str, str], ...] = ()
    priority: int = Priority.ROUTINE
    evidence: str = ""

    @property
    def job_id(self) -> str:
        """The same source content always has the same job: sending a CT again opens nothing new."""
        key = "\n".join((self.study_uid, self.frame_of_reference_uid, self.source_digest))
        return hashlib.sha256(key.encode()).hexdigest()[:32]


class Jobs(Claims[Job]):
    """Queries on the jobs; the lane that claims them renders."""

    table = JOBS
    key = "job_id"
    row_type = Job
    states = State
    waits = (State.QUEUED,)

    def open(self, new: NewJob, rejection: str | None = None, hold: str | None = None) -> Job:
        """The job of this source, opened where it is new: as rejected or as held where there is a reason for it.

        ``hold`` with ``rejection``: no older job is to be rendered either.

        An older job of the same study and frame of reference that was not rendered yet is superseded; where a PET was
        rendered, the new job is its next revision. Files that come again for an ended job are cleared again. Where
        another node has more of the series, the job is opened as held, and takes nobody's place.
        """
        with self._database.write() as write:
            write.lock(f"study {new.study_uid}")
            siblings = self._siblings(write, new.study_uid, new.frame_of_reference_uid)
            for known in siblings:
                if known.job_id == new.job_id:
                    return self._with_files(write, known)
            elsewhere = self._more_elsewhere(siblings, new)
            state, reason, held_for = State.QUEUED, "", ""
            if rejection is not None:
                state, reason = State.REJECTED, rejection
            elif elsewhere is not None:
                state, reason, held_for = State.HELD, elsewhere, OTHER_NODE
            elif hold is not None:
                state, reason, held_for = State.HELD, hold, REAL_PET
            if state == State.QUEUED or (hold is not None and held_for != OTHER_NODE):
                for older in siblings:
                    if _gives_way(older):
                        self.move(write, older, State.SUPERSEDED, reason="More of the study arrived.")
            values = {
                "job_id": new.job_id,
                "node": self._database.node,
                "state": state.value,
                "attempts": 0,
                "due_at": write.steady,
                "waiting_since": write.steady,
                "reason": reason,
                "kind": RENDER,
                "priority": new.priority,
                "study_uid": new.study_uid,
                "frame_of_reference_uid": new.frame_of_reference_uid,
                "series_uid": new.series_uid,
                "source_digest": new.source_digest,
                "revision": _next_revision(siblings),
                "made_at": write.now,
                "updated_at": write.now,
                "ended_at": None if rejection is None else write.steady,
                "stood_at": None if state == State.QUEUED else State.QUEUED.value,
                "held_for": held_for,
                "skipped": [list(pair) for pair in new.skipped],
                "instance_count": new.instance_count,
                "turn_at": turn_at(write.steady, new.priority),
                "evidence": new.evidence,
            }
            write.execute(self.table.insert().values(**values))
            write.note("jobs", new.job_id, "opened" if state == State.QUEUED else state.value)
            return self._row(write.execute(sa.select(JOBS).where(JOBS.c.job_id == new.job_id)).one())

    def keep_files_again(self, job: Job) -> None:
        """Files of the job's study came again: they are cleared again once they are old enough."""
        with self._database.write() as write:
            self._with_files(write, self.locked(write, job.job_id))

    def check_newest(self, write: Transaction, job: Job) -> None:
        """Raise Rejected where a later job of the same study and frame of reference has taken this one's place."""
        for other in self._siblings(write, job.study_uid, job.frame_of_reference_uid):
            if other.made_at > job.made_at and other.state not in (State.REJECTED, State.SUPERSEDED):
                raise Rejected(
                    f"More of the study has arrived since job {job.job_id}: job {other.job_id} has taken its place."
                )

    def check_not_replaced(self, write: Transaction, job: Job) -> None:
        """Raise Rejected where a later revision of the job's PET was made: that one is to be sent.

        All of them are locked, in one order, so that no two wait for each other.
        """
        siblings = self._siblings(write, job.study_uid, job.frame_of_reference_uid)
        if is_replaced(job, siblings):
            latest = max((one for one in siblings if one.pet_series_uid), key=lambda one: one.revision)
            raise Rejected(
                f"A later revision has replaced the PET of job {job.job_id}: send job {latest.job_id} again."
            )

    def claim(self, kind: str = RENDER) -> Job | None:
        """The queued job that comes first, claimed for the calling thread."""
        return self._claim(JOBS.c.kind == kind)

    def note_windows(self, job: Job, done: int, windows: int) -> None:
        """Say how far the networks of a render are; nothing is said of a job that is not this thread's any more."""
        mine = (JOBS.c.job_id == job.job_id, JOBS.c.lease_owner == job.lease_owner)
        with self._database.write() as write:
            write.execute(JOBS.update().where(*mine).values(windows_done=done, windows=windows))

    def mine(self, write: Transaction, job: Job) -> Job:
        """The job as it is now, locked; raises LeaseLost where it is not this thread's any more."""
        return self._mine(write, job)

    def hold(self, job: Job, reason: str, held_for: str = "") -> None:
        """A person must decide; ``jobs release`` lets it go on."""
        with self._database.write() as write:
            held = self._mine(write, job)
            self.move(write, held, State.HELD, reason=reason, held_for=held_for, stood_at=held.state.value)
            if held_for:
                write.note("jobs", held.job_id, f"held for {held_for}")

    def reject(self, job: Job, reason: str) -> None:
        """The CT itself is wrong, for a reason that a PACS administrator understands."""
        self._give_up(job, State.REJECTED, reason)

    def fail(self, job: Job, reason: str) -> None:
        """A fault of ours, or the age limit."""
        self._give_up(job, State.FAILED, reason)

    def move(self, write: Transaction, job: Job, state: State, **values: Any) -> None:
        """Go to another state; whoever worked on the job learns that it is not theirs any more."""
        ended_at = write.steady if state in ENDED else None
        self._move(write, job, state, **{"updated_at": write.now, "ended_at": ended_at, "due_at": None, **values})

    def put_on(self, write: Transaction, job: Job) -> State:
        """A held, failed or rejected job goes on where it stood, as if it had never been tried."""
        stood_at = job.stood_at or State.QUEUED
        facts: dict[str, Any] = {"attempts": 0, "reason": "", "held_for": "", "waiting_since": write.steady}
        if stood_at == State.QUEUED:
            siblings = self._siblings(write, job.study_uid, job.frame_of_reference_uid)
            facts["revision"] = _next_revision(siblings)
        due_at = AT_ONCE if stood_at == State.QUEUED else None
        self.move(write, job, stood_at, stood_at=None, due_at=due_at, **facts)
        return stood_at

    def locked(self, write: Transaction, job_id: str) -> Job:
        """The job, locked until the transaction ends."""
        return self._row(write.execute(sa.select(JOBS).where(JOBS.c.job_id == job_id).with_for_update()).one())

    def find(self, beginning: str) -> Job:
        """One job by its id or the beginning of it; raises Rejected where none or several fit."""
        found: list[Job] = []
        if beginning and set(beginning) <= set(string.hexdigits.lower()):
            # Of what begins with hexadecimal digits, nothing sorts behind a 'g': a range, which an index answers.
            fits = (JOBS.c.job_id >= beginning, JOBS.c.job_id < beginning + "g")
            with self._database.read() as connection:
                found = [self._row(row) for row in connection.execute(sa.select(JOBS).where(*fits).limit(2))]
        if len(found) == 1:
            return found[0]
        fault = "Several jobs begin" if found else "No job begins"
        raise Rejected(f"{fault} with '{beginning}': 'twin-scanner jobs list' shows them.")

    def newest(self, state: State | None = None, limit: int = 1000) -> list[Job]:
        """The newest jobs, newest first."""
        query = sa.select(JOBS).order_by(JOBS.c.made_at.desc(), JOBS.c.job_id.desc()).limit(limit)
        if state is not None:
            query = query.where(JOBS.c.state == state.value)
        with self._database.read() as connection:
            return [self._row(row) for row in connection.execute(query)]

    def given_up(self, reason: str) -> list[Job]:
        """Failed and rejected jobs that can be tried again, and whose reason contains these words."""
        columns = JOBS.c
        possible = (columns.state.in_((State.FAILED.value, State.REJECTED.value)), columns.series_uid != "")
        query = sa.select(JOBS).where(
            *possible, columns.cleared_at.is_(None), columns.reason.contains(reason, autoescape=True)
        )
        with self._database.read() as connection:
            return [self._row(row) for row in connection.execute(query)]

    def of_study(self, study_uid: str, frame_of_reference_uid: str) -> list[Job]:
        """The jobs of one study and frame of reference, oldest first."""
        with self._database.read() as connection:
            return [self._row(row) for row in connection.execute(_of_study(study_uid, frame_of_reference_uid))]

    def with_files_elsewhere(self, job_ids: Sequence[str]) -> list[str]:
        """Those of these jobs whose files another node has and has not cleared; what lies here, the disk says."""
        found: list[str] = []
        theirs = (JOBS.c.node != self._database.node, JOBS.c.cleared_at.is_(None))
        for some in chunks(job_ids):
            kept = sa.select(JOBS.c.job_id).where(JOBS.c.job_id.in_(some), *theirs)
            with self._database.read() as connection:
                found += connection.execute(kept.order_by(JOBS.c.made_at, JOBS.c.job_id)).scalars()
        return found

    def held_of_study(self, study_uid: str) -> list[Job]:
        """The jobs of a study that are held."""
        held = (JOBS.c.study_uid == study_uid, JOBS.c.state == State.HELD.value)
        with self._database.read() as connection:
            return [self._row(row) for row in connection.execute(sa.select(JOBS).where(*held))]

    def rendered_of_study(self, study_uid: str) -> list[Job]:
        """The jobs of a study, of whatever frame of reference, that have made a PET; oldest first."""
        made = (JOBS.c.study_uid == study_uid, JOBS.c.pet_series_uid.is_not(None))
        with self._database.read() as connection:
            query = sa.select(JOBS).where(*made).order_by(JOBS.c.made_at, JOBS.c.job_id)
            return [self._row(row) for row in connection.execute(query)]

    def rendered_since(self, since: datetime | None) -> list[Job]:
        """The jobs that have made a PET since that moment, or ever; oldest first."""
        made = [JOBS.c.pet_series_uid.is_not(None)] + ([] if since is None else [JOBS.c.made_at >= since])
        with self._database.read() as connection:
            query = sa.select(JOBS).where(*made).order_by(JOBS.c.made_at, JOBS.c.job_id)
            return [self._row(row) for row in connection.execute(query)]

    def to_clear(self, before: datetime, after: Job | None, limit: int) -> list[Job]:
        """This node's jobs that ended before a steady moment and have files, in the order in which they ended.

        ``after`` is the last job of the batch before.
        """
        due = [JOBS.c.node == self._database.node, JOBS.c.cleared_at.is_(None), JOBS.c.ended_at < before]
        if after is not None:
            due.append(sa.tuple_(JOBS.c.ended_at, JOBS.c.job_id) > sa.tuple_(after.ended_at, after.job_id))
        query = sa.select(JOBS).where(*due).order_by(JOBS.c.ended_at, JOBS.c.job_id).limit(limit)
        with self._database.read() as connection:
            return [self._row(row) for row in connection.execute(query)]

    def clear(self, job_ids: Collection[str]) -> list[str]:
        """Give up the files of these jobs, which no retry starts on from now on; returns those that had ended.

        The files are removed afterwards. What a retry has taken up meanwhile keeps them.
        """
        cleared = []
        with self._database.write() as write:
            for job_id in job_ids:
                ended = (JOBS.c.job_id == job_id, JOBS.c.ended_at.is_not(None))
                if write.execute(JOBS.update().where(*ended).values(cleared_at=write.now)).rowcount:
                    write.note("jobs", job_id, "cleared")
                    cleared.append(job_id)
        return cleared

    def needless(self, job_ids: Sequence[str]) -> list[str]:
        """Those of these jobs, which have a folder on this node, whose folder nothing will ever be done with.

        A job of this node that was cleared, and a copy of another node's job, once that one has ended, which is noted.
        """
        found, ours = [], self._database.node
        useless = sa.or_(JOBS.c.cleared_at.is_not(None), sa.and_(JOBS.c.node != ours, JOBS.c.ended_at.is_not(None)))
        for some in chunks(job_ids):
            with self._database.read() as connection:
                query = sa.select(JOBS.c.job_id, JOBS.c.node).where(JOBS.c.job_id.in_(some), useless)
                found += list(connection.execute(query))
        copies = [row.job_id for row in found if row.node != ours]
        if copies:
            with self._database.write() as write:
                for job_id in copies:
                    write.note("jobs", job_id, "copy cleared")
        return [row.job_id for row in found]

    def adopt(self, job_ids: Sequence[str]) -> int:
        """Jobs that an earlier version left without a node, and whose files lie here, are this node's; how many."""
        with self._database.write() as write:
            ours = (JOBS.c.node.is_(None), JOBS.c.job_id.in_(job_ids))
            return write.execute(JOBS.update().where(*ours).values(node=self._database.node)).rowcount

    def _siblings(self, write: Transaction, study_uid: str, frame_of_reference_uid: str) -> list[Job]:
        """The jobs of one study and frame of reference, oldest first, locked: none moves on meanwhile."""
        query = _of_study(study_uid, frame_of_reference_uid).with_for_update()
        return [self._row(row) for row in write.execute(query)]

    def _more_elsewhere(self, siblings: Sequence[Job], new: NewJob) -> str | None:
        """Why a person must decide where another node has received more of the same series than this one."""
        gone = (State.REJECTED, State.SUPERSEDED)
        for older in siblings:
            more = older.instance_count > new.instance_count and older.series_uid == new.series_uid
            if more and older.node not in (None, self._database.node) and older.state not in gone:
                return (
                    f"Node {older.node} has {older.instance_count} instances of this series, this one has "
                    f"{new.instance_count}: send the whole study to one node, or release this job as it is."
                )
        return None

    def _with_files(self, write: Transaction, job: Job) -> Job:
        if job.cleared_at is None or job.node != self._database.node:
            return job
        self._update(write, job, cleared_at=None, ended_at=write.steady if job.ended_at else None)
        return self.locked(write, job.job_id)

    def _give_up(self, job: Job, state: State, reason: str) -> None:
        with self._database.write() as write:
            mine = self._mine(write, job)
            self.move(write, mine, state, reason=reason, stood_at=mine.state.value)

    def _begun(self) -> dict[str, Any]:
        return {"windows_done": None, "windows": None}

    def _order(self) -> tuple[sa.ColumnElement[Any], ...]:
        return (JOBS.c.turn_at, *super()._order())

    def _row(self, found: sa.Row[Any]) -> Job:
        job = super()._row(found)
        skipped = tuple((str(series_uid), str(reason)) for series_uid, reason in job.skipped)
        stood_at = State(job.stood_at) if job.stood_at else None
        return Job(**{**vars(job), "skipped": skipped, "stood_at": stood_at})


def _next_revision(siblings: Sequence[Job]) -> int:
    return 1 + sum(job.pet_series_uid is not None for job in siblings)


def _gives_way(older: Job) -> bool:
    """Whether nothing of the job was rendered yet, and it may still be: more of its study takes its place."""
    waits = older.state in (State.QUEUED, State.HELD, State.FAILED)
    return waits and State.QUEUED in (older.state, older.stood_at)


def is_replaced(job: Job, revisions: Iterable[Job]) -> bool:
    """Whether one of the revisions of its PET was rendered and is a later one."""
    return any(other.pet_series_uid and other.revision > job.revision for other in revisions)


def _of_study(study_uid: str, frame_of_reference_uid: str) -> sa.Select[Any]:
    return (
        sa.select(JOBS)
        .where(JOBS.c.study_uid == study_uid, JOBS.c.frame_of_reference_uid == frame_of_reference_uid)
        .order_by(JOBS.c.revision, JOBS.c.made_at, JOBS.c.job_id)
    )
