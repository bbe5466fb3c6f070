"""Clearing on a real ledger, spool and folders: in batches, only what is due, each study with the last of its jobs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.spool import Spool
from tests.fakes.clock import Clock
from twin_scanner.errors import Rejected, Transient
from twin_scanner.service import retention
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import Job, Ledger, NewJob, Rendered, Result
from twin_scanner.service.retention import clear_aged

pytestmark = pytest.mark.record

Open = Callable[..., Ledger]
DAY_S = 86400.0


class Store:
    """A ledger with the files that belong to it."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.ledger = ledger
        self.spool = Spool(folder / "spool")
        self.folders = JobFolders(folder / "jobs")
        self.arriving: list[str] = []

    def job(self, number: int, study_uid: str, series: str = "1") -> Job:
        """A queued job with its files, of a study that intake has taken."""
        self.spool.store([b"slice"], study_uid, f"{study_uid}.{series}", f"{study_uid}.{series}.1")
        job = self.ledger.jobs.open(NewJob(study_uid, f"1.9.{number}", "1.2.3", f"{number:064x}", 20))
        self.folders.ct(job.job_id).mkdir(parents=True)
        self.ledger.studies.complete(study_uid, "quiet period")
        study = self.ledger.studies.claim()
        assert study is not None
        self.ledger.studies.taken(study, self.spool.fingerprint(study_uid))
        return job

    def end(self) -> None:
        """The next job is rendered, and was to go nowhere."""
        job = self.ledger.jobs.claim()
        assert job is not None
        self.ledger.rendered(job, Rendered(f"2.25.{int(job.job_id, 16)}", "m", (), Result({"suv_max": 9.0}, {}), ()))

    def clear(self, keep_days: float = 7.0) -> int:
        return clear_aged(self.ledger, self.spool, self.folders, keep_days, lambda: self.arriving)


@pytest.fixture
def store(tmp_path: Path, ledger: Ledger) -> Store:
    return Store(tmp_path, ledger)


def test_files_go_when_a_job_ended_long_enough_ago_while_its_row_and_report_stay(store: Store, clock: Clock) -> None:
    job = store.job(1, "1.2.3")
    store.end()
    clock.pass_s(6.9 * DAY_S)
    assert store.clear() == 0
    assert store.folders.ct(job.job_id).is_dir() and store.spool.studies() == ["1.2.3"]
    clock.pass_s(0.2 * DAY_S)
    assert store.clear() == 1
    assert not store.folders.of(job.job_id).exists() and store.spool.studies() == []
    assert store.ledger.jobs.find(job.job_id).cleared_at is not None
    result = store.ledger.results.of_job(job.job_id)
    assert result is not None and result.report == {"suv_max": 9.0}
    assert store.clear() == 0


def test_a_jump_of_the_clock_clears_nothing_early(store: Store, clock: Clock) -> None:
    store.job(1, "1.2.3")
    store.end()
    clock.jump_s(30 * DAY_S)
    assert store.clear() == 0


def test_a_study_stays_in_the_spool_while_one_of_its_jobs_needs_it(store: Store, clock: Clock) -> None:
    store.job(1, "1.2.3")
    store.end()
    clock.pass_s(8 * DAY_S)
    failed = store.job(2, "1.2.3", "2")
    job = store.ledger.jobs.claim()
    assert job is not None
    store.ledger.jobs.fail(job, "x")
    assert store.clear() == 1
    clock.pass_s(100 * DAY_S)
    assert store.clear() == 0
    assert store.spool.studies() == ["1.2.3"] and store.folders.ct(failed.job_id).is_dir()


def test_a_study_that_has_changed_since_intake_stays_and_is_looked_at_again(store: Store, clock: Clock) -> None:
    job = store.job(1, "1.2.3")
    store.end()
    clock.pass_s(8 * DAY_S)
    store.spool.store([b"late slice"], "1.2.3", "1.2.3.1", "1.2.3.1.2")
    assert store.clear() == 0
    assert store.spool.studies() == ["1.2.3"]
    assert store.ledger.jobs.find(job.job_id).cleared_at is None


def test_a_study_that_is_being_sent_again_keeps_its_files_until_it_is_taken(store: Store, clock: Clock) -> None:
    """Clearing between the two halves used to leave the second half alone: a partial PET, as revision 2."""
    job = store.job(1, "1.2.3")
    store.end()
    clock.pass_s(8 * DAY_S)
    store.arriving = ["1.2.3"]
    assert store.clear() == 0
    store.arriving = []
    store.ledger.studies.complete("1.2.3", "quiet period")
    assert store.clear() == 0
    assert store.folders.ct(job.job_id).is_dir() and store.spool.studies() == ["1.2.3"]
    assert store.ledger.jobs.find(job.job_id).cleared_at is None
    study = store.ledger.studies.claim()
    assert study is not None
    store.ledger.studies.taken(study, store.spool.fingerprint("1.2.3"))
    assert store.clear() == 1
    assert store.spool.studies() == []


