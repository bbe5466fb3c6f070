"""What every executor of ours offers beyond ``concurrent.futures.Executor``: memory, faults, an end to work."""

from abc import abstractmethod
from concurrent.futures import Executor, Future
from typing import Any

from twin_scanner.executor.memory import Memory


class Workers(Executor):
    """Processes that work, here or elsewhere; a lost one is BrokenExecutor in the futures that it worked on."""

    @abstractmethod
    def end_work(self, work: Future[Any]) -> None:
        """End the process that does this work, which hangs; the next ``submit`` has another one."""

    @abstractmethod
    def close(self, grace_s: float = 0.0) -> None:
        """End all work and take no more: its futures raise BrokenExecutor or are cancelled.

        With ``grace_s`` work is asked first, and what hears it has so many seconds to end in.
        """

    @abstractmethod
    def fault(self) -> str | None:
        """What is wrong where no work can begin, as one sentence; None where it can."""

    @abstractmethod
    def memory(self) -> Memory | None:
        """What memory there is for work that is begun now; None where only the process that works could say."""
