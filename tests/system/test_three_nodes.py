"""Three scanners on one real PostgreSQL, killed in turn while their clocks jump: each instance is delivered once.

The oracle is the PACS stand-in, which counts every C-STORE that it answered and hashes its content.
"""

import itertools
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicom_node.associations import Timeouts
from dicom_node.peers import Peer
from dicom_node.store_scu import send
from tests.fakes.counting_pacs import AE_TITLE, CountingPacs
from tests.fakes.scanner_node import PET_SLICES
from tests.peers.scanner_process import ScannerProcess
from tests.samples.small_ct import write_series
from twin_scanner.errors import Transient
from twin_scanner.service.ledger import Job, Ledger, State

if TYPE_CHECKING:
    from tests.peers.postgresql import PostgreSQL

pytestmark = [
    pytest.mark.long,
    pytest.mark.system,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NODES = 3
STUDIES = 100
WRONG = 6
"""Studies beside them that have too few slices: these alone may be rejected."""
KILL_EVERY_S = float(os.environ.get("TWIN_SCANNER_KILL_EVERY_S", "15"))
ARRIVAL_S = 150.0
"""Over so long the studies arrive, so that every node is killed several times amid its work."""
THREADS, ASSOCIATIONS = 2, 2
"""Of the PACS lane on each node, and of each delivery: so many instances can be on their way when it is killed."""
DEADLINE_S = 540.0
QUIET_S = 8.0
"""A sender whose node was killed amid a study comes back sooner, also where the machine has other work.

Else the part that arrived would be taken for a whole study, rejected for too few slices, and superseded."""
JUMPS_S = (3600.0, 0.0, -3600.0, 0.0)


class Node(ScannerProcess):
    """`serve` with a fake render, whose wall clock is wrong by what its file says."""

    @property
    def clock(self) -> Path:
        """The file."""
        return self.folder / "clock"

    def _serve(self) -> list[str]:
        script = Path(__file__).parent.parent / "fakes" / "scanner_node.py"
        return [sys.executable, str(script), str(self.clock), "serve", "--config", str(self.config)]


class Modality(threading.Thread):
    """Sends each study to its node again and again until the node has acknowledged the whole of it."""

    def __init__(self, node_port: int, studies: list[list[Path]], pause_s: float) -> None:
        super().__init__(name=f"modality-{node_port}", daemon=True)
        self._peer = Peer("TWINSCANNER", "127.0.0.1", node_port)
        self._studies, self._pause_s = studies, pause_s
        self.stop = threading.Event()

    def run(self) -> None:
        """All studies, one after the other."""
        for files in self._studies:
            while not self.stop.is_set():
                try:
                    send(files, self._peer, calling_ae="CT", timeouts=Timeouts(5.0, 5.0, 5.0, 5.0, 5.0))
                    break
                except Transient:
                    self.stop.wait(0.5)
            self.stop.wait(self._pause_s)


@pytest.fixture
def pacs() -> Iterator[CountingPacs]:
    with CountingPacs(delay_s=0.05) as running:
        yield running


@pytest.fixture
def url(postgresql: "PostgreSQL") -> str:
    return postgresql.new_database()


@pytest.fixture
def nodes(tmp_path: Path, pacs: CountingPacs, url: str, free_port: Callable[[], int]) -> Iterator[list[Node]]:
    made = [
        Node(
            tmp_path / f"node-{number}",
            node={"name": f"node-{number}", "port": free_port(), "quiet_period_s": QUIET_S, "minimum_free_mb": 0},
            pacs={
                "ae_title": AE_TITLE,
                "port": pacs.port,
                "timeout_s": 10.0,
                "confirm": "status",
                "associations": ASSOCIATIONS,
            },
            ledger={"url": url, "lease_s": 20.0, "workers": THREADS},
            retry={"first_delay_s": 0.5, "longest_delay_s": 5.0},
            selection={"minimum_coverage_mm": 10.0},
            model={"accept_phantom_only": True},
        )
        for number in range(NODES)
    ]
    yield made
    for node in made:
        node.__exit__(None, None, None)


def study(folder: Path, number: int, slices: int) -> list[Path]:
    study_uid = f"1.2.826.{number + 1}"
    uids = {
        "StudyInstanceUID": study_uid,
        "SeriesInstanceUID": f"{study_uid}.1",
        "FrameOfReferenceUID": f"{study_uid}.2",
        "PatientID": f"P{number}",
    }
    return write_series(folder / str(number), slices=slices, step_mm=5.0, **uids)


@pytest.fixture
def modalities(tmp_path: Path, nodes: list[Node]) -> Iterator[list[Modality]]:
    numbers = list(range(STUDIES + WRONG))
    random.Random(11).shuffle(numbers)
    studies = [study(tmp_path / "ct", number, 16 if number < STUDIES else 4) for number in numbers]
    pause_s = ARRIVAL_S * NODES / len(studies)
    made = [Modality(node.port, studies[i::NODES], pause_s) for i, node in enumerate(nodes)]
    yield made
    for modality in made:
        modality.stop.set()


def watch(ledger: Ledger) -> Counter[str]:
    return Counter(job.state for job in ledger.jobs.newest())


def test_each_instance_is_delivered_once_while_nodes_are_killed_and_clocks_jump(
    nodes: list[Node], modalities: list[Modality], pacs: CountingPacs, url: str
) -> None:
    began_s = time.monotonic()
    starting = [threading.Thread(target=node.start) for node in nodes]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    ledger = Ledger(url, node="watcher", who="test")
    for modality in modalities:
        modality.start()
    victims, jumps = itertools.cycle(nodes), itertools.cycle(JUMPS_S)
    kills, next_kill_s = 0, time.monotonic() + KILL_EVERY_S
    ends = {State.DONE.value: STUDIES, State.REJECTED.value: WRONG}
    while watch(ledger) != ends:
        assert time.monotonic() - began_s < DEADLINE_S, (watch(ledger), [node.log()[-2000:] for node in nodes])
        time.sleep(1.0)
        if time.monotonic() >= next_kill_s:
            victim = next(victims)
            victim.kill()
            nodes[0].clock.write_text(str(next(jumps)))
            victim.start()
            kills, next_kill_s = kills + 1, time.monotonic() + KILL_EVERY_S
    took_s = time.monotonic() - began_s
    jobs = ledger.jobs.newest()
    everything_was_delivered_once(pacs, ledger, jobs, kills)
    for node in nodes:
        assert node.stop() == 0
        assert ledger.events.first_broken(f"node-{nodes.index(node)}") is None
    ledger.close()
    doubled = sum(len(contents) - 1 for contents in pacs.stored.values())
    print(f"{took_s:.0f} s, {kills} kills, {len(pacs.stored)} instances, {doubled} in flight at a kill sent twice")
    assert kills >= 6


def everything_was_delivered_once(pacs: CountingPacs, ledger: Ledger, jobs: list[Job], kills: int) -> None:
    """The PACS holds what was rendered and nothing else, with one content each; only what was in flight came twice."""
    done = [job for job in jobs if job.state == State.DONE]
    issued: set[str] = set()
    for job in done:
        result = ledger.results.of_job(job.job_id)
        assert result is not None
        issued.update(result.report["pet_instance_uids"])
    assert len(issued) == STUDIES * PET_SLICES
    assert pacs.stored.keys() == issued
    assert all(len(set(contents)) == 1 for contents in pacs.stored.values())
    twice = [uid for uid, contents in pacs.stored.items() if len(contents) > 1]
    assert max(len(contents) for contents in pacs.stored.values()) <= 2
    assert len(twice) <= kills * THREADS * ASSOCIATIONS
    assert len({job.study_uid for job in done}) == STUDIES
    assert all(int(job.study_uid.split(".")[3]) > STUDIES for job in jobs if job.state == State.REJECTED)


def test_three_nodes_that_start_at_once_on_an_empty_database_all_serve(nodes: list[Node], url: str) -> None:
    """Two of three used to die of a raw IntegrityError."""
    starting = [threading.Thread(target=node.start) for node in nodes]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    assert [node.stop() for node in nodes] == [0, 0, 0]
