"""An executor on this machine: worker processes of its own, started when first needed and again after one was lost."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from twin_scanner.executor.memory import Memory, memory_of_this_machine
from twin_scanner.executor.workers import Workers
from twin_scanner.logs import current_context, log_context

P = ParamSpec("P")
R = TypeVar("R")


class LocalProcesses(Workers):
    """``count`` worker processes, which keep what they have loaded from one work to the next.

    They are spawned, so they share no state with whoever asks, and end themselves when their parent dies: a killed
    service leaves no orphan that would go on writing. Where one is lost (killed for memory, say), the futures under
    way raise BrokenExecutor, and the next ``submit`` has new processes. ``prepare`` is called once in each process.
    """

    def __init__(self, count: int = 1, prepare: Callable[[], None] | None = None) -> None:
        self._count = count
        self._prepare = prepare
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._closed = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run ``fn`` in a process, its log records in the context of this thread; RuntimeError once shut down."""
        work = partial(_in_context, current_context(), fn, *args, **kwargs)
        with self._lock:
            if self._closed:
                raise RuntimeError("The executor is shut down and takes no more work.")
            if self._pool is not None:
                try:
                    return self._pool.submit(work)
                except BrokenExecutor:
                    self._pool.shutdown(wait=False)
            self._pool = self._new_pool()
            return self._pool.submit(work)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; what was taken is done, unless it has not begun and ``cancel_futures`` says otherwise."""
        pool = self._forget(closed=True)
        if pool is not None:
            pool.shutdown(wait=wait, cancel_futures=cancel_futures)

    def end_work(self, work: Future[Any]) -> None:
        """End the processes at once, without waiting for them: a pool does not say which of them does this work."""
        self._end(closed=False)

    def close(self, grace_s: float = 0.0) -> None:
        """End the processes: their futures raise BrokenExecutor or are cancelled.

        With ``grace_s`` each is asked by SIGTERM first, and work that hears it has so many seconds to end in.
        """
        self._end(closed=True, grace_s=grace_s)

    def fault(self) -> str | None:
        """None: processes that are lost are made anew with the next work."""
        return None

    def memory(self) -> Memory | None:
        """That of this machine."""
        return memory_of_this_machine()

    def _end(self, *, closed: bool, grace_s: float = 0.0) -> None:
        pool = self._forget(closed=closed)
        if pool is None:
            return
        # Only from Python 3.14 on does the pool itself offer this; once it is shut down it does not know them any more.
        processes = list((pool._processes or {}).values())
        if grace_s:
            for process in processes:
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            deadline_s = time.monotonic() + grace_s
            for process in processes:
                process.join(max(0.0, deadline_s - time.monotonic()))
        for process in processes:
            process.kill()
        pool.shutdown(wait=closed, cancel_futures=True)

    def _forget(self, *, closed: bool) -> ProcessPoolExecutor | None:
        with self._lock:
            self._closed = self._closed or closed
            pool, self._pool = self._pool, None
            return pool

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(self._prepare,),
        )


def _in_context(ids: dict[str, str], fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
    with log_context(**ids):
        return fn(*args, **kwargs)


def _begin(prepare: Callable[[], None] | None) -> None:
    """In a new process. Ctrl-C reaches every process of a terminal: what it ends is the parent's to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    if prepare is not None:
        prepare()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
