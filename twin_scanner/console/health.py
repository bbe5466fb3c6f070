"""Whether this process lives (``/healthz``) and can work (``/readyz``), for a supervisor or a load balancer.

``/healthz`` asks nothing outside of the process: a database that is away must not have every node restarted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from twin_scanner.errors import TwinScannerError
from twin_scanner.service.ledger import Ledger, migration_state

UNREADY = 503


@dataclass(frozen=True)
class Disk:
    """Bytes: what is free in the storage folder, and below which free space no image is taken."""

    free: int
    reserve: int


Fault: TypeAlias = str | None
"""One sentence on what is wrong; None where nothing is."""


@dataclass(frozen=True)
class Health:
    """What is asked. A console alone has neither threads nor an executor, nor a storage folder."""

    ledger: Ledger
    ledger_url: str
    threads: Callable[[], Fault] = lambda: None
    executor: Callable[[], Fault] = lambda: None
    disk: Callable[[], Disk | None] = lambda: None

    def live(self) -> dict[str, Fault]:
        """The faults that only a restart ends."""
        return {"threads": self.threads()}

    def ready(self) -> dict[str, Fault]:
        """The faults that keep this process from its work at the moment."""
        checks = {"ledger": self._ledger_fault, "migrations": self._migration_fault, "disk": self._disk_fault}
        return {**self.live(), **{name: _asked(check) for name, check in checks.items()}, "executor": self.executor()}

    def _ledger_fault(self) -> Fault:
        self.ledger.overview.nodes()
        return None

    def _migration_fault(self) -> Fault:
        state = migration_state(self.ledger_url)
        if state is None or state.found != state.wanted:
            return "The ledger is not at this version's migration: see 'twin-scanner ledger migrate'."
        return None

    def _disk_fault(self) -> Fault:
        disk = self.disk()
        if disk is not None and disk.free < disk.reserve:
            return "The storage folder has less free space than node.minimum_free_mb: no image is taken."
        return None


def router(health: Health) -> APIRouter:
    """``/healthz`` and ``/readyz``: 200, or 503 with what is wrong; neither names a path or an address."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/healthz")
    def healthz() -> Response:
        """Whether this process lives; where it does not, restart it."""
        return _answer(health.live())

    @routes.get("/readyz")
    def readyz() -> Response:
        """Whether this process can work at the moment."""
        return _answer(health.ready())

    return routes


def _answer(faults: dict[str, Fault]) -> Response:
    status = UNREADY if any(faults.values()) else 200
    return JSONResponse({name: fault or "ok" for name, fault in faults.items()}, status)


def _asked(check: Callable[[], Fault]) -> Fault:
    try:
        return check()
    except TwinScannerError as error:
        return str(error)
    except OSError:
        return "The storage folder cannot be read: check its rights and the disk."
