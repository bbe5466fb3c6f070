"""Creates a ledger and brings one to this version (Alembic); `serve` and `ledger migrate` alone do so."""

import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import sqlalchemy as sa

from twin_scanner.errors import Rejected
from twin_scanner.service.ledger.database import make_engine, translated_errors

_SCRIPTS: Final = files("twin_scanner.service.ledger") / "migrations"
_REVISION: Final = re.compile(r"v(\d{4})_\w+\.py")
"""A migration's file is named by its revision, and by their order."""
NEWER: Final = (
    "The ledger was written by a newer version of twin-scanner: run that version, or give ledger.url a database of its "
    "own."
)


@dataclass(frozen=True)
class MigrationState:
    """Which migration a ledger's database is at (None: it is empty), which one this version needs, and all it knows."""

    found: str | None
    wanted: str
    known: frozenset[str]


def migrate(url: str) -> None:
    """Create the ledger's tables, or bring them to this version; several nodes may do so at once.

    Raises Rejected where a newer version wrote it, Transient where the database does not answer.
    """
    # Whoever only looks at a ledger does not wait for Alembic.
    import alembic.command
    import alembic.config
    from alembic.util import CommandError

    config = alembic.config.Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    engine = make_engine(url, create=True)
    try:
        with translated_errors(), engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                lock = sa.func.pg_advisory_xact_lock(sa.func.hashtextextended("twin-scanner migration", 0))
                connection.execute(sa.select(lock))
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")
    except CommandError as error:
        raise Rejected(NEWER) from error
    finally:
        engine.dispose()


def migration_state(url: str) -> MigrationState | None:
    """How a ledger stands, without changing it; None where its file is not there.

    Raises Misconfigured where the URL or its driver is at fault, Transient or Defect where it cannot be opened.
    """
    try:
        engine = make_engine(url, create=False)
    except Rejected as error:
        if type(error) is Rejected:
            return None
        raise
    try:
        return state_of(engine)
    finally:
        engine.dispose()


def known_migrations() -> frozenset[str]:
    """Every migration that this version has."""
    versions = [_REVISION.fullmatch(file.name) for file in (_SCRIPTS / "versions").iterdir()]
    return frozenset(version.group(1) for version in versions if version is not None)


def state_of(engine: sa.Engine) -> MigrationState:
    """How the ledger behind an engine stands."""
    known = known_migrations()
    found = None
    with translated_errors(), engine.connect().execution_options(looks=True) as connection:
        if sa.inspect(connection).has_table("alembic_version"):
            found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return MigrationState(found, max(known), known)


def check_migrated(engine: sa.Engine) -> None:
    """Raise Rejected where the ledger is of another version than this one."""
    state = state_of(engine)
    if state.found is not None and state.found not in state.known:
        raise Rejected(NEWER)
    if state.found != state.wanted:
        raise Rejected(
            f"The ledger is at migration {state.found or 'none'} and this version needs {state.wanted}: back it up, "
            "then run 'twin-scanner ledger migrate' or start 'serve'."
        )
