"""From a ledger of the first version with a job in every state and place; at once by several nodes; and for a look."""

import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import alembic.command
import alembic.config
import pytest
import sqlalchemy as sa

from tests.fakes.clock import Clock
from tests.fakes.open_umask import open_umask
from tests.samples.ledger_v0001 import write_first_ledger
from twin_scanner.errors import Defect, Misconfigured, Rejected, Transient
from twin_scanner.service.ledger import DeliveryState, Job, Ledger, State, migrate, migration_state
from twin_scanner.service.ledger.columns import METADATA
from twin_scanner.service.ledger.database import make_engine

pytestmark = pytest.mark.record

Open = Callable[..., Ledger]
WAITS_FOR_PACS = "waiting for the PACS"

EXPECTED = {
    "queued": (State.QUEUED, None, None),
    "queued and leased": (State.QUEUED, None, None),
    "queued after a failure": (State.QUEUED, None, None),
    "superseded": (State.SUPERSEDED, None, None),
    "rendered": (State.RENDERED, DeliveryState.WAITING, WAITS_FOR_PACS),
    "delivered": (State.RENDERED, DeliveryState.CONFIRMED, DeliveryState.WAITING),
    "done": (State.DONE, DeliveryState.CONFIRMED, DeliveryState.CONFIRMED),
    "rejected without a CT": (State.REJECTED, None, None),
    "rejected by its CT": (State.REJECTED, None, None),
    "rejected by the PACS": (State.HELD, DeliveryState.HELD, WAITS_FOR_PACS),
    "rejected by the twin": (State.HELD, DeliveryState.CONFIRMED, DeliveryState.HELD),
    "failed in its render": (State.FAILED, None, None),
    "failed after it superseded": (State.FAILED, None, None),
    "failed at the PACS": (State.FAILED, DeliveryState.FAILED, WAITS_FOR_PACS),
    "failed at the twin": (State.FAILED, DeliveryState.CONFIRMED, DeliveryState.FAILED),
}
"""Of each job: its state, and those of its deliveries to PACS and twin."""


def stands(ledger: Ledger, job: Job) -> tuple[State, str | None, str | None]:
    deliveries = {d.destination: d for d in ledger.deliveries.of_jobs([job.job_id])[job.job_id]}
    pacs, twin = deliveries.get("pacs"), deliveries.get("twin")
    waits = twin is not None and twin.state == DeliveryState.WAITING and twin.due_at is None
    return job.state, pacs and pacs.state, WAITS_FOR_PACS if waits else twin and twin.state


@pytest.fixture
def names(empty_url: str) -> dict[str, str]:
    """A ledger of the first version that was migrated: the job ids by what became of each job."""
    names = write_first_ledger(empty_url)
    migrate(empty_url)
    return names


def test_every_job_of_the_first_version_stands_where_it_stood(
    empty_url: str, names: dict[str, str], open_ledger: Open
) -> None:
    ledger = open_ledger(empty_url)
    assert names.keys() == EXPECTED.keys()
    assert {name: stands(ledger, ledger.jobs.find(job_id)) for name, job_id in names.items()} == EXPECTED


def test_what_confirmed_a_delivery_of_the_first_version_is_said(
    empty_url: str, names: dict[str, str], open_ledger: Open
) -> None:
    ledger = open_ledger(empty_url)
    job_id = names["done"]
    pacs, twin = ledger.deliveries.of_jobs([job_id])[job_id]
    assert (pacs.confirmed_by, twin.confirmed_by) == ("C-STORE status", "FHIR transaction")
    assert pacs.confirmed_at is not None
    assert ledger.objects.has_issued(ledger.jobs.find(job_id).pet_series_uid or "")


