"""Periodic tasks, and the schedule of a command: real processes, a clock that the test moves, a shared memory."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.fakes.clock import Clock
from tests.fakes.shared_runs import FakeLeases, FakeRuns
from twin_scanner.errors import Misconfigured, Transient
from twin_scanner.service.schedule import CommandSchedule, PeriodicTasks, read_cron

pytestmark = pytest.mark.record

DEADLINE_S = 60.0
POLL_S = 0.01
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
YEARLY = "0 3 1 1 *"
HOURLY = "0 * * * *"

Make = Callable[..., CommandSchedule]
Lines = Callable[[], list[str]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def runs(clock: Clock) -> FakeRuns:
    return FakeRuns(clock)


@pytest.fixture
def leases() -> FakeLeases:
    return FakeLeases()


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    """What the started processes have written, one line each."""
    file = tmp_path / "lines"
    return lambda: file.read_text("utf-8").splitlines() if file.exists() else []


@pytest.fixture
def make(runs: FakeRuns, leases: FakeLeases, clock: Clock, tmp_path: Path) -> Iterator[Make]:
    """Schedules whose command is a line of shell, each as if of another start or node; they are stopped at the end."""
    made: list[CommandSchedule] = []

    def schedule(cron: str, shell: str = "echo run >> lines", zone: str = "UTC") -> CommandSchedule:
        command = ["/bin/sh", "-c", f"cd '{tmp_path}' && {shell}"]
        made.append(CommandSchedule("retrain", cron, command, runs, leases, no_death, zone, clock))
        return made[-1]

    yield schedule
    for schedule_ in made:
        schedule_.stop(DEADLINE_S)


def no_death() -> None:
    raise AssertionError("The schedule died.")


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


def remember(make: Make, cron: str, **changes: str) -> None:
    """A first start, after which the moments count."""
    first = make(cron, **changes)
    first.start()
    first.stop(DEADLINE_S)


def states(runs: FakeRuns) -> list[str]:
    return [run.state for run in runs.all]


def test_a_first_start_runs_nothing_and_counts_the_moments_from_then(make: Make, clock: Clock, lines: Lines) -> None:
    schedule = make(HOURLY)
    schedule.start()
    assert schedule.next_start() == clock() + timedelta(hours=1)
    clock.pass_s(600)
    assert make(HOURLY).next_start() == datetime(2026, 3, 1, 13, tzinfo=UTC)
    assert lines() == []


def test_many_moments_missed_while_nobody_ran_are_made_up_for_once_at_the_next_start(
    make: Make, clock: Clock, lines: Lines, runs: FakeRuns
) -> None:
    remember(make, HOURLY)
    clock.pass_s(3 * DAY_S)
    second = make(HOURLY)
    second.start()
    wait_for(lambda: states(runs) == ["ended", "ended"])
    second.stop(DEADLINE_S)
    assert second.next_start() == clock() + timedelta(hours=1)
    third = make(HOURLY)
    third.start()
    third.stop(DEADLINE_S)
    assert lines() == ["run"]


def test_a_moment_is_run_once_although_the_run_began_at_that_very_moment(
    make: Make, clock: Clock, lines: Lines, runs: FakeRuns
) -> None:
    """A clock of whole seconds: begun at 13:00:00.000000, the moment 13:00 has been obeyed."""
    remember(make, HOURLY)
    clock.pass_s(HOUR_S)
    schedule = make(HOURLY)
    schedule.start()
    wait_for(lambda: states(runs) == ["ended", "ended"])
    assert schedule.next_start() == clock() + timedelta(hours=1)


def test_another_cron_text_or_zone_begins_anew(make: Make, clock: Clock, lines: Lines) -> None:
    remember(make, f" {YEARLY.replace(' ', '  ')} ")
    clock.pass_s(400 * DAY_S)
    for cron, zone in ((HOURLY, "UTC"), (YEARLY, "Europe/Rome"), ("", "UTC")):
        schedule = make(cron, zone=zone)
        schedule.start()
        schedule.stop(DEADLINE_S)
    assert lines() == []
    make(YEARLY).start()
    wait_for(lines)


def test_a_run_that_the_stop_had_to_end_is_due_again(make: Make, clock: Clock, lines: Lines, runs: FakeRuns) -> None:
    """The command ends gracefully at SIGTERM, as training does with a checkpoint."""
    graceful = "trap 'echo ended >> lines; exit 1' TERM; echo begun >> lines; while :; do sleep 0.01; done"
    remember(make, YEARLY)
    clock.pass_s(366 * DAY_S)
    second = make(YEARLY, graceful)
    second.start()
    wait_for(lines)
    second.stop(DEADLINE_S)
    assert lines() == ["begun", "ended"]
    third = make(YEARLY, "echo resumed >> lines")
    third.start()
    wait_for(lambda: len(lines()) == 3)
    third.stop(DEADLINE_S)
    make(YEARLY).start()
    assert states(runs) == ["ended", "interrupted", "ended"]
    assert lines() == ["begun", "ended", "resumed"], "what ended of itself is not started again"


def test_a_run_that_failed_of_itself_waits_for_the_next_moment(
    make: Make, clock: Clock, runs: FakeRuns, caplog: pytest.LogCaptureFixture
) -> None:
    remember(make, HOURLY)
    clock.pass_s(HOUR_S)
    schedule = make(HOURLY, "exit 3")
    schedule.start()
    wait_for(lambda: states(runs) == ["ended", "ended"])
    schedule.stop(DEADLINE_S)
    assert schedule.next_start() == clock() + timedelta(hours=1)
    assert [record.__dict__["exit_code"] for record in caplog.records if record.levelname == "ERROR"] == [3]


def test_of_two_nodes_one_runs_it(
    make: Make, clock: Clock, lines: Lines, runs: FakeRuns, leases: FakeLeases, tmp_path: Path
) -> None:
    remember(make, HOURLY)
    clock.pass_s(HOUR_S)
    busy = "echo run >> lines; while [ ! -e enough ]; do sleep 0.01; done"
    one, other = make(HOURLY, busy), make(HOURLY, busy)
    one.start()
    wait_for(lines)
    other.start()
    assert other._run_where_due(), "the other node sees that it runs elsewhere"
    (tmp_path / "enough").touch()
    wait_for(lambda: states(runs) == ["ended", "ended"])
    wait_for(lambda: not leases.held)
    assert not other._run_where_due()
    assert lines() == ["run"]


def test_what_a_dead_node_left_running_is_due_once_its_lease_is_free(
    make: Make, clock: Clock, lines: Lines, runs: FakeRuns, leases: FakeLeases
) -> None:
    remember(make, YEARLY)
    schedule = make(YEARLY)
    runs.begin(schedule.key)
    leases.held.add(schedule.key)
    assert schedule._run_where_due() and lines() == []
    leases.held.clear()
    schedule._run_where_due()
    assert lines() == ["run"]


def test_a_process_that_will_not_end_is_killed_after_the_limit(make: Make, clock: Clock, lines: Lines) -> None:
    stubborn = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "open('lines', 'w').write(f'{os.getpid()}\\n'); time.sleep(600)"
    )
    remember(make, YEARLY)
    clock.pass_s(366 * DAY_S)
    schedule = make(YEARLY, f'exec {sys.executable} -c "{stubborn}"')
    schedule.start()
    wait_for(lines)
    schedule.stop(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines()[0]), signal.SIG_DFL)


def test_a_command_that_cannot_be_started_leaves_the_schedule_standing(
    clock: Clock, runs: FakeRuns, leases: FakeLeases, make: Make
) -> None:
    remember(make, HOURLY)
    clock.pass_s(HOUR_S)
    schedule = CommandSchedule("retrain", HOURLY, ["/nowhere/twin-scanner"], runs, leases, no_death, now=clock)
    schedule.start()
    wait_for(lambda: states(runs) == ["ended", "ended"])
    schedule.stop(DEADLINE_S)
    assert schedule.next_start() == clock() + timedelta(hours=1)


def test_a_ledger_that_is_away_for_a_moment_ends_no_schedule(
    make: Make, clock: Clock, runs: FakeRuns, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(make, HOURLY)
    schedule = make(HOURLY)
    schedule.start()
    clock.pass_s(HOUR_S)

    def lost(name: str) -> None:
        raise Transient("The ledger cannot be reached.")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "last", lost)
        patch.setattr("twin_scanner.service.schedule.LONGEST_LOOK_S", POLL_S)
        again = make(HOURLY)
        again._thread.start()
        again._stopping.wait(5 * POLL_S)
        assert again._thread.is_alive()
    wait_for(lines)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_schedule_that_dies_ends_the_process(
    clock: Clock, runs: FakeRuns, leases: FakeLeases, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to end retraining in silence."""
    remember(make, HOURLY)
    died = threading.Event()
    schedule = CommandSchedule("retrain", HOURLY, ["true"], runs, leases, died.set, now=clock)

    def unexpected() -> bool:
        raise KeyError("unexpected")

    monkeypatch.setattr(schedule, "_run_where_due", unexpected)
    schedule.start()
    assert died.wait(DEADLINE_S)
    schedule.stop(DEADLINE_S)


