"""The one seam to more workers: a concurrent.futures.Executor, today one local process with the model resident."""

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from twin_scanner.errors import Transient

P = ParamSpec("P")
R = TypeVar("R")


class LocalWorker:
    """One worker process, started when first needed and again after it was lost.

    The process is spawned, so it shares no state with the receiver, and ends itself when its parent dies: a killed
    service leaves no orphan that would go on writing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def run(
        self, work: Callable[P, R], poll_s: float, on_wait: Callable[[], None], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run ``work`` in the process and wait; ``on_wait`` is called every ``poll_s`` seconds meanwhile.

        Raises what ``work`` raised, and Transient where the process was lost (killed for memory, say).
        """
        pool = self._running_pool()
        try:
            future = pool.submit(work, *args, **kwargs)
            while True:
                done, _ = concurrent.futures.wait([future], timeout=poll_s)
                if done:
                    return future.result()
                on_wait()
        except BrokenProcessPool as error:
            self._forget(pool)
            raise Transient("The worker process was lost; it is started again with the next try.") from error

    def close(self) -> None:
        """Stop the process; work under way is abandoned and will be repeated by whoever holds the job's row."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is None:
            return
        for process in list(getattr(pool, "_processes", None) or {}):
            _terminate(process)
        pool.shutdown(wait=True, cancel_futures=True)

    def _running_pool(self) -> concurrent.futures.ProcessPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = concurrent.futures.ProcessPoolExecutor(
                    max_workers=1, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
                )
            return self._pool

    def _forget(self, pool: concurrent.futures.ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is pool:
                self._pool = None
        pool.shutdown(wait=False)


@contextmanager
def local_workers(count: int) -> Iterator[concurrent.futures.Executor]:
    """So many processes that take jobs; they end with the block or with this process, jobs not begun are dropped."""
    pool = concurrent.futures.ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _terminate(process_id: int) -> None:
    try:
        os.kill(process_id, 15)
    except ProcessLookupError:
        return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
