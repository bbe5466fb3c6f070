"""Periodic work of the running scanner (APScheduler): looking for quiet studies, clearing away what has aged."""

import logging
from collections.abc import Callable

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from twin_scanner.errors import TwinScannerError

LOG = logging.getLogger("twin_scanner.scheduler")


class Scheduler:
    """Runs each task at its interval, never twice at a time; a failing task is logged and runs again."""

    def __init__(self) -> None:
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            executors={"default": ThreadPoolExecutor(4)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
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
