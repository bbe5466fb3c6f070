"""Table ``runs``: when scheduled commands (retraining) began and how they ended."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from twin_scanner.service.ledger.columns import METADATA, UtcDateTime
from twin_scanner.service.ledger.database import Database
from twin_scanner.service.ledger.moves import RunState, check_move

RUNS: Final = sa.Table(
    "runs",
    METADATA,
    sa.Column("run_id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("node", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("exit_code", sa.Integer),
    sa.Index("ix_runs_name", "name", "run_id"),
)


@dataclass(frozen=True)
class ScheduledRun:
    """One row; both times are wall times, which is what a cron text is read against."""

    run_id: int
    name: str
    node: str
    state: RunState
    started_at: datetime
    ended_at: datetime | None
    exit_code: int | None


class Runs:
    """Queries on the runs of all nodes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, name: str) -> ScheduledRun:
        """A command is about to be started on this node."""
        values = {"name": name, "node": self._database.node, "state": RunState.RUNNING.value}
        with self._database.write() as write:
            inserted = write.execute(RUNS.insert().values(started_at=write.now, **values)).inserted_primary_key
            assert inserted is not None
            write.note("runs", inserted.run_id, "running", name=name)
            return _run(write.execute(sa.select(RUNS).where(RUNS.c.run_id == inserted.run_id)).one())

    def finish(self, run: ScheduledRun, exit_code: int | None, *, interrupted: bool = False) -> None:
        """The command has ended; ``interrupted`` says that we ended it, so that it is to be run again."""
        state = RunState.INTERRUPTED if interrupted else RunState.ENDED
        check_move(f"Run {run.run_id}", run.state, state)
        with self._database.write() as write:
            values = {"state": state.value, "ended_at": write.now, "exit_code": exit_code}
            write.execute(RUNS.update().where(RUNS.c.run_id == run.run_id).values(**values))
            write.note("runs", run.run_id, state.value, name=run.name, exit_code=exit_code)

    def last(self, name: str) -> ScheduledRun | None:
        """The command's run that was begun last, on whatever node."""
        query = sa.select(RUNS).where(RUNS.c.name == name).order_by(RUNS.c.run_id.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
            return None if row is None else _run(row)

    def newest(self, name: str, limit: int) -> list[ScheduledRun]:
        """The command's runs on all nodes, newest first."""
        query = sa.select(RUNS).where(RUNS.c.name == name).order_by(RUNS.c.run_id.desc()).limit(limit)
        with self._database.read() as connection:
            return [_run(row) for row in connection.execute(query)]

    def interrupt_earlier(self) -> None:
        """What an earlier process of this node left running has lost its parent: it counts as interrupted."""
        running = (RUNS.c.node == self._database.node, RUNS.c.state == RunState.RUNNING.value)
        with self._database.write() as write:
            values = {"state": RunState.INTERRUPTED.value, "ended_at": write.now}
            write.execute(RUNS.update().where(*running).values(**values))


def _run(row: sa.Row[Any]) -> ScheduledRun:
    return ScheduledRun(**{**row._mapping, "state": RunState(row.state)})
