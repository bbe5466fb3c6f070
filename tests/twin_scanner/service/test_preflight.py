"""Before a render: whose the CT is, by the PACS, by what was rendered before, and by the twin record.

Oracle: a held job has called no render and kept its files; what a person has decided is not asked again.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydicom.dataset import Dataset

from dicom_node.store_scu import InstanceStatus, SendReport, instance_of
from dicom_node.study_owner import study_owners
from tests.fakes import scanner_node
from tests.fakes.archive import Archive
from tests.fakes.clock import Clock
from tests.fakes.delivery_site import CALLING_AE, HOUR_S, POLICY, PROBE_S, TIMEOUTS
from tests.fakes.scanner_node import fake_render
from tests.samples.small_ct import write_series
from twin_record.embedded import EmbeddedStore
from twin_record.patient_identity import PatientIdentity
from twin_record.update import TwinSite
from twin_scanner.districts.choice import SegmenterChoice
from twin_scanner.errors import Unavailable
from twin_scanner.render.report import RenderReport
from twin_scanner.render.request import RenderRequest
from twin_scanner.service.breaker import Breaker
from twin_scanner.service.image_delivery import ImageDestination
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import IDENTITY, OTHER_PATIENT, OUTSIDE_TRAINING, Job, Ledger, NewJob, State
from twin_scanner.service.preflight import LEFT_UNCHECKED, PatientSource, Preflight
from twin_scanner.service.steps import Steps
from twin_scanner.service.worker import Lane, Worker

pytestmark = pytest.mark.record

STUDY = "1.2.3"
JANE = PatientIdentity("P1", None, "DOE^JANE", "19500101", "F")
SITE = TwinSite("urn:oid:2.999.1")
TEMPLATE = RenderRequest(
    source=Path(),
    result=Path(),
    made_at=datetime(2026, 3, 1, tzinfo=UTC),
    model="demonstration",
    model_store=Path(),
    segmenter=SegmenterChoice("landmarks"),
    allow_other_segmenter=False,
    missing_district="reject",
    device_serial_number="TS-1",
    accept_synthetic_ct=True,
)


class Site:
    """The render lane behind a preflight: a real twin store, a PACS whose answers a test writes."""

    def __init__(self, folder: Path, ledger: Ledger, clock: Clock) -> None:
        self.ledger, self.folders, self.clock = ledger, JobFolders(folder / "jobs"), clock
        self.twin = EmbeddedStore(folder / "twin.db", SITE)
        self.at_pacs: list[PatientIdentity] = []
        self.pacs_is_down = False
        self.rendered: list[str] = []
        scanner_node.RENDER_S = 0.0
        self.worker = Worker(ledger=ledger, lanes=(), policy=POLICY, on_fatal=lambda: None, draw=lambda: 0.999)

    def queue(self, number: int = 1, study: str = STUDY, **attributes: Any) -> Job:
        """A job of the study, whose CT says so of its patient."""
        job = self.ledger.jobs.open(NewJob(study, "1.9", "1.2.3.4", f"{number:064x}", 2))
        write_series(self.folders.ct(job.job_id), slices=2, **attributes)
        return job

    def run(self, twin: Any = None) -> None:
        """The render lane, until nothing is due."""
        lane = self._lane(twin or self.twin)
        while self.worker.run_once(lane):
            self.clock.pass_s(1.0)

    def state(self, job: Job) -> tuple[str, str]:
        """The job's, and what it is held for."""
        found = self.ledger.jobs.find(job.job_id)
        return found.state, found.held_for

    def _lane(self, twin: Any) -> Lane[Any]:
        source = PatientSource("pacs", self._find, self.breaker())
        preflight = Preflight(self.ledger, self.folders, twin, [source], self.breaker())
        return next(lane for lane in self.steps(twin, preflight).lanes() if lane.name == "render")

    def steps(self, twin: Any, preflight: Preflight, destinations: tuple[ImageDestination, ...] = ()) -> Steps:
        """What the lanes do."""
        nothing: Any = SimpleNamespace()
        return Steps(
            ledger=self.ledger,
            folders=self.folders,
            intake=nothing,
            render=self._render,
            template=TEMPLATE,
            destinations=destinations,
            twin=twin,
            twin_name="embedded",
            zone=UTC,
            breaker=self.breaker,
            now=self.clock,
            preflight=preflight.check,
            check_images=preflight.check_images,
        )

    def _render(self, request: RenderRequest, beat: Any) -> RenderReport:
        self.rendered.append(request.source.parent.name)
        return fake_render(request, beat)

    def _find(self, study_uids: Iterable[str]) -> Iterator[tuple[str, Sequence[PatientIdentity]]]:
        if self.pacs_is_down:
            raise Unavailable("The PACS does not answer.")
        for study_uid in study_uids:
            yield study_uid, self.at_pacs

    def breaker(self) -> Breaker:
        """On the test's clock."""
        return Breaker(lambda failures: PROBE_S, self.clock.monotonic_s)


