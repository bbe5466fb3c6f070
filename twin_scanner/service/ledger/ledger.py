"""The ledger: one row a job, its states and legal moves in one table; only this module writes it."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import alembic.command
import alembic.config
import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from twin_scanner.errors import Defect, Rejected, Transient
from twin_scanner.files.sqlite_file import prepare_sqlite
from twin_scanner.service.ledger.schema import INTAKE, JOBS

LOOK_TIMEOUT_S: Final = 5.0
"""Whoever only looks at a ledger does not wait longer for its database."""
_MIGRATIONS: Final = str(files("twin_scanner.service.ledger") / "migrations")


class State(StrEnum):
    """A job's state is the last step that is safely behind it; a lease says that someone works on the next one."""

    QUEUED = "queued"
    RENDERED = "rendered"
    DELIVERED = "delivered"
    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"
    SUPERSEDED = "superseded"


MOVES: Final = MappingProxyType(
    {
        State.QUEUED: frozenset({State.RENDERED, State.REJECTED, State.FAILED, State.SUPERSEDED}),
        State.RENDERED: frozenset({State.DELIVERED, State.REJECTED, State.FAILED}),
        State.DELIVERED: frozenset({State.DONE, State.REJECTED, State.FAILED}),
        State.DONE: frozenset[State](),
        State.REJECTED: frozenset({State.QUEUED, State.RENDERED, State.DELIVERED}),
        State.FAILED: frozenset({State.QUEUED, State.RENDERED, State.DELIVERED}),
        State.SUPERSEDED: frozenset[State](),
    }
)
"""Every legal move; those out of REJECTED and FAILED are made by ``retry`` alone, to where the job stood."""
OPEN_STATES: Final = (State.QUEUED, State.RENDERED, State.DELIVERED)


@dataclass(frozen=True)
class Job:
    """One row: a CT series of one study and frame of reference, and what has become of it."""

    job_id: str
    study_uid: str
    frame_of_reference_uid: str
    series_uid: str
    source_digest: str
    state: State
    revision: int
    attempts: int
    made_at: datetime
    updated_at: datetime
    due_at: datetime
    stood_at: State | None
    lease_owner: str | None
    lease_until: datetime | None
    reason: str
    skipped: tuple[tuple[str, str], ...]
    instance_count: int
    pet_series_uid: str | None
    model_hash: str | None


@dataclass(frozen=True)
class NewJob:
    """What intake knows of a series that is to be translated."""

    study_uid: str
    frame_of_reference_uid: str
    series_uid: str
    source_digest: str
    instance_count: int
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def job_id(self) -> str:
        """The same source content always has the same job: sending a CT again opens nothing new."""
        key = "\n".join((self.study_uid, self.frame_of_reference_uid, self.source_digest))
        return hashlib.sha256(key.encode()).hexdigest()[:32]


