"""SIGTERM while a slow PACS is being served: nothing is delivered twice, and nobody waits for ever."""

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.peers import Peer
from dicom_node.store_scu import send
from tests.fakes.slow_pacs import AE_TITLE, SlowPacs
from tests.peers.scanner_process import ScannerProcess
from tests.samples.head_ct import write_head_ct
from twin_scanner.app import STOP_BUDGET_S

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

DEADLINE_S = 240.0
MARGIN_S = 5.0
STOPPING = "Stopped listening."
"""What the log says when a signal was heard; a second one before that would be the same signal to the system."""
SOME = 4
"""So many instances are delivered when the stop comes."""


def scanner_for(pacs: SlowPacs, folder: Path) -> ScannerProcess:
    return ScannerProcess(
        folder,
        node={"port": 0, "quiet_period_s": 0.5, "minimum_free_mb": 0},
        pacs={"ae_title": AE_TITLE, "port": pacs.port, "confirm": "status"},
        retry={"first_delay_s": 0.2, "longest_delay_s": 0.5},
        scanner={"accept_synthetic_ct": True},
    )


def wait_for(condition: Callable[[], object], scanner: ScannerProcess) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, scanner.log()[-3000:]
        time.sleep(0.02)


def push_ct(port: int, folder: Path) -> None:
    send(write_head_ct(1, folder), Peer("TWINSCANNER", "127.0.0.1", port), calling_ae="CT")


@pytest.mark.long
def test_a_second_scanner_that_starts_during_the_stop_delivers_nothing_twice(tmp_path: Path) -> None:
    with SlowPacs(delay_s=0.2).listening() as pacs, scanner_for(pacs, tmp_path / "scanner") as first:
        push_ct(first.start(), tmp_path / "ct")
        wait_for(lambda: pacs.count() >= SOME, first)
        assert first.process is not None
        first.process.send_signal(signal.SIGTERM)
        second = scanner_for(pacs, tmp_path / "scanner")
        with second:
            wait_for(second.starts, second)
            assert first.process.wait(DEADLINE_S) == 0
            delivered_before = pacs.count()
            (job,) = second.wait_until_done(1, DEADLINE_S)
            assert second.stop() == 0
    assert SOME <= delivered_before < pacs.count()
    result = tmp_path / "scanner" / "storage" / "jobs" / job["job_id"] / "result"
    assert len(set(pacs.stored)) == len(list(result.rglob("*.dcm")))
    assert [uid for uid, times in Counter(pacs.stored).items() if times > 1] == []


@pytest.mark.long
def test_a_pacs_that_never_answers_holds_up_a_stop_for_a_limited_time_and_a_second_signal_not_at_all(
    tmp_path: Path,
) -> None:
    """The lock goes with the process, whichever way it ends: the next start has the folder."""
    with SlowPacs(delay_s=DEADLINE_S).listening() as pacs, scanner_for(pacs, tmp_path / "scanner") as scanner:
        push_ct(scanner.start(), tmp_path / "ct")
        wait_for(pacs.count, scanner)
        assert scanner.process is not None
        scanner.process.send_signal(signal.SIGTERM)
        assert scanner.process.wait(STOP_BUDGET_S + MARGIN_S) == 0, "nothing is lost, so the stop has succeeded"
        assert "the folder stays locked" in scanner.log()
        asked, stops = pacs.count(), scanner.log().count(STOPPING)
        scanner.forget()
        scanner.start()
        wait_for(lambda: pacs.count() > asked, scanner)
        scanner.process.send_signal(signal.SIGTERM)
        wait_for(lambda: scanner.log().count(STOPPING) > stops, scanner)
        scanner.process.send_signal(signal.SIGTERM)
        assert scanner.process.wait(MARGIN_S) == -signal.SIGTERM