@pytest.fixture
def site(
    tmp_path: Path, sqlite_url: str, migrated_file: Path, open_ledger: Callable[[str], Ledger], clock: Clock
) -> Iterator[Site]:
    shutil.copyfile(migrated_file, sqlite_url.removeprefix("sqlite:///"))
    made = Site(tmp_path, open_ledger(sqlite_url), clock)
    yield made
    made.twin.close()


def known_as(site: Site, **fields: Any) -> None:
    """The record knows P1 so."""
    patient = {"resourceType": "Patient", "identifier": [{"system": "urn:oid:2.999.1", "value": "P1"}], **fields}
    entry = {"resource": patient, "request": {"method": "POST", "url": "Patient"}}
    site.twin.exchange({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})


def test_a_birth_date_that_contradicts_the_record_holds_the_job_before_it_is_rendered(site: Site) -> None:
    """52 PET objects used to be in the archive before the birth date was compared."""
    known_as(site, birthDate="1950-01-02")
    job = site.queue()
    site.run()
    assert site.state(job) == (State.HELD, IDENTITY)
    assert site.rendered == []
    assert len(list(site.folders.ct(job.job_id).rglob("*.dcm"))) == 2
    site.ledger.release(job.job_id)
    site.run()
    assert site.state(job) == (State.HELD, IDENTITY), "a release does not make another patient of the same identifier"


