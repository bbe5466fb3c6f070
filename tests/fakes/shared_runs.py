"""The ledger's `runs` and `leases` in memory, for schedules of several nodes that share them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass
class FakeRun:
    """A run of a command."""

    name: str
    started_at: datetime
    state: str = "running"
    exit_code: int | None = None


class FakeRuns:
    """Every run that was begun, oldest first."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self.all: list[FakeRun] = []

    def begin(self, name: str) -> FakeRun:
        """Begun now."""
        self.all.append(FakeRun(name, self._clock()))
        return self.all[-1]

    def finish(self, run: Any, exit_code: int | None, *, interrupted: bool = False) -> None:
        """Ended, or interrupted."""
        run.state, run.exit_code = "interrupted" if interrupted else "ended", exit_code

    def last(self, name: str) -> FakeRun | None:
        """The newest of the name."""
        return next((run for run in reversed(self.all) if run.name == name), None)


class FakeLeases:
    """Each name has one holder at a time."""

    def __init__(self) -> None:
        self.held: set[str] = set()

    def take(self, name: str, owner: str) -> str | None:
        """The name, where nobody has it."""
        if name in self.held:
            return None
        self.held.add(name)
        return name

    def give_back(self, lease: Any) -> None:
        """Free."""
        self.held.discard(lease)
