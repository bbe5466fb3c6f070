"""The ledger that the verbs of these tests find."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from twin_scanner.service.ledger import Ledger, migrate


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """The ledger that the default configuration finds in the test's folder."""
    folder = tmp_path / "twin-scanner-data"
    folder.mkdir()
    url = f"sqlite:///{folder / 'ledger.sqlite'}"
    migrate(url)
    with closing(Ledger(url, node="twin-scanner-1")) as opened:
        yield opened
