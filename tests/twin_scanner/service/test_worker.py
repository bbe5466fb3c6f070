"""The lanes on a real ledger: each by itself, failures by kind, a stop, threads that die, and clocks that jump."""

import errno
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dicom_node.store_scu import NotStored, SendReport
from tests.fakes.clock import Clock
from twin_scanner.app import LONGEST_PROBE_DELAY_S
from twin_scanner.errors import Defect, Held, Misconfigured, Rejected, Transient, TwinScannerError, Unavailable
from twin_scanner.service.breaker import Breaker
from twin_scanner.service.ledger import (
    Delivery,
    DeliveryState,
    Destination,
    Job,
    Ledger,
    NewJob,
    Rendered,
    Result,
    State,
    utc_now,
)
from twin_scanner.service.retry import DAY_S, RetryPolicy
from twin_scanner.service.worker import ALARM_ATTEMPTS, Beat, Lane, Record, Worker

pytestmark = pytest.mark.record

Open = Callable[..., Ledger]
POLICY = RetryPolicy(first_delay_s=10.0, longest_delay_s=60.0, age_limit_s=30 * DAY_S)
DEADLINE_S = 60.0


def raise_next(errors: list[Exception]) -> None:
    if errors:
        raise errors.pop(0)


class Site:
    """A render and two destinations whose faults a test chooses; each work is noted."""

    def __init__(self, ledger: Ledger, clock: Clock | None = None) -> None:
        self.ledger = ledger
        self.clock = clock
        self.faults: dict[str, list[Exception]] = {"render": [], "pacs": [], "archive": []}
        self.calls: list[str] = []
        self.hang: Callable[[str, Beat], None] = lambda name, beat: None
        monotonic_s = time.monotonic if clock is None else clock.monotonic_s
        self.render = Lane("render", 1, ledger.jobs, ledger.jobs.claim, self._render, job_facts)
        self.destinations = [self._destination(name, monotonic_s) for name in ("pacs", "archive")]
        self.died: list[str] = []
        self.worker = Worker(
            ledger=ledger,
            lanes=[self.render, *self.destinations],
            policy=POLICY,
            on_fatal=lambda: self.died.append(threading.current_thread().name),
            draw=lambda: 0.999,
        )

    def open(self, number: int = 1) -> Job:
        return self.ledger.jobs.open(NewJob(f"1.2.{number}", "1.3", "1.4", f"{number:064x}", 20))

    def run(self, lane: Lane[Any] | None = None) -> int:
        """Work until nothing is due; how many pieces of work that was."""
        lanes = [lane] if lane is not None else [self.render, *self.destinations]
        count = 0
        while any(self.worker.run_once(one) for one in lanes):
            count += 1
        return count

    def _destination(self, name: str, monotonic_s: Callable[[], float]) -> Lane[Delivery]:
        rows = self.ledger.deliveries

        def work(delivery: Delivery, beat: Beat) -> Record:
            self.calls.append(name)
            self.hang(name, beat)
            raise_next(self.faults[name])
            return lambda: rows.confirmed(delivery, "C-STORE status")

        breaker = Breaker(lambda failures: 10.0 * failures, monotonic_s)
        return Lane(
            name, 2, rows, lambda: rows.claim(name), work, delivery_facts, breaker, on_up=lambda: rows.wake(name)
        )

    def _render(self, job: Job, beat: Beat) -> Record:
        self.calls.append("render")
        self.hang("render", beat)
        raise_next(self.faults["render"])
        to = (Destination("pacs"), Destination("archive"))
        made = Rendered(f"2.25.{int(job.source_digest, 16)}", "m" * 64, (), Result({}, {}), to)
        return lambda: self.ledger.rendered(job, made)


def job_facts(job: Job) -> dict[str, str]:
    return {"job_id": job.job_id}


def delivery_facts(delivery: Delivery) -> dict[str, str]:
    return {"job_id": delivery.job_id}


@pytest.fixture
def site(ledger: Ledger, clock: Clock) -> Site:
    return Site(ledger, clock)


def the_job(site: Site) -> Job:
    (job,) = site.ledger.jobs.newest()
    return job


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_job_goes_through_its_lanes_to_done(site: Site) -> None:
    site.open()
    site.run()
    assert (the_job(site).state, the_job(site).pet_series_uid) == (State.DONE, "2.25.1")
    assert sorted(site.calls) == ["archive", "pacs", "render"]


