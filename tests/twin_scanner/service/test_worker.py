"""The worker's outer loop on a real ledger: steps, failures by kind, and a lease that is kept alive."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from twin_scanner.errors import Defect, Rejected, Transient
from twin_scanner.service.ledger.ledger import Job, Ledger, NewJob, State
from twin_scanner.service.retry import RetryPolicy
from twin_scanner.service.worker import Progress, Step, Worker

pytestmark = pytest.mark.record

POLICY = RetryPolicy(first_delay_s=10.0, longest_delay_s=60.0, attempts=3)


class Clock:
    """A clock that the test drives."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Faults:
    """What each step raises next; nothing once the list is empty."""

    def __init__(self) -> None:
        self.render: list[Exception] = []
        self.deliver: list[Exception] = []
        self.calls: list[str] = []

    def steps(self) -> dict[State, Step]:
        """The three steps with this object's faults in them."""
        return {
            State.QUEUED: Step("render", State.RENDERED, self._render),
            State.RENDERED: Step("deliver", State.DELIVERED, self._deliver),
            State.DELIVERED: Step("record", State.DONE, lambda job, beat: Progress()),
        }

    def _render(self, job: Job, beat: Callable[[], None]) -> Progress:
        self.calls.append("render")
        if self.render:
            raise self.render.pop(0)
        return Progress("2.25.7", "m" * 64)

    def _deliver(self, job: Job, beat: Callable[[], None]) -> Progress:
        self.calls.append("deliver")
        if self.deliver:
            raise self.deliver.pop(0)
        return Progress()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", clock)
    opened.open_job(NewJob("1.2", "1.3", "1.4", "a" * 64, 20))
    yield opened
    opened.close()


def worker(ledger: Ledger, faults: Faults) -> Worker:
    return Worker(
        node="node", ledger=ledger, steps=faults.steps(), policy=POLICY, lease_s=60.0, threads=1, draw=lambda: 0.0
    )


def run_until_idle(one: Worker) -> None:
    while one.run_once("node/worker-0") is not None:
        pass


def test_a_job_goes_through_its_steps_to_done(ledger: Ledger) -> None:
    run_until_idle(worker(ledger, Faults()))
    (job,) = ledger.jobs()
    assert (job.state, job.pet_series_uid, job.model_hash) == (State.DONE, "2.25.7", "m" * 64)


def test_a_transient_failure_repeats_the_failed_step_only(ledger: Ledger, clock: Clock) -> None:
    faults = Faults()
    faults.deliver = [Transient("The PACS does not answer.")]
    one = worker(ledger, faults)
    run_until_idle(one)
    (job,) = ledger.jobs()
    assert (job.state, job.attempts, job.reason) == (State.RENDERED, 1, "The PACS does not answer.")
    clock.now += timedelta(seconds=11)
    run_until_idle(one)
    assert ledger.jobs()[0].state == State.DONE
    assert faults.calls == ["render", "deliver", "deliver"]


def test_a_destination_that_stays_down_makes_a_dead_letter_which_a_retry_restarts(ledger: Ledger, clock: Clock) -> None:
    faults = Faults()
    faults.deliver = [Transient("The PACS does not answer.")] * 3
    one = worker(ledger, faults)
    for _ in range(3):
        run_until_idle(one)
        clock.now += timedelta(seconds=100)
    (job,) = ledger.jobs()
    assert (job.state, job.stood_at) == (State.FAILED, State.RENDERED)
    ledger.retry(job.job_id)
    run_until_idle(one)
    assert ledger.jobs()[0].state == State.DONE
    assert faults.calls.count("render") == 1


def test_one_bad_job_holds_up_no_other(ledger: Ledger) -> None:
    ledger.open_job(NewJob("1.8", "1.3", "1.9", "b" * 64, 20))
    faults = Faults()
    faults.render = [Transient("later")]
    faults.steps()
    one = worker(ledger, faults)
    one.run_once("node/worker-0")
    assert one.run_once("node/worker-0") is not None
    assert sorted(job.state for job in ledger.jobs()) == [State.QUEUED, State.RENDERED]


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (Rejected("The slice at z = 3 mm is missing."), State.REJECTED, "The slice at z = 3 mm is missing."),
        (Defect("The report cannot be read."), State.FAILED, "The report cannot be read."),
        (KeyError("DOE^JOHN"), State.FAILED, "Unexpected KeyError: see the log."),
    ],
)
def test_other_failures_end_the_job_with_a_reason(ledger: Ledger, error: Exception, state: State, reason: str) -> None:
    faults = Faults()
    faults.render = [error]
    run_until_idle(worker(ledger, faults))
    (job,) = ledger.jobs()
    assert (job.state, job.reason) == (state, reason)


def test_what_an_unforeseen_error_says_is_not_logged(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults()
    faults.render = [KeyError("DOE^JOHN")]
    with caplog.at_level("DEBUG"):
        run_until_idle(worker(ledger, faults))
    assert "step failed" in caplog.text
    assert not any("DOE" in str(record.__dict__) for record in caplog.records)


def test_threads_take_jobs_and_stop(tmp_path: Path) -> None:
    opened = Ledger(f"sqlite:///{tmp_path / 'threads.sqlite'}", lambda: datetime.now(UTC))
    opened.open_job(NewJob("1.2", "1.3", "1.4", "a" * 64, 20))
    one = worker(opened, Faults())
    one.start()
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    while datetime.now(UTC) < deadline and opened.jobs()[0].state != State.DONE:
        one.wake()
    one.stop(10.0)
    assert opened.jobs()[0].state == State.DONE
    opened.close()
