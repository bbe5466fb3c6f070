"""Table ``objects``: the series that we issued, written before the first instance of one leaves the node."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from twin_scanner.service.ledger.columns import METADATA
from twin_scanner.service.ledger.database import Database, Transaction

OBJECTS: Final = sa.Table(
    "objects",
    METADATA,
    sa.Column("series_uid", sa.String(64), primary_key=True),
    sa.Column("job_id", sa.String(32), nullable=False, index=True),
    sa.Column("modality", sa.String(16), nullable=False),
    sa.Column("instance_count", sa.Integer, nullable=False),
)


@dataclass(frozen=True)
class IssuedSeries:
    """A series of ours; the UIDs of its instances stand in the job's report (``results``)."""

    series_uid: str
    modality: str
    instance_count: int


class Objects:
    """Queries on what we issued."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, write: Transaction, job_id: str, issued: Sequence[IssuedSeries]) -> None:
        """Remember the series of a job that was just rendered."""
        for series in issued:
            write.execute(OBJECTS.insert().values(job_id=job_id, **vars(series)))

    def has_issued(self, series_uid: str) -> bool:
        """Whether this series is ours."""
        with self._database.read() as connection:
            query = sa.select(OBJECTS.c.job_id).where(OBJECTS.c.series_uid == series_uid)
            return connection.execute(query).first() is not None

    def of_job(self, job_id: str) -> list[IssuedSeries]:
        """The series of one job."""
        query = sa.select(OBJECTS).where(OBJECTS.c.job_id == job_id).order_by(OBJECTS.c.series_uid)
        with self._database.read() as connection:
            return [IssuedSeries(row.series_uid, row.modality, row.instance_count) for row in connection.execute(query)]
