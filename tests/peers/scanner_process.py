"""`twin-scanner serve` as a process of its own for the tests that start, kill and restart it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 60.0


class ScannerProcess:
    """The installed command line on a configuration file; its log is kept in ``folder``."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.storage = folder / "storage"
        self.config = folder / "twin-scanner.toml"
        sections.setdefault("storage", {})["folder"] = str(self.storage)
        sections.setdefault("node", {}).setdefault("open_to_loopback", True)
        sections.setdefault("model", {}).setdefault("accept_phantom_only", True)
        lines: list[str] = []
        for section, tables in sections.items():
            title = f"[[{section}]]" if isinstance(tables, list) else f"[{section}]"
            for keys in tables if isinstance(tables, list) else [tables]:
                lines += [title, *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        self.config.write_text("\n".join(lines) + "\n", "utf-8")
        self.port = int(sections["node"].get("port", 0))
        self._process: subprocess.Popen[str] | None = None

    @property
    def process(self) -> "subprocess.Popen[str] | None":
        """What was started last and not stopped by this object."""
        return self._process

    def starts(self) -> bool:
        """Try to start it, as a supervisor does again and again; False where it ended instead."""
        try:
            self.start()
        except RuntimeError:
            self.forget()
            return False
        return True

    def start(self) -> int:
        """Start it and return the DICOM port it listens on."""
        with (self.folder / "serve.log").open("a") as log:
            self._process = subprocess.Popen(
                self._serve(),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"PYTHONFAULTHANDLER": "1"},
            )
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        if len(words) != 2 or words[0] != "listening":
            raise RuntimeError(f"serve did not start: {self.log()[-3000:]}")
        return int(words[1])

    def kill(self) -> None:
        """kill -9, as a power cut or the kernel's memory killer would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        return self._end(signal.SIGTERM)

    def forget(self) -> int:
        """Wait for its end, and the exit status; it may then be started again."""
        assert self._process is not None and self._process.stdout is not None
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)
            self._process.wait(STOP_TIMEOUT_S)
            raise AssertionError(f"serve did not end, its threads stood at: {self.log()[-12000:]}") from None
        finally:
            self._process.stdout.close()
            self._process = None

    def log(self) -> str:
        """All that was logged."""
        return (self.folder / "serve.log").read_text("utf-8", "replace")

    def ask(self, *words: str) -> str:
        """What another verb of the command line prints on the same configuration."""
        command = [*self._command(), *words, "--config", str(self.config)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=START_TIMEOUT_S).stdout

    def jobs(self) -> list[dict[str, Any]]:
        """`jobs list --json`."""
        answer: list[dict[str, Any]] = json.loads(self.ask("jobs", "list", "--json"))
        return answer

    def wait_until_done(self, count: int, timeout_s: float) -> list[dict[str, Any]]:
        """The jobs, once ``count`` of them are there and all are done; fails on any that is rejected or has failed."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            jobs = self.jobs()
            bad = [job for job in jobs if job["state"] in ("rejected", "failed")]
            assert not bad, bad
            if len(jobs) >= count and all(job["state"] in ("done", "superseded") for job in jobs):
                return jobs
            time.sleep(0.5)
        raise AssertionError(f"not done within {timeout_s} s: {self.jobs()} {self.log()[-3000:]}")

    def __enter__(self) -> "ScannerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self.forget()

    def _serve(self) -> list[str]:
        return [*self._command(), "serve", "--config", str(self.config)]

    @staticmethod
    def _command() -> list[str]:
        return [sys.executable, "-m", "twin_scanner.cli"]
