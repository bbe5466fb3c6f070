"""The local worker processes: results, errors, a lost process, and no orphan when the parent is killed."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import closing
from pathlib import Path

import pytest

from twin_scanner.errors import Rejected
from twin_scanner.executor.local import LocalProcesses
from twin_scanner.logs import current_context, log_context

pytestmark = pytest.mark.unit

TIMEOUT_S = 60.0


@pytest.fixture(autouse=True)
def workers_find_this_module(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    """A worker process looks for this module where this process does."""
    monkeypatch.syspath_prepend(project)


@pytest.fixture
def worker() -> Iterator[LocalProcesses]:
    with closing(LocalProcesses()) as processes:
        yield processes


def reject() -> None:
    raise Rejected("The slice at z = 3 mm is missing.")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def test_work_can_always_begin_for_processes_are_made_anew(worker: LocalProcesses) -> None:
    with pytest.raises(BrokenExecutor):
        worker.submit(die).result(TIMEOUT_S)
    assert worker.fault() is None


def hear_no_sigterm(started: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    started.touch()
    time.sleep(TIMEOUT_S)


def say_nothing_but_errors() -> None:
    logging.getLogger().setLevel("ERROR")


def level() -> int:
    return logging.getLogger().level


def handler_of_ctrl_c() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_the_worker_is_an_executor_in_another_process_that_stays_resident(worker: LocalProcesses) -> None:
    assert isinstance(worker, Executor)
    first = worker.submit(os.getpid).result(TIMEOUT_S)
    assert first == worker.submit(os.getpid).result(TIMEOUT_S) != os.getpid()


def test_what_the_work_raises_arrives_as_it_was(worker: LocalProcesses) -> None:
    with pytest.raises(Rejected, match="z = 3 mm"):
        worker.submit(reject).result(TIMEOUT_S)


def test_after_a_lost_process_the_next_work_has_a_new_one(worker: LocalProcesses) -> None:
    with pytest.raises(BrokenExecutor):
        worker.submit(die).result(TIMEOUT_S)
    assert worker.submit(nap, 0.0).result(TIMEOUT_S) == "slept"


def test_work_that_hangs_can_be_ended_and_the_next_has_a_new_process(worker: LocalProcesses) -> None:
    first = worker.submit(os.getpid).result(TIMEOUT_S)
    hanging = worker.submit(nap, 600.0)
    worker.end_work(hanging)
    with pytest.raises(BrokenExecutor):
        hanging.result(TIMEOUT_S)
    assert worker.submit(os.getpid).result(TIMEOUT_S) != first
    deadline = time.monotonic() + TIMEOUT_S
    while _alive(first):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_closing_ends_work_under_way_at_once_and_takes_no_more(worker: LocalProcesses) -> None:
    worker.submit(os.getpid).result(TIMEOUT_S)
    long, waiting = worker.submit(nap, 600.0), worker.submit(nap, 600.0)
    begun = time.monotonic()
    worker.close()
    assert time.monotonic() - begun < TIMEOUT_S
    for future in (long, waiting):
        assert future.cancelled() or isinstance(future.exception(), BrokenExecutor)
    with pytest.raises(RuntimeError, match="shut down"):
        worker.submit(os.getpid)


def test_a_shutdown_lets_what_was_taken_end() -> None:
    with LocalProcesses() as worker:
        future = worker.submit(nap, 0.0)
    assert future.result() == "slept"
    with pytest.raises(RuntimeError, match="shut down"):
        worker.submit(os.getpid)


def test_each_process_is_prepared_and_leaves_ctrl_c_to_its_parent() -> None:
    with closing(LocalProcesses(prepare=say_nothing_but_errors)) as worker:
        assert worker.submit(level).result(TIMEOUT_S) == logging.ERROR
        assert worker.submit(handler_of_ctrl_c).result(TIMEOUT_S)


def test_the_log_context_of_whoever_asks_goes_with_the_work(worker: LocalProcesses) -> None:
    with log_context(job_id="7", step="render"):
        future = worker.submit(current_context)
    assert future.result(TIMEOUT_S) == {"job_id": "7", "step": "render"}
    assert worker.submit(current_context).result(TIMEOUT_S) == {}


ORPHAN = """
import os, tests_executor_child
from twin_scanner.executor.local import LocalProcesses
if __name__ == "__main__":
    worker = LocalProcesses()
    print(worker.submit(os.getpid).result(), flush=True)
    worker.submit(tests_executor_child.nap, 600.0).result()
"""


def test_the_worker_ends_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(ORPHAN)
    (tmp_path / "tests_executor_child.py").write_text("import time\ndef nap(s):\n    time.sleep(s)\n")
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker_id = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + TIMEOUT_S
    while _alive(worker_id):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_work_that_hears_no_sigterm_is_killed_when_its_grace_is_over(tmp_path: Path) -> None:
    """The pool had forgotten its processes by then: the work went on, and this process waited for it at its end."""
    processes = LocalProcesses()
    future = processes.submit(hear_no_sigterm, tmp_path / "started")
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    processes.close(grace_s=0.2)
    with pytest.raises(BrokenExecutor):
        future.result(timeout=TIMEOUT_S / 3)
