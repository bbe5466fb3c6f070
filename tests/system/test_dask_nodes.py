"""`serve` whose renders are Dask's: a worker, a scheduler and a node are killed amid them, and each PET is sent once.

The oracle is the PACS stand-in, which counts every C-STORE that it answered.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dicom_node.associations import Timeouts
from dicom_node.peers import Peer
from dicom_node.store_scu import send
from tests.fakes.counting_pacs import AE_TITLE, CountingPacs
from tests.fakes.dask_node import ATTEMPTS, pids
from tests.fakes.scanner_node import PET_SLICES
from tests.peers.scanner_process import ScannerProcess
from tests.samples.saved_packages import saved_package
from tests.samples.small_ct import write_series
from training.phantom.files import write_ct_dicom
from training.phantom.phantom import make_phantom, sample_options
from twin_scanner.executor.work_place import WorkPlace, read_storage_id
from twin_scanner.models.plan import Plan
from twin_scanner.models.store import ModelStore
from twin_scanner.service.ledger import Ledger, State

if TYPE_CHECKING:
    from tests.peers.dask_processes import Scheduler, WorkerProcess
    from tests.peers.postgresql import PostgreSQL

pytestmark = [
    pytest.mark.long,
    pytest.mark.system,
    pytest.mark.timeout(1500),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DEADLINE_S = 240.0


class Node(ScannerProcess):
    """`serve` whose workers render in a moment."""

    def _serve(self) -> list[str]:
        return [sys.executable, "-m", "tests.fakes.dask_node", "serve", "--config", str(self.config)]


@pytest.fixture
def scheduler(
    dask: None, tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> Iterator["Scheduler"]:
    from tests.peers.dask_processes import ROOT, Scheduler

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with Scheduler(tmp_path, free_port()) as running:
        yield running


@pytest.fixture
def pacs() -> Iterator[CountingPacs]:
    with CountingPacs() as running:
        yield running


def sections(pacs: CountingPacs, scheduler: "Scheduler") -> dict[str, Any]:
    """What the configurations of all nodes here have in common."""
    return {
        "pacs": {"ae_title": AE_TITLE, "port": pacs.port, "timeout_s": 10.0, "confirm": "status"},
        "retry": {"first_delay_s": 0.5, "longest_delay_s": 2.0},
        "selection": {"minimum_coverage_mm": 10.0},
        "executor": {"kind": "dask", "scheduler": scheduler.address},
    }


def make_nodes(folder: Path, scheduler: "Scheduler", pacs: CountingPacs, url: str) -> list[Node]:
    return [
        Node(
            folder / f"node-{number}",
            node={"name": f"node-{number}", "port": 0, "quiet_period_s": 1.0, "minimum_free_mb": 0},
            ledger={"url": url, "lease_s": 60.0},
            **sections(pacs, scheduler),
        )
        for number in range(2)
    ]


def worker_of(node: Node, name: str, scheduler: "Scheduler") -> "WorkerProcess":
    """One that sees this node's storage folder, and no other."""
    from tests.peers.dask_processes import WorkerProcess

    storage = node.storage.resolve()
    offers = [WorkPlace("render", storage, read_storage_id(storage)).resource]
    return WorkerProcess(node.folder, f"{name}-{node.folder.name}", scheduler, offers=offers)


def send_study(folder: Path, number: int, port: int) -> None:
    study_uid = f"1.2.826.{number + 1}"
    uids: dict[str, Any] = {
        "StudyInstanceUID": study_uid,
        "SeriesInstanceUID": f"{study_uid}.1",
        "PatientID": f"P{number}",
    }
    files = write_series(folder / study_uid, slices=16, FrameOfReferenceUID=f"{study_uid}.2", **uids)
    send(files, Peer("TWINSCANNER", "127.0.0.1", port), calling_ae="CT", timeouts=Timeouts(*[30.0] * 5))


def begun(node: Node) -> list[list[int]]:
    """For each job of the node, the processes that began its render."""
    return [pids(attempts) for attempts in sorted(node.storage.glob(f"jobs/*/{ATTEMPTS}"))]


def wait_for(condition: Callable[[], bool], what: str, *nodes: ScannerProcess) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, (what, [node.log()[-3000:] for node in nodes])
        time.sleep(0.2)


