"""Whose the delivered studies are now (IHE PIR). Oracle: a PACS stand-in whose patients a test corrects."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_node.study_owner import study_owners
from tests.fakes.archive import Archive
from tests.fakes.clock import Clock
from tests.fakes.delivery_site import CALLING_AE, TIMEOUTS, DeliverySite, archive_destination
from twin_record.patient_identity import PatientIdentity
from twin_scanner.service.identity_check import PATIENT_CHANGED, ChangedPatient, IdentityReport, check_identities
from twin_scanner.service.ledger import Ledger, State

pytestmark = pytest.mark.record


def whose(archive: Archive, study_uids: Iterable[str]) -> Iterator[tuple[str, list[PatientIdentity]]]:
    """As app asks a PACS."""
    for study_uid, owners in study_owners(archive.peer, study_uids, calling_ae=CALLING_AE, timeouts=TIMEOUTS):
        yield study_uid, [PatientIdentity(**vars(owner)) for owner in owners]


def corrected(**values: str) -> list[Dataset]:
    """The patient of the stand-in's small CT, with corrections."""
    patient = Dataset()
    known = {"PatientID": "P1", "PatientName": "DOE^JANE", "PatientBirthDate": "19500101", "PatientSex": "F"}
    for keyword, value in {**known, **values}.items():
        setattr(patient, keyword, value)
    return [patient]


@pytest.fixture
def site(
    tmp_path: Path,
    sqlite_url: str,
    migrated_file: Path,
    open_ledger: Callable[[str], Ledger],
    clock: Clock,
    archive: Archive,
) -> DeliverySite:
    shutil.copyfile(migrated_file, sqlite_url.removeprefix("sqlite:///"))
    return DeliverySite(tmp_path, open_ledger(sqlite_url), clock, archive_destination(archive))


def check(site: DeliverySite, archive: Archive) -> IdentityReport:
    finders = {"pacs": partial(whose, archive)}
    return check_identities(site.ledger, site.folders, finders, None, lambda done, total: None)


def test_a_patient_who_was_corrected_after_the_delivery_is_an_alarm(
    site: DeliverySite, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    job, other = site.job(), site.job(2, study=2)
    site.run()
    assert (site.state(job), site.state(other)) == (State.DONE, State.DONE)
    assert (check(site, archive).asked, check(site, archive).changed) == (2, [])
    archive.patients = {job.study_uid: corrected(PatientID="P2", PatientName="ROE^JANE")}
    for _ in range(2):
        assert check(site, archive).changed == [
            ChangedPatient(job.job_id, job.study_uid, "pacs", ("name", "patient id"))
        ]
    alarms = [event for event in site.ledger.events.of_row("jobs", job.job_id) if event.what == "alarm"]
    assert [event.detail["error"] for event in alarms] == [PATIENT_CHANGED], "an alarm is noted once"
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert {vars(record)["job_id"] for record in errors} == {job.job_id}
    assert not any(word in str(vars(record)) for record in errors for word in ("P1", "P2", "ROE", "DOE"))


def test_a_name_that_is_written_otherwise_is_no_other_patient(site: DeliverySite, archive: Archive) -> None:
    job = site.job()
    site.run()
    archive.patients = {job.study_uid: corrected(PatientName="Doe^Jane^Mary", PatientSex="")}
    assert check(site, archive).changed == []


def test_what_is_not_recorded_yet_is_known_from_its_files_and_a_silent_pacs_is_told(
    site: DeliverySite, archive: Archive
) -> None:
    job = site.job()
    site.run("pacs")
    archive.patients = {job.study_uid: corrected(PatientBirthDate="19500102")}
    (changed,) = check(site, archive).changed
    assert changed.differing == ("birth date",)
    archive.stop()
    report = check(site, archive)
    assert (report.changed, list(report.silent)) == ([], ["pacs"])
