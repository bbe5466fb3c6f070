"""A copy of the ledger's database as it stands at one moment, and its way back: SQLite's backup, or pg_dump."""

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from twin_scanner.errors import Defect, Misconfigured, Rejected, Transient
from twin_scanner.files.durable_file import put_in_place
from twin_scanner.files.sqlite_file import copy_sqlite
from twin_scanner.service.ledger.database import make_engine, translated_errors
from twin_scanner.service.ledger.leases import LEASES

DUMP_TIMEOUT_S: Final = 3600.0
"""How long PostgreSQL's own program may take, either way."""
NAMES: Final = {"sqlite": "ledger.sqlite", "postgresql": "ledger.dump"}
"""What the copy of each kind of database is called."""


def copy_name(url: str) -> str:
    """The name of a ledger's copy, by the kind of its database."""
    return NAMES[sa.make_url(url).get_backend_name()]


def copy_ledger(url: str, target: Path) -> None:
    """Copy the ledger while nodes write it.

    Raises Transient or Misconfigured where that fails, Defect where it is damaged.
    """
    if copy_name(url) == NAMES["sqlite"]:
        copy_database(Path(sa.make_url(url).database or ""), target)
    else:
        _postgresql(url, "pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={target}")


def copy_database(source: Path, target: Path) -> None:
    """Copy one SQLite database while others write it; raises Transient where that fails, Defect where it is damaged."""
    try:
        is_sound = copy_sqlite(source, target)
    except (OSError, sqlite3.Error) as error:
        raise Transient(f"{source} cannot be copied ({error}): check the disk, then try again.") from error
    if not is_sound:
        raise Defect(f"{source} is damaged, so its copy would be: keep the file, and restore an earlier backup.")


def check_no_ledger(url: str) -> None:
    """Raise Rejected where the database that a copy is to be put into holds something."""
    if copy_name(url) == NAMES["sqlite"]:
        check_not_there(Path(sa.make_url(url).database or ""))
        return
    engine = make_engine(url, create=False)
    try:
        with translated_errors(), engine.connect() as connection:
            if sa.inspect(connection).get_table_names():
                raise Rejected("The database of ledger.url has tables already: give ledger.url an empty one.")
    finally:
        engine.dispose()


def check_not_there(file: Path) -> None:
    """Raise Rejected where a SQLite database, or a rest of one, is in the way of the one that is to be put there."""
    for path in (file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))):
        if path.exists():
            raise Rejected(f"{path} is there already: move it away first, it is not overwritten.")


def place_ledger(url: str, copy: Path) -> None:
    """Put a copy in the ledger's place, which is empty (``check_no_ledger``).

    Who held a lease while it was copied does not hold it here: a node on a new disk starts without waiting for it.
    """
    if copy_name(url) == NAMES["sqlite"]:
        place_database(copy, Path(sa.make_url(url).database or ""))
    else:
        database = sa.make_url(url)
        options = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
        _postgresql(url, "pg_restore", *options, f"--dbname={_address(database)}", str(copy))
    _free_leases(url)


def place_database(copy: Path, target: Path) -> None:
    """Put a copy of a SQLite database in its place, whole or not at all; raises OSError."""
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    copy_database(copy, part)
    put_in_place(part, target)


def _free_leases(url: str) -> None:
    engine = make_engine(url, create=False)
    try:
        with translated_errors(), engine.begin() as connection:
            if sa.inspect(connection).has_table(LEASES.name):
                connection.execute(LEASES.update().values(owner=None))
    finally:
        engine.dispose()


def _address(database: sa.URL) -> str:
    """The URL as PostgreSQL's programs read it, without a password: others on the machine see their arguments."""
    return database.set(drivername="postgresql", password=None).render_as_string()


def _postgresql(url: str, program: str, *arguments: str) -> None:
    path, database = shutil.which(program), sa.make_url(url)
    if path is None:
        raise Misconfigured(f"{program} is not installed: it comes with PostgreSQL's client programs.")
    where = () if program == "pg_restore" else (f"--dbname={_address(database)}",)
    environment = {**os.environ, **({"PGPASSWORD": database.password} if database.password else {})}
    try:
        done = subprocess.run(
            [path, "--no-password", *where, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DUMP_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise Transient(f"{program} did not end within {DUMP_TIMEOUT_S:g} s: look at the database.") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise Transient(f"{program} failed: {last}")
