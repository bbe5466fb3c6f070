"""A ledger for each test, on SQLite and on a real PostgreSQL, with a clock that the test drives."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.archive import Archive
from tests.fakes.clock import Clock
from tests.peers.postgresql import PostgreSQL
from twin_scanner.service.ledger import Ledger, migrate

KINDS = ["sqlite", "postgresql"]
Open = Callable[..., Ledger]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Where a ledger on SQLite may be made."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


@pytest.fixture(params=KINDS)
def empty_url(request: pytest.FixtureRequest) -> str:
    """A database of each kind without tables; on SQLite without a file."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    return str(request.getfixturevalue("postgresql").new_database())


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of this version without rows, to be copied."""
    file = tmp_path_factory.mktemp("migrated") / "ledger.sqlite"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture
def migrated_sqlite_url(sqlite_url: str, migrated_file: Path) -> str:
    """A ledger without rows on SQLite."""
    shutil.copyfile(migrated_file, sqlite_url.removeprefix("sqlite:///"))
    return sqlite_url


@pytest.fixture(scope="session")
def migrated_schema(postgresql: PostgreSQL) -> str:
    """A ledger of this version without rows on PostgreSQL, to be copied."""
    url = postgresql.new_database()
    migrate(url)
    return url


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest) -> str:
    """A ledger without rows on each kind of database."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("migrated_sqlite_url"))
    return str(request.getfixturevalue("postgresql").new_copy(request.getfixturevalue("migrated_schema")))


@pytest.fixture
def open_ledger(clock: Clock) -> Iterator[Open]:
    """Opens ledgers by URL and node, which has entered; they are closed at the end."""
    opened: list[Ledger] = []

    def make(url: str, node: str = "node", holder: str | None = "folder of {}", **options: Any) -> Ledger:
        ledger = Ledger(url, **{"node": node, "who": "test", "now": clock, "monotonic_s": clock.monotonic_s, **options})
        opened.append(ledger)
        if holder is not None:
            ledger.enter(holder.format(node))
        return ledger

    yield make
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(url: str, open_ledger: Open) -> Ledger:
    """A new ledger of one node, on each kind of database."""
    return open_ledger(url)


@pytest.fixture
def sqlite_ledger(migrated_sqlite_url: str, open_ledger: Open) -> Ledger:
    """A new ledger of one node, on SQLite alone."""
    return open_ledger(migrated_sqlite_url)


@pytest.fixture
def archive() -> Iterator[Archive]:
    """A PACS that keeps all it gets."""
    with Archive() as running:
        yield running
