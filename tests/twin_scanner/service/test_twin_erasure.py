"""A patient forgotten: the ledger, the store of before a move, and what stays on a server that is not ours."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.fakes.archive import Archive
from tests.fakes.clock import Clock
from tests.fakes.delivery_site import DeliverySite, archive_destination
from tests.samples.twin_updates import SITE, an_update
from twin_record.embedded import EmbeddedStore
from twin_record.resources.patient import patient_key
from twin_scanner.errors import Rejected, Unavailable
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import ERASED, KeptUpdate, Ledger, NewJob, Which
from twin_scanner.service.twin_erasure import erase

pytestmark = pytest.mark.record
Open = Callable[..., Ledger]
KEY_OF = partial(patient_key, site=SITE)


@pytest.fixture
def ledger(sqlite_ledger: Ledger) -> Ledger:
    return sqlite_ledger


def test_what_a_lane_recorded_stays_in_the_ledger_and_is_not_recorded_again_once_erased(
    ledger: Ledger, tmp_path: Path, clock: Clock
) -> None:
    with Archive() as archive:
        site = DeliverySite(tmp_path, ledger, clock, archive_destination(archive))
        first = site.job()
        site.run()
        (update,) = site.recorded
        (kept,) = ledger.updates.to_record("elsewhere", only=Which())
        assert (kept.job_id, kept.made_at, kept.document) == (first.job_id, first.made_at, update.as_json())
        assert ledger.updates.count("embedded", only=Which()) == 0
        erased = erase(ledger, site.folders, [], None, KEY_OF, (update.patient_id, update.issuer_of_patient_id))
        assert (erased.updates, erased.files) == ((first.job_id,), (first.job_id,))
        waiting = site.job(2, study=2)
        ledger.updates.keep(KeptUpdate(waiting.job_id, waiting.made_at, update.patient_id, update.as_json()))
        erase(ledger, site.folders, [], None, KEY_OF, (update.patient_id, None))
        site.run()
        assert len(site.recorded) == 1
        assert (site.state(waiting), site.delivery(waiting, "twin").confirmed_by) == ("done", ERASED)


def test_images_are_said_to_be_kept_where_they_lie_and_nowhere_else(
    ledger: Ledger, migrated_sqlite_url: str, open_ledger: Open, tmp_path: Path
) -> None:
    """Here the disk says it, whatever the ledger knows; of another node's jobs the ledger does."""
    folders, update = JobFolders(tmp_path / "jobs"), an_update()
    other = open_ledger(migrated_sqlite_url, "other")
    jobs = {}
    for name, node in (("kept", ledger), ("put away", ledger), ("gone", ledger), ("there", other)):
        jobs[name] = node.jobs.open(NewJob(f"1.2.{len(jobs)}", "1.9", "1.2.3", f"{len(jobs):064x}", 2)).job_id
        ledger.updates.keep(KeptUpdate(jobs[name], update.made_at, update.patient_id, update.as_json()))
    for name in ("kept", "put away"):
        folders.ct(jobs[name]).mkdir(parents=True)
    folders.put_away(jobs["put away"])
    erased = erase(ledger, folders, [], None, KEY_OF, (update.patient_id, update.issuer_of_patient_id))
    assert set(erased.updates) == set(jobs.values())
    assert sorted(erased.files) == sorted(jobs[name] for name in ("kept", "put away", "there"))


def test_what_is_ours_on_a_server_is_named_and_what_is_the_hospitals_is_not(ledger: Ledger, tmp_path: Path) -> None:
    update = an_update()
    server = EmbeddedStore(tmp_path / "server.sqlite", SITE)
    server.record(update)
    erased = erase(ledger, JobFolders(tmp_path / "jobs"), [], server, KEY_OF, (update.patient_id, None))
    assert sorted(literal.split("/")[0] for literal in erased.elsewhere) == ["ImagingStudy", "List", "Provenance"]
    assert server.patient_record(update.patient_id, None)
    server.close()


def test_a_server_that_cannot_be_asked_keeps_nothing_of_ours_from_being_erased(ledger: Ledger, tmp_path: Path) -> None:
    update = an_update()
    ledger.updates.keep(KeptUpdate("f" * 32, update.made_at, update.patient_id, update.as_json()))
    store = EmbeddedStore(tmp_path / "store.sqlite", SITE)
    store.record(update)

    class Down(EmbeddedStore):
        def patient_record(self, patient_id: str, issuer: str | None) -> dict[str, object]:
            raise Unavailable("The FHIR server cannot be reached.")

    down = Down(tmp_path / "server.sqlite", SITE)
    with pytest.raises(Unavailable):
        erase(ledger, JobFolders(tmp_path / "jobs"), [store], down, KEY_OF, (update.patient_id, None))
    assert ledger.updates.count("anywhere", only=Which()) == 0
    with pytest.raises(Rejected, match="no twin record"):
        store.patient_record(update.patient_id, None)
    for one in (store, down):
        one.close()
