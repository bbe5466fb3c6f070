"""The schedule of retraining: real processes and a real job store; a missed moment is made up for, once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore

from twin_scanner.errors import Defect, Rejected, Transient
from twin_scanner.service.schedule import TABLE, CommandSchedule, done_by_the_executor, read_cron

pytestmark = pytest.mark.record

DEADLINE_S = 30.0
POLL_S = 0.01
YEARLY = "0 3 1 1 *"
HOURLY = "0 * * * *"
NAME = "retrain"

Make = Callable[..., CommandSchedule]


@pytest.fixture(autouse=True)
def every_record_is_made(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "twin_scanner.scheduler")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'schedule.sqlite'}"


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[], list[str]]:
    """What the started processes have written, one line each."""
    file = tmp_path / "lines"
    return lambda: file.read_text("utf-8").splitlines() if file.exists() else []


@pytest.fixture
def make(url: str, tmp_path: Path) -> Iterator[Make]:
    """Schedules whose command is a line of shell; what still runs at the end is stopped."""
    made: list[CommandSchedule] = []

    def schedule(cron: str, shell: str = "echo run >> lines", zone: str = "UTC") -> CommandSchedule:
        command = ["/bin/sh", "-c", f"cd '{tmp_path}' && {shell}"]
        made.append(CommandSchedule(NAME, cron, command, url, zone))
        return made[-1]

    yield schedule
    for schedule_ in made:
        schedule_.stop(DEADLINE_S)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


def move(url: str, moment: datetime) -> None:
    """Set the kept job's next moment, as if the clock had been turned."""
    store = SQLAlchemyJobStore(url, tablename=TABLE)
    store.start(None, "default")
    job = store.lookup_job(NAME)
    job.next_run_time = moment
    store.update_job(job)
    store.shutdown()


def ago(**time_: float) -> datetime:
    return datetime.now(UTC) - timedelta(**time_)


def test_a_restart_over_many_due_moments_runs_once_at_the_start(
    make: Make, url: str, lines: Callable[[], list[str]]
) -> None:
    """APScheduler's own grace of 1 s would lose them all; without coalescing there would be 72 runs."""
    first = make(HOURLY)
    first.start()
    first.stop(1.0)
    move(url, ago(days=3))
    second = make(HOURLY)
    second.start()
    wait_for(lines)
    upcoming = second.next_start
    assert upcoming is not None and upcoming > datetime.now(UTC)
    second.stop(DEADLINE_S)
    assert lines() == ["run"]
    third = make(HOURLY)
    third.start()
    assert third.next_start == upcoming
    third.stop(1.0)
    assert lines() == ["run"]


def test_a_moment_missed_by_a_killed_service_is_made_up_for(
    make: Make, url: str, tmp_path: Path, lines: Callable[[], list[str]]
) -> None:
    """kill -9 of a process with a schedule of its own, then a start after the moment."""
    program = (
        "import sys, time\n"
        "from twin_scanner.service.schedule import CommandSchedule\n"
        f"CommandSchedule('{NAME}', '{HOURLY}', ['true'], '{url}').start()\n"
        "print('started', flush=True)\n"
        "time.sleep(600)\n"
    )
    service = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None and service.stdout.readline() == "started\n"
    service.kill()
    service.communicate(timeout=DEADLINE_S)
    move(url, ago(minutes=1))
    schedule = make(HOURLY)
    schedule.start()
    wait_for(lines)
    schedule.stop(DEADLINE_S)
    assert lines() == ["run"]


def test_an_unchanged_restart_keeps_the_next_moment_and_a_changed_cron_replaces_it(make: Make, url: str) -> None:
    first = make(YEARLY)
    first.start()
    first.stop(1.0)
    kept = datetime.now(UTC).replace(microsecond=0) + timedelta(days=5)
    move(url, kept)
    for cron, zone, expected in (
        (f" {YEARLY.replace(' ', '  ')} ", "UTC", kept),
        (YEARLY, "Europe/Rome", read_cron(YEARLY, "Europe/Rome").get_next_fire_time(None, datetime.now(UTC))),
        (HOURLY, "UTC", read_cron(HOURLY, "UTC").get_next_fire_time(None, datetime.now(UTC))),
        ("", "UTC", None),
    ):
        schedule = make(cron, zone=zone)
        schedule.start()
        assert schedule.next_start == expected
        schedule.stop(1.0)


def test_a_changed_command_is_obeyed_although_the_moment_was_kept(
    make: Make, url: str, lines: Callable[[], list[str]]
) -> None:
    first = make(YEARLY, "echo old >> lines")
    first.start()
    first.stop(1.0)
    move(url, ago(seconds=1))
    make(YEARLY, "echo new >> lines").start()
    wait_for(lines)
    assert lines() == ["new"]


