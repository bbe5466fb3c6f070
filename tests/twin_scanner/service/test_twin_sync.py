"""The twin record made again from the ledger: elsewhere, after a restored server, after an outage."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.archive import Archive
from tests.fakes.clock import Clock
from tests.fakes.delivery_site import HOUR_S, DeliverySite, archive_destination
from tests.peers.twin_rig import opened_stores
from tests.samples.twin_updates import MADE_AT, a_series, an_update, another_study
from twin_record.embedded import EmbeddedStore
from twin_record.target import TwinReceipt
from twin_record.update import TwinUpdate
from twin_scanner.errors import Held, Unavailable
from twin_scanner.render.report import REPORT
from twin_scanner.service.ledger import KeptUpdate, Ledger, Which
from twin_scanner.service.ledger.updates import UPDATES
from twin_scanner.service.twin_sync import SyncReport, keep_missing, sync, to_sync

pytestmark = pytest.mark.record
Make = Callable[[str], EmbeddedStore]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Make]:
    """Opens embedded stores by name."""
    with opened_stores(tmp_path) as make:
        yield make


@pytest.fixture
def ledger(sqlite_ledger: Ledger) -> Ledger:
    return sqlite_ledger


class Target:
    """A store that refuses what it is told to, and says in which order it was asked."""

    def __init__(self, store: EmbeddedStore) -> None:
        self.store = store
        self.asked: list[str] = []
        self.errors: dict[str, Exception] = {}

    def record(self, update: TwinUpdate) -> TwinReceipt:
        self.asked.append(update.study_uid)
        if update.study_uid in self.errors:
            raise self.errors[update.study_uid]
        return self.store.record(update)


def keep(ledger: Ledger, *updates: TwinUpdate) -> None:
    for update in updates:
        job_id = update.pet_series.series_uid[-32:]
        assert ledger.updates.keep(KeptUpdate(job_id, update.made_at, update.patient_id, update.as_json()))


def run(ledger: Ledger, target: Any, name: str = "here", again: Which | None = None) -> SyncReport:
    return sync(ledger, target, name, again, lambda done, total: None)


def content(store: EmbeddedStore, patient_id: str) -> Any:
    """The record without what a store gives by itself: ids, versions, times."""
    bundle = store.patient_record(patient_id, None)
    resources = [entry["resource"] for entry in bundle["entry"]]
    text = json.dumps([{**r, "meta": {**r.get("meta", {}), "versionId": "", "lastUpdated": ""}} for r in resources])
    for number, resource in enumerate(resources):
        text = text.replace(resource["id"], f"{resource['resourceType']} {number}")
    return json.loads(text)


def versions(store: EmbeddedStore, patient_id: str) -> list[str]:
    bundle = store.patient_record(patient_id, None)
    return [entry["resource"]["meta"]["versionId"] for entry in bundle["entry"]]


def test_a_record_moves_to_another_target_whole_and_a_second_run_has_nothing_to_do(ledger: Ledger, store: Make) -> None:
    first = an_update()
    late = replace(
        first,
        pet_series=a_series("PT"),
        replaces_series_uids=(first.pet_series.series_uid,),
        made_at=MADE_AT + timedelta(minutes=5),
    )
    updates = (first, late, another_study(first))
    old, new = store("old"), store("new")
    for update in updates:
        old.record(update)
    keep(ledger, *reversed(updates))
    report = run(ledger, new)
    assert (len(report.written), report.there, report.is_whole) == (3, [], True)
    assert content(new, first.patient_id) == content(old, first.patient_id)
    again = run(ledger, new)
    assert (again.written, again.there) == ([], [])


def test_what_is_there_already_is_not_written_again(ledger: Ledger, store: Make) -> None:
    first = an_update()
    target = store("new")
    keep(ledger, first, another_study(first))
    run(ledger, target)
    before = versions(target, first.patient_id)
    report = run(ledger, target, again=Which())
    assert (report.written, len(report.there)) == ([], 2)
    assert versions(target, first.patient_id) == before


def test_a_refusal_of_one_does_not_end_the_run(ledger: Ledger, store: Make) -> None:
    updates = [an_update(made_at=MADE_AT + timedelta(hours=hour)) for hour in range(3)]
    target = Target(store("new"))
    target.errors[updates[1].study_uid] = Held("The FHIR server refuses this twin record.")
    keep(ledger, *updates)
    report = run(ledger, target)
    assert len(report.written) == 2 and not report.is_whole
    assert list(report.refused.values()) == ["The FHIR server refuses this twin record."]
    target.errors.clear()
    assert len(run(ledger, target).written) == 1


def test_a_server_that_goes_away_ends_the_run_and_the_next_one_goes_on(ledger: Ledger, store: Make) -> None:
    updates = [an_update(made_at=MADE_AT + timedelta(hours=hour)) for hour in range(4)]
    target = Target(store("new"))
    target.errors[updates[2].study_uid] = Unavailable("The FHIR server cannot be reached.")
    keep(ledger, *updates)
    report = run(ledger, target, again=Which())
    assert (report.stopped, report.left, len(report.written)) == ("The FHIR server cannot be reached.", 2, 2)
    target.errors.clear()
    target.asked.clear()
    assert len(run(ledger, target).written) == 2
    assert target.asked == [update.study_uid for update in updates[2:]]


def test_an_update_that_cannot_be_read_is_one_refusal(ledger: Ledger, store: Make) -> None:
    good = an_update()
    keep(ledger, good)
    ledger.updates.keep(KeptUpdate("f" * 32, MADE_AT - timedelta(days=1), "P1", {"patient_id": "P1"}))
    report = run(ledger, store("new"))
    assert list(report.refused) == ["f" * 32] and len(report.written) == 1


def test_a_run_for_one_patient_records_nobody_else(ledger: Ledger, store: Make) -> None:
    one, other = an_update(), an_update()
    keep(ledger, one, other)
    which = Which(patient_id=one.patient_id)
    assert to_sync(ledger, "here", which) == 1
    assert len(run(ledger, store("new"), again=which).written) == 1
    assert to_sync(ledger, "here", None) == 1


def test_the_progress_counts_every_update(ledger: Ledger, store: Make) -> None:
    keep(ledger, an_update(), an_update())
    seen: list[tuple[int, int]] = []
    sync(ledger, store("new"), "here", None, lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("left", ["the files", "the result and another job of the study"])
def test_a_job_of_a_version_that_kept_no_update_gets_the_same_one(
    ledger: Ledger, tmp_path: Path, clock: Clock, left: str
) -> None:
    """``sync`` only named such jobs, and nothing could record them again."""
    with Archive() as archive:
        site = DeliverySite(tmp_path, ledger, clock, archive_destination(archive))
        job = site.job(1)
        site.run()
        site.job(2)
        site.run()
        with ledger.database.write() as write:
            write.execute(UPDATES.delete().where(UPDATES.c.job_id == job.job_id))
        if left != "the files":
            shutil.rmtree(site.folders.result(job.job_id))
        assert ledger.updates.unkept() == [job.job_id]
        assert keep_missing(ledger, site.folders, site.destinations) == [job.job_id]
    kept = ledger.updates.of_job(job.job_id)
    assert kept is not None
    update, recorded = TwinUpdate.from_json(kept.document), site.recorded[0]
    # The fake render's report says neither, and its row names another frame of reference: a real one's do.
    said = {"description": update.pet_series.description, "number": update.pet_series.number}
    frame = {"frame_of_reference_uid": update.frame_of_reference_uid}
    assert update == replace(recorded, **frame, pet_series=replace(recorded.pet_series, **said))
    assert ledger.updates.unkept() == []
    assert to_sync(ledger, "embedded", None) == 1


def test_a_job_of_which_too_little_is_left_stays_without_an_update(
    ledger: Ledger, tmp_path: Path, clock: Clock
) -> None:
    with Archive() as archive:
        site = DeliverySite(tmp_path, ledger, clock, archive_destination(archive))
        job = site.job()
        site.run()
    with ledger.database.write() as write:
        write.execute(UPDATES.delete())
    (site.folders.result(job.job_id) / REPORT).write_text("{")
    assert keep_missing(ledger, site.folders, site.destinations) == []
    shutil.rmtree(site.folders.result(job.job_id))
    assert keep_missing(ledger, site.folders, site.destinations) == []
    assert ledger.updates.unkept() == [job.job_id]


def test_an_outage_is_tried_through_to_the_age_limit_then_it_is_an_alarm_and_sync_still_records(
    ledger: Ledger, store: Make, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with Archive() as archive:
        site = DeliverySite(tmp_path, ledger, clock, archive_destination(archive))
        job = site.job()
        site.steps.twin.record = refusing  # type: ignore[method-assign]
        site.run()
        for _ in range(29):
            clock.pass_s(24 * HOUR_S)
            site.run()
        assert site.delivery(job, "twin").state == "waiting"
        assert site.delivery(job, "twin").attempts == 30
        clock.pass_s(2 * 24 * HOUR_S)
        site.run()
        assert (site.state(job), site.delivery(job, "twin").state) == ("failed", "failed")
    assert [record.levelname for record in caplog.records if "given up" in record.message] == ["ERROR"]
    assert run(ledger, store("new"), "embedded").written == [job.job_id]


def refusing(update: TwinUpdate) -> TwinReceipt:
    raise Unavailable("The FHIR server cannot be reached.")
