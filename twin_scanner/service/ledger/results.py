"""Table ``results``: each render's report and the features of its input, kept when the files are long cleared."""

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from twin_scanner.service.ledger.columns import METADATA
from twin_scanner.service.ledger.database import Database, Transaction
from twin_scanner.service.ledger.jobs import JOBS

RESULTS: Final = sa.Table(
    "results",
    METADATA,
    sa.Column("job_id", sa.String(32), primary_key=True),
    sa.Column("report", sa.JSON, nullable=False),
    sa.Column("features", sa.JSON, nullable=False),
)


@dataclass(frozen=True)
class Result:
    """What was made (``report``), and what it was made from (``features``): numbers and UIDs, no patient data."""

    report: dict[str, Any]
    features: dict[str, Any]


class Results:
    """Queries on the results."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, write: Transaction, job_id: str, result: Result) -> None:
        """Keep the result of a job that was just rendered."""
        write.execute(RESULTS.insert().values(job_id=job_id, **vars(result)))

    def of_job(self, job_id: str) -> Result | None:
        """The job's result; None where it was not rendered, or by a version that kept none."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(RESULTS).where(RESULTS.c.job_id == job_id)).one_or_none()
            return None if row is None else Result(row.report, row.features)

    def newest(self, limit: int) -> list[Result]:
        """The results of the newest jobs that have one, newest first."""
        joined = sa.select(RESULTS.c.features).join(JOBS, JOBS.c.job_id == RESULTS.c.job_id)
        query = joined.order_by(JOBS.c.made_at.desc(), JOBS.c.job_id.desc()).limit(limit)
        with self._database.read() as connection:
            return [Result({}, features) for features in connection.execute(query).scalars()]
