"""A ledger of a newer version, and one that cannot be opened."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.samples.examined import examined_settings, found
from twin_scanner.doctor import Finding, findings_of
from twin_scanner.doctor.ledger import check_ledger
from twin_scanner.service.ledger import migrate
from twin_scanner.settings import Settings

pytestmark = pytest.mark.node

SECRET = "s3cret-token-4711"


def look(settings: Settings) -> list[Finding]:
    return list(findings_of("ledger", check_ledger, settings))


def test_a_ledger_of_a_newer_version_is_left_as_it_is(tmp_path: Path, closed_port: int) -> None:
    revision = "9999"
    one = examined_settings(tmp_path, closed_port)
    one.storage.folder.mkdir()
    migrate(one.ledger_url)
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'data' / 'ledger.sqlite'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = ?", (revision,))
    finding = found(look(one), "ledger")
    assert finding.state == "fault"
    assert "install the newer twin-scanner" in finding.sentence
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == revision
    engine.dispose()


def test_a_ledger_that_cannot_be_opened_is_said_without_its_password(tmp_path: Path, closed_port: int) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ledger.sqlite").write_bytes(
        b"this is no database, and it is long enough to be read as one" * 9
    )
    assert found(look(examined_settings(tmp_path, closed_port)), "ledger").state == "fault"
    for url in (f"postgresql+psycopg://scanner:{SECRET}@127.0.0.1:{closed_port}/x", f"nonsense://{SECRET}", SECRET):
        finding = found(look(examined_settings(tmp_path, closed_port, ledger={"url": url})), "ledger")
        assert finding.state == "fault"
        assert SECRET not in finding.sentence
