"""Jobs on SQLite and PostgreSQL: one per source, claimed once, where the files are, whatever the clock says."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.fakes.clock import Clock
from twin_scanner.errors import Rejected, Transient
from twin_scanner.service.ledger import (
    Destination,
    IssuedSeries,
    Job,
    LeaseLost,
    Ledger,
    NewJob,
    Priority,
    Rendered,
    Result,
    State,
    migrate,
)
from twin_scanner.service.ledger.columns import METADATA

pytestmark = pytest.mark.record

Open = Callable[..., Ledger]
HOUR_S = 3600.0
DESTINATION = Destination("pacs")


def new(number: int = 1, series_uid: str = "1.2.3", study_uid: str = "1.2", priority: int = 0) -> NewJob:
    return NewJob(study_uid, "1.9", series_uid, f"{number:064x}", 20, (("1.2.4", "thinner"),), priority)


def claimed(ledger: Ledger) -> Job:
    job = ledger.jobs.claim()
    assert job is not None
    return job


def slices(count: int) -> NewJob:
    return NewJob("1.2", "1.9", "1.2.3", f"{count:064x}", count)


def test_fewer_slices_on_a_second_node_never_take_the_place_of_more_on_the_first(
    url: str, ledger: Ledger, open_ledger: Open
) -> None:
    """A study that reached two nodes in parts: the smaller part used to supersede the greater one, or to be its next
    revision."""
    other = open_ledger(url, "other")
    whole = ledger.jobs.open(slices(100))
    part = other.jobs.open(slices(60))
    assert (part.state, part.held_for) == (State.HELD, "other node")
    assert "Node node has 100 instances of this series, this one has 60" in part.reason
    assert ledger.jobs.find(whole.job_id).state == State.QUEUED
    assert other.jobs.claim() is None
    rendered(ledger)
    assert other.jobs.open(slices(70)).state == State.HELD
    assert other.release(part.job_id).state == State.QUEUED, "nothing is lost: a person may decide for it"


def test_more_slices_on_a_second_node_take_the_place_of_fewer_on_the_first(
    url: str, ledger: Ledger, open_ledger: Open
) -> None:
    other = open_ledger(url, "other")
    part = ledger.jobs.open(slices(60))
    whole = other.jobs.open(slices(100))
    assert (whole.state, whole.node) == (State.QUEUED, "other")
    assert ledger.jobs.find(part.job_id).state == State.SUPERSEDED
    rendered(other)
    assert ledger.jobs.open(slices(120)).revision == 2


def test_the_same_source_opens_one_job_however_often_it_is_sent(ledger: Ledger) -> None:
    first = ledger.jobs.open(new())
    assert ledger.jobs.open(new()) == first
    ledger.jobs.fail(claimed(ledger), "x")
    assert ledger.jobs.open(new()).state == State.FAILED
    assert len(ledger.jobs.newest()) == 1


def test_two_nodes_that_open_the_same_job_at_once_have_one(url: str, ledger: Ledger, open_ledger: Open) -> None:
    """A raw IntegrityError used to end one of them."""
    nodes = [ledger, open_ledger(url, "other"), open_ledger(url, "third")]
    together = threading.Barrier(len(nodes))
    opened: list[Job] = []

    def open_one(node: Ledger) -> None:
        together.wait()
        opened.append(node.jobs.open(new()))

    threads = [threading.Thread(target=open_one, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 3 and len({(job.job_id, job.node) for job in opened}) == 1
    assert len(ledger.jobs.newest()) == 1


def test_many_threads_racing_claim_each_job_once(ledger: Ledger) -> None:
    for number in range(20):
        ledger.jobs.open(new(number, study_uid=f"1.{number}"))
    taken: list[str] = []

    def work() -> None:
        while (job := ledger.jobs.claim()) is not None:
            taken.append(job.job_id)
        # A thread may find the last rows locked by others and come away with none: the next look finds what is left.

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work()
    assert len(taken) == len(set(taken)) == 20


def test_a_node_claims_only_jobs_whose_files_it_has(url: str, ledger: Ledger, open_ledger: Open) -> None:
    """A node used to claim a job of another and reject it for good, for the files were not there."""
    ledger.jobs.open(new())
    assert open_ledger(url, "other").jobs.claim() is None
    assert ledger.jobs.claim() is not None


def test_urgent_work_comes_first_and_backfill_last_each_in_the_order_in_which_it_came(
    ledger: Ledger, clock: Clock
) -> None:
    for number, priority in enumerate((Priority.BACKFILL, Priority.ROUTINE, Priority.ROUTINE, Priority.URGENT)):
        clock.pass_s(1.0)
        ledger.jobs.open(new(number, study_uid=f"1.{number}", priority=priority))
    assert [claimed(ledger).study_uid for _ in range(4)] == ["1.3", "1.1", "1.2", "1.0"]


@pytest.mark.parametrize(
    "waits, comes, hours",
    [
        (Priority.BACKFILL, Priority.ROUTINE, 24),
        (Priority.BACKFILL, Priority.URGENT, 28),
        (Priority.ROUTINE, Priority.URGENT, 4),
    ],
)
def test_nothing_starves_behind_what_keeps_coming_before_it(
    ledger: Ledger, clock: Clock, waits: Priority, comes: Priority, hours: int
) -> None:
    ledger.jobs.open(new(0, study_uid="1.0", priority=waits))
    clock.pass_s(hours * 3600.0 - 1.0)
    ledger.jobs.open(new(1, study_uid="1.1", priority=comes))
    clock.pass_s(2.0)
    ledger.jobs.open(new(2, study_uid="1.2", priority=comes))
    assert [claimed(ledger).study_uid for _ in range(3)] == ["1.1", "1.0", "1.2"]


def test_a_turn_of_a_clock_that_was_years_ahead_comes_after_a_start(ledger: Ledger, clock: Clock) -> None:
    ledger.jobs.open(new(0, study_uid="1.0"))
    with ledger.database.write() as write:
        turns = {"turn_at": write.steady + timedelta(days=3650)}
        write.execute(METADATA.tables["jobs"].update().values(**turns))
    ledger.jobs.wake_all()
    clock.pass_s(1.0)
    ledger.jobs.open(new(1, study_uid="1.1"))
    assert claimed(ledger).study_uid == "1.0"


def test_a_claim_is_kept_as_long_as_its_thread_works_whatever_the_clocks_do(ledger: Ledger, clock: Clock) -> None:
    """+1 h on the clock used to double 112 of 212 deliveries."""
    ledger.jobs.open(new())
    job = claimed(ledger)
    for jump_s in (HOUR_S, -25 * HOUR_S, 400 * HOUR_S):
        clock.jump_s(jump_s)
        clock.pass_s(1000.0)
        ledger.beat()
        assert ledger.jobs.claim() is None
    ledger.jobs.fail(job, "x")


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S, -24 * HOUR_S])
def test_a_jump_of_the_clock_delays_nothing_and_hastens_nothing(ledger: Ledger, clock: Clock, jump_s: float) -> None:
    """-1 day used to stop every job that was to be tried again."""
    ledger.jobs.open(new())
    ledger.jobs.postpone(claimed(ledger), 100.0, "later")
    clock.jump_s(jump_s)
    clock.pass_s(99.0)
    assert ledger.jobs.claim() is None
    clock.pass_s(2.0)
    assert claimed(ledger).attempts == 2


def test_after_a_restart_all_that_waits_is_due_whatever_the_clock_was(
    url: str, ledger: Ledger, open_ledger: Open, clock: Clock
) -> None:
    clock.jump_s(24 * HOUR_S)
    ahead = open_ledger(url)
    ahead.jobs.open(new())
    ahead.jobs.postpone(claimed(ahead), HOUR_S, "later")
    clock.jump_s(-24 * HOUR_S)
    assert claimed(open_ledger(url)).attempts == 2


def test_the_claims_of_a_dead_process_are_free_when_its_node_starts_again(
    url: str, ledger: Ledger, open_ledger: Open
) -> None:
    for number in (1, 2):
        ledger.jobs.open(new(number, study_uid=f"1.{number}"))
    lost = claimed(ledger)
    other = open_ledger(url, "node-10")
    other.jobs.open(new(3, study_uid="1.3"))
    kept = claimed(other)
    again = open_ledger(url)
    assert {claimed(again).job_id, claimed(again).job_id} == {
        lost.job_id,
        new(2, study_uid="1.2").job_id,
    }
    other.jobs.fail(kept, "the claim of another node was kept")
    for attempt in (
        lambda: ledger.jobs.postpone(lost, 1.0, "x"),
        lambda: ledger.jobs.hold(lost, "x"),
        lambda: ledger.jobs.reject(lost, "x"),
        lambda: ledger.jobs.fail(lost, "x"),
        lambda: ledger.jobs.put_back(lost),
    ):
        with pytest.raises(LeaseLost, match="went on without this attempt"):
            attempt()


def test_a_claim_that_no_thread_knows_of_is_freed_at_the_next_beat(ledger: Ledger) -> None:
    """Its commit succeeded, and the answer was lost on the way."""
    ledger.jobs.open(new())
    job = claimed(ledger)
    ledger.beat()
    assert ledger.jobs.claim() is None
    ledger.jobs.forget(job)
    ledger.beat()
    assert claimed(ledger).job_id == job.job_id


def test_an_attempt_is_counted_before_it_begins_and_not_where_it_was_stopped(ledger: Ledger) -> None:
    ledger.jobs.open(new())
    job = claimed(ledger)
    assert ledger.jobs.find(job.job_id).attempts == 1
    ledger.jobs.put_back(job)
    assert ledger.jobs.find(job.job_id).attempts == 0
    assert claimed(ledger).attempts == 1


def test_more_slices_supersede_a_job_that_is_not_rendered_yet_also_a_held_one(ledger: Ledger) -> None:
    first = ledger.jobs.open(new(1))
    under_way = claimed(ledger)
    second = ledger.jobs.open(new(2))
    assert ledger.jobs.find(first.job_id).state == State.SUPERSEDED
    assert (second.state, second.revision) == (State.QUEUED, 1)
    with pytest.raises(LeaseLost):
        ledger.jobs.fail(under_way, "x")
    ledger.jobs.hold(claimed(ledger), "Which patient is it?", "identity")
    ledger.jobs.open(new(3))
    assert ledger.jobs.find(second.job_id).state == State.SUPERSEDED


def test_a_rejected_study_is_kept_with_its_reason(ledger: Ledger) -> None:
    job = ledger.jobs.open(new(series_uid=""), rejection="No series can be translated.")
    assert (job.state, job.reason) == (State.REJECTED, "No series can be translated.")
    assert ledger.jobs.claim() is None


def test_jobs_are_found_by_their_beginning(ledger: Ledger) -> None:
    job = ledger.jobs.open(new())
    assert ledger.jobs.find(job.job_id[:6]).job_id == job.job_id
    for number in range(2, 40):
        ledger.jobs.open(new(number, study_uid=f"1.{number}"))
    beginnings = [job.job_id[0] for job in ledger.jobs.newest()]
    twice = next(beginning for beginning in beginnings if beginnings.count(beginning) > 1)
    with pytest.raises(Rejected, match=f"Several jobs begin with '{twice}'"):
        ledger.jobs.find(twice)
    for nothing in ("zzz", "%", "", "F" * 32):
        with pytest.raises(Rejected, match="No job begins with"):
            ledger.jobs.find(nothing)


def test_the_newest_come_first_and_may_be_of_one_state(ledger: Ledger, clock: Clock) -> None:
    for number in range(5):
        clock.pass_s(1.0)
        ledger.jobs.open(new(number, study_uid=f"1.{number}"))
    ledger.jobs.fail(claimed(ledger), "x")
    assert [job.study_uid for job in ledger.jobs.newest(limit=2)] == ["1.4", "1.3"]
    assert [job.study_uid for job in ledger.jobs.newest(State.FAILED)] == ["1.0"]


def test_times_come_back_aware(ledger: Ledger, clock: Clock) -> None:
    assert ledger.jobs.open(new()).made_at == clock()


def test_only_ended_jobs_of_this_node_are_cleared_each_once(
    url: str, ledger: Ledger, open_ledger: Open, clock: Clock
) -> None:
    other = open_ledger(url, "other")
    other.jobs.open(new(9, study_uid="1.9"), rejection="of another node")
    for number in range(5):
        ledger.jobs.open(new(number, study_uid=f"1.{number}"), rejection="x")
    ledger.jobs.open(new(7, study_uid="1.7"))
    ledger.jobs.fail(claimed(ledger), "waits for a person")
    ledger.jobs.open(new(8, study_uid="1.8"))
    clock.pass_s(1.0)
    now = ledger.database.steady()
    assert ledger.jobs.to_clear(now - timedelta(seconds=10), None, 10) == []
    seen: list[Job] = []
    while batch := ledger.jobs.to_clear(now, seen[-1] if seen else None, 2):
        assert len(batch) <= 2
        seen += batch
    assert {job.study_uid for job in seen} == {f"1.{number}" for number in range(5)}
    ledger.jobs.clear([job.job_id for job in seen])
    assert ledger.jobs.to_clear(now, None, 10) == []


def test_files_that_come_again_for_a_cleared_job_are_cleared_again(ledger: Ledger, clock: Clock) -> None:
    job = ledger.jobs.open(new(), rejection="x")
    ledger.jobs.clear([job.job_id])
    clock.pass_s(1.0)
    assert ledger.jobs.to_clear(ledger.database.steady(), None, 10) == []
    ledger.jobs.open(new(), rejection="x")
    clock.pass_s(1.0)
    assert [again.job_id for again in ledger.jobs.to_clear(ledger.database.steady(), None, 10)] == [job.job_id]


def test_a_database_that_does_not_answer_is_transient_and_the_ledger_unusable_until_it_does(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_connection(*_: object) -> None:
        raise sa.exc.OperationalError("SELECT 1", {}, Exception("server closed the connection"))

    ledger.check_usable()
    with monkeypatch.context() as patched:
        patched.setattr(ledger.database.engine, "connect", no_connection)
        with pytest.raises(Transient, match="does not answer"):
            ledger.jobs.newest()
        with pytest.raises(Transient, match="does not answer"):
            ledger.check_usable()
    ledger.jobs.newest()
    ledger.check_usable()


def test_with_many_ended_jobs_an_index_answers_every_question_of_the_daily_work(
    sqlite_url: str, open_ledger: Open
) -> None:
    """What EXPLAIN QUERY PLAN says: no scan of a table, no sorting in memory."""
    migrate(sqlite_url)
    ledger = open_ledger(sqlite_url)
    asked: list[tuple[str, Any]] = []
    sa.event.listen(ledger.database.engine, "before_cursor_execute", lambda *event: asked.append((event[2], event[3])))
    moment = ledger.database.steady()
    ledger.jobs.claim()
    ledger.deliveries.claim("pacs")
    ledger.studies.claim()
    ledger.jobs.newest(limit=50)
    ledger.jobs.newest(State.FAILED, limit=50)
    ledger.jobs.to_clear(moment, None, 100)
    ledger.jobs.needless(["a" * 32])
    ledger.studies.to_clear(["1.2"], moment)
    ledger.objects.has_issued("1.2")
    ledger.runs.last("retrain")
    ledger.jobs.of_study("1.2", "1.9")
    for rows in (ledger.studies, ledger.jobs, ledger.deliveries):
        rows.free()
        rows.wake_all()
    assert len(asked) > 15
    with ledger.database.engine.connect() as connection:
        for statement, parameters in list(asked):
            if not statement.startswith(("SELECT", "UPDATE")):
                continue
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            scans = [step for step in plan if step.startswith("SCAN") and step.split()[1] in METADATA.tables]
            assert set(scans) <= {"SCAN jobs USING INDEX ix_jobs_newest"}, (statement, plan)
            sorts = [step for step in plan if "TEMP B-TREE" in step and "jobs.revision" not in statement]
            assert not sorts, (statement, plan)


def rendered(ledger: Ledger, pet_series_uid: str = "1.5") -> Job:
    """The queued job, rendered, with its deliveries."""
    job = claimed(ledger)
    ledger.rendered(job, made_of(pet_series_uid))
    return ledger.jobs.find(job.job_id)


def made_of(pet_series_uid: str) -> Rendered:
    return Rendered(pet_series_uid, "a" * 64, (IssuedSeries(pet_series_uid, "PT", 2),), Result({}, {}), (DESTINATION,))


def test_a_job_whose_render_is_being_recorded_is_not_superseded(ledger: Ledger) -> None:
    """On PostgreSQL it was, and its PET was delivered all the same, beside the newer one as revision 1."""
    ledger.jobs.open(new())
    job, later = claimed(ledger), []
    opening = threading.Thread(target=lambda: later.append(ledger.jobs.open(new(2))))
    with ledger.database.write() as write:
        mine = ledger.jobs.mine(write, job)
        ledger.jobs.move(write, mine, State.RENDERED, pet_series_uid="1.5", model_hash="a" * 64)
        opening.start()
        opening.join(0.5)
    opening.join()
    assert ledger.jobs.find(job.job_id).state == State.RENDERED
    assert later[0].revision == 2


def test_a_claim_that_is_made_while_dead_ones_are_freed_is_kept(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL a second thread could get the row that a first one had claimed a moment before."""
    ledger.jobs.open(new())
    tokens = ledger.jobs._tokens
    held, jobs = tokens.held, []
    claiming = threading.Thread(target=lambda: jobs.append(ledger.jobs.claim()))

    def held_then_claimed() -> list[str]:
        names = held()
        claiming.start()
        claiming.join(0.5)
        return names

    with monkeypatch.context() as patched:
        patched.setattr(tokens, "held", held_then_claimed)
        ledger.jobs.free()
    claiming.join()
    (job,) = jobs
    assert job is not None and ledger.jobs.find(job.job_id).lease_owner == job.lease_owner
    ledger.jobs.reject(job, "x")


