"""Work on a real Dask scheduler and real workers, which are killed, hang, join, leave and come back.

The workers of most tests are told on their command line what they offer, so they load nothing; the work is a stand-in.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from twin_scanner.errors import Rejected, Transient
from twin_scanner.executor.wanted import is_wanted
from twin_scanner.executor.work_place import STORAGE_ID, WorkKind, WorkPlace
from twin_scanner.logs import current_context, log_context

if TYPE_CHECKING:
    from tests.peers.dask_processes import Scheduler, WorkerProcess
    from twin_scanner.executor.dask_cluster import DaskCluster

pytestmark = [
    pytest.mark.long,
    pytest.mark.system,
    pytest.mark.timeout(400),
    # Dask leaves sockets and loops of a lost scheduler to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

DEADLINE_S = 120.0
"""Of everything that is waited for: several processes import Dask on few cores."""
STORAGE_UID = "0123456789abcdef"


def reject() -> None:
    raise Rejected("The slice at z = 3 mm is missing.")


def note_and_die_the_first_time(notes: Path) -> str:
    """A worker that is killed for memory amid its work, once."""
    with notes.open("a") as lines:
        lines.write(f"{os.getpid()}\n")
    if len(notes.read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def wait_until_unwanted(begun: Path, ended: Path) -> None:
    begun.touch()
    while is_wanted():
        time.sleep(0.02)
    ended.touch()
    raise Transient("It is not wanted any more.")


def train(begun: Path, render_done: Path) -> str:
    """A network whose training goes on until it is to give way, and ends when it is begun again after the render."""
    begun.touch()
    while is_wanted():
        if render_done.exists():
            return "trained"
        time.sleep(0.02)
    raise Transient("It keeps its checkpoint.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the logs, and a storage folder that only one worker says it sees."""
    folder = tmp_path_factory.mktemp("dask")
    (folder / "storage").mkdir()
    (folder / "storage" / STORAGE_ID).write_text(STORAGE_UID)
    return folder


def place(folder: Path, kind: WorkKind) -> WorkPlace:
    return WorkPlace(kind, folder / "storage", STORAGE_UID)


@pytest.fixture(scope="module")
def scheduler(folder: Path, dask: None) -> Iterator["Scheduler"]:

    from tests.peers.dask_processes import Scheduler

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with Scheduler(folder, port) as running:
        yield running


@pytest.fixture(scope="module")
def worker(folder: Path, scheduler: "Scheduler") -> Iterator["WorkerProcess"]:
    """One that sees the files, with a nanny, beside one that does not see them."""
    from tests.peers.dask_processes import WorkerProcess

    offers = [place(folder, kind).resource for kind in ("render", "training")]
    with (
        WorkerProcess(folder, "stranger", scheduler),
        WorkerProcess(folder, "worker", scheduler, offers=offers, nanny=True) as running,
    ):
        yield running


@pytest.fixture
def cluster(folder: Path, scheduler: "Scheduler", worker: "WorkerProcess") -> Iterator["DaskCluster"]:
    with closing(connect(scheduler, place(folder, "render"))) as cluster:
        eventually(lambda: cluster.submit(os.getpid).result(DEADLINE_S) > 0)
        yield cluster


