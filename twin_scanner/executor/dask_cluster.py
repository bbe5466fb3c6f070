"""An executor on other machines: the workers of a Dask scheduler, which join, leave and are lost while it runs.

Dask runs what it receives, on every side. So nothing here connects to another machine but by TLS. It needs the extra
``dask``; ``twin_scanner.dask_worker`` is what a worker loads.
"""

import asyncio
import logging
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, ParamSpec, TypeVar, cast

import dask
from dask.typing import Key
from distributed import Client, KilledWorker, Reschedule, Security, Worker, get_worker
from distributed import Future as DaskFuture
from distributed.client import ClosedClientError
from distributed.worker import WORKER_ANY_RUNNING

from twin_scanner.errors import Transient
from twin_scanner.executor.memory import Memory
from twin_scanner.executor.wanted import wanted_while
from twin_scanner.executor.work_place import WorkKind, WorkPlace
from twin_scanner.executor.workers import Workers
from twin_scanner.logs import current_context, log_context

LOG = logging.getLogger("twin_scanner.executor")
P = ParamSpec("P")
R = TypeVar("R")

CONNECT_S: Final = 10.0
"""How long the scheduler may take to answer."""
END_S: Final = 30.0
"""How long the end of a worker that hangs may take."""
CLOSE_S: Final = 5.0
"""How long the farewell to the scheduler may take."""
NO_WORKER: Final[Mapping[WorkKind, str]] = MappingProxyType(
    {
        "render": "No Dask worker takes renders: start one as docs/dask.md says.",
        "training": "No Dask worker takes training: start one as docs/dask.md says.",
    }
)
LARGE_WORK: Final = "10GiB"
"""Dask warns of more than 10 MB in one work; a CT that travels has more."""


@dataclass(frozen=True)
class DaskTls:
    """Our identity towards the scheduler and the workers, and the authority that signed theirs."""

    ca_file: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class DaskWorker:
    """A worker as its scheduler knows it."""

    address: str
    host: str
    threads: int
    resources: Mapping[str, float]


@dataclass(frozen=True)
class _Task:
    """What travels to a worker; one opaque value, so that Dask does not look for its own keys in the arguments."""

    work: Callable[[], Any]
    log_ids: dict[str, str]
    topic: str
    place: WorkPlace


