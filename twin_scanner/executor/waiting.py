"""How work on any ``concurrent.futures.Executor`` is waited for, whether its processes are here or elsewhere."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from dataclasses import dataclass
from typing import Any, TypeVar

from twin_scanner.errors import Transient

R = TypeVar("R")


@dataclass(frozen=True)
class Limit:
    """How long one piece of work may take once it has begun: what hangs would hold up everything behind it for ever.

    ``what`` begins the sentence that says it took longer, ``key`` is where the configuration sets ``seconds``, and
    ``end`` ends the work's process.
    """

    what: str
    key: str
    seconds: float
    end: Callable[[], None]


def wait(
    future: Future[R],
    beat: Callable[[], None],
    every_s: float,
    limit: Limit,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> R:
    """The future's result; ``beat`` is called every ``every_s`` seconds until it is there.

    Raises what the work raised, and Transient where its process was lost or ended, also because it did not end within
    ``limit``, which counts from when the future is ``running``: on a cluster it may first wait for a worker. What
    ``beat`` raises ends the waiting: work that has not begun is then cancelled.
    """
    try:
        if not let_end(future, beat, every_s, limit, monotonic_s):
            raise Transient(
                f"{limit.what} did not end within {limit.seconds:g} s ({limit.key}), so its process was ended: it "
                "is tried again."
            )
        return future.result()
    except (BrokenExecutor, CancelledError) as error:
        raise Transient("The worker process was lost; it is started again with the next try.") from error
    finally:
        future.cancel()


def let_end(
    future: Future[Any],
    beat: Callable[[], None],
    every_s: float,
    limit: Limit,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> bool:
    """Wait as ``wait`` does until the future is done, whatever it holds then; False where it hung and was ended."""
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    begun_s: float | None = None
    while not done.wait(every_s):
        if begun_s is None and future.running():
            begun_s = monotonic_s()
        beat()
        if begun_s is not None and monotonic_s() - begun_s >= limit.seconds:
            limit.end()
            return False
    return True
