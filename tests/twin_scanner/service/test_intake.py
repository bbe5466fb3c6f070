"""From a quiet study to jobs, on a real spool and ledger: sent again, more slices, other contents."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pydicom
import pytest

from dicom_node.evidence import Completeness, Counted, Look
from dicom_node.spool import Spool
from tests.fakes.clock import Clock
from tests.samples.small_ct import write_series
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.dicom.read.series_choice import Choice
from twin_scanner.errors import Defect, Held, Rejected, Transient
from twin_scanner.service.intake import (
    MOST_ATTEMPTS,
    Arrivals,
    IncompletePolicy,
    Intake,
    JobFolders,
    RealPetPolicy,
    Unended,
    choices_of,
)
from twin_scanner.service.ledger import (
    IDENTITY,
    Arrival,
    IssuedSeries,
    Job,
    Ledger,
    Priority,
    Rendered,
    Result,
    State,
    Study,
    StudyState,
)
from twin_scanner.service.retry import RetryPolicy
from twin_scanner.service.worker import Beat, Lane, Worker

pytestmark = pytest.mark.record


class Rig:
    """A spool, a ledger and the intake between them; ``faults`` are what reading the headers raises next, by study."""

    def __init__(self, folder: Path, clock: Clock, url: str) -> None:
        self.clock = clock
        self.spool = Spool(folder / "spool")
        self.ledger = Ledger(url, node="node", who="test", now=clock, monotonic_s=clock.monotonic_s)
        self.ledger.enter("folder")
        self.folders = JobFolders(folder / "jobs")
        self.faults: dict[str, list[BaseException]] = {}
        self.intake = Intake(self.ledger, self.spool, self.folders, self._look)
        self.lane = Lane(
            "intake",
            1,
            self.ledger.studies,
            self.ledger.studies.claim,
            self._work,
            lambda study: {"study_uid": study.study_uid},
            counts=lambda error: isinstance(error, Unended),
        )
        policy = RetryPolicy(10.0, 60.0)
        self.worker = Worker(ledger=self.ledger, lanes=[self.lane], policy=policy, on_fatal=lambda: None)

    def receive(self, files: Iterable[Path]) -> None:
        """Put files into the spool as the receiver does."""
        for file in files:
            header = pydicom.dcmread(file, stop_before_pixels=True)
            uids = (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
            self.spool.store([file.read_bytes()], *uids)

    def take(self, study_uid: str = "1.2.3") -> list[Job]:
        """Intake of one study, as its lane does it; the jobs that it has then, oldest first."""
        self.ledger.studies.complete(study_uid, "quiet period")
        while self.worker.run_once(self.lane):
            pass
        return self.jobs(study_uid)

    def jobs(self, study_uid: str = "1.2.3") -> list[Job]:
        """The study's jobs, oldest first."""
        jobs = [job for job in self.ledger.jobs.newest() if job.study_uid == study_uid]
        return sorted(jobs, key=lambda job: (job.revision, job.made_at))

    def study(self, study_uid: str = "1.2.3") -> Study:
        """The study as the ledger has it."""
        study = self.ledger.studies.find(study_uid)
        assert study is not None
        return study

    def render(self, pet_series_uid: str = "2.25.1") -> None:
        """What the render lane would do with the waiting job."""
        job = self.ledger.jobs.claim()
        assert job is not None
        issued = (IssuedSeries(pet_series_uid, "PT", 24),)
        self.ledger.rendered(job, Rendered(pet_series_uid, "m", issued, Result({}, {}), ()))
        self.clock.pass_s(1.0)

    def _work(self, study: Study, beat: Beat) -> Callable[[], None]:
        fingerprint = self.intake.take(study, beat)
        return lambda: self.ledger.studies.taken(study, fingerprint)

    def _look(self, study_uid: str, files: Sequence[Path], beat: Beat) -> list[Choice]:
        if self.faults.get(study_uid):
            raise self.faults[study_uid].pop(0)
        return choices_of(study_uid, files, Preference(), accept_synthetic=False)


@pytest.fixture
def rig(tmp_path: Path, clock: Clock, migrated_sqlite_url: str) -> Iterator[Rig]:
    made = Rig(tmp_path, clock, migrated_sqlite_url)
    yield made
    made.ledger.close()


