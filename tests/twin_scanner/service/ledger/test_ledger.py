"""The ledger on real SQLite (and PostgreSQL where TWIN_SCANNER_TEST_POSTGRESQL names one): moves, leases, revisions."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
import sqlalchemy as sa

from twin_scanner.errors import Defect, Rejected, Transient
from twin_scanner.service.ledger.ledger import MOVES, Job, Ledger, NewJob, State, utc_now
from twin_scanner.service.ledger.schema import METADATA

pytestmark = pytest.mark.record


class Clock:
    """A clock that the test drives."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", clock)
    yield opened
    opened.close()


def new(digest: str = "a" * 64, series_uid: str = "1.2.3", study_uid: str = "1.2") -> NewJob:
    return NewJob(study_uid, "1.9", series_uid, digest, 20, (("1.2.4", "thinner"),))


def claimed(ledger: Ledger, owner: str = "node/worker-0") -> Job:
    job = ledger.claim(owner, 60.0)
    assert job is not None
    return job


def brought_to(ledger: Ledger, state: State) -> None:
    ledger.advance(claimed(ledger), State.RENDERED, pet_series_uid="2.25.1", model_hash="m")
    if state in (State.DELIVERED, State.DONE):
        ledger.advance(claimed(ledger), State.DELIVERED)
    if state == State.DONE:
        ledger.advance(claimed(ledger), State.DONE)


def test_the_same_source_opens_one_job_however_often_it_is_sent(ledger: Ledger) -> None:
    first = ledger.open_job(new())
    assert ledger.open_job(new()) == first
    brought_to(ledger, State.DONE)
    assert ledger.open_job(new()).state == State.DONE
    assert len(ledger.jobs()) == 1


def test_a_job_is_leased_to_one_worker_until_the_lease_expires(ledger: Ledger, clock: Clock) -> None:
    ledger.open_job(new())
    held = claimed(ledger, "node/worker-0")
    assert ledger.claim("node/worker-1", 60.0) is None
    clock.pass_s(30)
    ledger.extend(held, 60.0)
    clock.pass_s(59)
    assert ledger.claim("node/worker-1", 60.0) is None
    clock.pass_s(2)
    assert claimed(ledger, "node/worker-1").job_id == held.job_id


def test_who_lost_the_lease_can_write_nothing(ledger: Ledger, clock: Clock) -> None:
    ledger.open_job(new())
    lost = claimed(ledger, "node/worker-0")
    clock.pass_s(61)
    claimed(ledger, "node/worker-1")
    for attempt in (
        lambda: ledger.advance(lost, State.RENDERED, pet_series_uid="2.25.1", model_hash="m"),
        lambda: ledger.extend(lost, 60.0),
        lambda: ledger.postpone(lost, 1.0, "x"),
        lambda: ledger.end(lost, State.FAILED, "x"),
    ):
        with pytest.raises(Transient, match="lease"):
            attempt()


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_only_the_moves_of_the_table_are_made(ledger: Ledger, before: State, after: State) -> None:
    ledger.open_job(new())
    job = claimed(ledger)
    values = {"state": before}
    with ledger._engine.begin() as connection:
        connection.execute(sa.update(METADATA.tables["jobs"]).values(**values))
    job = Job(**{**job.__dict__, "state": before})
    if after in MOVES[before]:
        ledger.advance(job, after)
        assert ledger.job(job.job_id).state == after
    else:
        with pytest.raises(Defect, match="cannot go from"):
            ledger.advance(job, after)
        assert ledger.job(job.job_id).state == before


def test_a_postponed_job_comes_due_again_and_counts_its_attempts(ledger: Ledger, clock: Clock) -> None:
    ledger.open_job(new())
    ledger.postpone(claimed(ledger), 100.0, "The PACS does not answer.")
    assert ledger.claim("node/worker-0", 60.0) is None
    clock.pass_s(101)
    again = claimed(ledger)
    assert (again.attempts, again.reason) == (1, "The PACS does not answer.")
    ledger.advance(again, State.RENDERED, pet_series_uid="2.25.1", model_hash="m")
    assert claimed(ledger).attempts == 0


def test_a_failed_job_goes_on_where_it_stood_when_it_is_tried_again(ledger: Ledger) -> None:
    ledger.open_job(new())
    brought_to(ledger, State.RENDERED)
    ledger.end(claimed(ledger), State.FAILED, "The PACS refused it.")
    job = ledger.jobs(State.FAILED)[0]
    assert job.reason == "The PACS refused it."
    assert ledger.retry(job.job_id[:8]).state == State.RENDERED
    with pytest.raises(Rejected, match="cannot be tried again"):
        ledger.retry(job.job_id)


