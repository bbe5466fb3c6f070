"""Table ``twin_updates``: what each job adds to the twin record, kept so that the record can be made again anywhere.

It alone holds a patient's identity; ``erase`` takes it out again, and leaves a row that says so.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from twin_scanner.service.ledger.columns import METADATA, UtcDateTime
from twin_scanner.service.ledger.database import Database, Transaction, chunks
from twin_scanner.service.ledger.deliveries import DELIVERIES, REPLACED
from twin_scanner.service.ledger.jobs import JOBS
from twin_scanner.service.ledger.moves import DeliveryState

UPDATES: Final = sa.Table(
    "twin_updates",
    METADATA,
    sa.Column("job_id", sa.String(32), primary_key=True),
    sa.Column("made_at", UtcDateTime, nullable=False),
    sa.Column("patient_id", sa.Text),
    sa.Column("document", sa.JSON(none_as_null=True)),
    sa.Column("target", sa.Text),
    sa.Column("recorded_at", UtcDateTime),
    sa.Column("erased_at", UtcDateTime),
    sa.Index("ix_twin_updates_order", "made_at", "job_id"),
    sa.Index("ix_twin_updates_patient", "patient_id"),
)
BATCH: Final = 100
"""Updates that are read at once: one is as long as its lists of instances."""


@dataclass(frozen=True)
class KeptUpdate:
    """One update as it was recorded, or is to be; ``document`` is its JSON, ``made_at`` the moment of its job."""

    job_id: str
    made_at: datetime
    patient_id: str
    document: dict[str, Any]


@dataclass(frozen=True)
class Which:
    """Which updates are meant: all, those made or recorded since a moment, or those of one patient id."""

    since: datetime | None = None
    patient_id: str | None = None

    def condition(self) -> sa.ColumnElement[bool]:
        """As SQL has it."""
        columns = UPDATES.c
        if self.patient_id is not None:
            return columns.patient_id == self.patient_id
        if self.since is not None:
            return sa.or_(columns.made_at >= self.since, columns.recorded_at >= self.since)
        return sa.true()


class Updates:
    """Queries on the kept updates. A target is a FHIR server's address, or the embedded store's name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, update: KeptUpdate) -> bool:
        """Keep an update before it is recorded; False where the job's update was erased, and is not to come back."""
        mine = UPDATES.c.job_id == update.job_id
        with self._database.write() as write:
            erased_at = write.execute(sa.select(UPDATES.c.erased_at).where(mine)).one_or_none()
            if erased_at is None:
                write.execute(UPDATES.insert().values(**vars(update)))
            elif erased_at[0] is None:
                write.execute(UPDATES.update().where(mine).values(document=update.document, target=None))
            return erased_at is None or erased_at[0] is None

    def note_recorded(self, write: Transaction, job_id: str, target: str) -> None:
        """The target holds this job's update."""
        mine = (UPDATES.c.job_id == job_id, UPDATES.c.document.is_not(None))
        write.execute(UPDATES.update().where(*mine).values(target=target, recorded_at=write.now))

    def recorded(self, job_id: str, target: str) -> None:
        """The target holds this job's update."""
        with self._database.write() as write:
            self.note_recorded(write, job_id, target)

    def record_again(self, which: Which) -> int:
        """Whatever holds these updates, they are to be recorded again; how many there are."""
        with self._database.write() as write:
            kept = (UPDATES.c.document.is_not(None), which.condition())
            count = write.execute(UPDATES.update().where(*kept).values(target=None)).rowcount
            write.note(UPDATES.name, "", "record again", count=count)
            return count

    def count(self, target: str, *, only: Which, again: Which | None = None) -> int:
        """How many ``to_record`` gives, once those of ``again`` are to be recorded again."""
        with self._database.read() as connection:
            query = sa.select(sa.func.count()).select_from(UPDATES).where(*_to_record(target, only, again))
            return connection.execute(query).scalar_one()

    def to_record(self, target: str, *, only: Which) -> Iterator[KeptUpdate]:
        """The updates that the target does not hold, in the order in which their jobs were made.

        What is recorded meanwhile is passed over; what is added is given, where its turn has not gone by.
        """
        columns, last = UPDATES.c, None
        while True:
            query = sa.select(UPDATES).where(*_to_record(target, only, None))
            if last is not None:
                query = query.where(sa.tuple_(columns.made_at, columns.job_id) > sa.tuple_(last.made_at, last.job_id))
            with self._database.read() as connection:
                batch = list(connection.execute(query.order_by(columns.made_at, columns.job_id).limit(BATCH)))
            if not batch:
                return
            for row in batch:
                last = KeptUpdate(row.job_id, row.made_at, row.patient_id, row.document)
                yield last

    def of_job(self, job_id: str) -> KeptUpdate | None:
        """What is kept of a job; None where it has added nothing yet, or was erased."""
        query = sa.select(UPDATES).where(UPDATES.c.job_id == job_id, UPDATES.c.document.is_not(None))
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
            return None if row is None else KeptUpdate(row.job_id, row.made_at, row.patient_id, row.document)

    def of_study(self, study_uid: str) -> list[KeptUpdate]:
        """What is kept of the jobs of a study, oldest first."""
        jobs = sa.select(JOBS.c.job_id).where(JOBS.c.study_uid == study_uid)
        query = sa.select(UPDATES).where(UPDATES.c.job_id.in_(jobs), UPDATES.c.document.is_not(None))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(UPDATES.c.made_at, UPDATES.c.job_id))
            return [KeptUpdate(row.job_id, row.made_at, row.patient_id, row.document) for row in rows]

    def of_patient(self, patient_id: str) -> list[KeptUpdate]:
        """All that is kept under this patient id, whoever issued it."""
        query = sa.select(UPDATES).where(UPDATES.c.patient_id == patient_id, UPDATES.c.document.is_not(None))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(UPDATES.c.made_at, UPDATES.c.job_id))
            return [KeptUpdate(row.job_id, row.made_at, row.patient_id, row.document) for row in rows]

    def unkept(self) -> list[str]:
        """The jobs that an earlier version recorded without keeping their update, oldest first."""
        columns = DELIVERIES.c
        recorded = (
            columns.destination == "twin",
            columns.state == DeliveryState.CONFIRMED.value,
            columns.confirmed_by != REPLACED,
            columns.job_id.not_in(sa.select(UPDATES.c.job_id)),
        )
        query = sa.select(columns.job_id).where(*recorded).order_by(columns.confirmed_at, columns.job_id)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def erase(self, job_ids: Collection[str]) -> None:
        """Take the identity and the content out of these rows, for good."""
        gone = {"patient_id": None, "document": None, "target": None}
        with self._database.write() as write:
            for some in chunks(list(job_ids)):
                theirs = (UPDATES.c.job_id.in_(some), UPDATES.c.erased_at.is_(None))
                write.execute(UPDATES.update().where(*theirs).values(erased_at=write.now, **gone))
                for job_id in some:
                    write.note(UPDATES.name, job_id, "erased")

    def note_erased_record(self, record: str, resources: int) -> None:
        """Say in the events that a twin record, by its literal reference, was erased from the embedded store."""
        with self._database.write() as write:
            write.note("twin", record, "erased", resources=resources)


def _to_record(target: str, only: Which, again: Which | None) -> tuple[sa.ColumnElement[bool], ...]:
    columns = UPDATES.c
    missing = sa.or_(columns.target.is_(None), columns.target != target)
    wanted = missing if again is None else sa.or_(missing, again.condition())
    return (columns.document.is_not(None), only.condition(), wanted)