class Ledger:
    """Jobs on SQLite (WAL) or PostgreSQL; every method is one transaction."""

    def __init__(self, url: str, now: Callable[[], datetime]) -> None:
        self._now = now
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            prepare_sqlite(self._engine)
        self._migrate()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def open_job(self, new: NewJob, rejection: str | None = None) -> Job:
        """The job of this source, opened where it is new; ``rejection`` opens it as rejected with that reason.

        An older job of the same study and frame of reference that was not rendered yet is superseded; where a PET was
        rendered, the new job is its next revision.
        """
        with self._begin() as connection:
            known = connection.execute(sa.select(JOBS).where(JOBS.c.job_id == new.job_id)).one_or_none()
            if known is not None:
                return _job(known)
            siblings = [_job(row) for row in connection.execute(_of_study(new.study_uid, new.frame_of_reference_uid))]
            if rejection is None:
                for older in siblings:
                    if older.state == State.QUEUED:
                        self._move(connection, older, State.SUPERSEDED, reason="More of the study arrived.")
            now = self._now()
            connection.execute(
                JOBS.insert().values(
                    job_id=new.job_id,
                    study_uid=new.study_uid,
                    frame_of_reference_uid=new.frame_of_reference_uid,
                    series_uid=new.series_uid,
                    source_digest=new.source_digest,
                    state=State.REJECTED if rejection is not None else State.QUEUED,
                    revision=1 + sum(older.pet_series_uid is not None for older in siblings),
                    attempts=0,
                    made_at=now,
                    updated_at=now,
                    due_at=now,
                    stood_at=State.QUEUED if rejection is not None else None,
                    reason=rejection or "",
                    skipped=[list(pair) for pair in new.skipped],
                    instance_count=new.instance_count,
                )
            )
            return _job(connection.execute(sa.select(JOBS).where(JOBS.c.job_id == new.job_id)).one())

    def claim(self, owner: str, lease_s: float) -> Job | None:
        """The open job that has been due the longest and that nobody holds, leased to ``owner``; None without one.

        ``owner`` is ``node/worker``, a name that no other thread of any node bears.
        """
        with self._begin() as connection:
            now = self._now()
            free = sa.or_(JOBS.c.lease_until.is_(None), JOBS.c.lease_until <= now)
            due = (
                sa.select(JOBS)
                .where(JOBS.c.state.in_(OPEN_STATES), JOBS.c.due_at <= now, free)
                .order_by(JOBS.c.due_at, JOBS.c.job_id)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            row = connection.execute(due).one_or_none()
            if row is None:
                return None
            lease = {"lease_owner": owner, "lease_until": now + timedelta(seconds=lease_s)}
            connection.execute(JOBS.update().where(JOBS.c.job_id == row.job_id).values(**lease))
            return _job(connection.execute(sa.select(JOBS).where(JOBS.c.job_id == row.job_id)).one())

    def extend(self, job: Job, lease_s: float) -> None:
        """Prolong the lease; raises Transient where it was lost, so that the holder stops."""
        with self._begin() as connection:
            held = self._held(connection, job)
            until = self._now() + timedelta(seconds=lease_s)
            connection.execute(JOBS.update().where(JOBS.c.job_id == held.job_id).values(lease_until=until))

    def advance(
        self, job: Job, state: State, *, pet_series_uid: str | None = None, model_hash: str | None = None
    ) -> None:
        """The next step is safely done: move on, end the lease and start counting attempts anew."""
        facts: dict[str, Any] = {"attempts": 0, "reason": ""}
        if pet_series_uid is not None:
            facts |= {"pet_series_uid": pet_series_uid, "model_hash": model_hash}
        with self._begin() as connection:
            self._move(connection, self._held(connection, job), state, **facts)

    def end(self, job: Job, state: State, reason: str) -> None:
        """Reject or fail the job for good, with a reason a PACS administrator understands."""
        with self._begin() as connection:
            held = self._held(connection, job)
            self._move(connection, held, state, reason=reason, stood_at=held.state)

    def postpone(self, job: Job, delay_s: float, reason: str) -> None:
        """Count a failed attempt, end the lease and make the job due again after ``delay_s`` seconds."""
        with self._begin() as connection:
            held = self._held(connection, job)
            values = {
                "attempts": held.attempts + 1,
                "due_at": self._now() + timedelta(seconds=delay_s),
                "reason": reason,
                "lease_owner": None,
                "lease_until": None,
                "updated_at": self._now(),
            }
            connection.execute(JOBS.update().where(JOBS.c.job_id == held.job_id).values(**values))

    def retry(self, job_id: str) -> Job:
        """Put a failed or rejected job back to where it stood; raises Rejected for any other."""
        with self._begin() as connection:
            job = self._find(connection, job_id)
            if job.stood_at is None or job.state not in (State.FAILED, State.REJECTED) or not job.series_uid:
                raise Rejected(
                    f"Job {job.job_id} is {job.state} and cannot be tried again: only a failed or rejected one can."
                )
            self._move(connection, job, job.stood_at, attempts=0, due_at=self._now(), reason="", stood_at=None)
            return self._find(connection, job_id)

    def release(self, node: str) -> int:
        """End every lease of this node's workers: called at its start, when whatever they held is known to be dead."""
        with self._begin() as connection:
            of_node = JOBS.c.lease_owner.startswith(f"{node}/", autoescape=True)
            values = {"lease_owner": None, "lease_until": None}
            return connection.execute(JOBS.update().where(of_node).values(**values)).rowcount

    def job(self, job_id: str) -> Job:
        """One job by its id or the beginning of it; raises Rejected where none or several fit."""
        with self._begin() as connection:
            return self._find(connection, job_id)

    def jobs(self, state: State | None = None, limit: int = 1000) -> list[Job]:
        """The newest jobs, newest first."""
        query = sa.select(JOBS).order_by(JOBS.c.made_at.desc(), JOBS.c.job_id).limit(limit)
        if state is not None:
            query = query.where(JOBS.c.state == state)
        with self._begin() as connection:
            return [_job(row) for row in connection.execute(query)]

    def of_study(self, study_uid: str, frame_of_reference_uid: str) -> list[Job]:
        """The jobs of one study and frame of reference, oldest first."""
        with self._begin() as connection:
            return [_job(row) for row in connection.execute(_of_study(study_uid, frame_of_reference_uid))]

    def has_issued(self, series_uid: str) -> bool:
        """Whether this series is one that the ledger's jobs have made."""
        with self._begin() as connection:
            query = sa.select(JOBS.c.job_id).where(JOBS.c.pet_series_uid == series_uid).limit(1)
            return connection.execute(query).one_or_none() is not None

    def intake_fingerprint(self, study_uid: str) -> str | None:
        """What the spool's folder of this study looked like when intake last went through it."""
        with self._begin() as connection:
            return connection.execute(sa.select(INTAKE.c.fingerprint).where(INTAKE.c.study_uid == study_uid)).scalar()

    def intake_done(self, study_uid: str, fingerprint: str) -> None:
        """Remember that intake went through the study as it looks now."""
        with self._begin() as connection:
            connection.execute(INTAKE.delete().where(INTAKE.c.study_uid == study_uid))
            row = {"study_uid": study_uid, "fingerprint": fingerprint, "taken_at": self._now()}
            connection.execute(INTAKE.insert().values(**row))

    def ended_before(self, moment: datetime) -> list[Job]:
        """Jobs that ended before ``moment`` and need no more help: their files may go. Failed ones wait."""
        ended = JOBS.c.state.in_((State.DONE, State.SUPERSEDED, State.REJECTED))
        with self._begin() as connection:
            query = sa.select(JOBS).where(ended, JOBS.c.updated_at < moment)
            return [_job(row) for row in connection.execute(query)]

    def needs_files(self, study_uid: str, moment: datetime) -> bool:
        """Whether some job of the study is open, has failed, or ended only after ``moment``."""
        ended = JOBS.c.state.in_((State.DONE, State.SUPERSEDED, State.REJECTED))
        with self._begin() as connection:
            needing = sa.or_(sa.not_(ended), JOBS.c.updated_at >= moment)
            query = sa.select(JOBS.c.job_id).where(JOBS.c.study_uid == study_uid, needing).limit(1)
            return connection.execute(query).one_or_none() is not None

    def _move(self, connection: sa.Connection, job: Job, state: State, **facts: Any) -> None:
        if state not in MOVES[job.state]:
            raise Defect(f"Job {job.job_id} cannot go from {job.state} to {state}.")
        now = self._now()
        values = {"state": state, "updated_at": now, "due_at": now, "lease_owner": None, "lease_until": None, **facts}
        connection.execute(JOBS.update().where(JOBS.c.job_id == job.job_id).values(**values))

    def _held(self, connection: sa.Connection, job: Job) -> Job:
        row = connection.execute(sa.select(JOBS).where(JOBS.c.job_id == job.job_id).with_for_update()).one()
        current = _job(row)
        if current.lease_owner != job.lease_owner or current.state != job.state or current.lease_owner is None:
            raise Transient(f"The lease of job {job.job_id} was lost; whoever holds it now goes on.")
        return current

    def _find(self, connection: sa.Connection, job_id: str) -> Job:
        rows = connection.execute(sa.select(JOBS).where(JOBS.c.job_id.startswith(job_id, autoescape=True))).all()
        if len(rows) != 1:
            found = "No job" if not rows else f"{len(rows)} jobs"
            raise Rejected(f"{found} begins with '{job_id}': 'twin-scanner jobs list' shows them.")
        return _job(rows[0])

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise Transient("The ledger's database does not answer; see ledger.url in the configuration.") from error

    def _migrate(self) -> None:
        config = alembic.config.Config()
        config.set_main_option("script_location", _MIGRATIONS)
        with self._begin() as connection:
            config.attributes["connection"] = connection
            try:
                alembic.command.upgrade(config, "head")
            except CommandError as error:
                raise Rejected(
                    "The ledger was written by a newer version of twin-scanner: run that version, or give ledger.url a "
                    "database of its own."
                ) from error


@dataclass(frozen=True)
class MigrationState:
    """Which migration a ledger's database is at (None: it is empty), which one this version needs, and all it knows."""

    found: str | None
    wanted: str
    known: frozenset[str]


def migration_state(url: str) -> MigrationState | None:
    """How a ledger stands, without changing it; None where its file is not there yet.

    Raises Rejected where the database's driver is missing, Transient where it cannot be opened.
    """
    script = ScriptDirectory(_MIGRATIONS)
    try:
        database = sa.make_url(url)
        if database.get_backend_name() == "sqlite" and not Path(database.database or "").is_file():
            return None
        found = _revision_of(database)
    except ImportError as error:
        raise Rejected("The driver for ledger.url is not installed: pip install 'twin-scanner[postgresql]'.") from error
    except SQLAlchemyError as error:
        raise Transient(
            "The ledger cannot be opened: check ledger.url, that the database runs, and its rights."
        ) from error
    known = frozenset(revision.revision for revision in script.walk_revisions())
    return MigrationState(found, str(script.get_current_head()), known)


def _revision_of(database: sa.URL) -> str | None:
    seconds = {"sqlite": "timeout", "postgresql": "connect_timeout"}.get(database.get_backend_name())
    patience = {seconds: int(LOOK_TIMEOUT_S)} if seconds else {}
    engine = sa.create_engine(database, connect_args=patience, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _of_study(study_uid: str, frame_of_reference_uid: str) -> sa.Select[Any]:
    return (
        sa.select(JOBS)
        .where(JOBS.c.study_uid == study_uid, JOBS.c.frame_of_reference_uid == frame_of_reference_uid)
        .order_by(JOBS.c.made_at, JOBS.c.job_id)
    )


def _job(row: sa.Row[Any]) -> Job:
    values = dict(row._mapping)
    values["state"] = State(values["state"])
    values["stood_at"] = State(values["stood_at"]) if values["stood_at"] else None
    values["skipped"] = tuple((str(series_uid), str(reason)) for series_uid, reason in values["skipped"])
    return Job(**values)


def utc_now() -> datetime:
    """The wall clock, aware."""
    return datetime.now(UTC)