def test_a_node_takes_on_what_the_first_version_left_where_its_files_are(
    empty_url: str, names: dict[str, str], open_ledger: Open
) -> None:
    ledger = open_ledger(empty_url, "scanner-1")
    assert ledger.jobs.claim() is None and ledger.deliveries.claim("pacs") is None
    here = [names["queued and leased"], names["rendered"], names["delivered"], names["done"]]
    ledger.adopt(here, ["1.2.1"])
    ledger.enter("folder of scanner-1")
    job, pacs, twin = ledger.jobs.claim(), ledger.deliveries.claim("pacs"), ledger.deliveries.claim("twin")
    assert job is not None and job.job_id == names["queued and leased"]
    assert pacs is not None and pacs.job_id == names["rendered"]
    assert twin is not None and twin.job_id == names["delivered"]
    assert ledger.jobs.claim() is None
    study = ledger.studies.find("1.2.1")
    assert study is not None and study.fingerprint == "f" * 64
    assert ledger.studies.find("1.2.2") is None


def test_jobs_that_the_first_version_gave_up_go_on_when_a_person_says_so(
    empty_url: str, names: dict[str, str], open_ledger: Open
) -> None:
    ledger = open_ledger(empty_url)
    assert ledger.release(names["rejected by the twin"]).state == State.RENDERED
    assert ledger.retry(names["failed at the PACS"]).state == State.RENDERED
    assert ledger.retry(names["failed in its render"]).state == State.QUEUED
    assert ledger.retry(names["rejected by its CT"]).state == State.QUEUED


