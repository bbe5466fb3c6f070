"""A ledger of the first version, on either database: its migration's tables with the rows that its code wrote."""

from importlib.resources import files
from pathlib import Path

import alembic.command
import alembic.config

from twin_scanner.service.ledger.database import make_engine

ROWS = Path(__file__).with_suffix(".sql")


def write_first_ledger(url: str) -> dict[str, str]:
    """Make it, and return the job ids by what became of each job."""
    names: dict[str, str] = {}
    config = alembic.config.Config()
    config.set_main_option("script_location", str(files("twin_scanner.service.ledger") / "migrations"))
    engine = make_engine(url, create=True)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0001")
        name = ""
        for line in ROWS.read_text("utf-8").splitlines():
            if line.startswith("-- "):
                name = line.removeprefix("-- ")
                continue
            connection.exec_driver_sql(line)
            if line.startswith('INSERT INTO "jobs"'):
                names[name] = line.split("'")[1]
    engine.dispose()
    return names