def test_a_released_job_goes_on_once_the_record_was_corrected(site: Site) -> None:
    known_as(site, birthDate="1950-01-02")
    job = site.queue()
    site.run()
    (patient,) = _patients(site)
    entry = {"resource": {**patient, "birthDate": "1950-01-01"}}
    entry["request"] = {"method": "PUT", "url": f"Patient/{patient['id']}"}
    site.twin.exchange({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    site.ledger.release(job.job_id)
    site.run()
    assert (site.state(job)[0], site.rendered) == (State.RENDERED, [job.job_id])


def _patients(site: Site) -> list[dict[str, Any]]:
    request = {"method": "GET", "url": "Patient?identifier=urn%3Aoid%3A2.999.1%7CP1"}
    answer = site.twin.exchange({"resourceType": "Bundle", "type": "batch", "entry": [{"request": request}]})
    return [entry["resource"] for entry in answer["entry"][0]["resource"]["entry"]]


def test_a_ct_whose_study_is_another_patients_at_the_pacs_is_held(site: Site) -> None:
    site.at_pacs = [replace(JANE, patient_id="P2")]
    job = site.queue()
    site.run()
    assert (site.state(job), site.rendered) == ((State.HELD, OTHER_PATIENT), [])
    assert "patient id differ" in site.ledger.jobs.find(job.job_id).reason
    assert "P2" not in site.ledger.jobs.find(job.job_id).reason
    site.ledger.release(job.job_id)
    site.run()
    assert site.rendered == [job.job_id], "a person has decided"


def test_a_study_that_is_filed_under_two_patients_is_held(site: Site) -> None:
    site.at_pacs = [JANE, replace(JANE, patient_id="P2")]
    job = site.queue()
    site.run()
    assert site.state(job) == (State.HELD, OTHER_PATIENT)


@pytest.mark.parametrize("pacs_is_down", [False, True])
def test_a_study_sent_again_under_another_patient_id_is_held_where_no_pacs_says_whose_it_is(
    site: Site, pacs_is_down: bool
) -> None:
    """Its PET used to get into the right patient's study."""
    site.pacs_is_down = pacs_is_down
    first = site.queue()
    site.run()
    second = site.queue(2, PatientID="P2")
    site.run()
    assert site.state(first)[0] == State.RENDERED
    assert (site.state(second), site.rendered) == ((State.HELD, OTHER_PATIENT), [first.job_id])


def test_a_patient_whom_the_pacs_has_corrected_too_goes_on_without_a_person(site: Site) -> None:
    site.queue()
    site.run()
    site.at_pacs = [replace(JANE, patient_id="P2")]
    second = site.queue(2, PatientID="P2")
    site.run()
    assert site.state(second)[0] == State.RENDERED


def test_a_record_that_cannot_be_asked_holds_no_render_up_and_is_left_alone(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def check_identity(identity: PatientIdentity, study_uid: str) -> tuple[str, ...]:
        asked.append(identity)
        raise Unavailable("The FHIR server takes no twin record at the moment (status 403).")

    jobs = [site.queue(), site.queue(2, study="1.2.4", StudyInstanceUID="1.2.4", SeriesInstanceUID="1.2.4.4")]
    site.run(SimpleNamespace(check_identity=check_identity))
    assert [site.state(job)[0] for job in jobs] == [State.RENDERED, State.RENDERED]
    assert len(asked) == 1
    assert "identity not compared with the twin record before the render" in caplog.text
    assert "P1" not in caplog.text and "DOE" not in caplog.text


class DownRecord:
    """The twin record of a site, which may be asked nothing while it is down."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self.is_down = True

    def check_identity(self, identity: PatientIdentity, study_uid: str) -> tuple[str, ...]:
        """As the store does."""
        if self.is_down:
            raise Unavailable("The FHIR server cannot be reached.")
        return self._store.check_identity(identity, study_uid)


class Pacs:
    """Takes every image."""

    by_status = "status"

    def __init__(self) -> None:
        self.taken: list[Path] = []

    def send(self, files: Sequence[Path], *, on_answer: Callable[[InstanceStatus], None], **_: Any) -> SendReport:
        """Each is stored."""
        self.taken += files
        answers = tuple(InstanceStatus(instance_of(file).uid, 0) for file in files)
        for answer in answers:
            on_answer(answer)
        return SendReport(answers)


def lanes_of(site: Site, record: DownRecord, pacs: Pacs, unchecked_after_s: float | None) -> list[Lane[Any]]:
    """The render and the delivery of its images."""
    preflight = Preflight(site.ledger, site.folders, cast(Any, record), [], site.breaker(), unchecked_after_s)
    steps = site.steps(record, preflight, (ImageDestination("pacs", cast(Any, pacs), "status"),))
    return [lane for lane in steps.lanes() if lane.name in ("render", "pacs")]


def run_for(site: Site, lanes: Sequence[Lane[Any]], seconds: float) -> None:
    """Work on all that comes due in this time."""
    end = site.clock.seconds + seconds
    while site.clock.seconds < end:
        while any(site.worker.run_once(lane) for lane in lanes):
            pass
        site.clock.pass_s(HOUR_S / 2)


def test_images_of_a_ct_that_the_record_could_not_be_asked_about_wait_for_its_answer(site: Site) -> None:
    """A PET used to reach the PACS before the birth date was compared, whenever the FHIR server was away."""
    record, pacs = DownRecord(site.twin), Pacs()
    lanes = lanes_of(site, record, pacs, None)
    job = site.queue()
    run_for(site, lanes, 6 * HOUR_S)
    assert (site.rendered, pacs.taken) == ([job.job_id], [])
    assert "deliver_unchecked_after_hours" in site.ledger.deliveries.of_jobs([job.job_id])[job.job_id][0].reason
    record.is_down = False
    run_for(site, lanes, HOUR_S)
    assert pacs.taken != []


def test_images_of_a_ct_that_contradicts_a_record_which_was_away_are_held_and_never_sent(site: Site) -> None:
    record, pacs = DownRecord(site.twin), Pacs()
    lanes = lanes_of(site, record, pacs, None)
    job = site.queue()
    run_for(site, lanes, HOUR_S)
    known_as(site, birthDate="1950-01-02")
    record.is_down = False
    run_for(site, lanes, HOUR_S)
    assert (site.state(job)[0], pacs.taken) == (State.HELD, [])
    site.ledger.release(job.job_id)
    run_for(site, lanes, HOUR_S)
    assert (site.state(job)[0], pacs.taken) == (State.HELD, []), "it is asked again"


def test_images_leave_with_an_alarm_where_the_site_wants_them_to_wait_no_longer(site: Site) -> None:
    record, pacs = DownRecord(site.twin), Pacs()
    lanes = lanes_of(site, record, pacs, 6 * HOUR_S)
    job = site.queue()
    run_for(site, lanes, 5 * HOUR_S)
    assert pacs.taken == []
    run_for(site, lanes, 3 * HOUR_S)
    assert pacs.taken != []
    alarms = [event.detail["error"] for event in site.ledger.events.of_row("jobs", job.job_id) if event.what == "alarm"]
    assert alarms == [LEFT_UNCHECKED]


def test_a_peer_says_whose_a_study_is_as_it_was_corrected(tmp_path: Path) -> None:
    (file,) = write_series(tmp_path / "ct", slices=1)
    corrected = Dataset()
    corrected.PatientID, corrected.PatientName, corrected.PatientSex = "P2", "Müller^Jürgen", "M"
    with Archive() as archive:
        archive.patients = {STUDY: [corrected]}
        found = dict(study_owners(archive.peer, [STUDY, "1.2.99"], calling_ae=CALLING_AE, timeouts=TIMEOUTS))
    assert file.is_file()
    assert [vars(owner) for owner in found[STUDY]] == [
        {
            "patient_id": "P2",
            "issuer_of_patient_id": "",
            "patient_name": "Müller^Jürgen",
            "birth_date": "",
            "sex": "M",
        }
    ]
    assert found["1.2.99"] == []


def test_a_ct_outside_of_the_training_data_is_held_before_its_render_until_a_person_releases_it(site: Site) -> None:
    outside = ("the patient's age is not known, and the training data have 18 to 90 years",)
    breaker = site.breaker()
    preflight = Preflight(site.ledger, site.folders, site.twin, [], breaker, outside_training=lambda _: outside)
    lane = next(lane for lane in site.steps(site.twin, preflight).lanes() if lane.name == "render")
    job = site.queue()
    assert site.worker.run_once(lane)
    assert site.state(job) == (State.HELD, OUTSIDE_TRAINING)
    assert site.rendered == []
    assert "the patient's age is not known" in site.ledger.jobs.find(job.job_id).reason
    site.ledger.release(job.job_id)
    assert site.worker.run_once(lane)
    assert site.state(job)[0] == State.RENDERED