def test_more_slices_supersede_a_job_that_is_not_rendered_yet(ledger: Ledger) -> None:
    first = ledger.open_job(new("a" * 64))
    second = ledger.open_job(new("b" * 64))
    assert ledger.job(first.job_id).state == State.SUPERSEDED
    assert (second.state, second.revision) == (State.QUEUED, 1)


def test_more_slices_after_the_pet_was_rendered_make_its_next_revision(ledger: Ledger) -> None:
    ledger.open_job(new("a" * 64))
    brought_to(ledger, State.DONE)
    assert ledger.open_job(new("b" * 64)).revision == 2


def test_a_rejected_study_is_kept_with_its_reason(ledger: Ledger) -> None:
    job = ledger.open_job(new(series_uid=""), rejection="No series can be translated.")
    assert (job.state, job.reason) == (State.REJECTED, "No series can be translated.")
    assert ledger.claim("node/worker-0", 60.0) is None
    with pytest.raises(Rejected, match="cannot be tried again"):
        ledger.retry(job.job_id)


def test_a_restart_frees_the_leases_of_its_own_node_only(ledger: Ledger) -> None:
    ledger.open_job(new("a" * 64, study_uid="1.1"))
    ledger.open_job(new("b" * 64, study_uid="1.2"))
    claimed(ledger, "node-1/worker-0")
    claimed(ledger, "node-10/worker-0")
    assert ledger.release("node-1") == 1
    assert claimed(ledger, "node-1/worker-1") is not None
    assert ledger.claim("node-1/worker-1", 60.0) is None


def test_issued_series_are_known(ledger: Ledger) -> None:
    ledger.open_job(new())
    assert not ledger.has_issued("2.25.1")
    brought_to(ledger, State.RENDERED)
    assert ledger.has_issued("2.25.1")


def test_intake_remembers_what_it_went_through(ledger: Ledger) -> None:
    assert ledger.intake_fingerprint("1.2") is None
    ledger.intake_done("1.2", "x")
    ledger.intake_done("1.2", "y")
    assert ledger.intake_fingerprint("1.2") == "y"


def test_job_names_are_matched_by_their_beginning(ledger: Ledger) -> None:
    job = ledger.open_job(new())
    assert ledger.job(job.job_id[:6]).job_id == job.job_id
    with pytest.raises(Rejected, match="No job begins with"):
        ledger.job("zzz")
    with pytest.raises(Rejected, match="No job begins with"):
        ledger.job("%")


def test_many_workers_racing_claim_each_job_once(tmp_path: Path, clock: Clock) -> None:
    url = f"sqlite:///{tmp_path / 'race.sqlite'}"
    ledgers = [Ledger(url, clock) for _ in range(4)]
    for i in range(20):
        ledgers[0].open_job(new(f"{i:064d}", study_uid=f"1.{i}"))
    taken: list[str] = []

    def work(mine: Ledger, owner: str) -> None:
        while (job := mine.claim(owner, 60.0)) is not None:
            taken.append(job.job_id)

    threads = [threading.Thread(target=work, args=(one, f"node/w{i}")) for i, one in enumerate(ledgers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in ledgers:
        one.close()
    assert len(taken) == len(set(taken)) == 20


def test_the_migrations_make_the_tables_that_the_code_has(ledger: Ledger) -> None:
    inspector = sa.inspect(ledger._engine)
    for table in METADATA.tables.values():
        there = {c["name"]: (str(c["type"]).upper(), c["nullable"]) for c in inspector.get_columns(table.name)}
        expected = {c.name: (str(c.type.compile(ledger._engine.dialect)).upper(), c.nullable) for c in table.columns}
        assert there == expected


def test_a_database_that_does_not_answer_is_transient(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(Transient, match=r"ledger\.url"):
        Ledger(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.sqlite'}", clock)


def test_aware_times_come_back_aware(ledger: Ledger, clock: Callable[[], datetime]) -> None:
    assert ledger.open_job(new()).made_at == clock()


def test_a_ledger_of_a_newer_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    Ledger(url, utc_now).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'from-the-future'"))
    engine.dispose()
    with pytest.raises(Rejected, match="newer version of twin-scanner"):
        Ledger(url, utc_now)
