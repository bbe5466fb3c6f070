"""What the running scanner does by the clock (APScheduler): its small periodic tasks, and retraining by a cron text."""

import logging
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.executors.base import BaseExecutor
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from sqlalchemy.exc import SQLAlchemyError

from twin_scanner.errors import Defect, Rejected, Transient, TwinScannerError

LOG = logging.getLogger("twin_scanner.scheduler")

JOB_DEFAULTS: Final = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
"""However many moments were missed, one run makes up for them, however late, and never beside another."""
TABLE: Final = "scheduled_commands"
WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
"""In cron's order; 7 is Sunday too. APScheduler counts from Monday, so it is given names."""
WEEKDAY_PART: Final = re.compile(r"(?:\*|([0-7]|[a-z]{3})(?:-([0-7]|[a-z]{3}))?)(?:/([1-7]))?")


class Scheduler:
    """Runs each task at its interval, never twice at a time; a failing task is logged and runs again."""

    def __init__(self) -> None:
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            executors={"default": ThreadPoolExecutor(4)},
            job_defaults=JOB_DEFAULTS,
        )
        logging.getLogger("apscheduler").setLevel(logging.ERROR)

    def every(self, interval_s: float, name: str, task: Callable[[], None]) -> None:
        """Run ``task`` every ``interval_s`` seconds, the first time one interval from the start."""

        def run() -> None:
            try:
                task()
            except TwinScannerError as error:
                LOG.error("periodic task failed", extra={"step": name, "reason": str(error)})

        self._scheduler.add_job(run, "interval", seconds=interval_s, id=name)

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    def stop(self) -> None:
        """Wait for the tasks under way and end."""
        self._scheduler.shutdown(wait=True)


class CommandSchedule:
    """Starts one command as a process of its own, at the moments of a cron text, across restarts.

    The next moment is kept in the job store: one that passed while nobody ran is made up for at the start, once. A
    moment that comes while the process still runs is passed over. A process that ``stop`` had to end is started again
    by the next ``start``.
    """

    def __init__(
        self,
        name: str,
        cron: str,
        command: Sequence[str],
        store_url: str,
        zone: str = "UTC",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Five cron fields, read in ``zone``; an empty text starts nothing, and forgets what was kept.

        ``environment`` is what the command gets beside ours.

        Raises Rejected where the text or the zone is none, or the text never comes true.
        """
        self._name = name
        self._written = f"{' '.join(cron.split())} {zone}"
        self._trigger = read_cron(cron, zone) if cron.strip() else None
        self._processes = _Processes(command, environment or {})
        self._store = SQLAlchemyJobStore(store_url, tablename=TABLE)
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            jobstores={"default": self._store},
            executors={"default": self._processes},
            job_defaults=JOB_DEFAULTS,
        )
        logging.getLogger("apscheduler").setLevel(logging.ERROR)

    @property
    def next_start(self) -> datetime | None:
        """The next moment, None where there is none; raises Transient where the job store is lost."""
        with _store_errors():
            job = self._scheduler.get_job(self._name)
        return None if job is None else job.next_run_time

    def start(self) -> None:
        """Begin; what is kept stays as it is, unless the cron text or the zone is another.

        Raises Transient where the job store cannot be used.
        """
        try:
            with _store_errors():
                self._scheduler.start(paused=True)
                self._replace_changed()
        except Transient:
            self.stop(0.0)
            raise
        self._scheduler.resume()

    def stop(self, timeout_s: float) -> None:
        """Start nothing more; ask a running process to end (SIGTERM), and kill it after ``timeout_s`` seconds."""
        if not self._scheduler.running:
            return
        self._scheduler.pause()
        self._processes.end(timeout_s)
        self._scheduler.shutdown(wait=True)
        if self._processes.interrupted:
            self._put_back()

    def _replace_changed(self) -> None:
        kept = self._scheduler.get_job(self._name)
        if kept is not None and kept.name == self._written and self._trigger is not None:
            return
        if kept is not None:
            kept.remove()
        if self._trigger is not None:
            self._scheduler.add_job(done_by_the_executor, self._trigger, id=self._name, name=self._written)

    def _put_back(self) -> None:
        """Make the job due again, for the next start.

        Only once the scheduler is down: while it shuts down, APScheduler takes what is due once more and starts none.
        """
        with _store_errors():
            job = self._store.lookup_job(self._name)
            if job is not None:
                job.next_run_time = datetime.now(UTC)
                self._store.update_job(job)
            self._store.shutdown()


class _Processes(BaseExecutor):
    """APScheduler's executor for a job that is a command: started in a thread of its own, which waits for its end.

    The command stands here and not in the job store, so that a changed configuration is obeyed at once.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__()
        self._command, self._environment = list(command), dict(environment)
        self._guard = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._ending = False
        self.interrupted = False

    def end(self, timeout_s: float) -> None:
        """Start nothing more, ask the process to end, and kill it after ``timeout_s`` seconds.

        ``interrupted`` then says whether its work, or work that was not begun any more, was left undone.
        """
        with self._guard:
            self._ending = True
            if self._child is not None:
                self._child.terminate()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with self._guard:
            if self._child is not None:
                LOG.warning("command killed: it did not end in time", extra={"process_id": self._child.pid})
                self._child.kill()
        if self._thread is not None:
            self._thread.join()

    def _do_submit_job(self, job: Any, run_times: Sequence[datetime]) -> None:
        with self._guard:
            if self._ending:
                self.interrupted = True
                return
            self._thread = threading.Thread(target=self._run, args=(job.id,), name=f"{job.id}-process")
            self._thread.start()

    def _run(self, name: str) -> None:
        child = self._started(name)
        if child is not None:
            code = child.wait()
            with self._guard:
                self._child = None
                self.interrupted = self._ending and code != 0
            facts = {"step": name, "process_id": child.pid, "exit_code": code}
            LOG.log(logging.ERROR if code and not self._ending else logging.INFO, "command ended", extra=facts)
        self._run_job_success(name, [])

    def _started(self, name: str) -> "subprocess.Popen[bytes] | None":
        """None where nothing may begin any more, or the command cannot; its own output goes where our log goes."""
        with self._guard:
            if self._ending:
                self.interrupted = True
                return None
            try:
                environment = {**os.environ, **self._environment}
                self._child = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
                )
            except OSError as error:
                LOG.error("command not started", extra={"step": name, "reason": str(error)})
                return None
            LOG.info("command started", extra={"step": name, "process_id": self._child.pid})
            return self._child


