"""A backup while nodes write, and the way back: nothing is lost that it held, and no archive gets anything twice."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from tests.fakes.archive import Archive
from tests.fakes.clock import Clock
from tests.fakes.delivery_site import DeliverySite, archive_destination
from tests.peers.postgresql import USER, PostgreSQL
from tests.samples.twin_updates import an_update
from twin_record.embedded import EmbeddedStore
from twin_record.update import TwinSite
from twin_scanner.errors import Rejected
from twin_scanner.files.file_lock import take_lock
from twin_scanner.models.store import DEMONSTRATION_FOLDER, ModelStore
from twin_scanner.service.backup import MANIFEST, Places, back_up, remove_older, restore
from twin_scanner.service.ledger import Ledger, NewJob, migrate

pytestmark = pytest.mark.record

Open = Callable[..., Ledger]
AT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SITE = TwinSite(patient_identifier_system="urn:oid:2.999.1")


def quiet(_done: int, _total: int) -> None:
    pass


def write_backup(places: Places, into: Path, at: datetime = AT, progress: Callable[[int, int], None] = quiet) -> Path:
    return back_up(places, into, version="0.1.0", node="node", at=at, progress=progress)


def new_job(number: int) -> NewJob:
    return NewJob(f"1.2.{number}", "1.9", "1.2.3", f"{number:064x}", 2)


@pytest.fixture
def places(tmp_path: Path, migrated_sqlite_url: str) -> Places:
    """A node's folder with a ledger without rows."""
    return Places(tmp_path, migrated_sqlite_url, tmp_path / "twin.sqlite", tmp_path / "models")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Places:
    """Where a backup is put back: a new disk."""
    folder = tmp_path / "elsewhere"
    return Places(folder, f"sqlite:///{folder / 'ledger.sqlite'}", folder / "twin.sqlite", folder / "models")


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive() as running:
        yield running


def lose_ledger(tmp_path: Path) -> None:
    for file in tmp_path.glob("ledger.sqlite*"):
        file.unlink()


def test_what_an_archive_has_taken_since_the_backup_is_not_sent_again(
    tmp_path: Path, places: Places, open_ledger: Open, clock: Clock, archive: Archive
) -> None:
    """The ledger alone is lost. What was answered for stands in the job's folder, so the delivery that waits in the
    restored ledger sends nothing, asks the archive, and is done."""
    destination = archive_destination(archive)
    ledger = open_ledger(places.ledger_url)
    site = DeliverySite(tmp_path, ledger, clock, destination)
    job = site.job()
    backup = write_backup(places, tmp_path / "backups")
    site.run()
    assert site.state(job) == "done" and set(archive.counts()) == {1}
    ledger.close()
    lose_ledger(tmp_path)

    restore(places, backup, quiet)
    again = DeliverySite(tmp_path, open_ledger(places.ledger_url), clock, destination)
    assert again.state(job) == "rendered"
    again.run()
    assert again.state(job) == "done"
    assert set(archive.counts()) == {1}


def test_on_a_new_disk_an_open_delivery_sends_nothing_and_says_what_to_do(
    tmp_path: Path, places: Places, elsewhere: Places, open_ledger: Open, clock: Clock, archive: Archive
) -> None:
    destination = archive_destination(archive)
    site = DeliverySite(tmp_path, open_ledger(places.ledger_url), clock, destination)
    job = site.job()
    backup = write_backup(places, tmp_path / "backups")
    site.run()

    restore(elsewhere, backup, quiet)
    again = DeliverySite(elsewhere.folder, open_ledger(elsewhere.ledger_url), clock, destination)
    again.run()
    assert again.state(job) == "failed"
    assert "not in its folder any more" in again.delivery(job).reason
    assert set(archive.counts()) == {1}


def test_a_backup_holds_one_moment_of_a_ledger_that_is_written_meanwhile(
    tmp_path: Path, places: Places, elsewhere: Places, open_ledger: Open
) -> None:
    ledger, stop, begun = open_ledger(places.ledger_url), threading.Event(), threading.Event()
    opened: list[str] = []

    def write() -> None:
        while not stop.is_set():
            opened.append(ledger.jobs.open(new_job(len(opened))).job_id)
            begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(60)
    before = len(opened)
    backup = write_backup(places, tmp_path / "backups")
    stop.set()
    writer.join()
    restore(elsewhere, backup, quiet)
    found = open_ledger(elsewhere.ledger_url)
    with found.database.read() as connection:
        jobs = set(connection.execute(sa.text("SELECT job_id FROM jobs")).scalars())
        events = list(connection.execute(sa.text("SELECT row_id FROM events WHERE of_table = 'jobs'")).scalars())
    assert before <= len(jobs) <= len(opened)
    assert jobs == set(opened[: len(jobs)])
    assert set(events) == jobs


def test_what_is_recorded_during_a_backup_is_in_the_twin_and_never_in_the_ledger_alone(
    tmp_path: Path, places: Places, elsewhere: Places, open_ledger: Open
) -> None:
    ledger = open_ledger(places.ledger_url)
    update = an_update()

    with closing(EmbeddedStore(places.twin, SITE)) as twin:

        def meanwhile(done: int, _total: int) -> None:
            if done == 1:
                twin.record(update)
                ledger.jobs.open(new_job(1))

        backup = write_backup(places, tmp_path / "backups", progress=meanwhile)
    restore(elsewhere, backup, quiet)
    with closing(EmbeddedStore(elsewhere.twin, SITE)) as found:
        assert len(list(found.records())) == 1
    assert open_ledger(elsewhere.ledger_url).jobs.claim() is None