def test_a_failed_job_is_superseded_by_more_of_the_study_and_retried_no_more(ledger: Ledger) -> None:
    """It was rendered and delivered beside the newer one, both as revision 1."""
    older = ledger.jobs.open(new())
    ledger.jobs.fail(claimed(ledger), "a fault of ours")
    ledger.jobs.open(new(2))
    assert ledger.jobs.find(older.job_id).state == State.SUPERSEDED
    assert ledger.retry_all() == []


@pytest.mark.parametrize("way", ["rejected", "failed after its render"])
def test_what_gave_way_to_more_of_the_study_cannot_be_retried_and_stops_no_other(
    ledger: Ledger, clock: Clock, way: str
) -> None:
    older = ledger.jobs.open(new())
    if way == "rejected":
        ledger.jobs.reject(claimed(ledger), "too few slices")
    else:
        rendered(ledger)
        delivery = ledger.deliveries.claim(DESTINATION.name)
        assert delivery is not None
        ledger.deliveries.fail(delivery, "a fault of ours")
    clock.pass_s(1.0)
    ledger.jobs.open(new(2))
    rendered(ledger, "1.6")
    other = ledger.jobs.open(new(3, study_uid="1.7"))
    ledger.jobs.fail(claimed(ledger), "a fault of ours")
    with pytest.raises(Rejected, match="More of the study has arrived since job"):
        ledger.retry(older.job_id)
    assert [job.job_id for job in ledger.retry_all()] == [other.job_id]


def test_files_that_come_again_for_a_cleared_job_are_kept_as_long_as_the_first_time(
    ledger: Ledger, clock: Clock
) -> None:
    job = ledger.jobs.open(new())
    ledger.jobs.fail(claimed(ledger), "x")
    ended = ledger.jobs.open(new(2), rejection="no")
    clock.pass_s(100 * HOUR_S)
    ledger.jobs.clear([ended.job_id])
    again = ledger.jobs.open(new(2))
    assert again.cleared_at is None and again.ended_at == ledger.database.steady()
    ledger.jobs.clear([job.job_id])
    assert ledger.jobs.find(job.job_id).cleared_at is None, "a job that has not ended keeps its files"


def test_what_a_killed_start_left_half_adopted_is_adopted_at_the_next(ledger: Ledger) -> None:
    job = ledger.jobs.open(new())
    rendered(ledger)
    with ledger.database.write() as write:
        write.execute(METADATA.tables["deliveries"].update().values(node=None))
    ledger.adopt([job.job_id], [])
    assert ledger.deliveries.claim(DESTINATION.name) is not None


def test_a_node_with_the_longest_name_enters(url: str, open_ledger: Open, ledger: Ledger) -> None:
    open_ledger(url, "n" * 64, holder="folder")
