"""The one edge where the database's errors become ours, with real faults: a damaged file, a full one, a lost server."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from twin_scanner.errors import Defect, Transient
from twin_scanner.service.ledger import Ledger, NewJob, migrate

if TYPE_CHECKING:
    from tests.peers.postgresql import PostgreSQL

pytestmark = pytest.mark.record

Open = Callable[..., Ledger]


def test_a_file_that_is_damaged_while_it_is_used_is_said_and_nothing_may_be_acknowledged(
    sqlite_url: str, tmp_path: Path, open_ledger: Open
) -> None:
    """A worker thread used to die of it, while the node went on acknowledging."""
    migrate(sqlite_url)
    ledger = open_ledger(sqlite_url)
    for number in range(200):
        ledger.jobs.open(NewJob(f"1.{number}", "1.9", "1.2.3", f"{number:064x}", 20))
    ledger.close()
    file = tmp_path / "ledger.sqlite"
    content = file.read_bytes()
    file.write_bytes(content[:4096] + bytes(len(content) - 4096))
    (tmp_path / "ledger.sqlite-wal").unlink(missing_ok=True)
    with pytest.raises(Defect, match="damaged: stop the scanner, keep the file, and restore a backup"):
        ledger.jobs.newest()
    with pytest.raises(Transient, match="damaged"):
        ledger.check_usable()


def test_a_full_disk_is_transient_and_says_so(sqlite_url: str, open_ledger: Open) -> None:
    migrate(sqlite_url)
    ledger = open_ledger(sqlite_url)
    with ledger.database.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    sa.event.listen(ledger.database.engine, "begin", lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(Transient, match="its disk is full"):
        for number in range(200):
            ledger.jobs.open(NewJob(f"1.{number}", "1.9", "1.2.3", f"{number:064x}", 20))


def test_a_row_that_contradicts_another_is_a_defect(ledger: Ledger) -> None:
    ledger.jobs.open(NewJob("1.1", "1.9", "1.2.3", "a" * 64, 20))
    with pytest.raises(Defect, match="contradicts another one"), ledger.database.write() as write:
        write.execute(sa.text("INSERT INTO alembic_version VALUES ('x')"))
        write.execute(sa.text("INSERT INTO alembic_version VALUES ('x')"))


def test_a_statement_that_makes_no_sense_is_a_defect(ledger: Ledger) -> None:
    with pytest.raises((Defect, Transient)), ledger.database.write() as write:
        write.execute(sa.text("SELECT no_such_column FROM jobs"))


def test_a_server_that_was_restarted_is_found_again(postgresql: "PostgreSQL", open_ledger: Open) -> None:
    url = postgresql.new_database()
    migrate(url)
    ledger = open_ledger(url)
    job = ledger.jobs.open(NewJob("1.1", "1.9", "1.2.3", "a" * 64, 20))
    postgresql.stop()
    with pytest.raises(Transient, match="does not answer"):
        ledger.jobs.newest()
    with pytest.raises(Transient):
        ledger.check_usable()
    postgresql.start()
    assert ledger.jobs.newest() == [job]
    ledger.check_usable()
