"""The local worker process: results, errors, a lost process, and no orphan when the parent is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from twin_scanner.errors import Rejected, Transient
from twin_scanner.executor.local import LocalWorker

pytestmark = pytest.mark.unit


def process_id() -> int:
    return os.getpid()


def reject() -> None:
    raise Rejected("The slice at z = 3 mm is missing.")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def test_the_worker_stays_resident_and_is_another_process() -> None:
    worker = LocalWorker()
    first = worker.run(process_id, 1.0, lambda: None)
    assert first == worker.run(process_id, 1.0, lambda: None) != os.getpid()
    worker.close()


def test_what_the_work_raises_arrives_as_it_was() -> None:
    worker = LocalWorker()
    with pytest.raises(Rejected, match="z = 3 mm"):
        worker.run(reject, 1.0, lambda: None)
    worker.close()


def test_a_killed_worker_is_transient_and_the_next_try_has_a_new_one() -> None:
    worker = LocalWorker()
    with pytest.raises(Transient, match="worker process was lost"):
        worker.run(die, 1.0, lambda: None)
    assert worker.run(nap, 1.0, lambda: None, 0.0) == "slept"
    worker.close()


def test_the_waiting_side_beats_while_work_is_under_way() -> None:
    worker = LocalWorker()
    beats: list[int] = []
    worker.run(nap, 0.05, lambda: beats.append(1), 0.5)
    assert len(beats) >= 3
    worker.close()


ORPHAN = """
import os, tests_executor_child
from twin_scanner.executor.local import LocalWorker
if __name__ == "__main__":
    worker = LocalWorker()
    print(worker.run(os.getpid, 1.0, lambda: None), flush=True)
    worker.run(tests_executor_child.nap, 1.0, lambda: None, 600.0)
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
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _alive(worker_id):
        time.sleep(0.05)
    assert not _alive(worker_id)


def _alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