def test_each_job_of_two_nodes_ends_once_although_workers_the_scheduler_and_a_node_are_killed(
    tmp_path: Path, scheduler: "Scheduler", pacs: CountingPacs, postgresql: "PostgreSQL"
) -> None:
    """Each node's files are seen by workers of its own, which alone begin its jobs."""
    url = postgresql.new_database()
    ours, others = nodes = make_nodes(tmp_path, scheduler, pacs, url)
    with ExitStack() as running:
        ports = [running.enter_context(node).start() for node in nodes]
        ledger = running.enter_context(closing(Ledger(url, node="watcher", who="test")))

        def ended(count: int) -> bool:
            return [job.state for job in ledger.jobs.newest()].count(State.DONE) == count

        first, leaving = (running.enter_context(worker_of(node, "first", scheduler)) for node in nodes)
        for number, port in enumerate(ports):
            send_study(tmp_path, number, port)
        wait_for(lambda: all(begun(node) for node in nodes), "both renders begin", *nodes)
        assert [begun(node) for node in nodes] == [[[first.process.pid]], [[leaving.process.pid]]]

        first.kill()
        first.start()
        wait_for(lambda: ended(1), "Dask begins it again", *nodes)
        assert begun(ours)[0][1:] == [first.process.pid] and begun(others) == [[leaving.process.pid]]

        others.kill()
        leaving.kill()
        scheduler.kill()
        first.kill()
        scheduler.start()
        joining = running.enter_context(worker_of(others, "joining", scheduler))
        others.start()
        wait_for(lambda: ended(2), "the killed node goes on", *nodes)
        assert begun(others)[0][1:] == [joining.process.pid]

        first.start()
        send_study(tmp_path, 2, ports[0])
        wait_for(lambda: len(begun(ours)) == 2, "a render begins after the restart", *nodes)
        first.kill()
        first.start()
        wait_for(lambda: ended(3), "all ends", *nodes)
        everything_came_once(ledger, pacs, 3 * PET_SLICES)
        assert not [left for node in nodes for left in node.storage.glob("jobs/*/.result*")]
        assert [node.stop() for node in nodes] == [0, 0]


def test_a_ct_that_a_scanner_sends_comes_back_as_the_pet_of_a_worker_that_sees_no_file_of_the_node(
    tmp_path: Path, scheduler: "Scheduler", pacs: CountingPacs, peer: Callable[[str], str]
) -> None:
    from tests.peers.dask_processes import WorkerProcess

    options = sample_options(3, spacing_mm=(10.0, 10.0, 10.0))
    write_ct_dicom(make_phantom(3, options).ct, tmp_path / "ct", seed=3, options=options)
    about = {"training_data": {"kind": "phantoms", "pairs": 1}}
    coarse = Plan(spacing_mm=(20.0, 20.0, 20.0))
    store = ModelStore(tmp_path / "models")
    store.add(saved_package(tmp_path / "package", "small", plan=coarse, about=about))
    common = {**sections(pacs, scheduler), "scanner": {"accept_synthetic_ct": True}}
    common["executor"]["transfer"] = "bytes"
    model = {"name": "small", "store": str(tmp_path / "models"), "accept_phantom_only": True}
    node = ScannerProcess(
        tmp_path / "node", node={"port": 0, "quiet_period_s": 1.0, "minimum_free_mb": 0}, model=model, **common
    )
    elsewhere = ScannerProcess(tmp_path / "elsewhere", model=model, **common)
    preload = ("twin_scanner.dask_worker", "--config", str(elsewhere.config))
    with node, WorkerProcess(tmp_path, "worker", scheduler, preload=preload) as worker:
        port = node.start()
        words = ["-aet", "CT01", "-aec", "TWINSCANNER", "+sd", "127.0.0.1", str(port), str(tmp_path / "ct")]
        subprocess.run([peer("storescu"), *words], check=True, timeout=60, env=os.environ | {"TCP_NODELAY": "1"})
        ledger_url = f"sqlite:///{node.storage / 'ledger.sqlite'}"
        with closing(Ledger(ledger_url, node="watcher", who="test")) as ledger:
            wait_for(lambda: [job.state for job in ledger.jobs.newest()] == [State.DONE], "the PET", node)
            everything_came_once(ledger, pacs)
        assert node.stop() == 0
        assert not list((tmp_path / "elsewhere").rglob("*.dcm")) and not list((tmp_path / "worker").rglob("*.dcm"))
        assert "this worker takes work" in worker.log()


def everything_came_once(ledger: Ledger, pacs: CountingPacs, instances: int | None = None) -> None:
    """Each PET image of every job has come once, and with a number of them, nothing else has."""
    issued: list[str] = []
    for job in ledger.jobs.newest():
        result = ledger.results.of_job(job.job_id)
        assert result is not None
        issued += result.report["pet_instance_uids"]
    assert issued and len(issued) == len(set(issued))
    assert {uid: len(pacs.stored[uid]) for uid in issued} == dict.fromkeys(issued, 1)
    if instances is not None:
        assert len(issued) == len(pacs.stored) == instances
