"""A Dask scheduler and workers as processes of their own, for the tests that start, kill and restart them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from dicom_node.tls import TlsFiles

START_S: Final = 60.0
ROOT: Final = Path(__file__).resolve().parents[2]


class DaskProcess:
    """``python -m dask`` with some words, in a session of its own; its log is kept in ``folder``."""

    def __init__(self, folder: Path, name: str, words: Sequence[str], **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log, self._words, self._name, self._folder = folder / f"{name}.log", list(words), name, folder
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again too."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dask", *self._words],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
                env=os.environ
                | {"PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
                | self._environment,
            )

    def kill(self) -> None:
        """kill -9 on it and on all that it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """What runs."""
        assert self._process is not None
        return self._process

    def log(self) -> str:
        """All that it said."""
        return self._log.read_text("utf-8", "replace")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Scheduler(DaskProcess):
    """``dask scheduler`` on loopback."""

    def __init__(self, folder: Path, port: int, *, tls: Sequence[str] = ()) -> None:
        self.address = f"{'tls' if tls else 'tcp'}://127.0.0.1:{port}"
        words = ["scheduler", "--host", self.address, "--no-dashboard", "--dashboard-address", "127.0.0.1:0", *tls]
        super().__init__(folder, "scheduler", words)


class WorkerProcess(DaskProcess):
    """``dask worker`` of one thread; ``offers`` are resources, ``preload`` a module and its words."""

    def __init__(
        self,
        folder: Path,
        name: str,
        scheduler: Scheduler,
        *,
        offers: Sequence[str] = (),
        preload: Sequence[str] = (),
        nanny: bool = False,
        tls: Sequence[str] = (),
    ) -> None:
        self._nanny = nanny
        words = [
            "worker",
            scheduler.address,
            "--nthreads",
            "1",
            "--name",
            name,
            "--no-dashboard",
            "--memory-limit",
            "0",
        ]
        words += ["--host", "127.0.0.1", "--local-directory", str(folder / name), *tls]
        words += ["--nanny" if nanny else "--no-nanny"]
        words += ["--resources", " ".join(f"{one}=1" for one in offers)] if offers else []
        words += ["--preload", *preload] if preload else []
        super().__init__(folder, name, words)

    @property
    def working_pid(self) -> int:
        """The process that works: below the nanny, where there is one."""
        found: list[int] = []

        def is_there() -> bool:
            children = psutil.Process(self.process.pid).children(recursive=True)
            found[:] = [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]
            return bool(found) or not self._nanny

        wait_until(is_there, "a process below the nanny")
        return found[-1] if found else self.process.pid


def tls_words(files: TlsFiles) -> list[str]:
    """The options of ``dask scheduler`` and ``dask worker`` for these files."""
    return ["--tls-ca-file", str(files.ca_file), "--tls-cert", str(files.certificate), "--tls-key", str(files.key)]


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = START_S) -> None:
    """Wait until it holds; fails where it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not in time: {what}"
        time.sleep(0.05)
