"""The wiring: one scanner a folder, recovery at start, clearing of aged files, and the loop guard's two questions."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore

from dicom_node.client import Peer
from dicom_node.store_scu import send
from tests.samples.small_ct import write_series
from twin_scanner.app import Scanner
from twin_scanner.errors import Rejected
from twin_scanner.service.ledger.ledger import State
from twin_scanner.service.schedule import TABLE
from twin_scanner.settings import RetrainSection, Settings

pytestmark = pytest.mark.node

STUDY_UID = "1.2.3"


def settings(folder: Path, port: int, keep_days: float = 7.0) -> Settings:
    return Settings.model_validate(
        {
            "node": {"port": port, "quiet_period_s": 0.5, "minimum_free_mb": 0},
            "storage": {"folder": folder / "data", "keep_days": keep_days},
            "pacs": {"port": 1},
            "model": {"name": "nobody-has-this-model"},
        }
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "ct")


@pytest.fixture
def scanner(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Scanner]:
    running = Scanner(settings(tmp_path, free_port(), keep_days=0.0))
    running.start()
    yield running
    running.stop()


def push(files: list[Path], scanner: Scanner) -> None:
    send(files, Peer("TWINSCANNER", "127.0.0.1", scanner.receiver.port), calling_ae="CT")


def wait_for_state(scanner: Scanner, state: State) -> None:
    deadline = time.monotonic() + 60
    while [job.state for job in scanner.ledger.jobs()] != [state]:
        assert time.monotonic() < deadline, scanner.ledger.jobs()
        time.sleep(0.05)


def test_a_second_scanner_on_the_same_folder_is_refused(
    scanner: Scanner, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with pytest.raises(Rejected, match="Another scanner already runs on"):
        Scanner(settings(tmp_path, free_port()))


def test_the_storage_folder_is_its_owners_alone(scanner: Scanner, tmp_path: Path) -> None:
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


def test_a_model_that_is_not_there_rejects_the_job_with_its_name(scanner: Scanner, files: list[Path]) -> None:
    push(files, scanner)
    wait_for_state(scanner, State.REJECTED)
    assert "nobody-has-this-model" in scanner.ledger.jobs()[0].reason


def test_aged_files_are_cleared_while_the_row_stays_and_the_same_ct_makes_nothing_new(
    scanner: Scanner, files: list[Path], tmp_path: Path
) -> None:
    push(files, scanner)
    wait_for_state(scanner, State.REJECTED)
    scanner.clear_aged()
    assert list((tmp_path / "data" / "spool").rglob("*.dcm")) == []
    assert list((tmp_path / "data" / "jobs").iterdir()) == []
    push(files, scanner)
    deadline = time.monotonic() + 30
    spool = tmp_path / "data" / "spool"
    while scanner.ledger.intake_fingerprint(STUDY_UID) is None or not list(spool.rglob("*.dcm")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(scanner.ledger.jobs()) == 1


def test_what_was_spooled_before_a_stop_is_taken_up_at_the_next_start(
    tmp_path: Path, files: list[Path], free_port: Callable[[], int]
) -> None:
    first = Scanner(settings(tmp_path, free_port()))
    first.receiver.start()
    push(files, first)
    first.receiver.stop()
    assert first.ledger.jobs() == []
    first._lock.close()
    first.ledger.close()
    with Scanner(settings(tmp_path, free_port())) as second:
        wait_for_state(second, State.REJECTED)


def test_the_loop_guard_knows_our_equipment_and_our_series(scanner: Scanner) -> None:
    stranger = pydicom.Dataset()
    stranger.Modality, stranger.Manufacturer, stranger.DeviceSerialNumber = "PT", "ACME", "1"
    stranger.SeriesInstanceUID = "1.2.840.1"
    assert not scanner._is_own(stranger)
    ours = pydicom.Dataset()
    ours.Modality, ours.Manufacturer, ours.DeviceSerialNumber = "PT", "twin-scanner", "TS-0001"
    assert scanner._is_own(ours)


def test_a_retraining_that_was_missed_is_started_with_the_scanner_on_its_models(
    tmp_path: Path, free_port: Callable[[], int], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command's own process: the configuration's fault is its sentence, with the exit code 1 in our log."""
    faulty = tmp_path / "retrain.toml"
    faulty.write_text("[train]\n")
    configured = settings(tmp_path, free_port()).model_copy(
        update={"retrain": RetrainSection(config=faulty, cron="0 3 1 1 *")}
    )
    with Scanner(configured) as first:
        assert first.retraining.next_start is not None
    jobs = SQLAlchemyJobStore(f"sqlite:///{tmp_path / 'data' / 'schedule.sqlite'}", tablename=TABLE)
    jobs.start(None, "default")
    job = jobs.lookup_job("retrain")
    job.next_run_time = datetime(2026, 1, 1, 3, tzinfo=UTC)
    jobs.update_job(job)
    jobs.shutdown()
    with caplog.at_level("INFO", "twin_scanner.scheduler"), Scanner(configured):
        deadline = time.monotonic() + 60
        while "command ended" not in caplog.messages:
            assert time.monotonic() < deadline, caplog.messages
            time.sleep(0.05)
    (ended,) = (record for record in caplog.records if record.message == "command ended")
    assert ended.__dict__["exit_code"] == 1
    assert "retrain.toml is no retraining configuration" in capfd.readouterr().err


def test_without_a_cron_text_nothing_is_scheduled(scanner: Scanner) -> None:
    assert scanner.retraining.next_start is None