def test_without_a_cron_text_nothing_is_scheduled_or_remembered(make: Make, runs: FakeRuns) -> None:
    schedule = make("")
    schedule.start()
    assert schedule.next_start() is None
    assert runs.all == []


@pytest.mark.parametrize(
    ("cron", "zone", "sentence"),
    [
        ("every night", "UTC", "is no cron text: give minute, hour"),
        ("60 * * * *", "UTC", "is no cron text: .*60"),
        ("0 3 * * funday", "UTC", "is no cron text: .*funday"),
        ("0 3 * * 0", "UTC", r"'0 3 \* \* 0' counts weekdays: name them, mon to sun"),
        ("0 3 * * mon-5", "UTC", "counts weekdays: name them"),
        ("0 3 * * */2", "UTC", "counts weekdays: name them"),
        ("0 3 1 * mon", "UTC", "names days of the month and weekdays"),
        ("0 3 31 2 *", "UTC", "never comes true"),
        ("0 3 * * *", "Europe/Atlantis", "no time zone 'Europe/Atlantis'"),
    ],
)
def test_a_cron_text_that_is_none_is_refused_with_one_sentence(cron: str, zone: str, sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence) as raised:
        read_cron(cron, zone)
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("sun", ["Sun"]),
        ("mon-fri", ["Mon", "Tue", "Wed", "Thu", "Fri"]),
        ("fri-sun", ["Fri", "Sat", "Sun"]),
        ("Mon,thu", ["Mon", "Thu"]),
    ],
)
def test_weekdays_are_those_that_are_named(field: str, days: list[str]) -> None:
    """Oracle: the calendar."""
    trigger, moment = read_cron(f"0 12 * * {field}", "UTC"), datetime(2026, 3, 1, tzinfo=UTC)
    fires: list[str] = []
    while len(fires) < len(days):
        moment = trigger.get_next_fire_time(None, moment) + timedelta(minutes=1)
        fires.append(moment.strftime("%a"))
    assert sorted(fires) == sorted(days)