class DaskCluster(Workers):
    """The workers of one scheduler that are the work's ``place``; all others are never given any of it.

    The connection is made with the first work, and again after the scheduler was lost. Work whose worker is lost is
    begun again by Dask on another; a future has one result all the same. Work that finds no worker waits for one.
    """

    def __init__(
        self,
        scheduler: str,
        place: WorkPlace,
        *,
        tls: DaskTls | None = None,
        resources: Mapping[str, float] | None = None,
        connect_s: float = CONNECT_S,
    ) -> None:
        self._scheduler, self._place, self._tls, self._connect_s = scheduler, place, tls, connect_s
        self._needs = {**(resources or {}), place.resource: 1}
        self._topic = f"twin-scanner-{uuid.uuid4().hex}"
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._under_way: dict[Key, _Work] = {}
        self._closed = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run ``fn`` on a worker, its log records in the context of this thread.

        Raises Transient where the scheduler does not answer, RuntimeError once shut down.
        """
        if not self.places():
            LOG.error("no Dask worker takes this work: it waits for one, as docs/dask.md says how to start it")
        client = self._connected()
        key = f"{getattr(fn, '__name__', 'work')}-{uuid.uuid4().hex}"
        task = _Task(partial(fn, *args, **kwargs), current_context(), self._topic, self._place)
        work = self._under_way[key] = _Work()
        try:
            work.remote = client.submit(_run, task, key=key, resources=self._needs, priority=self._place.priority)
        except (ClosedClientError, RuntimeError) as error:
            self._under_way.pop(key, None)
            raise self._lost() from error
        work.remote.add_done_callback(partial(self._ended, key))
        return work

    def workers(self) -> list[DaskWorker]:
        """Every worker of the scheduler; raises Transient where the scheduler does not answer."""
        client = self._connected()
        try:
            info: dict[str, dict[str, Any]] = client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, RuntimeError, KeyError, ClosedClientError) as error:
            raise self._lost() from error
        return [
            DaskWorker(address, str(one["host"]), int(one["nthreads"]), dict(one["resources"]))
            for address, one in info.items()
        ]

    def places(self) -> int:
        """How many workers take this work."""
        return sum(
            all(one.resources.get(name, 0) >= amount for name, amount in self._needs.items()) for one in self.workers()
        )

    def versions(self) -> dict[str, Any]:
        """What Dask says of the versions of scheduler, workers and client."""
        return cast("dict[str, Any]", self._connected().get_versions())

    def end_work(self, work: Future[Any]) -> None:
        """End the worker that does this work; whatever else it was given goes on elsewhere."""
        if not isinstance(work, _Work):
            return
        work.release()
        with self._lock:
            client = self._client
        if client is None or not work.worker:
            return
        try:
            client.restart_workers([work.worker], timeout=END_S, raise_for_error=False)
        except ValueError:
            # It has no nanny: it ends itself, and whoever started it starts it again.
            client.run(_exit, workers=[work.worker], wait=False, on_error="ignore")
        except (OSError, TimeoutError, RuntimeError, KeyError):
            LOG.exception("a worker that hangs could not be ended")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; what was taken is done, unless ``cancel_futures`` says otherwise."""
        with self._lock:
            self._closed = True
        if cancel_futures:
            self._release_all()
        if wait:
            wait_for(list(self._under_way.values()))
            self._disconnect()

    def close(self, grace_s: float = 0.0) -> None:
        """Cancel all work and take no more; work that asks whether it is wanted ends soon after, on its own."""
        with self._lock:
            self._closed = True
        self._release_all()
        self._disconnect()

    def fault(self) -> str | None:
        """That the scheduler does not answer, or that none of its workers takes this work."""
        try:
            return None if self.places() else NO_WORKER[self._place.kind]
        except Transient as error:
            return str(error)

    def memory(self) -> Memory | None:
        """None: a worker's machine has its own."""
        return None

    def _release_all(self) -> None:
        for work in list(self._under_way.values()):
            work.release()

    def _disconnect(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            _close(client)

    def _connected(self) -> Client:
        with self._lock:
            if self._closed:
                raise RuntimeError("The executor is shut down and takes no more work.")
            if self._client is not None and self._client.status == "connecting":
                raise self._lost()
            if self._client is None or self._client.status != "running":
                self._client = self._new_client()
            return self._client

    def _new_client(self) -> Client:
        try:
            client = Client(
                self._scheduler,
                timeout=self._connect_s,
                set_as_default=False,
                security=_security(self._tls),
                name="twin-scanner",
            )
        except (OSError, TimeoutError) as error:
            raise self._lost() from error
        client.subscribe_topic(self._topic, self._began)
        dask.config.set({"distributed.admin.large-graph-warning-threshold": LARGE_WORK})
        return client

    def _lost(self) -> Transient:
        return Transient(
            f"The Dask scheduler {self._scheduler} does not answer: start it, or check the network and TLS."
        )

    def _began(self, event: tuple[float, dict[str, str]]) -> None:
        """A worker says that it begins a work."""
        work = self._under_way.get(event[1]["key"])
        if work is not None:
            work.begin(event[1]["worker"])

    def _ended(self, key: Key, remote: DaskFuture[Any]) -> None:
        work = self._under_way.pop(key, None)
        if work is not None and work.begin(work.worker):
            work.end(remote)
            work.release()


class _Work(Future[Any]):
    """A work on the cluster. It is ``running`` from when a worker begins it: until then it waits for one."""

    def __init__(self) -> None:
        super().__init__()
        self.remote: DaskFuture[Any] | None = None
        self.worker = ""
        self._beginning = threading.Lock()
        self._begun: bool | None = None

    def begin(self, worker: str) -> bool:
        """Some worker has it, the first or another one after that; False where it was cancelled before."""
        with self._beginning:
            self.worker = worker
            if self._begun is None:
                self._begun = self.set_running_or_notify_cancel()
            return self._begun

    def end(self, remote: DaskFuture[Any]) -> None:
        """Take the outcome over."""
        error = remote.exception() if remote.status == "error" else None
        try:
            values = remote.client.gather([remote], errors="skip") if remote.status == "finished" else []
        except (OSError, RuntimeError, CancelledError, asyncio.CancelledError):
            values = []
        if isinstance(error, KilledWorker):
            self.set_exception(BrokenExecutor(str(error)))
        elif error is not None:
            self.set_exception(error)
        elif values:
            self.set_result(values[0])
        else:
            self.set_exception(BrokenExecutor("The scheduler was lost, or the worker that held the result."))

    def release(self) -> None:
        """Say that nobody wants the work any more: what has not begun never does, what has hears it when it asks."""
        if self.remote is not None:
            with suppress(RuntimeError):
                self.remote.release()

    def cancel(self) -> bool:
        """As every future's; work that runs is told too."""
        self.release()
        return super().cancel()


def _run(task: _Task) -> Any:
    """On a worker: say that the work begins, and do it; training that gave way is put back and goes on later."""
    worker = get_worker()
    if not task.place.is_here():
        LOG.error("this worker does not see the storage folder any more: it ends, and its work goes to another")
        os._exit(1)
    key = worker.get_current_task()
    worker.log_event(task.topic, {"key": key, "worker": worker.address})
    others_first = partial(_others_first, worker, key) if task.place.gives_way else lambda: False
    with log_context(**task.log_ids), wanted_while(lambda: _is_held(worker, key) and not others_first()):
        try:
            return task.work()
        except Transient:
            if others_first():
                raise Reschedule from None
            raise


async def _exit() -> None:
    """On a worker without a nanny: end its process, whatever its thread does."""
    os._exit(1)


def _is_held(worker: Worker, key: Key) -> bool:
    """Whether the scheduler still wants the work from this worker, and is there."""
    task = worker.state.tasks.get(key)
    return task is not None and task.state in ("executing", "long-running") and worker.status in WORKER_ANY_RUNNING


def _others_first(worker: Worker, key: Key) -> bool:
    """Whether other work that waits for this worker goes before it."""
    mine = worker.state.tasks.get(key)
    first = worker.state.constrained.peek() if worker.state.constrained else None
    return mine is not None and first is not None and (first.priority or ()) < (mine.priority or ())


def _security(tls: DaskTls | None) -> Security | None:
    if tls is None:
        return None
    files = {"tls_ca_file": tls.ca_file, "tls_client_cert": tls.certificate, "tls_client_key": tls.key}
    return Security(require_encryption=True, **{name: str(file) for name, file in files.items()})


def _close(client: Client) -> None:
    try:
        client.close(timeout=CLOSE_S)
    except (OSError, RuntimeError, asyncio.CancelledError):
        LOG.warning("the connection to the scheduler did not close in time")
