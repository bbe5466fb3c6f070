"""Takes a job through its steps: render, deliver, record; each step may be repeated without doubling anything."""

import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from twin_scanner.errors import TwinScannerError
from twin_scanner.service.ledger.ledger import Job, Ledger, State
from twin_scanner.service.retry import Again, RetryPolicy, decide

LOG = logging.getLogger("twin_scanner.worker")

BEATS_A_LEASE = 10
"""A worker may miss several beats before its lease runs out."""
IDLE_POLL_S = 0.5
"""How often an idle worker looks for a job that has come due."""


@dataclass(frozen=True)
class Progress:
    """What a step has established: the PET series and the model that made it, once rendered."""

    pet_series_uid: str | None = None
    model_hash: str | None = None


@dataclass(frozen=True)
class Step:
    """How a job leaves one state: do the work, then stand at ``leads_to``."""

    name: str
    leads_to: State
    work: Callable[[Job, Callable[[], None]], Progress]
    """Called with the job and a function that prolongs the lease."""


class Worker:
    """Threads that claim jobs and take each one step further."""

    def __init__(
        self,
        *,
        node: str,
        ledger: Ledger,
        steps: Mapping[State, Step],
        policy: RetryPolicy,
        lease_s: float,
        threads: int,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._node = node
        self._ledger = ledger
        self._steps = steps
        self._policy = policy
        self._lease_s = lease_s
        self._draw = draw
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop, args=(f"{node}/worker-{i}",), name=f"worker-{i}")
            for i in range(threads)
        ]

    def start(self) -> None:
        """Free what this node held when it last died, and begin."""
        freed = self._ledger.release(self._node)
        if freed:
            LOG.info("leases of an earlier run released", extra={"count": freed})
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Finish the steps under way, at most ``timeout_s`` seconds each; the rest is repeated after a start."""
        self._stopping.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def wake(self) -> None:
        """Look for work now."""
        self._wake.set()

    def run_once(self, owner: str) -> Job | None:
        """Claim one job and take it one step; None where nothing is due."""
        job = self._ledger.claim(owner, self._lease_s)
        if job is not None:
            self._take_step(job)
        return job

    def _loop(self, owner: str) -> None:
        while not self._stopping.is_set():
            try:
                idle = self.run_once(owner) is None
            except TwinScannerError as error:
                LOG.error("worker could not reach the ledger", extra={"reason": str(error)})
                idle = True
            if idle:
                self._wake.wait(IDLE_POLL_S)
                self._wake.clear()

    def _take_step(self, job: Job) -> None:
        step = self._steps[job.state]
        facts = {"job_id": job.job_id, "series_uid": job.series_uid, "step": step.name}
        LOG.info("step begins", extra=facts)
        try:
            made = step.work(job, self._heartbeat(job))
            self._ledger.advance(job, step.leads_to, pet_series_uid=made.pet_series_uid, model_hash=made.model_hash)
        except Exception as error:  # noqa: BLE001  the one outer loop: whatever a step raises ends in the ledger
            self._after_failure(job, error, facts)
        else:
            LOG.info("step done", extra={**facts, "state": step.leads_to.value})
            self._wake.set()

    def _heartbeat(self, job: Job) -> Callable[[], None]:
        """Prolongs the lease, however often it is called no more than some times a lease: each one is a disk sync."""
        extended_s = time.monotonic()

        def beat() -> None:
            nonlocal extended_s
            if time.monotonic() - extended_s >= self._lease_s / BEATS_A_LEASE:
                self._ledger.extend(job, self._lease_s)
                extended_s = time.monotonic()

        return beat

    def _after_failure(self, job: Job, error: Exception, facts: dict[str, str]) -> None:
        reason = (
            str(error) if isinstance(error, TwinScannerError) else f"Unexpected {type(error).__name__}: see the log."
        )
        if not isinstance(error, TwinScannerError):
            frames = traceback.extract_tb(error.__traceback__)
            facts = facts | {"where": " < ".join(f"{f.name}:{f.lineno}" for f in reversed(frames))}
        LOG.warning("step failed", extra={**facts, "reason": reason})
        decision = decide(error, job.attempts, self._draw(), self._policy)
        try:
            if isinstance(decision, Again):
                self._ledger.postpone(job, decision.delay_s, reason)
            else:
                self._ledger.end(job, decision.state, reason)
        except TwinScannerError as lost:
            LOG.warning("failure not recorded; the lease will expire", extra={**facts, "reason": str(lost)})
