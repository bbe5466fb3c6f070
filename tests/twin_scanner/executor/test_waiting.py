"""Waiting for work: the result, the beat meanwhile, and a lost process as an error that may be tried again."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

from tests.fakes.clock import Clock
from twin_scanner.errors import Rejected, Transient
from twin_scanner.executor.waiting import Limit, let_end, wait

pytestmark = pytest.mark.unit

NEVER = Limit("The work", "limits.work_s", 600.0, lambda: None)


class Enough(Exception):
    """Raised by a beat."""


def test_the_beat_is_called_until_the_work_is_done() -> None:
    """The work ends only once it has heard three beats, so a missing one would hang this test."""
    beats = threading.Semaphore(0)

    def work() -> str:
        for _ in range(3):
            beats.acquire()
        return "done"

    with ThreadPoolExecutor(1) as executor:
        assert wait(executor.submit(work), beats.release, 0.001, NEVER) == "done"


def test_what_the_work_raises_arrives_as_it_was_even_a_timeout() -> None:
    for error in (Rejected("The slice at z = 3 mm is missing."), TimeoutError("of the work itself")):
        future: Future[None] = Future()
        future.set_exception(error)
        with pytest.raises(type(error)) as raised:
            wait(future, lambda: None, 1.0, NEVER)
        assert raised.value is error


def test_a_lost_or_closed_executor_is_transient() -> None:
    lost: Future[None] = Future()
    lost.set_exception(BrokenProcessPool())
    cancelled: Future[None] = Future()
    cancelled.cancel()
    for future in (lost, cancelled):
        with pytest.raises(Transient, match="worker process was lost"):
            wait(future, lambda: None, 1.0, NEVER)


def test_a_beat_that_raises_ends_the_waiting_and_work_that_has_not_begun_never_begins() -> None:
    future: Future[None] = Future()

    def beat() -> None:
        raise Enough

    with pytest.raises(Enough):
        wait(future, beat, 0.001, NEVER)
    assert future.cancelled()


def test_work_that_takes_longer_than_its_limit_is_ended_and_may_be_tried_again() -> None:
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    clock, ended = Clock(), []
    limit = Limit("The render", "limits.render_s", 7.0, lambda: ended.append(clock.seconds))
    begun_s = clock.seconds
    with pytest.raises(Transient, match=r"The render did not end within 7 s \(limits.render_s\)"):
        wait(future, lambda: clock.pass_s(2.0), 0.001, limit, clock.monotonic_s)
    assert ended == [begun_s + 8.0]


def test_work_that_waits_for_a_worker_has_its_whole_limit_once_it_has_begun() -> None:
    """On a cluster a busy worker's next work would have been ended before it began."""
    future: Future[str] = Future()
    clock, waited_s = Clock(), 100.0
    begun_s = clock.seconds

    def beat() -> None:
        clock.pass_s(2.0)
        if not future.running() and clock.seconds - begun_s >= waited_s:
            future.set_running_or_notify_cancel()

    ended: list[float] = []
    limit = Limit("The render", "limits.render_s", 7.0, lambda: ended.append(clock.seconds))
    with pytest.raises(Transient, match="did not end within 7 s"):
        wait(future, beat, 0.001, limit, clock.monotonic_s)
    assert ended == [begun_s + waited_s + 8.0]


def test_what_is_only_let_end_raises_nothing_and_says_whether_it_ended_by_itself() -> None:
    failed: Future[None] = Future()
    failed.set_exception(Rejected("The slice at z = 3 mm is missing."))
    assert let_end(failed, lambda: None, 1.0, NEVER)
    hanging: Future[None] = Future()
    hanging.set_running_or_notify_cancel()
    clock, ended = Clock(), []
    limit = Limit("Reading ahead", "AHEAD_S", 7.0, lambda: ended.append(clock.seconds))
    assert not let_end(hanging, lambda: clock.pass_s(8.0), 0.001, limit, clock.monotonic_s)
    assert len(ended) == 1
