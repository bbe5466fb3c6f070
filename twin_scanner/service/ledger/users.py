"""Table ``users``: who may log in to the console by a password of ours; the password itself is kept nowhere."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from twin_scanner.errors import Rejected
from twin_scanner.service.ledger.columns import METADATA, UtcDateTime
from twin_scanner.service.ledger.database import Database
from twin_scanner.service.ledger.sessions import SESSIONS

USERS: Final = sa.Table(
    "users",
    METADATA,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("password_hash", sa.String(256), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)


@dataclass(frozen=True)
class Account:
    """One row; what a role may do, and how a hash is made, is the console's affair."""

    name: str
    role: str
    password_hash: str
    created_at: datetime


class Users:
    """Queries on the users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, role: str, password_hash: str) -> Account:
        """A new user; raises Rejected where there is one of that name."""
        values = {"role": role, "password_hash": password_hash}
        with self._database.write() as write:
            if write.execute(sa.select(USERS.c.name).where(USERS.c.name == name)).first() is not None:
                raise Rejected(f"There is a user '{name}' already: remove it before, to give it another role.")
            write.execute(USERS.insert().values(name=name, created_at=write.now, **values))
            write.note("users", name, "added", role=role)
            return Account(name, role, password_hash, write.now)

    def remove(self, name: str) -> None:
        """Remove a user and end its sessions; raises Rejected where there is none of that name."""
        with self._database.write() as write:
            if write.execute(USERS.delete().where(USERS.c.name == name)).rowcount == 0:
                raise Rejected(f"There is no user '{name}': 'twin-scanner users list' names all.")
            write.execute(SESSIONS.delete().where(SESSIONS.c.user_name == name, SESSIONS.c.role.is_(None)))
            write.note("users", name, "removed")

    def rehash(self, name: str, password_hash: str) -> None:
        """The same password, hashed by stronger parameters than before."""
        with self._database.write() as write:
            write.execute(USERS.update().where(USERS.c.name == name).values(password_hash=password_hash))

    def find(self, name: str) -> Account | None:
        """The user of that name."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(USERS).where(USERS.c.name == name)).one_or_none()
            return None if row is None else Account(**row._mapping)

    def exist(self) -> bool:
        """Whether there is any."""
        with self._database.read() as connection:
            return connection.execute(sa.select(USERS.c.name).limit(1)).first() is not None

    def all(self) -> list[Account]:
        """Every user, by name."""
        with self._database.read() as connection:
            return [Account(**row._mapping) for row in connection.execute(sa.select(USERS).order_by(USERS.c.name))]
