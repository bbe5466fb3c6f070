"""Which migration a ledger is at is seen without Alembic; Alembic itself is the oracle."""

from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from twin_scanner.service.ledger import migrate, migration_state

pytestmark = pytest.mark.record


def test_the_newest_file_is_the_migration_that_alembic_ends_with(tmp_path: Path, project: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    assert migration_state(url) is None
    migrate(url)
    state = migration_state(url)
    script = ScriptDirectory(str(project / "twin_scanner" / "service" / "ledger" / "migrations"))
    assert state is not None
    assert state.found == state.wanted == script.get_current_head()
    assert state.known == {revision.revision for revision in script.walk_revisions()}