def test_the_models_come_back_with_the_champion_and_why_it_is_one(
    tmp_path: Path, places: Places, elsewhere: Places
) -> None:
    store = ModelStore(places.models)
    store.challenge("champion")
    (places.models / "aliases.json").write_text(json.dumps({"champion": store.aliases()["challenger"]}), "utf-8")
    (places.models / ".half").mkdir()
    (places.models / ".half" / "card.json").write_text("{}")
    restore(elsewhere, write_backup(places, tmp_path / "backups"), quiet)
    found = ModelStore(elsewhere.models)
    assert found.aliases() == store.aliases()
    assert found.resolve("champion").parent == elsewhere.models
    assert found.resolve("champion") != DEMONSTRATION_FOLDER
    assert not (elsewhere.models / ".half").exists()


def no_wait(seconds: float) -> None:
    raise AssertionError("the restored node waits for the one that was backed up")


def test_a_node_that_was_backed_up_while_it_ran_starts_at_once_on_a_new_disk(
    tmp_path: Path, places: Places, elsewhere: Places, open_ledger: Open
) -> None:
    open_ledger(places.ledger_url, holder="the old disk")
    restore(elsewhere, write_backup(places, tmp_path / "backups"), quiet)
    restored = open_ledger(elsewhere.ledger_url, holder=None)
    assert restored.leases.take_node("the new disk", no_wait)


def test_a_ledger_on_postgresql_goes_through_its_own_programs_and_comes_back_the_same(
    tmp_path: Path, postgresql: PostgreSQL, open_ledger: Open
) -> None:
    urls = []
    with psycopg.connect(f"host=127.0.0.1 port={postgresql.port} user={USER} dbname=postgres", autocommit=True) as root:
        for name in ("backed_up", "restored"):
            root.execute(f"CREATE DATABASE {name}".encode())
            urls.append(f"postgresql+psycopg://{USER}@127.0.0.1:{postgresql.port}/{name}")
    migrate(urls[0])
    ledger = open_ledger(urls[0])
    job = ledger.jobs.open(new_job(1))
    folder = tmp_path / "node"
    origin, target = (Places(folder, url, folder / "twin.sqlite", folder / "models") for url in urls)
    backup = write_backup(origin, tmp_path / "backups")
    ledger.close()
    restore(target, backup, quiet)
    found = open_ledger(urls[1], holder=None)
    assert found.leases.take_node("the new disk", no_wait)
    assert found.jobs.find(job.job_id) == job
    with pytest.raises(Rejected, match="has tables already"):
        restore(target, backup, quiet)
    found.close()


def test_a_restore_overwrites_nothing(tmp_path: Path, places: Places) -> None:
    backup = write_backup(places, tmp_path / "backups")
    with pytest.raises(Rejected, match=r"ledger\.sqlite is there already: move it away first"):
        restore(places, backup, quiet)


def test_a_restore_is_refused_while_a_scanner_runs_on_the_folder(
    tmp_path: Path, places: Places, elsewhere: Places
) -> None:
    backup = write_backup(places, tmp_path / "backups")
    running = take_lock(elsewhere.folder / "lock", None)
    with pytest.raises(Rejected, match="A scanner runs on"):
        restore(elsewhere, backup, quiet)
    running.close()
    assert not (elsewhere.folder / "ledger.sqlite").exists()


@pytest.mark.parametrize("fault", ["changed", "removed", "without manifest", "newer", "outside"])
def test_a_backup_that_is_not_whole_restores_nothing(
    tmp_path: Path, places: Places, elsewhere: Places, fault: str
) -> None:
    backup = write_backup(places, tmp_path / "backups")
    manifest = json.loads((backup / MANIFEST).read_text("utf-8"))
    match fault:
        case "changed":
            (backup / "ledger.sqlite").write_bytes((backup / "ledger.sqlite").read_bytes()[:-1] + b"x")
        case "removed":
            (backup / "ledger.sqlite").unlink()
        case "without manifest":
            (backup / MANIFEST).unlink()
        case "newer":
            (backup / MANIFEST).write_text(json.dumps({**manifest, "migration": "9999"}), "utf-8")
        case "outside":
            files = {**manifest["files"], "../../ledger.sqlite": "0"}
            (backup / MANIFEST).write_text(json.dumps({**manifest, "files": files}), "utf-8")
    with pytest.raises(Rejected, match=r"choose another|newer version"):
        restore(elsewhere, backup, quiet)
    assert not elsewhere.folder.exists()


def test_a_backup_is_its_owners_alone(tmp_path: Path, places: Places) -> None:
    backup = write_backup(places, tmp_path / "backups")
    paths = [backup, *backup.rglob("*")]
    assert {path.stat().st_mode & 0o077 for path in paths if path.is_file() or path == backup} == {0}


def test_the_newest_backups_are_kept_and_nothing_else_is_removed(tmp_path: Path, places: Places) -> None:
    into = tmp_path / "backups"
    made = [write_backup(places, into, AT.replace(day=day)) for day in (1, 2, 3)]
    (into / "notes").mkdir()
    (into / "20200101T000000Z").mkdir()
    assert remove_older(into, 2) == made[:1]
    assert sorted(path.name for path in into.iterdir()) == ["20200101T000000Z", *(p.name for p in made[1:]), "notes"]


def test_without_a_ledger_there_is_nothing_to_back_up(elsewhere: Places, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="There is no ledger to back up"):
        write_backup(elsewhere, tmp_path / "backups")
    assert not (tmp_path / "backups").exists()
