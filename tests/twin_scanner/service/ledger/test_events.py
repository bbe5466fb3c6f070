"""Events: the timeline of a row, a hash chain per node that shows every change, and no identity of a patient."""

import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from tests.fakes.clock import Clock
from twin_scanner.errors import Transient
from twin_scanner.service.ledger import Arrival, Ledger, NewJob, acting_as
from twin_scanner.service.ledger.events import EVENTS

pytestmark = pytest.mark.record

Open = Callable[..., Ledger]


def job_that_failed(ledger: Ledger, clock: Clock, number: int = 1) -> str:
    ledger.jobs.open(NewJob(f"1.2.{number}", "1.9", "1.2.3", f"{number:064x}", 20))
    job = ledger.jobs.claim()
    assert job is not None
    clock.pass_s(12.5)
    ledger.jobs.postpone(job, 0.0, "There is no model 'champion'.", error="Misconfigured", alarm=True)
    job = ledger.jobs.claim()
    assert job is not None
    clock.pass_s(2.5)
    ledger.jobs.fail(job, "Unexpected KeyError: see the log.")
    return job.job_id


def test_the_timeline_of_a_job_says_what_happened_and_how_long_it_took(ledger: Ledger, clock: Clock) -> None:
    job_id = job_that_failed(ledger, clock)
    timeline = ledger.events.of_row("jobs", job_id)
    assert [(event.what, event.detail) for event in timeline] == [
        ("opened", {}),
        ("alarm", {"error": "Misconfigured", "attempts": 1}),
        ("failed", {"seconds": 2.5}),
    ]
    assert {(event.node, event.who) for event in timeline} == {("node", "test")}
    assert (timeline[-1].at - timeline[0].at).total_seconds() == 15.0


def test_a_changed_and_a_removed_event_are_found(ledger: Ledger, clock: Clock) -> None:
    job_that_failed(ledger, clock)
    assert ledger.events.first_broken("node") is None
    second = ledger.events.of_row("jobs", ledger.jobs.newest()[0].job_id)[1]
    with ledger.database.engine.begin() as connection:
        connection.execute(EVENTS.update().where(EVENTS.c.event_id == second.event_id).values(who="nobody"))
    broken = ledger.events.first_broken("node")
    assert broken is not None and broken.event_id == second.event_id
    with ledger.database.engine.begin() as connection:
        connection.execute(sa.delete(EVENTS).where(EVENTS.c.event_id == second.event_id))
    broken = ledger.events.first_broken("node")
    assert broken is not None and broken.what == "failed"


def test_each_node_has_a_chain_of_its_own_also_when_threads_write_at_once(
    url: str, ledger: Ledger, open_ledger: Open, clock: Clock
) -> None:
    other = open_ledger(url, "other")

    def write(node: Ledger, first: int) -> None:
        for number in range(first, first + 8):
            node.jobs.open(NewJob(f"1.2.{number}", "1.9", "1.2.3", f"{number:064x}", 20))

    writers = ((ledger, 0), (ledger, 100), (other, 200), (other, 300))
    threads = [threading.Thread(target=write, args=writer) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.events.first_broken("node") is None and ledger.events.first_broken("other") is None


def test_an_event_stands_or_falls_with_what_it_tells(ledger: Ledger) -> None:
    job = ledger.jobs.open(NewJob("1.2.1", "1.9", "1.2.3", "a" * 64, 20))
    with pytest.raises(Transient), ledger.database.write() as write:
        write.note("jobs", job.job_id, "rendered")
        raise Transient("The power went.")
    assert [event.what for event in ledger.events.of_row("jobs", job.job_id)] == ["opened"]


def test_no_event_holds_free_text_or_an_identity(ledger: Ledger, clock: Clock) -> None:
    job_that_failed(ledger, clock)
    ledger.studies.arrived([Arrival("1.2.1", "PACS", 1, clock(), clock())])
    ledger.studies.complete("1.2.1", "quiet period")
    study = ledger.studies.claim()
    assert study is not None
    ledger.studies.hold(study, "DOE^JANE")
    with ledger.database.read() as connection:
        rows = connection.execute(sa.select(EVENTS)).all()
    assert len(rows) > 5
    for row in rows:
        assert "1.2" not in row.row_id and "DOE" not in str(row)
        for value in row.detail.values():
            assert isinstance(value, int | float) or " " not in value


def test_an_event_that_is_missing_at_the_end_is_found(ledger: Ledger, clock: Clock) -> None:
    job_id = job_that_failed(ledger, clock)
    last = ledger.events.of_row("jobs", job_id)[-1]
    with ledger.database.engine.begin() as connection:
        connection.execute(sa.delete(EVENTS).where(EVENTS.c.event_id == last.event_id))
    broken = ledger.events.first_break("node")
    assert broken is not None and broken.event is None and broken.event_id < last.event_id
    ledger.jobs.open(NewJob("1.2.9", "1.9", "1.2.3", "9" * 64, 20))
    broken = ledger.events.first_break("node")
    assert broken is not None and broken.event is not None and broken.event.what == "opened"


def test_what_a_person_does_is_noted_by_the_persons_name(ledger: Ledger) -> None:
    with acting_as("maria"):
        job = ledger.jobs.open(NewJob("1.2.1", "1.9", "1.2.3", "a" * 64, 20))
    ledger.note(job.job_id, "looked at")
    assert [event.who for event in ledger.events.of_row("jobs", job.job_id)] == ["maria", "test"]


def test_what_was_sent_on_is_not_sent_again(ledger: Ledger, clock: Clock) -> None:
    job_that_failed(ledger, clock)
    first, second = ledger.events.unsent(2)
    ledger.events.sent(second)
    assert first.event_id < second.event_id < min(event.event_id for event in ledger.events.unsent(100))