def test_a_failure_that_may_pass_repeats_the_failed_work_only(site: Site, clock: Clock) -> None:
    site.open()
    site.faults["pacs"] = [Transient("The PACS does not store it.")]
    site.run()
    assert the_job(site).state == State.RENDERED
    clock.pass_s(11.0)
    site.run()
    assert the_job(site).state == State.DONE
    assert sorted(site.calls) == ["archive", "pacs", "pacs", "render"]


@pytest.mark.parametrize("error", [Misconfigured("There is no model 'champion'."), Transient("The disk is full.")])
def test_a_fault_outside_the_ct_is_tried_again_up_to_the_age_limit_with_an_alarm(
    site: Site, clock: Clock, error: Exception
) -> None:
    """A configuration fault used to reject every patient, and an outage of a night to fail every job."""
    site.open()
    site.faults["render"] = [error] * 10_000
    for _ in range(40):
        site.run()
        clock.pass_s(0.7 * DAY_S)
    assert (the_job(site).state, the_job(site).reason) == (State.QUEUED, str(error))
    events = [event.what for event in site.ledger.events.of_row("jobs", the_job(site).job_id)]
    assert "alarm" in events[1 : ALARM_ATTEMPTS + 1]
    clock.pass_s(4 * DAY_S)
    site.run()
    assert the_job(site).state == State.FAILED
    site.faults["render"] = []
    site.ledger.retry(the_job(site).job_id)
    site.run()
    assert the_job(site).state == State.DONE


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (Rejected("The slice at z = 3 mm is missing."), State.REJECTED, "The slice at z = 3 mm is missing."),
        (Held("Two patients have this identifier."), State.HELD, "Two patients have this identifier."),
        (Defect("The report cannot be read."), State.FAILED, "The report cannot be read."),
        (KeyError("DOE^JOHN"), State.FAILED, "Unexpected KeyError: see the log."),
    ],
)
def test_other_failures_of_a_render_end_it_with_a_reason(
    site: Site, error: Exception, state: State, reason: str
) -> None:
    site.open()
    site.faults["render"] = [error]
    site.run()
    assert (the_job(site).state, the_job(site).reason) == (state, reason)


def test_a_render_that_has_too_little_memory_is_tried_again(site: Site, clock: Clock) -> None:
    site.open()
    site.faults["render"] = [MemoryError()]
    site.run()
    assert "too little memory" in the_job(site).reason
    clock.pass_s(11.0)
    site.run()
    assert the_job(site).state == State.DONE


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.ENOSPC, "No space", "/data/DOE^JOHN"), "(No space left on device)"),
        (OSError("DOE^JOHN"), "(OSError)"),
    ],
)
def test_a_disk_that_fails_in_a_delivery_is_no_fault_of_the_job(
    site: Site, clock: Clock, error: OSError, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk used to end every delivery under way as failed."""
    site.open()
    site.run(site.render)
    site.faults["pacs"] = [error]
    site.run()
    pacs, _ = site.ledger.deliveries.of_jobs([the_job(site).job_id])[the_job(site).job_id]
    assert pacs.state == DeliveryState.WAITING
    assert pacs.reason.startswith(f"The disk or the network refused {why}: ")
    assert not any("DOE" in str(record.__dict__) for record in caplog.records)
    clock.pass_s(11.0)
    site.run()
    assert the_job(site).state == State.DONE


@pytest.mark.parametrize("error", [Held("The server refuses this record (422)."), Rejected("It refuses it.")])
def test_what_a_destination_refuses_is_held_and_the_other_gets_it(site: Site, error: Exception) -> None:
    site.open()
    site.faults["pacs"] = [error]
    site.run()
    job = the_job(site)
    assert (job.state, job.reason) == (State.HELD, f"pacs: {error}")
    pacs, archive = site.ledger.deliveries.of_jobs([job.job_id])[job.job_id]
    assert (pacs.state, archive.state) == (DeliveryState.HELD, DeliveryState.CONFIRMED)


def test_a_ledger_that_refuses_an_outcome_fails_the_job_and_not_the_lane(site: Site) -> None:
    """Two jobs that made the same series: a raw IntegrityError used to end the thread."""
    for number in (1, 2):
        site.open(number)
    site.render = Lane("render", 1, site.ledger.jobs, site.ledger.jobs.claim, same_series(site), job_facts)
    site.run()
    assert sorted(job.state for job in site.ledger.jobs.newest()) == [State.DONE, State.FAILED]


def same_series(site: Site) -> Callable[[Job, Beat], Record]:
    def work(job: Job, beat: Beat) -> Record:
        made = Rendered("2.25.1", "m", (), Result({}, {}), (Destination("pacs"),))
        return lambda: site.ledger.rendered(job, made)

    return work


def test_while_a_destination_is_down_one_probe_goes_out_at_a_time(site: Site, clock: Clock) -> None:
    for number in range(6):
        site.open(number)
    site.run(site.render)
    site.faults["pacs"] = [Unavailable("The PACS cannot be reached.")] * 3
    assert site.run() == 1 + 6, "one try at the PACS, and everything to the archive"
    assert site.calls.count("pacs") == 1
    clock.pass_s(10.0)
    site.run()
    assert site.calls.count("pacs") == 2
    clock.pass_s(20.0)
    site.run()
    assert site.calls.count("pacs") == 3
    clock.pass_s(30.0)
    site.run()
    assert {job.state for job in site.ledger.jobs.newest()} == {State.DONE}
    assert site.calls.count("pacs") == 3 + 6


def test_after_an_outage_of_hours_what_waits_goes_out_with_the_next_probe(site: Site, clock: Clock) -> None:
    """The row's own back-off used to keep a lone PET for up to an hour, although probes were allowed each minute."""
    probing = RetryPolicy(15.0, LONGEST_PROBE_DELAY_S)
    breaker = Breaker(lambda failures: probing.delay_s(failures, 1.0), clock.monotonic_s)
    pacs = replace(site.destinations[0], breaker=breaker)
    worker = Worker(ledger=site.ledger, lanes=[pacs], policy=RetryPolicy(15.0, 3600.0), on_fatal=lambda: None)
    site.open()
    site.run(site.render)
    site.faults["pacs"] = [Unavailable("The PACS cannot be reached.")] * 10_000
    probes_s: list[float] = []
    end_s = clock.seconds + 4 * 3600.0
    while clock.seconds < end_s:
        while worker.run_once(pacs):
            probes_s.append(clock.seconds)
        clock.pass_s(5.0)
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(probes_s)]
    assert max(gaps_s) <= LONGEST_PROBE_DELAY_S
    assert min(gaps_s) >= 15.0, "one row that is due at once is no reason to ask without a pause"
    site.faults["pacs"] = []
    clock.pass_s(LONGEST_PROBE_DELAY_S)
    assert worker.run_once(pacs)
    site.run()
    assert the_job(site).state == State.DONE


