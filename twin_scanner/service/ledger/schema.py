"""The ledger's tables as they are now; how they came to be is in migrations/versions."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa


class UtcDateTime(sa.TypeDecorator[datetime]):
    """An aware datetime kept as UTC: SQLite has no zone, and a naive time in a ledger is a guess."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """To naive UTC for the database; a naive value is refused."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the ledger takes aware datetimes only")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """To an aware UTC datetime."""
        return None if value is None else value.replace(tzinfo=UTC)


METADATA = sa.MetaData()

JOBS = sa.Table(
    "jobs",
    METADATA,
    sa.Column("job_id", sa.String(32), primary_key=True),
    sa.Column("study_uid", sa.String(64), nullable=False, index=True),
    sa.Column("frame_of_reference_uid", sa.String(64), nullable=False),
    sa.Column("series_uid", sa.String(64), nullable=False),
    sa.Column("source_digest", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("made_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("due_at", UtcDateTime, nullable=False),
    sa.Column("stood_at", sa.String(16)),
    sa.Column("lease_owner", sa.String(128)),
    sa.Column("lease_until", UtcDateTime),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("skipped", sa.JSON, nullable=False),
    sa.Column("instance_count", sa.Integer, nullable=False),
    sa.Column("pet_series_uid", sa.String(64), unique=True),
    sa.Column("model_hash", sa.String(64)),
)

INTAKE = sa.Table(
    "intake",
    METADATA,
    sa.Column("study_uid", sa.String(64), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("taken_at", UtcDateTime, nullable=False),
)
