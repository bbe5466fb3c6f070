"""What studies, jobs and deliveries share: rows that come due, and are worked on by one thread of their own node.

A claim belongs to a process and lasts as long as that process: it has no time in it. Only the node that has a row's
files may claim it, and the node's own lease (``leases``) says which process the node is.
"""

import threading
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Final, Generic, Protocol, TypeAlias, TypeVar

import sqlalchemy as sa

from twin_scanner.errors import Transient
from twin_scanner.service.ledger.database import Database, Transaction
from twin_scanner.service.ledger.moves import check_move
from twin_scanner.service.ledger.priority import LATEST_TURN

AT_ONCE: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Due whatever any clock says."""


class LeaseLost(Transient):
    """The row went on without this thread (superseded, or taken over): what the thread did is not recorded."""


class Claimed(Protocol):
    """The columns that every row of this kind has."""

    @property
    def attempts(self) -> int:
        """How often work on it has begun since it last succeeded."""

    @property
    def waiting_since(self) -> datetime | None:
        """Since when it could have been done, by the steady clock."""

    @property
    def lease_owner(self) -> str | None:
        """The claim; None while nobody works on it."""


class Tokens:
    """The claims that threads of this process hold, by name, with the moment of claiming."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._lock = threading.Lock()
        self._count = 0
        self._held: dict[str, float] = {}

    def new(self, now_s: float) -> str:
        """A name that no claim ever had."""
        with self._lock:
            self._count += 1
            token = f"{self._prefix}/{self._count}"
            self._held[token] = now_s
            return token

    def claimed_at_s(self, token: str | None, otherwise_s: float) -> float:
        """When the claim was made."""
        with self._lock:
            return self._held.get(token or "", otherwise_s)

    def drop(self, token: str | None) -> None:
        """Nobody works under this name any more."""
        with self._lock:
            self._held.pop(token or "", None)

    def held(self) -> list[str]:
        """All of them."""
        with self._lock:
            return list(self._held)


R = TypeVar("R", bound=Claimed)
Order: TypeAlias = tuple[sa.ColumnElement[Any], ...]