def test_after_the_migration_of_the_second_version_the_twin_waits_for_what_its_job_requires(sqlite_url: str) -> None:
    """It waited for the one PACS by its name; the index of claims stays one of claimed rows alone."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(files("twin_scanner.service.ledger") / "migrations"))
    engine = make_engine(sqlite_url, create=True)
    row = "INSERT INTO deliveries (job_id, destination, after, state, attempts, reason, confirmed_by) VALUES "
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0002")
        connection.exec_driver_sql(
            row + "('j', 'pacs', NULL, 'stored', 1, '', ''), ('j', 'twin', 'pacs', 'waiting', 0, '', '')"
        )
    migrate(sqlite_url)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT destination, required, after_required, outcome FROM deliveries")
        assert list(found) == [("pacs", 1, 0, None), ("twin", 1, 1, None)]
        partial = connection.exec_driver_sql("SELECT name FROM pragma_index_list('deliveries') WHERE partial = 1")
        assert list(partial.scalars()) == ["ix_deliveries_claimed"]
    engine.dispose()


def test_what_was_kept_apart_is_counted_from_the_events_of_before(empty_url: str, open_ledger: Open) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(files("twin_scanner.service.ledger") / "migrations"))
    engine = make_engine(empty_url, create=True)
    values = "'twin', '2026-03-01 12:00:00', 'test', {}, 'studies', '{}', '{}', 'h'"
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0006")
        for study_id in (1, 2):
            row = f"{study_id}, 'node', 'taken', 0, '', '1.2.{study_id}', '', 9, '', ''"
            columns = "study_id, node, state, attempts, reason, study_uid, calling_ae, received, evidence, fingerprint"
            connection.exec_driver_sql(f"INSERT INTO studies ({columns}) VALUES ({row})")
        for study_id, what, detail in ((1, "kept apart", '{"count": 2}'), (1, "kept apart", '{"count": 3}'),
                                       (2, "kept apart", '{"count": 4}'), (2, "cleared", "{}")):  # fmt: skip
            columns = "node, at, who, what, of_table, row_id, detail, hash"
            row = values.format(f"'{what}'", study_id, detail)
            connection.exec_driver_sql(f"INSERT INTO events ({columns}) VALUES ({row})")
    engine.dispose()
    migrate(empty_url)
    apart = open_ledger(empty_url).overview.apart(10)
    assert [(study.study_uid, study.kept_apart, study.study_date) for study in apart] == [("1.2.1", 3, None)]


def test_the_migrations_make_the_tables_and_indexes_that_the_code_has(empty_url: str, names: dict[str, str]) -> None:
    engine = sa.create_engine(empty_url)
    there = sa.inspect(engine)
    assert set(there.get_table_names()) == {*METADATA.tables, "alembic_version"}
    for table in METADATA.tables.values():
        columns = {c["name"]: (type_name(c["type"]), c["nullable"]) for c in there.get_columns(table.name)}
        expected = {c.name: (type_name(c.type.compile(engine.dialect)), c.nullable) for c in table.columns}
        assert columns == expected, table.name
        indexes = {str(i["name"]): i["column_names"] for i in there.get_indexes(table.name) if not i["unique"]}
        wanted = {str(i.name): [c.name for c in i.columns] for i in table.indexes}
        assert indexes == wanted, table.name
        unique = {tuple(u["column_names"]) for u in there.get_unique_constraints(table.name)}
        assert unique == {
            tuple(c.name for c in u.columns) for u in table.constraints if isinstance(u, sa.UniqueConstraint)
        }, table.name
    engine.dispose()


def type_name(of: object) -> str:
    return str(of).upper().replace(" WITHOUT TIME ZONE", "")


def test_nodes_that_migrate_at_once_all_start(empty_url: str) -> None:
    """Of three nodes on PostgreSQL two used to die of a raw IntegrityError."""
    write_first_ledger(empty_url)
    program = f"from twin_scanner.service.ledger import migrate; migrate({empty_url!r})"
    nodes = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    endings = [(node.communicate(timeout=60)[1], node.returncode) for node in nodes]
    assert endings == [("", 0)] * 3


def test_nodes_that_create_a_ledger_at_once_all_start(empty_url: str) -> None:
    program = f"from twin_scanner.service.ledger import migrate; migrate({empty_url!r})"
    nodes = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    endings = [(node.communicate(timeout=60)[1], node.returncode) for node in nodes]
    assert endings == [("", 0)] * 3


def test_a_look_into_a_wrong_folder_creates_nothing_and_says_so(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    with pytest.raises(Rejected, match=r"There is no ledger at .*ledger\.sqlite: check the configuration"):
        Ledger(url, node="node")
    assert migration_state(url) is None
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_of_another_version_is_refused_in_one_sentence(empty_url: str, names: dict[str, str]) -> None:
    engine = sa.create_engine(empty_url)
    for version, sentence in (("0001", "run 'twin-scanner ledger migrate'"), ("9999", "written by a newer version")):
        with engine.begin() as connection:
            connection.execute(sa.text(f"UPDATE alembic_version SET version_num = '{version}'"))
        with pytest.raises(Rejected, match=sentence):
            Ledger(empty_url, node="node")
    with pytest.raises(Rejected, match="written by a newer version"):
        migrate(empty_url)
    engine.dispose()


def test_a_database_that_is_empty_is_no_ledger_yet(empty_url: str, clock: Clock) -> None:
    if empty_url.startswith("sqlite"):
        Path(empty_url.removeprefix("sqlite:///")).touch()
    with pytest.raises(Rejected, match="at migration none"):
        Ledger(empty_url, node="node")


def test_what_cannot_be_opened_is_one_sentence_without_its_password(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with pytest.raises(Transient, match=r"ledger\.url"):
        migrate(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.sqlite'}")
    with pytest.raises(Transient, match=r"ledger\.url") as raised:
        migrate(f"postgresql+psycopg://me:secret@127.0.0.1:{free_port()}/ledger")
    assert "secret" not in str(raised.value)
    with pytest.raises(Misconfigured, match=r"ledger\.url is no database URL"):
        migrate("not a url")
    with pytest.raises(Misconfigured, match="neither SQLite nor PostgreSQL"):
        migrate("mysql://me@127.0.0.1/ledger")
    (tmp_path / "text").write_bytes(b"this is no database, and long enough for its header\n" * 40)
    with pytest.raises(Defect, match="damaged"):
        migrate(f"sqlite:///{tmp_path / 'text'}")


def test_a_new_ledger_on_sqlite_is_its_owners_alone_whatever_the_umask(
    sqlite_url: str, tmp_path: Path, open_ledger: Open
) -> None:
    """Without the unit's UMask everybody on the machine could read which patient's studies are here."""
    with open_umask():
        migrate(sqlite_url)
        open_ledger(sqlite_url)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("ledger.sqlite*")}
    assert modes == {f"ledger.sqlite{end}": 0o600 for end in ("", "-wal", "-shm")}