def test_a_cron_text_is_read_in_its_zone() -> None:
    """Oracle: 02:30 in Rome in summer is 00:30 UTC."""
    trigger = read_cron("30 2 * * *", "Europe/Rome")
    comes = trigger.get_next_fire_time(None, datetime(2026, 7, 1, tzinfo=UTC))
    assert comes.astimezone(UTC) == datetime(2026, 7, 1, 0, 30, tzinfo=UTC)


def test_a_periodic_task_that_fails_runs_again_is_logged_once_and_stops_with_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ran, died = threading.Semaphore(0), threading.Event()

    def task() -> None:
        ran.release()
        raise Transient("The disk is full.")

    tasks = PeriodicTasks(died.set)
    tasks.every(0.001, "sweep", task)
    assert all(ran.acquire(timeout=DEADLINE_S) for _ in range(3))
    tasks.stop(DEADLINE_S)
    assert not tasks.at_work and not died.is_set()
    assert [record.__dict__["reason"] for record in caplog.records] == ["The disk is full."]


def test_a_periodic_task_runs_at_once_where_it_is_asked_for_and_its_wait_does_not_hold_up_the_stop() -> None:
    ran = threading.Semaphore(0)
    tasks = PeriodicTasks(lambda: None)
    run_now = tasks.every(HOUR_S, "sweep", lambda: ran.release())
    run_now()
    assert ran.acquire(timeout=DEADLINE_S)
    tasks.stop(DEADLINE_S)
    assert not tasks.at_work


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_periodic_task_that_dies_ends_the_process() -> None:
    died = threading.Event()

    def task() -> None:
        raise KeyError("unexpected")

    tasks = PeriodicTasks(died.set)
    tasks.every(0.001, "sweep", task)
    assert died.wait(DEADLINE_S)
    tasks.stop(DEADLINE_S)
