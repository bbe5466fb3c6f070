"""From every earlier version of the ledger to this one, with a row in each table: all are kept, and a node starts."""

from collections.abc import Callable
from datetime import datetime
from importlib.resources import files
from typing import Any

import alembic.command
import alembic.config
import pytest
import sqlalchemy as sa

from tests.samples.ledger_v0001 import write_first_ledger
from twin_scanner.service.ledger import Ledger, migrate
from twin_scanner.service.ledger.database import make_engine
from twin_scanner.service.ledger.migrate import known_migrations

pytestmark = pytest.mark.record

Open = Callable[..., Ledger]
EARLIER = sorted(known_migrations())[:-1]
STATES = {"jobs": "done", "deliveries": "confirmed", "studies": "taken", "runs": "done"}
"""States in which nothing is to be done any more."""
KINDS: dict[type, Any] = {datetime: datetime(2026, 3, 1, 12), bool: True, int: 77, float: 7.7}


def value(column: sa.Column[Any], table: str) -> Any:
    """Something that the column takes."""
    if column.nullable:
        return None
    if column.name == "state":
        return STATES[table]
    if isinstance(column.type, sa.JSON):
        return []
    return KINDS.get(column.type.python_type, "a word")


def write_ledger(url: str, version: str) -> dict[str, int]:
    """A ledger of this version, with the first version's jobs and one more row in each table; its rows by table."""
    write_first_ledger(url)
    config = alembic.config.Config()
    config.set_main_option("script_location", str(files("twin_scanner.service.ledger") / "migrations"))
    engine = make_engine(url, create=True)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, version)
        tables = sa.MetaData()
        tables.reflect(connection)
        counts = {}
        for table in tables.sorted_tables:
            if table.name == "alembic_version":
                continue
            row = {
                column.name: value(column, table.name)
                for column in table.columns
                if column.autoincrement is not True and not (column.primary_key and column.type.python_type is int)
            }
            connection.execute(table.insert().values(**row))
            counts[table.name] = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
    engine.dispose()
    return counts


@pytest.mark.parametrize("version", EARLIER)
def test_an_upgrade_keeps_every_row_and_the_node_starts(version: str, sqlite_url: str, open_ledger: Open) -> None:
    before = write_ledger(sqlite_url, version)
    migrate(sqlite_url)
    ledger = open_ledger(sqlite_url)
    with ledger.database.read() as connection:
        after = {
            name: connection.execute(sa.text(f'SELECT count(*) FROM "{name}"')).scalar_one()
            for name in sa.inspect(connection).get_table_names()
        }
    lost = {name: count for name, count in before.items() if name in after and after[name] < count}
    assert lost == {}
    assert before["jobs"] == after["jobs"]
    assert len(ledger.jobs.newest()) == after["jobs"]
