"""Table ``sessions``: who is logged in to the console; a session's id is kept as its hash, which opens nothing."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from twin_scanner.service.ledger.columns import METADATA, UtcDateTime
from twin_scanner.service.ledger.database import Database

SESSIONS: Final = sa.Table(
    "sessions",
    METADATA,
    sa.Column("session_hash", sa.String(64), primary_key=True),
    sa.Column("user_name", sa.String(64), nullable=False),
    sa.Column("role", sa.String(16)),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False),
    sa.Index("ix_sessions_user", "user_name"),
)


@dataclass(frozen=True)
class Session:
    """One row; ``role`` is None for a user of ours, whose row says it, and what an identity provider said otherwise."""

    session_hash: str
    user_name: str
    role: str | None
    created_at: datetime
    seen_at: datetime


class Sessions:
    """Queries on the sessions; both of its times are wall times, which only ever end a session too early."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, session_id: str, user_name: str, role: str | None) -> None:
        """A person has logged in."""
        values = {"user_name": user_name, "role": role}
        with self._database.write() as write:
            times = {"created_at": write.now, "seen_at": write.now}
            write.execute(SESSIONS.insert().values(session_hash=_hash(session_id), **values, **times))
            write.note("logins", user_name, "logged in")

    def end(self, session_id: str) -> None:
        """The person has logged out."""
        with self._database.write() as write:
            found = write.execute(sa.select(SESSIONS.c.user_name).where(SESSIONS.c.session_hash == _hash(session_id)))
            user_name = found.scalar()
            if user_name is not None:
                write.execute(SESSIONS.delete().where(SESSIONS.c.session_hash == _hash(session_id)))
                write.note("logins", user_name, "logged out")

    def refused(self, user_name: str) -> None:
        """Somebody was not let in by that name; what cannot be a name of ours is not repeated."""
        with self._database.write() as write:
            write.note("logins", user_name, "login refused")

    def find(self, session_id: str) -> Session | None:
        """The session of that id."""
        with self._database.read() as connection:
            query = sa.select(SESSIONS).where(SESSIONS.c.session_hash == _hash(session_id))
            row = connection.execute(query).one_or_none()
            return None if row is None else Session(**row._mapping)

    def seen(self, session: Session) -> None:
        """The person is still there."""
        with self._database.write() as write:
            this = SESSIONS.c.session_hash == session.session_hash
            write.execute(SESSIONS.update().where(this).values(seen_at=write.now))

    def clear(self, seen_before: datetime, created_before: datetime) -> None:
        """Forget the sessions that are over."""
        with self._database.write() as write:
            over = (SESSIONS.c.seen_at < seen_before) | (SESSIONS.c.created_at < created_before)
            write.execute(SESSIONS.delete().where(over))


def _hash(session_id: str) -> str:
    return hashlib.sha256(session_id.encode()).hexdigest()
