"""What the running scanner does by the clock: its small periodic tasks, and a command at the moments of a cron text."""

import hashlib
import logging
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.cron import CronTrigger

from twin_scanner.errors import Misconfigured, TwinScannerError
from twin_scanner.service.ledger.leases import Leases
from twin_scanner.service.ledger.moves import RunState
from twin_scanner.service.ledger.runs import Runs

LOG = logging.getLogger("twin_scanner.schedule")

REMINDER_S: Final = 600.0
"""A periodic task that goes on failing for one reason is logged again after so long: some run ten times a second."""
LONGEST_LOOK_S: Final = 30.0
"""How often the ledger is asked at least whether the command is due: another node may have left its run behind."""


class PeriodicTasks:
    """Runs each task at its interval in a thread of its own; one that fails is logged and runs again.

    ``on_fatal`` is called from a thread that dies of anything but our own errors, and is to end the process.
    """

    def __init__(self, on_fatal: Callable[[], None]) -> None:
        self._on_fatal = on_fatal
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._wakers: list[threading.Event] = []

    def every(self, interval_s: float, name: str, task: Callable[[], None]) -> Callable[[], None]:
        """Run ``task`` every ``interval_s`` seconds, first after one of them; gives back what runs it at once."""
        waker = threading.Event()
        thread = threading.Thread(target=self._repeat, args=(interval_s, name, task, waker), name=name)
        self._wakers.append(waker)
        self._threads.append(thread)
        thread.start()
        return waker.set

    def stop(self, timeout_s: float) -> None:
        """Begin no task more, and wait for those under way."""
        self._stopping.set()
        for waker in self._wakers:
            waker.set()
        for thread in self._threads:
            thread.join(timeout_s)

    @property
    def at_work(self) -> bool:
        """Whether a task has not ended yet."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def is_whole(self) -> bool:
        """Whether every task's thread lives."""
        return all(thread.is_alive() for thread in self._threads)

    def _repeat(self, interval_s: float, name: str, task: Callable[[], None], waker: threading.Event) -> None:
        died, reason, logged_s = True, "", 0.0
        try:
            while True:
                waker.wait(interval_s)
                waker.clear()
                if self._stopping.is_set():
                    break
                try:
                    task()
                    reason = ""
                except TwinScannerError as error:
                    now_s = time.monotonic()
                    if str(error) != reason or now_s - logged_s >= REMINDER_S:
                        reason, logged_s = str(error), now_s
                        LOG.error("periodic task failed; it runs again", extra={"step": name, "reason": reason})
            died = False
        finally:
            if died:
                LOG.critical("a periodic task died; the process ends", extra={"step": name})
                self._on_fatal()


