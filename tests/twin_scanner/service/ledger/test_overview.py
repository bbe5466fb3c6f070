"""How studies and jobs stand for a person, on a ledger in which a test claims, renders, delivers and gives up."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.fakes.clock import Clock
from twin_scanner.service.ledger import (
    Arrival,
    Destination,
    Job,
    Ledger,
    NewJob,
    Outcome,
    Rendered,
    Result,
    Standing,
    State,
    StudyFacts,
    migrate,
)

pytestmark = pytest.mark.record

Open = Callable[..., Ledger]
MOST = 10


def open_job(ledger: Ledger, number: int, study_uid: str = "") -> Job:
    return ledger.jobs.open(NewJob(study_uid or f"1.2.{number}", "1.3", "1.4", f"{number:064x}", 20))


def rendered_job(ledger: Ledger, number: int, *destinations: Destination) -> Job:
    open_job(ledger, number)
    job = ledger.jobs.claim()
    assert job is not None
    ledger.rendered(job, Rendered(f"2.25.{number}", "m", (), Result({}, {}), destinations))
    return job


def test_a_job_that_renders_is_running_with_its_step_seconds_and_windows(ledger: Ledger, clock: Clock) -> None:
    """It showed as queued for its whole render."""
    job = open_job(ledger, 1)
    (work,) = ledger.overview.waiting(MOST)
    assert (work.standing, work.step, work.begun_at) == (Standing.WAITING, "render", None)
    begun_at = clock.now
    claimed = ledger.jobs.claim()
    assert claimed is not None
    ledger.jobs.note_windows(claimed, 120, 540)
    clock.pass_s(30.0)
    (work,) = ledger.overview.running()
    assert (work.standing, work.step, work.begun_at, work.node) == (Standing.RUNNING, "render", begun_at, "node")
    assert work.job is not None
    assert (work.job.job_id, work.job.windows_done, work.job.windows) == (job.job_id, 120, 540)
    assert ledger.overview.waiting(MOST) == []


def test_windows_of_an_earlier_try_or_of_somebody_else_are_not_shown(ledger: Ledger) -> None:
    open_job(ledger, 1)
    first = ledger.jobs.claim()
    assert first is not None
    ledger.jobs.note_windows(first, 120, 540)
    ledger.jobs.put_back(first)
    again = ledger.jobs.claim()
    assert again is not None and again.windows is None
    ledger.jobs.note_windows(first, 540, 540)
    assert ledger.jobs.find(first.job_id).windows is None


def test_the_claim_of_a_process_that_is_no_more_does_not_run(url: str, open_ledger: Open) -> None:
    died = open_ledger(url)
    open_job(died, 1)
    assert died.jobs.claim() is not None
    assert len(died.overview.running()) == 1
    died.leases.take_node("folder of node")
    successor = open_ledger(url, holder=None)
    successor.leases.take_node("folder of node")
    (work,) = successor.overview.waiting(MOST)
    assert work.standing == Standing.WAITING and successor.overview.running() == []


def test_a_study_is_known_by_its_facts_from_its_arrival_to_its_job(ledger: Ledger, clock: Clock) -> None:
    arrival = Arrival("1.2.1", "CTROOM2", 3, clock(), clock())
    assert ledger.studies.arrived([arrival]) == ["1.2.1"]
    ledger.studies.describe("1.2.1", StudyFacts("20260301", "A-17", "CT thorax"))
    assert ledger.studies.arrived([arrival]) == []
    (arriving,) = ledger.overview.arriving(MOST)
    assert arriving.standing == Standing.ARRIVING
    ledger.studies.complete("1.2.1", "quiet period")
    assert [work.step for work in ledger.overview.arriving(MOST)] == ["intake"]
    assert ledger.studies.claim() is not None
    assert [(work.standing, work.step) for work in ledger.overview.running()] == [(Standing.RUNNING, "intake")]
    job = open_job(ledger, 1, "1.2.1")
    (work,) = ledger.overview.of([job])
    assert work.study is not None
    study = work.study
    assert (study.calling_ae, study.received, study.accession_number) == ("CTROOM2", 6, "A-17")
    assert (study.study_date, study.study_description) == ("20260301", "CT thorax")
    ledger.studies.forget_facts([job.job_id])
    (work,) = ledger.overview.of([job])
    assert work.study is not None and (work.study.accession_number, work.study.study_description) == ("", "")


def test_each_delivery_says_where_it_stands_and_when_it_is_tried_again(ledger: Ledger, clock: Clock) -> None:
    job = rendered_job(ledger, 1, Destination("pacs"), Destination("archive", required=False))
    pacs = ledger.deliveries.claim("pacs")
    assert pacs is not None
    (work,) = ledger.overview.running()
    assert (work.step, work.begun_at) == ("pacs", clock.now)
    ledger.deliveries.postpone(pacs, 60.0, "The PACS does not answer.")
    (work,) = ledger.overview.waiting(MOST)
    assert work.step == "pacs, archive" and work.reason == "pacs: The PACS does not answer."
    clock.pass_s(60.0)
    again, archive = ledger.deliveries.claim("pacs"), ledger.deliveries.claim("archive")
    assert again is not None and archive is not None
    ledger.deliveries.hold(archive, "status 422")
    ledger.deliveries.confirmed(again, "query", Outcome(3, 3))
    assert ledger.jobs.find(job.job_id).state == State.DONE
    (held,) = ledger.overview.held(MOST)
    assert (held.standing, held.reason) == (Standing.HELD, "archive: status 422"), "done, and a person is needed"


def test_a_timeline_joins_the_events_of_study_job_and_deliveries(ledger: Ledger, clock: Clock) -> None:
    ledger.studies.arrived([Arrival("1.2.1", "PACS", 3, clock(), clock())])
    job = rendered_job(ledger, 1, Destination("pacs"))
    delivery = ledger.deliveries.claim("pacs")
    assert delivery is not None
    ledger.deliveries.confirmed(delivery, "query")
    (work,) = ledger.overview.of([ledger.jobs.find(job.job_id)])
    happened = [(event.of_table, event.what) for event in ledger.overview.timeline(work)]
    assert happened == [
        ("studies", "arriving"), ("jobs", "opened"), ("jobs", "rendered"), ("deliveries", "confirmed"), ("jobs", "done")
    ]  # fmt: skip


def test_counts_are_of_what_was_opened_since_and_of_all_that_is_unfinished(ledger: Ledger, clock: Clock) -> None:
    rendered_job(ledger, 1)
    open_job(ledger, 2)
    clock.pass_s(7200.0)
    rendered_job(ledger, 3)
    assert ledger.overview.counts(clock.now - timedelta(hours=1))[State.DONE] == 0
    recent = ledger.overview.counts(clock.now - timedelta(hours=3))
    assert recent[State.DONE] + recent[State.QUEUED] + recent[State.RENDERED] == 3


def test_a_node_gives_a_sign_of_life_with_every_beat(ledger: Ledger, clock: Clock) -> None:
    clock.pass_s(12.0)
    ledger.beat()
    assert [(node.name, node.renewed_at) for node in ledger.overview.nodes()] == [("node", clock.now)]
    (node,) = ledger.overview.nodes()
    assert node.is_alive(clock.now + timedelta(seconds=119)) and not node.is_alive(clock.now + timedelta(seconds=120))
    assert not replace(node, renewed_at=None).is_alive(clock.now), "a version that noted none"


def test_traffic_says_of_each_destination_when_it_last_took_something_and_what_is_not_confirmed(
    ledger: Ledger, clock: Clock
) -> None:
    both = (Destination("archive"), Destination("pacs"))
    for number in range(3):
        rendered_job(ledger, number, *both)
        first = ledger.deliveries.claim("archive")
        assert first is not None
        clock.pass_s(60.0)
        ledger.deliveries.confirmed(first, "query")
    refused = ledger.deliveries.claim("pacs")
    assert refused is not None
    ledger.deliveries.hold(refused, "It refused.")
    traffic = ledger.overview.traffic()
    assert sorted(traffic) == ["archive", "pacs"]
    assert (traffic["archive"].confirmed_at, traffic["archive"].unfinished) == (clock.now, {})
    assert (traffic["pacs"].confirmed_at, traffic["pacs"].unfinished) == (None, {"waiting": 2, "held": 1})


def test_traffic_does_not_read_every_delivery_that_ever_was(sqlite_url: str, open_ledger: Open) -> None:
    """The oracle is EXPLAIN QUERY PLAN; a GROUP BY over all of them took 20 ms with 200,000."""
    migrate(sqlite_url)
    ledger = open_ledger(sqlite_url)
    rendered_job(ledger, 1, Destination("pacs"))
    asked: list[tuple[str, Any]] = []
    sa.event.listen(ledger.database.engine, "before_cursor_execute", lambda *event: asked.append((event[2], event[3])))
    ledger.overview.traffic()
    selects = [one for one in list(asked) if one[0].startswith("SELECT")]
    assert len(selects) == 4
    with ledger.database.engine.connect() as connection:
        for statement, parameters in selects:
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            assert plan[0].startswith("SEARCH deliveries USING"), (statement, plan)


def test_studies_that_are_held_are_found_without_the_jobs_that_are(ledger: Ledger, clock: Clock) -> None:
    open_job(ledger, 1)
    job = ledger.jobs.claim()
    assert job is not None
    ledger.jobs.hold(job, "Who is it?")
    ledger.studies.arrived([Arrival("1.2.9", "CTROOM2", 7, clock.now, clock.now)])
    ledger.studies.hold_incomplete("1.2.9", "count", "Slices are missing.")
    (held,) = ledger.overview.held_studies(MOST)
    assert held.study is not None and (held.study.study_uid, held.job) == ("1.2.9", None)
    assert [work.job is None for work in ledger.overview.held(MOST)] == [True, False]