def test_a_quiet_study_becomes_one_job_that_has_its_own_links_to_the_files(rig: Rig, tmp_path: Path) -> None:
    rig.receive(write_series(tmp_path / "ct"))
    assert rig.intake.waiting() == ["1.2.3"]
    (job,) = rig.take()
    assert (job.state, job.series_uid, job.instance_count) == (State.QUEUED, "1.2.3.4", 24)
    assert len(list(rig.folders.ct(job.job_id).rglob("*.dcm"))) == 24
    assert rig.intake.waiting() == []


def test_the_same_study_again_makes_nothing_new_even_after_its_files_were_cleared(rig: Rig, tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct")
    rig.receive(files)
    (first,) = rig.take()
    assert rig.take() == [first]
    rig.render()
    rig.spool.remove("1.2.3")
    rig.receive(reversed(files))
    (again,) = rig.take()
    assert again.job_id == first.job_id
    assert len(rig.ledger.jobs.newest()) == 1


def test_a_restart_in_the_middle_of_sending_the_same_study_again_is_made_good_by_the_start(
    rig: Rig, tmp_path: Path
) -> None:
    """The files are the same, so nobody used to look at the study any more: it stayed arriving for ever."""
    rig.receive(write_series(tmp_path / "ct"))
    rig.take()
    rig.ledger.studies.arrived([Arrival("1.2.3", "PACS", 12, rig.clock(), rig.clock())])
    assert rig.intake.waiting() == ["1.2.3"]
    rig.take()
    assert rig.intake.waiting() == []


def test_a_crash_anywhere_in_intake_is_made_good_by_repeating_it(rig: Rig, tmp_path: Path) -> None:
    rig.receive(write_series(tmp_path / "ct"))
    rig.ledger.studies.complete("1.2.3", "quiet period")
    study = rig.ledger.studies.claim()
    assert study is not None
    rig.intake.take(study, lambda: None)
    (first,) = rig.jobs()
    rig.ledger.studies.forget(study)
    rig.ledger.enter("folder")
    assert rig.intake.waiting() == ["1.2.3"]
    (again,) = rig.take()
    assert again == first


def test_more_slices_supersede_the_waiting_job(rig: Rig, tmp_path: Path) -> None:
    rig.receive(write_series(tmp_path / "a", slices=24))
    (first,) = rig.take()
    rig.receive(write_series(tmp_path / "b", slices=6, first=24))
    jobs = {job.instance_count: job for job in rig.take()}
    assert jobs[24].job_id == first.job_id and jobs[24].state == State.SUPERSEDED
    assert (jobs[30].state, jobs[30].revision) == (State.QUEUED, 1)


def test_more_slices_after_the_pet_was_made_are_its_next_revision(rig: Rig, tmp_path: Path) -> None:
    rig.receive(write_series(tmp_path / "a", slices=24))
    rig.take()
    rig.render()
    rig.receive(write_series(tmp_path / "b", slices=6, first=24))
    (_, second) = rig.take()
    assert (second.state, second.revision) == (State.QUEUED, 2)


def test_a_corrected_ct_under_the_same_uids_takes_the_place_of_one_that_is_held_for_its_patient(
    rig: Rig, tmp_path: Path
) -> None:
    rig.receive(write_series(tmp_path / "a"))
    rig.take()
    claimed = rig.ledger.jobs.claim()
    assert claimed is not None
    rig.ledger.jobs.hold(claimed, "The birth date contradicts the record.", IDENTITY)
    rig.clock.pass_s(1.0)
    rig.receive(write_series(tmp_path / "half", slices=12, PatientBirthDate="19500102"))
    assert [job.state for job in rig.take()] == [State.HELD], "half a series corrects nothing"
    rig.receive(write_series(tmp_path / "b", PatientBirthDate="19500102"))
    held, corrected = rig.take()
    assert (held.state, corrected.state) == (State.SUPERSEDED, State.QUEUED)
    (date,) = {pydicom.dcmread(file).PatientBirthDate for file in rig.folders.ct(corrected.job_id).rglob("*.dcm")}
    assert date == "19500102"
    (kept,) = {pydicom.dcmread(file).PatientBirthDate for file in rig.folders.ct(held.job_id).rglob("*.dcm")}
    assert kept == "19500101"


def test_another_content_under_the_same_uids_makes_no_job_and_is_reported(
    rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A patient that was corrected under the same UIDs used to become a second PET in silence."""
    files = write_series(tmp_path / "a")
    rig.receive(files)
    (first,) = rig.take()
    rig.receive(write_series(tmp_path / "b", PatientID="P2"))
    assert [job.job_id for job in rig.take()] == [first.job_id]
    patients = {pydicom.dcmread(file, stop_before_pixels=True).PatientID for file in rig.spool.files("1.2.3")}
    assert patients == {"P1"}
    timeline = rig.ledger.events.of_row("studies", rig.study().study_id)
    (event,) = [event for event in timeline if event.what == "kept apart"]
    assert event.detail["count"] == len(rig.spool.apart("1.2.3")) == len(list((tmp_path / "b").iterdir()))
    assert "came again with another content; the first is translated" in caplog.text
    assert rig.study().kept_apart == event.detail["count"]
    rig.ledger.studies.cleared(rig.study())
    assert rig.study().kept_apart == 0


def test_another_content_that_was_acknowledged_just_before_a_crash_is_reported_after_the_restart(
    rig: Rig, tmp_path: Path
) -> None:
    """It changes no fingerprint, and the sweep that would have told the ledger never came."""
    rig.receive(write_series(tmp_path / "a"))
    rig.take()
    rig.receive(write_series(tmp_path / "b", slices=2, PatientID="P2"))
    assert rig.intake.waiting() == ["1.2.3"]
    rig.take()
    assert rig.study().kept_apart == 2
    assert rig.intake.waiting() == []


def test_another_series_after_the_pet_was_made_is_skipped(rig: Rig, tmp_path: Path) -> None:
    rig.receive(write_series(tmp_path / "a", slices=24))
    (first,) = rig.take()
    rig.render()
    rig.receive(write_series(tmp_path / "b", slices=60, SeriesInstanceUID="1.2.3.5"))
    (job,) = rig.take()
    assert job.job_id == first.job_id


def test_of_several_series_one_is_translated_and_the_others_have_a_reason(rig: Rig, tmp_path: Path) -> None:
    rig.receive(write_series(tmp_path / "a", slices=24))
    rig.receive(write_series(tmp_path / "b", slices=60, SeriesInstanceUID="1.2.3.5"))
    rig.receive(write_series(tmp_path / "c", slices=3, SeriesInstanceUID="1.2.3.6"))
    (job,) = rig.take()
    assert job.series_uid == "1.2.3.5"
    assert {series_uid for series_uid, reason in job.skipped if reason} == {"1.2.3.4", "1.2.3.6"}


def test_a_study_without_a_usable_ct_is_rejected_with_the_reasons(rig: Rig, tmp_path: Path) -> None:
    rig.receive(write_series(tmp_path / "a", slices=3))
    (job,) = rig.take()
    assert job.state == State.REJECTED
    assert job.reason.startswith("No series of the study can be translated: ")
    assert rig.intake.waiting() == []
    assert rig.take() == [job]


def test_one_study_that_cannot_be_read_loses_no_other(rig: Rig, tmp_path: Path) -> None:
    """One foreign exception used to lose every study of the sweep until a restart."""
    for number in range(3):
        uids = {"StudyInstanceUID": f"1.2.{number}", "SeriesInstanceUID": f"1.2.{number}.1"}
        rig.receive(write_series(tmp_path / str(number), **uids))
        rig.ledger.studies.complete(f"1.2.{number}", "quiet period")
    rig.faults["1.2.0"] = [KeyError("DOE^JANE")]
    while rig.worker.run_once(rig.lane):
        pass
    assert {job.study_uid for job in rig.ledger.jobs.newest()} == {"1.2.1", "1.2.2"}
    assert (rig.study("1.2.0").state, rig.study("1.2.0").reason) == (
        StudyState.HELD,
        "Unexpected KeyError: see the log.",
    )
    assert rig.intake.waiting() == []
    rig.ledger.studies.release("1.2.0")
    assert [job.state for job in rig.take("1.2.0")] == [State.QUEUED]


@pytest.mark.parametrize("fault", [Transient("The worker process was lost."), MemoryError()])
def test_a_study_whose_reading_is_killed_time_and_again_is_quarantined(
    rig: Rig, tmp_path: Path, fault: Exception
) -> None:
    """It used to be taken again at every start: a deflated file of 1.5 MB took the receiver to 3.2 GB."""
    rig.receive(write_series(tmp_path / "ct"))
    rig.faults["1.2.3"] = [fault] * MOST_ATTEMPTS
    for _ in range(MOST_ATTEMPTS):
        assert rig.take() == []
        assert rig.study().state == StudyState.ARRIVING
        rig.clock.pass_s(100.0)
    assert rig.take() == []
    assert rig.study().state == StudyState.HELD
    assert "never ended in 3 attempts" in rig.study().reason
    rig.ledger.studies.release("1.2.3")
    assert len(rig.take()) == 1


def test_a_study_that_kills_the_whole_node_is_quarantined_after_as_many_starts(rig: Rig, tmp_path: Path) -> None:
    """kill -9: nothing is written at the end of an attempt, so it is counted at its beginning."""
    rig.receive(write_series(tmp_path / "ct"))
    rig.ledger.studies.complete("1.2.3", "quiet period")
    for _ in range(MOST_ATTEMPTS):
        study = rig.ledger.studies.claim()
        assert study is not None
        rig.ledger.studies.forget(study)
        rig.ledger.enter("folder")
    last = rig.ledger.studies.claim()
    assert last is not None
    with pytest.raises(Held, match="release it by its Study Instance UID"):
        rig.intake.take(last, lambda: None)


def test_an_outage_of_disk_or_ledger_quarantines_nothing(rig: Rig, tmp_path: Path) -> None:
    rig.receive(write_series(tmp_path / "ct"))
    spool = rig.spool.fingerprint
    for _ in range(10):
        rig.spool.fingerprint = raising(Transient("The disk does not answer."))  # type: ignore[method-assign]
        rig.take()
        rig.clock.pass_s(100.0)
    rig.spool.fingerprint = spool  # type: ignore[method-assign]
    assert len(rig.take()) == 1


def raising(error: Exception) -> Callable[[str], str]:
    def fingerprint(study_uid: str) -> str:
        raise error

    return fingerprint


def test_what_the_receiver_reports_is_recorded_at_the_sweep_and_complete_after_the_quiet_period(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twin_scanner.service.intake.time.monotonic", rig.clock.monotonic_s)
    arrivals = Arrivals(rig.ledger, Completeness(quiet_period_s=30.0, longest_wait_s=60.0), rig.clock)
    for _ in range(3):
        arrivals.stored("1.2.3", "PACS", 1)
        rig.clock.pass_s(1.0)
    assert not arrivals.sweep()
    study = rig.study()
    assert (study.received, study.calling_ae, study.due_at) == (3, "PACS", None)
    rig.clock.pass_s(60.0)
    assert arrivals.sweep()
    assert rig.study().due_at is not None


def test_a_sweep_that_the_ledger_refuses_forgets_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twin_scanner.service.intake.time.monotonic", rig.clock.monotonic_s)
    arrivals = Arrivals(rig.ledger, Completeness(quiet_period_s=30.0, longest_wait_s=30.0), rig.clock)
    for refused, error in (("arrived", Transient("locked")), ("complete", Defect("damaged"))):
        arrivals.stored("1.2.3", "PACS", 1)
        rig.clock.pass_s(31.0)
        with monkeypatch.context() as patched, pytest.raises(type(error)):
            patched.setattr(rig.ledger.studies, refused, raising_two(error))
            arrivals.sweep()
    rig.clock.pass_s(31.0)
    assert arrivals.sweep()
    assert rig.study().received == 2 and rig.study().due_at is not None


def test_a_study_is_arriving_by_the_receiver_or_by_the_ledger_at_every_moment(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clearing that ran between the two would remove what was just acknowledged."""
    monkeypatch.setattr("twin_scanner.service.intake.time.monotonic", rig.clock.monotonic_s)
    quiet = Completeness(quiet_period_s=30.0, longest_wait_s=30.0)
    arrivals = Arrivals(rig.ledger, quiet, rig.clock)
    arrivals.stored("1.2.3", "PACS", 1)
    rig.clock.pass_s(31.0)
    before: list[list[str]] = []
    arrived = rig.ledger.studies.arrived

    def note(found: Sequence[Arrival]) -> list[str]:
        before.append(quiet.arriving())
        return arrived(found)

    monkeypatch.setattr(rig.ledger.studies, "arrived", note)
    assert arrivals.sweep()
    assert before == [["1.2.3"]]
    assert (quiet.arriving(), rig.study().state) == ([], StudyState.ARRIVING)


def test_a_job_has_the_evidence_of_its_study_and_the_priority_of_its_sender(rig: Rig, tmp_path: Path) -> None:
    rig.receive(write_series(tmp_path / "ct"))
    moment = rig.clock()
    rig.ledger.studies.arrived([Arrival("1.2.3", "NIGHT", 24, moment, moment, Priority.BACKFILL)])
    (job,) = rig.take()
    assert (job.evidence, job.priority) == ("quiet period", Priority.BACKFILL)


@pytest.mark.parametrize(
    "requested, sender, expected",
    [
        ("STAT", Priority.ROUTINE, Priority.URGENT),
        ("LOW", Priority.ROUTINE, Priority.BACKFILL),
        ("MEDIUM", Priority.ROUTINE, Priority.ROUTINE),
        ("STAT", Priority.BACKFILL, Priority.BACKFILL),
        ("LOW", Priority.URGENT, Priority.URGENT),
    ],
)
def test_the_requested_priority_counts_where_the_sender_has_none_of_its_own(
    rig: Rig, tmp_path: Path, requested: str, sender: Priority, expected: Priority
) -> None:
    rig.receive(write_series(tmp_path / "ct", RequestedProcedurePriority=requested))
    rig.ledger.studies.arrived([Arrival("1.2.3", "PACS", 24, rig.clock(), rig.clock(), sender)])
    (job,) = rig.take()
    assert job.priority == expected


def _with_real_pet(rig: Rig, folder: Path, policy: RealPetPolicy) -> Job:
    rig.intake = Intake(rig.ledger, rig.spool, rig.folders, rig._look, policy)
    rig.receive(write_series(folder / "ct"))
    rig.ledger.studies.has_real_pet("1.2.3", "1.2.3.77")
    (job,) = rig.take()
    return job


def test_a_study_with_a_real_pet_is_skipped_with_the_reason_and_a_person_may_want_it(rig: Rig, tmp_path: Path) -> None:
    job = _with_real_pet(rig, tmp_path, "skip")
    assert job.state == State.REJECTED and job.series_uid
    assert "holds a real PET (series 1.2.3.77)" in job.reason and "retry this job" in job.reason
    assert rig.ledger.retry(job.job_id).state == State.QUEUED
    assert rig.folders.ct(job.job_id).is_dir()


def test_a_study_with_a_real_pet_is_held_or_delivered_where_the_configuration_says_so(rig: Rig, tmp_path: Path) -> None:
    held = _with_real_pet(rig, tmp_path, "hold")
    assert (held.state, held.held_for) == (State.HELD, "real PET") and "release this job" in held.reason
    assert rig.ledger.release(held.job_id).state == State.QUEUED


def test_a_real_pet_that_becomes_known_while_the_job_waits_stops_it_unless_a_person_wants_it(
    rig: Rig, tmp_path: Path
) -> None:
    rig.receive(write_series(tmp_path / "ct"))
    (job,) = rig.take()
    rig.intake.check_real_pet(job)
    rig.ledger.studies.has_real_pet("1.2.3", "1.2.3.77")
    with pytest.raises(Rejected, match=r"holds a real PET \(series 1\.2\.3\.77\)"):
        rig.intake.check_real_pet(job)
    claimed = rig.ledger.jobs.claim()
    assert claimed is not None
    rig.ledger.jobs.reject(claimed, "The study holds a real PET.")
    rig.ledger.retry(job.job_id)
    rig.intake.check_real_pet(job)


def test_a_study_with_a_real_pet_is_delivered_where_the_configuration_says_so(rig: Rig, tmp_path: Path) -> None:
    assert _with_real_pet(rig, tmp_path, "deliver").state == State.QUEUED


def test_a_real_pet_that_was_received_counts_and_a_synthetic_one_does_not(rig: Rig, tmp_path: Path) -> None:
    rig.receive(write_series(tmp_path / "ct"))
    pets = {"Modality": "PT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}
    rig.receive(write_series(tmp_path / "pet", SeriesInstanceUID="1.2.3.8", SyntheticData="YES", **pets))
    (job,) = rig.take()
    assert job.state == State.QUEUED
    rig.receive(write_series(tmp_path / "real", SeriesInstanceUID="1.2.3.7", **pets))
    rig.receive(write_series(tmp_path / "more", slices=25))
    reasons = {job.state: job.reason for job in rig.take()}
    assert "holds a real PET (series 1.2.3.7)" in reasons[State.REJECTED]
    assert set(reasons) == {State.REJECTED, State.SUPERSEDED}, "the job that waited is not rendered either"


def test_a_pet_that_was_refused_is_remembered_until_the_ct_of_its_study_comes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twin_scanner.service.intake.time.monotonic", rig.clock.monotonic_s)
    arrivals = Arrivals(rig.ledger, Completeness(quiet_period_s=30.0, longest_wait_s=30.0), rig.clock)
    arrivals.real_pet("1.2.3", "1.2.3.77")
    arrivals.sweep()
    assert rig.ledger.studies.find("1.2.3") is None, "a study without CT is none of ours"
    arrivals.stored("1.2.3", "PACS", 1)
    arrivals.sweep()
    assert rig.study().real_pet == "1.2.3.77"


@pytest.mark.parametrize("policy, state", [("hold", StudyState.HELD), ("go on", StudyState.ARRIVING)])
def test_a_study_without_evidence_is_held_or_goes_on_and_is_marked(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, policy: IncompletePolicy, state: StudyState
) -> None:
    monkeypatch.setattr("twin_scanner.service.intake.time.monotonic", rig.clock.monotonic_s)
    completeness = Completeness(quiet_period_s=30.0, longest_wait_s=60.0)
    arrivals = Arrivals(rig.ledger, completeness, rig.clock, incomplete=policy)
    arrivals.stored("1.2.3", "PACS", 1)
    counted = Counted(18, 20, equal=False, missing=True, other_ct=False)
    completeness.looked("1.2.3", 1, Look(gap_free=True, counted=counted), rig.clock.monotonic_s())
    rig.clock.pass_s(59.0)
    assert not arrivals.sweep()
    rig.clock.pass_s(1.0)
    assert arrivals.sweep()
    study = rig.study()
    assert (study.state, study.evidence) == (state, "incomplete: 18 of 20")
    assert ("not complete (18 of 20)" in study.reason) is (policy == "hold")


def test_what_a_peer_sends_has_its_priority(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twin_scanner.service.intake.time.monotonic", rig.clock.monotonic_s)
    completeness = Completeness(quiet_period_s=30.0, longest_wait_s=30.0)
    arrivals = Arrivals(rig.ledger, completeness, rig.clock)
    arrivals.stored("1.2.3", "STROKE", 1, Priority.URGENT)
    arrivals.stored("1.2.3", "PACS", 2)
    arrivals.stored("1.2.4", "PACS", 2)
    arrivals.sweep()
    assert [rig.study(uid).priority for uid in ("1.2.3", "1.2.4")] == [Priority.URGENT, Priority.ROUTINE]


def raising_two(error: Exception) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise error

    return refuse


def test_no_patient_data_is_in_the_ledger_or_the_log(
    rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        rig.receive(write_series(tmp_path / "a"))
        rig.receive(write_series(tmp_path / "b", slices=3, StudyInstanceUID="1.2.8", SeriesInstanceUID="1.2.8.1"))
        jobs = rig.take() + rig.take("1.2.8")
    text = repr(jobs) + "".join(repr(record.__dict__) for record in caplog.records)
    assert "DOE" not in text
    assert "19500101" not in text
