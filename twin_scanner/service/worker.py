"""The threads of the service: for each lane some that claim rows and work on them, and the timer that renews leases.

Each piece of work may be repeated without doubling anything. A thread that dies of anything but our own errors ends
the process: whatever it held is found again at the next start.
"""

import logging
import os
import random
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar

from dicom_node.store_scu import NotStored
from twin_scanner.errors import Defect, Held, Misconfigured, Transient, TwinScannerError, Unavailable
from twin_scanner.logs import log_context
from twin_scanner.service.breaker import Breaker
from twin_scanner.service.ledger.claims import Claimed, Claims, LeaseLost
from twin_scanner.service.ledger.ledger import Ledger, NodeLost
from twin_scanner.service.retry import Again, GiveUp, RetryPolicy, decide

LOG = logging.getLogger("twin_scanner.worker")

IDLE_POLL_S: Final = 0.5
"""How often an idle thread looks for a row that has come due."""
RECORD_POLL_S: Final = 1.0
"""How often an outcome that the ledger could not take is offered again."""
ALARM_ATTEMPTS: Final = 5
"""After so many attempts in a row a failure that may pass becomes an alarm."""

Beat: TypeAlias = Callable[[], None]
"""Called between parts of a piece of work; raises Stopped where it is to end here."""
Record: TypeAlias = Callable[[], None]
"""Writes an outcome into the ledger."""
R = TypeVar("R", bound=Claimed)


class Stopped(Transient):
    """The service stops: the work is not finished, and no attempt is counted."""


@dataclass(frozen=True)
class Lane(Generic[R]):
    """One kind of work with its own threads, so that no other kind waits for it.

    ``work`` returns what records its success. ``facts`` name the row in the log. ``on_up`` is called when a
    destination that was down answers again. ``counts`` says of an error that is tried again whether the attempt counts.
    """

    name: str
    threads: int
    rows: Claims[R]
    claim: Callable[[], R | None]
    work: Callable[[R, Beat], Record]
    facts: Callable[[R], dict[str, str]]
    breaker: Breaker | None = None
    on_up: Record = lambda: None
    counts: Callable[[Exception], bool] = lambda error: True