def done_by_the_executor() -> None:
    """What the job store names as the job's function; the executor starts the command instead of calling it."""
    raise Defect("A scheduled command was called as a function: its schedule has lost its executor.")


def read_cron(cron: str, zone: str) -> CronTrigger:
    """A cron text of five fields: minute, hour, day of month, month, weekday (0 or 7 is Sunday, or sun to sat).

    Raises Rejected where it is none or never comes true, and where it names both days of the month and weekdays:
    cron would take either, the scheduler only both.
    """
    fields = cron.lower().split()
    if len(fields) != 5:
        raise Rejected(f"'{cron}' is no cron text: give minute, hour, day, month and weekday, such as '30 2 * * sat'.")
    minute, hour, day, month, weekday = fields
    try:
        trigger = CronTrigger(
            minute=minute, hour=hour, day=day, month=month, day_of_week=_weekdays(weekday), timezone=ZoneInfo(zone)
        )
        comes = trigger.get_next_fire_time(None, datetime.now(UTC))
    except ZoneInfoNotFoundError as error:
        raise Rejected(f"There is no time zone '{zone}' for the cron text: give an IANA name, Europe/Rome.") from error
    except ValueError as error:
        raise Rejected(f"'{cron}' is no cron text: {error}.") from error
    if day != "*" and weekday != "*":
        raise Rejected(f"The cron text '{cron}' names days of the month and weekdays: leave one of them '*'.")
    if comes is None:
        raise Rejected(f"The cron text '{cron}' never comes true: check its day and month.")
    return trigger


def _weekdays(field: str) -> str:
    """Names, comma between them, of the weekdays that a cron field means; raises ValueError."""
    if field == "*":
        return field
    days: set[int] = set()
    for part in field.split(","):
        found = WEEKDAY_PART.fullmatch(part)
        if found is None:
            raise ValueError(f"'{part}' is no weekday")
        first, last, step = found.groups()
        if step and first and not last:
            raise ValueError(f"'{part}' is a step without a range")
        begin = 0 if first is None else _weekday(first)
        end = 6 if first is None else begin if last is None else _weekday(last)
        days.update(day % 7 for day in range(begin, end + (7 if end < begin else 0) + 1, int(step or 1)))
    return ",".join(WEEKDAYS[day] for day in sorted(days))


def _weekday(text: str) -> int:
    if not text.isdigit() and text not in WEEKDAYS:
        raise ValueError(f"'{text}' is no weekday")
    return int(text) if text.isdigit() else WEEKDAYS.index(text)


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise Transient("The schedule's job store cannot be used: check its database and the disk.") from error
