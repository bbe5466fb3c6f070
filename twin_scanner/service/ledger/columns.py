"""What the ledger's tables share: one metadata, a time that is always aware, and the columns of a row that waits."""

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


def waiting_columns() -> list[sa.Column[Any]]:
    """A row that a lane claims says where its files lie, when it is due, who works on it, and how often that began.

    ``due_at`` and ``waiting_since`` are steady times (``Database.steady``), which only the row's own node compares.
    A row without ``due_at`` waits for something else than time. ``begun_at`` is a wall time, for people: when the work
    that a claim stands for began.
    """
    return [
        sa.Column("node", sa.String(64)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", UtcDateTime),
        sa.Column("waiting_since", UtcDateTime),
        sa.Column("lease_owner", sa.String(128)),
        sa.Column("begun_at", UtcDateTime),
        sa.Column("reason", sa.Text, nullable=False),
    ]
