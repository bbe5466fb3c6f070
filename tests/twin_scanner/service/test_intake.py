"""From a quiet study to jobs, on a real spool and ledger: sent again, more slices, a corrected patient."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pydicom
import pytest

from dicom_node.spool import Spool
from tests.samples.small_ct import write_series
from twin_scanner.dicom.read.series_choice import Preference
from twin_scanner.service.intake import Intake, JobFolders
from twin_scanner.service.ledger.ledger import Job, Ledger, State, utc_now

pytestmark = pytest.mark.record


class Rig:
    """A spool, a ledger and the intake between them."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder / "spool")
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}", utc_now)
        self.folders = JobFolders(folder / "jobs")
        self.intake = Intake(self.ledger, self.spool, self.folders, Preference(), accept_synthetic=False)

    def receive(self, files: Sequence[Path]) -> None:
        """Put files into the spool as the receiver does."""
        for file in files:
            header = pydicom.dcmread(file, stop_before_pixels=True)
            uids = (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
            self.spool.store([file.read_bytes()], *uids)

    def take(self, study_uid: str = "1.2.3") -> list[Job]:
        """Intake of one study."""
        return self.intake.take(study_uid)

    def render(self, pet_series_uid: str = "2.25.1") -> None:
        """What the worker would do with the waiting job."""
        job = self.ledger.claim("node/worker-0", 60.0)
        assert job is not None
        self.ledger.advance(job, State.RENDERED, pet_series_uid=pet_series_uid, model_hash="m")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
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
    assert rig.take() == []
    rig.render()
    rig.spool.remove("1.2.3")
    rig.receive(reversed(files))  # type: ignore[arg-type]
    (again,) = rig.take()
    assert again.job_id == first.job_id
    assert len(rig.ledger.jobs()) == 1


def test_a_crash_anywhere_in_intake_is_made_good_by_repeating_it(rig: Rig, tmp_path: Path) -> None:
    rig.receive(write_series(tmp_path / "ct"))
    (first,) = rig.take()
    rig.ledger.intake_done("1.2.3", "as if the crash came before this was written")
    assert rig.intake.waiting() == ["1.2.3"]
    (again,) = rig.take()
    assert again == first


def test_more_slices_supersede_the_waiting_job(rig: Rig, tmp_path: Path) -> None:
    rig.receive(write_series(tmp_path / "a", slices=24))
    (first,) = rig.take()
    rig.receive(write_series(tmp_path / "b", slices=6, first=24))
    (second,) = rig.take()
    assert rig.ledger.job(first.job_id).state == State.SUPERSEDED
    assert (second.instance_count, second.revision) == (30, 1)


def test_more_slices_after_the_pet_was_made_are_its_next_revision(rig: Rig, tmp_path: Path) -> None:
    rig.receive(write_series(tmp_path / "a", slices=24))
    rig.take()
    rig.render()
    rig.receive(write_series(tmp_path / "b", slices=6, first=24))
    (second,) = rig.take()
    assert (second.state, second.revision) == (State.QUEUED, 2)


def test_a_corrected_patient_is_a_new_source_and_the_job_under_way_keeps_its_own_files(
    rig: Rig, tmp_path: Path
) -> None:
    rig.receive(write_series(tmp_path / "a"))
    (first,) = rig.take()
    rig.receive(write_series(tmp_path / "b", PatientID="P2"))
    held = pydicom.dcmread(next(rig.folders.ct(first.job_id).rglob("*.dcm")), stop_before_pixels=True)
    assert held.PatientID == "P1"
    (second,) = rig.take()
    assert second.job_id != first.job_id


def test_another_series_after_the_pet_was_made_is_skipped(rig: Rig, tmp_path: Path) -> None:
    rig.receive(write_series(tmp_path / "a", slices=24))
    (first,) = rig.take()
    rig.render()
    rig.receive(write_series(tmp_path / "b", slices=60, SeriesInstanceUID="1.2.3.5"))
    (job,) = rig.take()
    assert job.job_id == first.job_id
    assert len(rig.ledger.jobs()) == 1


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
    assert rig.take() == []


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