def test_a_study_that_begins_to_arrive_while_its_jobs_are_cleared_keeps_its_place_in_the_spool(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.job(1, "1.2.3")
    store.end()
    clock.pass_s(8 * DAY_S)
    remove = shutil.rmtree

    def remove_and_arrive(path: Path) -> None:
        remove(path)
        store.arriving = ["1.2.3"]

    with monkeypatch.context() as patched:
        patched.setattr(retention.shutil, "rmtree", remove_and_arrive)
        assert store.clear() == 1
    assert store.spool.studies() == ["1.2.3"]
    store.arriving = []
    assert store.clear() == 0
    assert store.spool.studies() == []


def test_a_clearing_that_a_crash_ended_before_it_was_recorded_is_recorded_by_the_next(
    store: Store, clock: Clock
) -> None:
    job = store.job(1, "1.2.3")
    store.end()
    clock.pass_s(8 * DAY_S)
    shutil.rmtree(store.folders.of(job.job_id))
    assert store.spool.remove("1.2.3")
    assert store.clear() == 1
    assert store.clear() == 0


def test_much_that_is_due_goes_in_batches(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    for number in range(8):
        store.job(number, f"1.2.{number}")
        store.end()
    clock.pass_s(8 * DAY_S)
    assert store.clear() == 8
    assert store.folders.job_ids() == [] and store.spool.studies() == []


def test_what_cannot_be_removed_holds_up_nothing_and_is_tried_again(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [store.job(number, f"1.2.{number}") for number in range(3)]
    for _ in jobs:
        store.end()
    clock.pass_s(8 * DAY_S)
    remove = shutil.rmtree

    def refuse(path: Path, *arguments: object, **options: object) -> None:
        if Path(path).suffix == f".{jobs[0].job_id}":
            raise PermissionError(13, "Permission denied")
        remove(path, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(retention.shutil, "rmtree", refuse)
        assert store.clear() == 3
    assert store.folders.job_ids() == [] and store.spool.studies() == []
    assert [folder.suffix for folder in store.folders.away()] == [f".{jobs[0].job_id}"]
    assert store.clear() == 0
    assert store.folders.away() == []


def test_a_study_that_cannot_leave_the_spool_holds_up_no_other_and_is_tried_again(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [store.job(number, f"1.2.{number}") for number in range(3)]
    for _ in jobs:
        store.end()
    clock.pass_s(8 * DAY_S)
    remove = store.spool.remove

    def refuse(study_uid: str, fingerprint: str, unless: Callable[[], bool]) -> bool:
        if study_uid == "1.2.0":
            raise Transient("Study 1.2.0 cannot be removed from the spool (Permission denied): check the disk.")
        return remove(study_uid, fingerprint, unless)

    with monkeypatch.context() as patched:
        patched.setattr(store.spool, "remove", refuse)
        assert store.clear() == 3
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert vars(caplog.records[0])["study_uid"] == "1.2.0"
    assert store.spool.studies() == ["1.2.0"]
    assert store.clear() == 0
    assert store.spool.studies() == []


def test_a_job_that_is_retried_while_clearing_runs_keeps_its_files(store: Store, clock: Clock) -> None:
    job = store.job(1, "1.2.3")
    claimed = store.ledger.jobs.claim()
    assert claimed is not None
    store.ledger.jobs.reject(claimed, "x")
    clock.pass_s(8 * DAY_S)

    def retry() -> list[str]:
        if store.ledger.jobs.find(job.job_id).ended_at is not None:
            store.ledger.retry(job.job_id)
        return []

    assert clear_aged(store.ledger, store.spool, store.folders, 7.0, retry) == 0
    assert store.folders.ct(job.job_id).is_dir() and store.spool.studies() == ["1.2.3"]


def test_a_retry_that_comes_while_files_are_removed_never_starts_on_them(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to be taken between the removal and its record: a render of a CT that was not there any more."""
    job = store.job(1, "1.2.3")
    claimed = store.ledger.jobs.claim()
    assert claimed is not None
    store.ledger.jobs.reject(claimed, "x")
    clock.pass_s(8 * DAY_S)
    remove, refusals = shutil.rmtree, list[str]()

    def remove_and_retry(path: Path) -> None:
        remove(path)
        try:
            store.ledger.retry(job.job_id)
        except Rejected as error:
            refusals.append(str(error))

    monkeypatch.setattr(retention.shutil, "rmtree", remove_and_retry)
    assert store.clear() == 1
    assert set(refusals) == {f"The files of job {job.job_id} were cleared: send the study again."}


def test_files_that_a_crash_left_after_their_job_was_recorded_as_cleared_go_with_the_next(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = store.job(1, "1.2.3")
    store.end()
    clock.pass_s(8 * DAY_S)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            store.clear()
    assert store.ledger.jobs.find(job.job_id).cleared_at is not None
    assert store.folders.ct(job.job_id).is_dir()
    assert store.clear() == 0
    assert store.folders.job_ids() == [] and store.spool.studies() == []


def test_a_second_node_clears_its_copy_of_a_study_once_the_job_of_the_first_has_ended(
    store: Store, url: str, open_ledger: Open, tmp_path: Path, clock: Clock
) -> None:
    """Its snapshot and its place in the spool used to stay for ever."""
    other = Store(tmp_path / "other", open_ledger(url, "other"))
    job = store.job(1, "1.2.3")
    assert other.job(1, "1.2.3") == job
    clock.pass_s(8 * DAY_S)
    other.clear()
    assert other.folders.ct(job.job_id).is_dir() and other.spool.studies() == ["1.2.3"]
    store.end()
    other.clear()
    assert other.folders.job_ids() == [] and other.spool.studies() == []
    assert store.folders.ct(job.job_id).is_dir() and store.spool.studies() == ["1.2.3"]
    events = [event for event in other.ledger.events.of_row("jobs", job.job_id) if event.node == "other"]
    assert [event.what for event in events] == ["copy cleared"]


def test_a_node_clears_what_lies_on_it_and_nothing_else(
    store: Store, url: str, open_ledger: Open, tmp_path: Path, clock: Clock
) -> None:
    other = Store(tmp_path / "other", open_ledger(url, "other"))
    job = store.job(1, "1.2.3")
    store.end()
    clock.pass_s(8 * DAY_S)
    assert other.clear() == 0
    assert store.folders.ct(job.job_id).is_dir()