def test_a_run_that_the_stop_had_to_end_is_taken_up_by_the_next_start(
    make: Make, url: str, lines: Callable[[], list[str]]
) -> None:
    """The command ends gracefully at SIGTERM, as training does with a checkpoint."""
    graceful = "trap 'echo ended >> lines; exit 1' TERM; echo begun >> lines; while :; do sleep 0.01; done"
    first = make(YEARLY)
    first.start()
    first.stop(1.0)
    move(url, ago(seconds=1))
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
    assert lines() == ["begun", "ended", "resumed"], "what ended by itself is not started again"


def test_a_process_that_will_not_end_is_killed_after_the_limit(
    make: Make, url: str, lines: Callable[[], list[str]], tmp_path: Path
) -> None:
    stubborn = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "open('lines', 'w').write(f'{os.getpid()}\\n'); time.sleep(600)"
    )
    first = make(YEARLY)
    first.start()
    first.stop(1.0)
    move(url, ago(seconds=1))
    second = make(YEARLY, f'exec {sys.executable} -c "{stubborn}"')
    second.start()
    wait_for(lines)
    second.stop(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines()[0]), signal.SIG_DFL)


def test_a_moment_that_comes_while_the_command_runs_is_passed_over(
    make: Make, url: str, lines: Callable[[], list[str]], tmp_path: Path
) -> None:
    first = make(YEARLY)
    first.start()
    first.stop(1.0)
    move(url, ago(seconds=1))
    busy = make(YEARLY, "echo run >> lines; while [ ! -e enough ]; do sleep 0.01; done")
    busy.start()
    wait_for(lines)
    busy._scheduler.modify_job(NAME, next_run_time=ago(seconds=1))
    wait_for(lambda: busy.next_start is not None and busy.next_start > datetime.now(UTC))
    (tmp_path / "enough").touch()
    busy.stop(DEADLINE_S)
    assert lines() == ["run"]


def test_a_command_that_cannot_be_started_leaves_the_schedule_standing(url: str, make: Make) -> None:
    first = make(YEARLY)
    first.start()
    first.stop(1.0)
    move(url, ago(seconds=1))
    schedule = CommandSchedule(NAME, YEARLY, ["/nowhere/twin-scanner"], url)
    schedule.start()
    wait_for(lambda: schedule.next_start is not None and schedule.next_start > datetime.now(UTC))
    assert schedule._processes._thread is not None
    schedule._processes._thread.join(DEADLINE_S)
    schedule.stop(1.0)


@pytest.mark.parametrize(
    ("cron", "zone", "sentence"),
    [
        ("every night", "UTC", "is no cron text: give minute, hour"),
        ("60 * * * *", "UTC", "is no cron text: .*60"),
        ("0 3 * * funday", "UTC", "'funday' is no weekday"),
        ("0 3 * * 8", "UTC", "'8' is no weekday"),
        ("0 3 * * 1/2", "UTC", "step without a range"),
        ("0 3 1 * mon", "UTC", "names days of the month and weekdays"),
        ("0 3 31 2 *", "UTC", "never comes true"),
        ("0 3 * * *", "Europe/Atlantis", "no time zone 'Europe/Atlantis'"),
    ],
)
def test_a_cron_text_that_is_none_is_refused_with_one_sentence(cron: str, zone: str, sentence: str, url: str) -> None:
    with pytest.raises(Rejected, match=sentence) as raised:
        CommandSchedule(NAME, cron, ["true"], url, zone)
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("0", ["Sun"]),
        ("7", ["Sun"]),
        ("1-5", ["Mon", "Tue", "Wed", "Thu", "Fri"]),
        ("fri-sun", ["Fri", "Sat", "Sun"]),
        ("*/3", ["Wed", "Sat", "Sun"]),
        ("Mon,4", ["Mon", "Thu"]),
        ("1-5/2", ["Mon", "Wed", "Fri"]),
    ],
)
def test_weekdays_are_counted_as_cron_counts_them(field: str, days: list[str]) -> None:
    """Oracle: crontab(5), where 0 and 7 are Sunday and * is 0-7; APScheduler alone would begin on Monday."""
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


def test_a_job_store_that_cannot_be_opened_is_a_transient_failure(tmp_path: Path) -> None:
    schedule = CommandSchedule(NAME, YEARLY, ["true"], f"sqlite:///{tmp_path / 'missing' / 'schedule.sqlite'}")
    with pytest.raises(Transient, match="job store cannot be used"):
        schedule.start()
    schedule.stop(1.0)


def test_the_jobs_function_is_never_the_command_itself() -> None:
    with pytest.raises(Defect):
        done_by_the_executor()
