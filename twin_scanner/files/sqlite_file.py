"""SQLite files opened so that every commit survives a power cut, and writers queue instead of failing."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, event
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

LOCK_TIMEOUT_S: Final = 30.0
"""How long one transaction waits for another before SQLite answers that the file is locked."""
SWITCH_POLL_S: Final = 0.02
CACHE_KB: Final = 65536
"""Of pages a connection may keep, as far as it reads them. SQLite's own 2 MB are less than the keys of some thousand
patients or jobs, so that each question read the file again."""


def write_first(_connection: Connection) -> str:
    """Every transaction takes the lock at once, so that no two readers wait for each other to write."""
    return "BEGIN IMMEDIATE"


def create_private(file: Path) -> None:
    """Make the file, readable by its owner alone, where it is not there; SQLite gives -wal and -shm the same rights.

    Raises OSError.
    """
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))


def copy_sqlite(source: Path, target: Path) -> bool:
    """Copy a database as it stands at one moment, while others write it; the copy is one file, its owner's alone.

    It is SQLite's online backup: a reader of the WAL, for which no writer waits. Says whether the copy is sound
    (``PRAGMA integrity_check``). Raises OSError or sqlite3.Error.
    """
    create_private(target)
    with (
        closing(sqlite3.connect(f"file:{quote(str(source.absolute()))}?mode=rw", uri=True)) as original,
        closing(sqlite3.connect(target)) as copy,
    ):
        original.execute(f"PRAGMA busy_timeout = {int(LOCK_TIMEOUT_S * 1000)}")
        original.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
        (answer,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
    return str(answer) == "ok"


def prepare_sqlite(engine: Engine, begin: Callable[[Connection], str] = write_first) -> None:
    """WAL and one sync per commit for all of an engine's connections; ``begin`` gives the statement that opens one."""

    def on_connect(connection: Any, _record: Any) -> None:
        # Python's sqlite3 would begin transactions by itself and too late; `on_begin` does it instead.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {int(LOCK_TIMEOUT_S * 1000)}")
        # Switching a new file to WAL does not wait for another process that does the same: SQLite answers busy at once.
        for attempt in Retrying(
            retry=retry_if_exception_type(sqlite3.OperationalError),
            stop=stop_after_delay(LOCK_TIMEOUT_S),
            wait=wait_fixed(SWITCH_POLL_S),
            reraise=True,
        ):
            with attempt:
                connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        # What is deleted is overwritten: these files hold patients' identities, and some are to be forgotten.
        connection.execute("PRAGMA secure_delete = ON")

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin(connection))

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)


def write_back(engine: Engine) -> None:
    """Empty the WAL into the file, so that what was deleted is in neither; nothing to do for another database.

    Where somebody reads at this moment, the WAL is emptied by a later one.
    """
    if engine.dialect.name == "sqlite":
        connection = engine.raw_connection()
        try:
            connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]
        finally:
            connection.close()
