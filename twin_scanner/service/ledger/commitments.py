"""Table ``commitments``: each storage commitment that was asked of a destination, and what it reported.

A transaction is written before it is asked for, so that its report is known whenever it comes, to whichever node.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from twin_scanner.service.ledger.columns import METADATA, UtcDateTime
from twin_scanner.service.ledger.database import Transaction

COMMITMENTS: Final = sa.Table(
    "commitments",
    METADATA,
    sa.Column("transaction_uid", sa.String(64), primary_key=True),
    sa.Column("delivery_id", sa.Integer, nullable=False, index=True),
    sa.Column("asked_at", UtcDateTime, nullable=False),
    sa.Column("accepted_at", UtcDateTime),
    sa.Column("reported_at", UtcDateTime),
    sa.Column("kept", sa.JSON),
)


@dataclass(frozen=True)
class Commitment:
    """One row; ``kept`` are the SOP Instance UIDs that the destination answers for, once it has reported."""

    transaction_uid: str
    delivery_id: int
    asked_at: datetime
    accepted_at: datetime | None
    reported_at: datetime | None
    kept: tuple[str, ...]


def add_commitment(write: Transaction, delivery_id: int, transaction_uid: str) -> None:
    """Remember a transaction that is about to be asked for."""
    values = {"transaction_uid": transaction_uid, "delivery_id": delivery_id, "asked_at": write.now}
    write.execute(COMMITMENTS.insert().values(**values))


def forget_commitments(write: Transaction, delivery_id: int) -> None:
    """What a destination has answered for says nothing any more: it is sent again."""
    write.execute(COMMITMENTS.delete().where(COMMITMENTS.c.delivery_id == delivery_id))


def accept_commitment(write: Transaction, transaction_uid: str) -> bool:
    """The destination will report on this one; whether it already has."""
    mine = COMMITMENTS.c.transaction_uid == transaction_uid
    first = COMMITMENTS.update().where(mine, COMMITMENTS.c.accepted_at.is_(None))
    write.execute(first.values(accepted_at=write.now))
    return write.execute(sa.select(COMMITMENTS.c.reported_at).where(mine)).scalar_one() is not None


def report_commitment(write: Transaction, transaction_uid: str, kept: Collection[str]) -> bool:
    """Keep what the destination answers for; False where it has reported on this one before."""
    columns = COMMITMENTS.c
    new = COMMITMENTS.update().where(columns.transaction_uid == transaction_uid, columns.reported_at.is_(None))
    return write.execute(new.values(reported_at=write.now, kept=sorted(kept))).rowcount == 1


def commitment_row(found: sa.Row[Any]) -> Commitment:
    """A row as the code has it."""
    values = {**found._mapping, "kept": tuple(found.kept or ())}
    return Commitment(**{field.name: values[field.name] for field in fields(Commitment)})