def connect(scheduler: "Scheduler", at: WorkPlace, **options: Any) -> "DaskCluster":
    from twin_scanner.executor.dask_cluster import DaskCluster

    return DaskCluster(scheduler.address, at, **options)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds; a scheduler that does not answer yet is waited for too."""
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        try:
            if condition():
                return
        except Transient:
            pass
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_work_goes_to_the_worker_that_sees_the_files_and_to_no_other(
    cluster: "DaskCluster", worker: "WorkerProcess"
) -> None:
    eventually(lambda: len(cluster.workers()) == 2)
    assert cluster.places() == 1
    assert cluster.fault() is None
    pids = {cluster.submit(os.getpid) for _ in range(6)}
    assert {future.result(DEADLINE_S) for future in pids} == {worker.working_pid}


def test_the_log_context_goes_with_the_work_and_what_it_raises_arrives_as_it_was(cluster: "DaskCluster") -> None:
    with log_context(job_id="7"):
        named = cluster.submit(current_context)
    assert named.result(DEADLINE_S) == {"job_id": "7"}
    assert cluster.submit(current_context).result(DEADLINE_S) == {}
    with pytest.raises(Rejected, match="z = 3 mm"):
        cluster.submit(reject).result(DEADLINE_S)


def test_work_whose_worker_is_killed_is_begun_again_and_has_one_result(cluster: "DaskCluster", tmp_path: Path) -> None:
    ended: list[Any] = []
    future = cluster.submit(note_and_die_the_first_time, tmp_path / "notes")
    future.add_done_callback(ended.append)
    assert future.result(DEADLINE_S) == "done"
    assert len(set((tmp_path / "notes").read_text().splitlines())) == 2
    assert ended == [future]


def test_work_that_hangs_is_ended_and_the_next_has_a_new_process(
    cluster: "DaskCluster", worker: "WorkerProcess"
) -> None:
    before = worker.working_pid
    hanging = cluster.submit(time.sleep, 3600.0)
    eventually(hanging.running)
    cluster.end_work(hanging)
    with pytest.raises(BrokenExecutor):
        hanging.result(DEADLINE_S)
    assert cluster.submit(os.getpid).result(DEADLINE_S) == worker.working_pid != before


def test_work_that_is_cancelled_hears_of_it_and_leaves_its_worker(cluster: "DaskCluster", tmp_path: Path) -> None:
    future = cluster.submit(wait_until_unwanted, tmp_path / "begun", tmp_path / "ended")
    eventually((tmp_path / "begun").exists)
    future.cancel()
    assert cluster.submit(os.getpid).result(DEADLINE_S) > 0
    assert (tmp_path / "ended").exists()


def test_training_gives_way_to_a_render_and_goes_on_after_it(
    cluster: "DaskCluster", scheduler: "Scheduler", folder: Path, tmp_path: Path
) -> None:
    with closing(connect(scheduler, place(folder, "training"))) as training:
        network = training.submit(train, tmp_path / "begun", tmp_path / "rendered")
        eventually((tmp_path / "begun").exists)
        cluster.submit((tmp_path / "rendered").touch).result(DEADLINE_S)
        assert network.result(DEADLINE_S) == "trained"


def test_a_lost_scheduler_is_transient_and_after_its_restart_work_waits_for_a_worker(
    cluster: "DaskCluster", scheduler: "Scheduler", worker: "WorkerProcess"
) -> None:
    under_way = cluster.submit(time.sleep, 3600.0)
    eventually(under_way.running)
    scheduler.kill()
    with pytest.raises(BrokenExecutor):
        under_way.result(DEADLINE_S)
    with pytest.raises(Transient, match="does not answer"):
        cluster.submit(os.getpid)
    assert "does not answer" in str(cluster.fault())
    worker.kill()
    scheduler.start()
    eventually(lambda: cluster.workers() is not None)
    assert str(cluster.fault()).startswith("No Dask worker takes renders")
    waiting = cluster.submit(os.getpid)
    assert not waiting.running()
    worker.start()
    assert waiting.result(DEADLINE_S) == worker.working_pid


def test_only_who_shows_a_certificate_of_the_authority_is_spoken_to(
    tmp_path: Path, free_port: Callable[[], int], peer: Callable[[str], str], scheduler: "Scheduler"
) -> None:
    from tests.peers.dask_processes import Scheduler, WorkerProcess, tls_words
    from tests.samples.authority import Authority
    from twin_scanner.executor.dask_cluster import DaskCluster, DaskTls

    ours, others = (Authority(tmp_path / name, peer("openssl"), name) for name in ("ours", "others"))
    files, strange = (one.sign("dask", alternatives="IP:127.0.0.1") for one in (ours, others))
    at = WorkPlace("render")
    with (
        Scheduler(tmp_path, free_port(), tls=tls_words(files)) as secure,
        WorkerProcess(tmp_path, "worker", secure, offers=[at.resource], tls=tls_words(files)),
        closing(connect(secure, at, tls=DaskTls(files.ca_file, files.certificate, files.key))) as cluster,
        closing(DaskCluster(secure.address.replace("tls", "tcp"), at, connect_s=3.0)) as plain,
        closing(
            connect(secure, at, tls=DaskTls(strange.ca_file, strange.certificate, strange.key), connect_s=3.0)
        ) as stranger,
    ):
        eventually(lambda: cluster.submit(os.getpid).result(DEADLINE_S) > 0)
        for other in (plain, stranger):
            with pytest.raises(Transient, match="does not answer"):
                other.submit(os.getpid)
