"""The ledger's database: its transactions, its two clocks, and the one place where its errors become ours."""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from twin_scanner.errors import Defect, Misconfigured, Rejected, Transient
from twin_scanner.files.sqlite_file import create_private, prepare_sqlite
from twin_scanner.service.ledger.events import Note, append

PATIENCE: Final = {"connect_timeout": 5, "tcp_user_timeout": 30_000, "keepalives_idle": 10, "keepalives_interval": 5}
"""PostgreSQL's own settings: seconds to connect, milliseconds without an answer until a connection is lost, and the
seconds between signs of life (libpq, "Parameter Key Words")."""
DAMAGED: Final = ("malformed", "not a database", "file is encrypted")
"""How SQLite says that a file's content is wrong."""


CHUNK: Final = 500
"""Values per statement: databases limit how many one may have."""


def chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """The values in as many parts as statements need."""
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


def utc_now() -> datetime:
    """The wall clock, aware."""
    return datetime.now(UTC)


_ACTING: Final[ContextVar[str | None]] = ContextVar("acting", default=None)


@contextmanager
def acting_as(who: str) -> Iterator[None]:
    """What is written meanwhile in this context was done by that person, not by the program's own login."""
    token = _ACTING.set(who)
    try:
        yield
    finally:
        _ACTING.reset(token)


class Transaction:
    """One write: statements, and the events that are appended as its last act."""

    def __init__(self, connection: sa.Connection, now: datetime, steady: datetime) -> None:
        self._connection = connection
        self.now = now
        """The wall clock, for whoever reads the row."""
        self.steady = steady
        """The steady clock, for intervals."""
        self.notes: list[Note] = []

    def execute(self, statement: sa.Executable) -> sa.CursorResult[Any]:
        """Run one statement."""
        return self._connection.execute(statement)  # type: ignore[return-value]

    def note(self, of_table: str, row_id: str | int, what: str, **detail: Any) -> None:
        """Append an event when the transaction ends."""
        self.notes.append(Note(of_table, str(row_id), what, detail))

    def lock(self, key: str) -> None:
        """Whoever locks the same key waits for the end of this transaction. SQLite has one writer at a time anyway."""
        if self._connection.dialect.name == "postgresql":
            self._connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(key, 0))))


class Database:
    """SQLite (WAL) or PostgreSQL; it is opened where it is, never created.

    ``now`` is the wall clock: stamps that people and DICOM read. ``monotonic_s`` measures intervals; with the wall
    clock of the moment of opening it makes the steady clock, which no later jump of the wall clock moves.
    """

    def __init__(
        self, url: str, *, node: str, who: str, now: Callable[[], datetime], monotonic_s: Callable[[], float]
    ) -> None:
        self.node = node
        self.boot = uuid.uuid4().hex[:12]
        """Names this opening among all that ever were: what an earlier one held is known by another name."""
        self._who = who
        self._now = now
        self._monotonic_s = monotonic_s
        self._opened = (now(), monotonic_s())
        self._engine = make_engine(url, create=False)
        self._fault: str | None = None
        self._fault_lock = threading.Lock()

    @property
    def engine(self) -> sa.Engine:
        """For migrations, tests and benchmarks."""
        return self._engine

    @property
    def fault(self) -> str | None:
        """Why the last transaction failed; None while the database works."""
        return self._fault

    def monotonic_s(self) -> float:
        """The monotonic clock."""
        return self._monotonic_s()

    def now(self) -> datetime:
        """The wall clock."""
        return self._now()

    def steady(self) -> datetime:
        """The steady clock."""
        wall, opened_s = self._opened
        return wall + timedelta(seconds=self._monotonic_s() - opened_s)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only looks; on SQLite it waits for no writer."""
        with self._watched(), self._engine.connect() as connection:
            looking = connection.execution_options(looks=True)
            with looking.begin():
                yield looking

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction; on SQLite it takes the write lock at once."""
        with self._watched(), self._engine.begin() as connection:
            transaction = Transaction(connection, self._now(), self.steady())
            yield transaction
            if transaction.notes:
                # The last lock that a transaction takes, so that no two can wait for each other because of it.
                transaction.lock(f"events of {self.node}")
                who = _ACTING.get() or self._who
                append(connection, self.node, who, transaction.now, transaction.notes)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            with translated_errors():
                yield
        except (Transient, Defect) as error:
            if isinstance(error.__cause__, SQLAlchemyError):
                self._fault = str(error)
            raise
        self._fault = None


def make_engine(url: str, *, create: bool) -> sa.Engine:
    """An engine; without ``create`` a SQLite file that is not there is refused, never created.

    Raises Rejected where there is no ledger, Misconfigured where the URL or its driver is at fault.
    """
    try:
        database = sa.make_url(url)
        if database.get_backend_name() == "postgresql":
            return sa.create_engine(database, pool_pre_ping=True, connect_args=dict(PATIENCE))
        if database.get_backend_name() != "sqlite":
            raise Misconfigured("ledger.url is neither SQLite nor PostgreSQL: see deploy/.")
        file = Path(database.database or "").absolute()
        if not create:
            if not file.is_file():
                raise Rejected(f"There is no ledger at {file}: check the configuration, or start 'serve' first.")
            database = database.set(database=f"file:{quote(str(file))}", query={"mode": "rw", "uri": "true"})
        else:
            with suppress(OSError):  # SQLite says the same, in its own words, with the first transaction
                create_private(file)
        engine = sa.create_engine(database, connect_args={"check_same_thread": False})
    except ImportError as error:
        raise Misconfigured(
            "The driver for ledger.url is not installed: pip install 'twin-scanner[postgresql]'."
        ) from error
    except SQLAlchemyError as error:
        raise Misconfigured("ledger.url is no database URL that is supported: see deploy/.") from error
    prepare_sqlite(engine, _begin_statement)
    return engine


def _begin_statement(connection: sa.Connection) -> str:
    return "BEGIN" if connection.get_execution_options().get("looks") else "BEGIN IMMEDIATE"


@contextmanager
def translated_errors() -> Iterator[None]:
    """The one edge where errors of the database become ours: what may pass is Transient, the rest a Defect."""
    try:
        yield
    except IntegrityError as error:
        raise Defect("The ledger refused a row that contradicts another one: report this.") from error
    except DBAPIError as error:
        raise _translated(error) from error
    except sa.exc.TimeoutError as error:
        raise Transient("All connections to the ledger's database are in use: it is tried again.") from error
    except SQLAlchemyError as error:
        raise Defect(f"The ledger was asked for what cannot be ({type(error).__name__}): report this.") from error


def _translated(error: DBAPIError) -> Transient | Defect:
    text = str(error.orig)
    if isinstance(error, DatabaseError) and any(word in text for word in DAMAGED):
        return Defect("The ledger's file is damaged: stop the scanner, keep the file, and restore a backup.")
    if "full" in text:
        return Transient("The ledger cannot be written, its disk is full: make room.")
    if isinstance(error, OperationalError) or error.connection_invalidated:
        return Transient("The ledger's database does not answer; see ledger.url in the configuration.")
    if isinstance(error, sa.exc.InterfaceError | sa.exc.InternalError):
        return Transient("The connection to the ledger's database was lost; it is made again.")
    return Defect(f"The ledger's database refused a statement ({type(error).__name__}): report this.")
