"""How work on any ``concurrent.futures.Executor`` is waited for, whether its processes are here or elsewhere."""

import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from typing import TypeVar

from twin_scanner.errors import Transient

R = TypeVar("R")


def wait(future: Future[R], beat: Callable[[], None], every_s: float) -> R:
    """The future's result; ``beat`` is called every ``every_s`` seconds until it is there.

    Raises what the work raised, and Transient where its process was lost or ended. What ``beat`` raises ends the
    waiting: work that has not begun is then cancelled.
    """
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    try:
        while not done.wait(every_s):
            beat()
        return future.result()
    except (BrokenExecutor, CancelledError) as error:
        raise Transient("The worker process was lost; it is started again with the next try.") from error
    finally:
        future.cancel()