class CommandSchedule:
    """Starts one command as a process of its own at the moments of a cron text, on one node of several.

    A moment that passed while nobody ran is made up for at the next start, once. One that comes while the command
    runs is passed over. A run that was interrupted is due again. The memory is the ledger's, by name, cron text and
    zone: another cron text begins anew.
    ``on_fatal`` is called from a thread that dies of anything but our own errors, and is to end the process.
    """

    def __init__(
        self,
        name: str,
        cron: str,
        command: Sequence[str],
        runs: Runs,
        leases: Leases,
        on_fatal: Callable[[], None],
        zone: str = "UTC",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Five cron fields, read in ``zone``; an empty text starts nothing. Raises as ``read_cron`` does."""
        self._name = name
        self._trigger = read_cron(cron, zone) if cron.strip() else None
        digest = hashlib.sha256(f"{' '.join(cron.split())} {zone}".encode()).hexdigest()
        self.key: Final = f"{name} {digest[:12]}"
        """The name of the runs and of the lease."""
        self._command = list(command)
        self._runs, self._leases, self._on_fatal, self._now = runs, leases, on_fatal, now
        self._guard = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name=f"{name}-schedule")

    def start(self) -> None:
        """Begin; where nothing is remembered, the moments count from now. Raises Transient where the ledger is lost."""
        if self._trigger is None:
            return
        if self._runs.last(self.key) is None:
            self._runs.finish(self._runs.begin(self.key), None)
        LOG.info("command scheduled", extra={"step": self._name, "next": f"{self.next_start():%Y-%m-%d %H:%M %Z}"})
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Start nothing more; ask a running process to end (SIGTERM), and kill it after ``timeout_s`` seconds."""
        with self._guard:
            self._stopping.set()
            if self._child is not None:
                self._child.terminate()
        if self._thread.ident is None:
            return
        self._thread.join(timeout_s)
        with self._guard:
            if self._child is not None:
                LOG.warning("command killed: it did not end in time", extra={"process_id": self._child.pid})
                self._child.kill()
        self._thread.join()

    def next_start(self) -> datetime | None:
        """When the command is due; None where no cron text is configured."""
        if self._trigger is None:
            return None
        last = self._runs.last(self.key)
        if last is None:
            return _after(self._trigger, self._now())
        return last.started_at if last.state == RunState.INTERRUPTED else _after(self._trigger, last.started_at)

    def _guarded(self) -> None:
        died = True
        try:
            self._loop()
            died = False
        finally:
            if died:
                LOG.critical("a schedule died; the process ends", extra={"step": self._name})
                self._on_fatal()

    def _loop(self) -> None:
        wait_s = 0.0
        while not self._stopping.wait(wait_s):
            wait_s = LONGEST_LOOK_S
            try:
                if not self._run_where_due():
                    wait_s = min(wait_s, self._until_next_s())
            except TwinScannerError as error:
                LOG.error(
                    "schedule not obeyed; it is looked at again", extra={"step": self._name, "reason": str(error)}
                )

    def _until_next_s(self) -> float:
        due = self.next_start()
        return LONGEST_LOOK_S if due is None else max(0.0, (due - self._now()).total_seconds())

    def _run_where_due(self) -> bool:
        """Whether another node runs the command; where none does and it is due, run it here."""
        if not self._is_due():
            return False
        lease = self._leases.take(self.key, self._name)
        if lease is None:
            return True
        try:
            if self._is_due():
                self._run()
        finally:
            self._leases.give_back(lease)
        return False

    def _is_due(self) -> bool:
        """Whether its moment has come, or the last run has lost its node: whoever then gets the lease may begin."""
        last = self._runs.last(self.key)
        due = self.next_start()
        return due is not None and (due <= self._now() or (last is not None and last.state == RunState.RUNNING))

    def _run(self) -> None:
        run = self._runs.begin(self.key)
        code = self._run_command()
        interrupted = self._stopping.is_set() and code != 0
        self._runs.finish(run, code, interrupted=interrupted)
        level = logging.ERROR if code != 0 and not interrupted else logging.INFO
        LOG.log(level, "command ended", extra={"step": self._name, "exit_code": code})

    def _run_command(self) -> int | None:
        """The exit code; None where nothing may begin any more, or the command cannot. Its log goes where ours goes."""
        with self._guard:
            if self._stopping.is_set():
                return None
            try:
                child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            except OSError as error:
                LOG.error("command not started", extra={"step": self._name, "reason": error.strerror})
                return None
            self._child = child
        LOG.info("command started", extra={"step": self._name, "process_id": child.pid})
        code = child.wait()
        with self._guard:
            self._child = None
        return code


def read_cron(cron: str, zone: str) -> CronTrigger:
    """A cron text of five fields: minute, hour, day of month, month, weekday (mon to sun).

    Raises Misconfigured where it is none or never comes true; where it gives a weekday as a number, for cron counts
    from Sunday and APScheduler from Monday; and where it names both days of the month and weekdays, for cron would
    take either and APScheduler only both.
    """
    fields = cron.lower().split()
    if len(fields) != 5:
        raise Misconfigured(
            f"'{cron}' is no cron text: give minute, hour, day, month and weekday, such as '30 2 * * sat'."
        )
    minute, hour, day, month, weekday = fields
    if any(letter.isdigit() for letter in weekday):
        raise Misconfigured(f"The cron text '{cron}' counts weekdays: name them, mon to sun, such as '30 2 * * sat'.")
    if day != "*" and weekday != "*":
        raise Misconfigured(f"The cron text '{cron}' names days of the month and weekdays: leave one of them '*'.")
    try:
        trigger = CronTrigger(
            minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone=ZoneInfo(zone)
        )
        comes = trigger.get_next_fire_time(None, datetime.now(UTC))
    except ZoneInfoNotFoundError as error:
        raise Misconfigured(
            f"There is no time zone '{zone}' for the cron text: give an IANA name, Europe/Rome."
        ) from error
    except ValueError as error:
        raise Misconfigured(f"'{cron}' is no cron text: {error}.") from error
    if comes is None:
        raise Misconfigured(f"The cron text '{cron}' never comes true: check its day and month.")
    return trigger


def _after(trigger: CronTrigger, moment: datetime) -> datetime | None:
    """The first moment later than this one."""
    comes: datetime | None = trigger.get_next_fire_time(None, moment + timedelta(microseconds=1))
    return comes