class Claims(Generic[R]):
    """Queries on one such table; ``row_type`` is a dataclass with a field per column."""

    table: ClassVar[sa.Table]
    key: ClassVar[str]
    row_type: ClassVar[type[Any]]
    states: ClassVar[type[StrEnum]]
    waits: ClassVar[tuple[StrEnum, ...]]
    """The states in which rows wait to be claimed: those of the first one come first."""

    def __init__(self, database: Database, tokens: Tokens) -> None:
        self._database = database
        self._tokens = tokens

    def postpone(
        self, row: R, delay_s: float, reason: str, *, error: str = "", alarm: bool = False, counts: bool = True
    ) -> None:
        """End the claim after a failed attempt and make the row due again after ``delay_s`` seconds.

        ``counts`` False: whatever was tried before, the row is as if this were its first attempt to come.
        """
        with self._database.write() as write:
            self._mine(write, row)
            due_at = write.steady + timedelta(seconds=delay_s)
            attempts = row.attempts if counts else 0
            values = {"due_at": due_at, "reason": reason, "lease_owner": None, "attempts": attempts}
            self._update(write, row, **values, **self._postponed(write, row))
            self._note(write, row, "alarm" if alarm else "tried", error=error, attempts=row.attempts)

    def hold(self, row: R, reason: str, held_for: str = "") -> None:
        """End the claim: a person must decide."""
        raise NotImplementedError

    def reject(self, row: R, reason: str) -> None:
        """End the claim: the input is wrong."""
        raise NotImplementedError

    def fail(self, row: R, reason: str) -> None:
        """End the claim: it does not work, and trying again by itself will not help."""
        raise NotImplementedError

    def put_back(self, row: R) -> None:
        """End the claim of work that was stopped, not tried: it is due at once and counts as no attempt."""
        with self._database.write() as write:
            self._mine(write, row)
            self._update(write, row, due_at=write.steady, attempts=max(row.attempts - 1, 0), lease_owner=None)

    def all_of(self, query: sa.Select[Any]) -> list[R]:
        """The rows that a query of this table finds, on whichever node."""
        with self._database.read() as connection:
            return [self._row(row) for row in connection.execute(query)]

    def forget(self, row: R) -> None:
        """The thread that held the row is done with it: what it could not record is freed by ``free``."""
        self._tokens.drop(row.lease_owner)

    def age_s(self, row: R) -> float:
        """For how long the row could have been done."""
        steady = self._database.steady()
        return (steady - (row.waiting_since or steady)).total_seconds()

    def free(self) -> int:
        """End claims on this node's rows that no thread of this process holds, and say how many there were.

        They are those of a dead process, or ones whose commit succeeded although its answer was lost.
        """
        columns = self.table.c
        with self._database.write() as write:
            claimed = (columns.node == self._database.node, columns.lease_owner.is_not(None))
            found = set(write.execute(sa.select(columns.lease_owner).where(*claimed)).scalars())
            # Asked after the look: a token is made before its claim, so what was seen and is not held is dead.
            dead = found - set(self._tokens.held())
            if not dead:
                return 0
            stale = (*claimed, columns.lease_owner.in_(dead))
            return write.execute(self.table.update().where(*stale).values(lease_owner=None)).rowcount

    def wake_all(self) -> None:
        """Make all that waits on this node due at once: after a start no clock of before is to be trusted.

        A turn that lies farther ahead than any priority puts it comes now.
        """
        columns = self.table.c
        with self._database.write() as write:
            waits = columns.state.in_([state.value for state in self.waits])
            if "turn_at" in columns:
                ahead = (waits, columns.node == self._database.node, columns.turn_at > write.steady + LATEST_TURN)
                write.execute(self.table.update().where(*ahead).values(turn_at=write.steady))
            later = (waits, columns.node == self._database.node, columns.due_at > AT_ONCE)
            write.execute(self.table.update().where(*later, columns.due_at > write.steady).values(due_at=write.steady))

    def _claim(self, *conditions: sa.ColumnElement[bool], order: Order | None = None) -> R | None:
        """The row that comes first, claimed for the calling thread; its attempt is counted before the work begins."""
        claims = (self._claim_in(state, order or self._order(), *conditions) for state in self.waits)
        return next((row for row in claims if row is not None), None)

    def _claim_in(self, state: StrEnum, order: Order, *conditions: sa.ColumnElement[bool]) -> R | None:
        due = self._due(state, *conditions).order_by(*order)
        with self._database.read() as connection:
            if connection.execute(due).first() is None:
                return None
        token = self._tokens.new(self._database.monotonic_s())
        claimed: R | None = None
        try:
            with self._database.write() as write:
                found = write.execute(due.with_for_update(skip_locked=True)).one_or_none()
                if found is not None:
                    row = self._row(found)
                    begun = {"lease_owner": token, "attempts": row.attempts + 1, "begun_at": write.now}
                    begun |= self._begun()
                    row = self.row_type(**{**vars(row), **begun})
                    self._update(write, row, **begun)
            claimed = None if found is None else row
        finally:
            if claimed is None:
                self._tokens.drop(token)
        return claimed

    def _due(self, state: StrEnum, *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
        columns = self.table.c
        return (
            sa.select(self.table)
            .where(
                columns.state == state.value,
                columns.node == self._database.node,
                columns.lease_owner.is_(None),
                columns.due_at <= self._database.steady(),
                *conditions,
            )
            .limit(1)
        )

    def _begun(self) -> dict[str, Any]:
        """What else a claim changes in the row."""
        return {}

    def _postponed(self, write: Transaction, row: R) -> dict[str, Any]:
        """What else a failed attempt changes in the row."""
        return {}

    def _order(self) -> Order:
        return (self.table.c.due_at, self.table.c[self.key])

    def _mine(self, write: Transaction, row: R) -> R:
        """The row as it is now, locked; raises LeaseLost where it is not this thread's any more."""
        current = self._row(write.execute(self._select(row).with_for_update()).one())
        if current.lease_owner is None or current.lease_owner != row.lease_owner:
            raise LeaseLost(f"{self._name(row)} went on without this attempt; nothing of it is recorded.")
        return current

    def _select(self, row: R) -> sa.Select[Any]:
        return sa.select(self.table).where(self.table.c[self.key] == getattr(row, self.key))

    def _update(self, write: Transaction, row: R, **values: Any) -> None:
        mine = self.table.c[self.key] == getattr(row, self.key)
        write.execute(self.table.update().where(mine).values(**values))

    def _move(self, write: Transaction, row: R, state: StrEnum, **values: Any) -> None:
        """Go to another state, which ends the claim; the move and the seconds of the claim, if any, are noted."""
        check_move(self._name(row), getattr(row, "state"), state)  # noqa: B009  not part of the protocol
        now_s = self._database.monotonic_s()
        seconds = round(now_s - self._tokens.claimed_at_s(row.lease_owner, now_s), 3)
        self._update(write, row, **{"state": state.value, "lease_owner": None, **values})
        self._note(write, row, state.value, **({} if row.lease_owner is None else {"seconds": seconds}))

    def _note(self, write: Transaction, row: R, what: str, **detail: Any) -> None:
        write.note(self.table.name, getattr(row, self.key), what, **detail)

    def _name(self, row: R) -> str:
        return f"{self.row_type.__name__} {getattr(row, self.key)}"

    def _row(self, found: sa.Row[Any]) -> R:
        values = dict(found._mapping)
        values["state"] = self.states(values["state"])
        return self.row_type(**{field.name: values[field.name] for field in fields(self.row_type)})