@pytest.mark.parametrize(
    ("error", "has_answered"),
    [
        (NotStored("It did not store 1 of 1 instances.", SendReport(())), True),
        (Held("The server refuses this record (422)."), True),
        (Transient("A file cannot be read."), False),
        (OSError(errno.EIO, "Input/output error"), False),
        (Defect("The report cannot be read."), False),
        (KeyError("x"), False),
    ],
)
def test_only_an_answer_of_the_destination_says_that_it_is_there_again(
    site: Site, clock: Clock, error: Exception, has_answered: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A probe that failed on this machine used to call a destination up that nobody had asked."""
    for number in range(2):
        site.open(number)
    site.run(site.render)
    pacs = site.destinations[0]
    site.faults["pacs"] = [Unavailable("The PACS cannot be reached."), error]
    site.worker.run_once(pacs)
    clock.pass_s(10.0)
    with caplog.at_level("INFO"):
        assert site.worker.run_once(pacs)
    assert ("destination is there again" in caplog.messages) is has_answered
    assert site.run() >= 1, "what is due goes out, one at a time"


def test_what_an_unforeseen_error_says_is_not_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.open()
    site.faults["render"] = [KeyError("DOE^JOHN")]
    with caplog.at_level("DEBUG"):
        site.run()
    assert "step given up" in caplog.text
    assert not any("DOE" in str(record.__dict__) for record in caplog.records)


@pytest.fixture
def live(migrated_sqlite_url: str) -> Any:
    """A site with real clocks, whose threads are started by the test and stopped at the end."""
    ledger = Ledger(migrated_sqlite_url, node="node", who="test", lease_s=2.0)
    ledger.enter("folder")
    site = Site(ledger)
    yield site
    site.worker.stop(DEADLINE_S)
    ledger.close()


def test_deliveries_that_hang_delay_no_new_render(live: Site) -> None:
    """20 undelivered jobs that hang 1 s each used to delay a new render by 11.5 s."""
    for number in range(20):
        live.open(number)
    live.run(live.render)
    answers = threading.Event()
    live.hang = lambda name, beat: (name == "pacs" and not answers.wait(DEADLINE_S)) or None
    live.worker.start()
    wait_for(lambda: live.calls.count("pacs") == 2)
    job = live.open(99)
    live.worker.wake()
    wait_for(lambda: live.ledger.jobs.find(job.job_id).state == State.RENDERED)
    wait_for(lambda: live.calls.count("archive") == 21)
    assert live.calls.count("pacs") == 2, "both threads of that destination still wait for its answer"
    answers.set()


def test_clocks_that_jump_while_threads_work_double_and_stop_nothing(migrated_sqlite_url: str) -> None:
    """+1 h doubled 112 of 212 deliveries, -1 day stopped them."""
    clock = Clock()
    ledger = Ledger(migrated_sqlite_url, node="node", who="test", now=clock, lease_s=5.0)
    ledger.enter("folder")
    site = Site(ledger)
    site.hang = lambda name, beat: time.sleep(0.005)
    for number in range(15):
        site.open(number)
    site.worker.start()
    try:
        for jumps, jump_s in enumerate((3600.0, -3600.0, 3600.0, -86400.0, 86400.0), start=1):
            wait_for(lambda least=8 * jumps: len(site.calls) >= least)
            clock.jump_s(jump_s)
        wait_for(lambda: {job.state for job in ledger.jobs.newest()} == {State.DONE})
    finally:
        site.worker.stop(DEADLINE_S)
        ledger.close()
    assert {name: site.calls.count(name) for name in ("render", "pacs", "archive")} == {
        "render": 15,
        "pacs": 15,
        "archive": 15,
    }


def test_a_stop_ends_work_between_two_parts_and_counts_no_attempt(live: Site) -> None:
    begun = threading.Event()

    def hang(name: str, beat: Beat) -> None:
        begun.set()
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            beat()
            time.sleep(0.01)

    live.hang = hang
    live.open()
    live.worker.start()
    assert begun.wait(DEADLINE_S)
    live.worker.stop(DEADLINE_S)
    assert (the_job(live).state, the_job(live).attempts, the_job(live).lease_owner) == (State.QUEUED, 0, None)


def test_an_outcome_is_offered_until_the_ledger_takes_it(live: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PACS that has it must not be sent it again because the ledger was away for a moment."""
    refusals: list[Exception] = [Transient("The ledger's database does not answer.")]
    confirmed = live.ledger.deliveries.confirmed

    def confirm(delivery: Delivery, by: str) -> None:
        raise_next(refusals)
        confirmed(delivery, by)

    monkeypatch.setattr(live.ledger.deliveries, "confirmed", confirm)
    live.open()
    live.worker.start()
    wait_for(lambda: the_job(live).state == State.DONE)
    assert live.calls.count("pacs") == live.calls.count("archive") == 1
    assert refusals == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_of_anything_but_our_own_errors_ends_the_process(live: Site) -> None:
    """It used to leave a node that went on acknowledging."""

    def claim() -> Job | None:
        raise ZeroDivisionError

    lane = Lane("render", 1, live.ledger.jobs, claim, live._render, job_facts)
    worker = Worker(ledger=live.ledger, lanes=[lane], policy=POLICY, on_fatal=lambda: live.died.append("one"))
    worker.start()
    wait_for(lambda: live.died == ["one"])
    worker.stop(DEADLINE_S)


def test_a_ledger_that_does_not_answer_ends_no_thread(live: Site, caplog: pytest.LogCaptureFixture) -> None:
    faults: list[TwinScannerError] = [Defect("The ledger's file is damaged."), Transient("It does not answer.")]

    def claim() -> Job | None:
        raise_next(faults)  # type: ignore[arg-type]
        return live.ledger.jobs.claim()

    live.open()
    lane = Lane("render", 1, live.ledger.jobs, claim, live._render, job_facts)
    worker = Worker(ledger=live.ledger, lanes=[lane], policy=POLICY, on_fatal=lambda: live.died.append("one"))
    worker.start()
    wait_for(lambda: the_job(live).state == State.RENDERED)
    worker.stop(DEADLINE_S)
    assert live.died == []
    assert caplog.messages.count("the ledger cannot be used") == 1


def test_the_timer_keeps_the_nodes_lease_while_every_thread_is_busy(live: Site, sqlite_url: str) -> None:
    live.open()
    hung = threading.Event()
    live.hang = lambda name, beat: bool(hung.wait(DEADLINE_S)) or None
    live.worker.start()
    wait_for(lambda: live.calls == ["render"])
    other = Ledger(sqlite_url, node="other", who="test", now=utc_now, lease_s=2.0)
    beats: set[int] = set()

    def three_beats() -> bool:
        other.leases.beat()
        beats.add(other.leases._seen["node node"].beat)
        return len(beats) >= 3

    wait_for(three_beats)
    assert live.calls == ["render"], "the one thread of renders is still busy"
    hung.set()
    other.close()