class Worker:
    """Runs the lanes. ``on_fatal`` is called from a thread that dies, and is to end the process."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        lanes: Sequence[Lane[Any]],
        policy: RetryPolicy,
        on_fatal: Callable[[], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._ledger = ledger
        self._policy = policy
        self._on_fatal = on_fatal
        self._draw = draw
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._wakers: list[threading.Event] = []
        self._breakers = {lane.name: lane.breaker for lane in lanes if lane.breaker is not None}
        self._threads = [self._thread_of(lane, number) for lane in lanes for number in range(lane.threads)]
        self._timer = threading.Thread(target=self._guarded, args=(self._renew,), name="leases")

    def start(self) -> None:
        """Begin; the ledger has been entered."""
        for thread in (self._timer, *self._threads):
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """End what can end between two parts, in ``timeout_s`` seconds at most; a start repeats the rest."""
        self._stopping.set()
        self.wake()
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline_s - time.monotonic()))
        self._stopped.set()
        if self._timer.ident is not None:
            self._timer.join(max(0.0, deadline_s - time.monotonic()))

    @property
    def at_work(self) -> bool:
        """Whether a thread has not ended yet."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def is_whole(self) -> bool:
        """Whether every thread lives, the one that renews the leases too."""
        return all(thread.is_alive() for thread in (self._timer, *self._threads))

    @property
    def down(self) -> frozenset[str]:
        """The destinations whose last answer was that they serve nobody."""
        return frozenset(name for name, breaker in self._breakers.items() if breaker.is_down)

    def wake(self) -> None:
        """Look for work now."""
        for waker in self._wakers:
            waker.set()

    def run_once(self, lane: Lane[R]) -> bool:
        """Claim one row of the lane and work on it; False where nothing is due, or its destination is down."""
        row = self.take(lane)
        if row is None:
            return False
        self.work(lane, row)
        return True

    def take(self, lane: Lane[R]) -> R | None:
        """Claim one row of the lane, to be worked on; None where nothing is due, or its destination is down."""
        if lane.breaker is not None and not lane.breaker.enter():
            return None
        row: R | None = None
        try:
            row = lane.claim()
        finally:
            if row is None and lane.breaker is not None:
                lane.breaker.idle()
        return row

    def work(self, lane: Lane[R], row: R) -> None:
        """Work on a row that was claimed, and record what became of it."""
        try:
            self._work(lane, row)
        finally:
            lane.rows.forget(row)
        self.wake()

    def _thread_of(self, lane: Lane[Any], number: int) -> threading.Thread:
        waker = threading.Event()
        self._wakers.append(waker)
        loop = partial(self._loop, lane, waker)
        return threading.Thread(target=self._guarded, args=(loop,), name=f"{lane.name}-{number}")

    def _guarded(self, loop: Callable[[], None]) -> None:
        ended = False
        try:
            loop()
            ended = True
        finally:
            if not ended:
                LOG.critical("a thread of the service died; the process ends")
                self._on_fatal()

    def _loop(self, lane: Lane[Any], waker: threading.Event) -> None:
        ledger_answers = True
        while not self._stopping.is_set():
            waker.clear()
            try:
                idle = not self.run_once(lane)
                ledger_answers = True
            except TwinScannerError as error:
                if ledger_answers:
                    LOG.error("the ledger cannot be used", extra={"step": lane.name, "reason": str(error)})
                idle, ledger_answers = True, False
            if idle:
                waker.wait(IDLE_POLL_S)

    def _renew(self) -> None:
        while not self._stopped.wait(self._ledger.leases.beat_s):
            try:
                self._ledger.beat()
            except NodeLost:
                raise
            except TwinScannerError as error:
                LOG.error("leases not renewed", extra={"reason": str(error)})

    def _beat(self) -> None:
        if self._stopping.is_set():
            raise Stopped("The service stops; the work is repeated after the next start.")

    def _work(self, lane: Lane[R], row: R) -> None:
        facts = {"step": lane.name}
        error: Exception | None = None
        try:
            facts |= lane.facts(row)
            LOG.info("step begins", extra=facts)
            with log_context(**facts):
                record = lane.work(row, self._beat)
        except Exception as raised:  # noqa: BLE001  the one outer loop: whatever a step raises ends in the ledger
            error = raised
            record = self._failure(lane, row, raised, facts)
        is_up_again = self._tell_breaker(lane, error, facts)
        try:
            recorded = self._recorded(record, facts)
        except Defect as refused:
            if error is not None:
                raise
            error = refused
            recorded = self._recorded(self._failure(lane, row, refused, facts), facts)
        if recorded and error is None:
            LOG.info("step done", extra=facts)
        if is_up_again:
            self._recorded(lane.on_up, facts)

    def _failure(self, lane: Lane[R], row: R, error: Exception, facts: dict[str, str]) -> Record:
        """What records a failure, after it was logged."""
        if isinstance(error, Stopped):
            LOG.info("step stopped", extra=facts)
            return partial(lane.rows.put_back, row)
        reason = _reason(error)
        if not isinstance(error, TwinScannerError):
            frames = traceback.extract_tb(error.__traceback__)
            facts = facts | {"where": " < ".join(f"{f.name}:{f.lineno}" for f in reversed(frames))}
        counts, age_s = lane.counts(error), lane.rows.age_s(row)
        attempt = row.attempts if counts else self._policy.attempt_at(age_s)
        decision = decide(error, attempt, age_s, self._draw(), self._policy)
        if isinstance(decision, Again):
            alarm = attempt == ALARM_ATTEMPTS or (isinstance(error, Misconfigured) and attempt == 1)
            LOG.log(logging.ERROR if alarm else logging.WARNING, "step failed", extra={**facts, "reason": reason})
            kind = type(error).__name__
            # While a destination is down its breaker alone paces the probes, of which any row may be the next.
            delay_s = 0.0 if lane.breaker is not None and isinstance(error, Unavailable) else decision.delay_s
            postpone = partial(lane.rows.postpone, row, delay_s, reason, error=kind, alarm=alarm)
            return partial(postpone, counts=counts)
        level = logging.WARNING if decision == GiveUp.REJECT else logging.ERROR
        LOG.log(level, "step given up: %s", decision, extra={**facts, "reason": reason})
        if isinstance(error, Held):
            return partial(lane.rows.hold, row, reason, error.held_for)
        ways = {GiveUp.HOLD: lane.rows.hold, GiveUp.REJECT: lane.rows.reject, GiveUp.FAIL: lane.rows.fail}
        return partial(ways[decision], row, reason)

    def _recorded(self, record: Record, facts: dict[str, str]) -> bool:
        """Whether the outcome is in the ledger: it is offered until the ledger takes it, or the service stops."""
        while True:
            try:
                record()
            except LeaseLost as error:
                LOG.warning("outcome not recorded", extra={**facts, "reason": str(error)})
                return False
            except Transient as error:
                LOG.error("outcome not recorded yet", extra={**facts, "reason": str(error)})
                if self._stopping.wait(RECORD_POLL_S):
                    return False
            else:
                return True

    def _tell_breaker(self, lane: Lane[R], error: Exception | None, facts: dict[str, str]) -> bool:
        """Whether the lane's destination had been down and is there again."""
        if lane.breaker is None:
            return False
        if isinstance(error, Unavailable):
            if lane.breaker.down(error.retry_after_s):
                LOG.error("destination is down: one probe at a time", extra={**facts, "reason": str(error)})
            return False
        if error is not None and not isinstance(error, NotStored | Held):
            lane.breaker.idle()
            return False
        is_up_again = lane.breaker.up()
        if is_up_again:
            LOG.info("destination is there again", extra=facts)
        return is_up_again


def _reason(error: Exception) -> str:
    if isinstance(error, TwinScannerError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is too little memory for this study: give the service more, or smaller series."
    if isinstance(error, OSError):
        # The error's own text may hold a path or data.
        why = os.strerror(error.errno) if error.errno else type(error).__name__
        return f"The disk or the network refused ({why}): check free space, rights and connections."
    return f"Unexpected {type(error).__name__}: see the log."
