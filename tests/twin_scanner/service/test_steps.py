"""What the twin is told of a delivered job: of the companions, those that the PACS holds and no others."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from twin_record.update import TwinUpdate
from twin_scanner.dicom.write.companions import companion_series_uids
from twin_scanner.districts.choice import SegmenterChoice
from twin_scanner.errors import Defect, Transient
from twin_scanner.render.report import Companion, RenderReport, read_delivery, read_report, write_report
from twin_scanner.render.request import RenderRequest
from twin_scanner.render.windows_done import writing_windows
from twin_scanner.service.image_delivery import held_companions
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.job_update import twin_update
from twin_scanner.service.ledger import REPLACED, Delivery, DeliveryState, Job, Outcome, utc_now
from twin_scanner.service.steps import Steps
from twin_scanner.service.superseded import Superseded
from twin_scanner.service.worker import Beat, Lane

pytestmark = pytest.mark.unit


def companion(number: int, modality: str, *, synthetic: bool) -> Companion:
    return Companion(
        modality=modality,
        series_uid=f"1.2.9.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        sop_instance_uid=f"1.2.9.{number}.1",
        file=f"seg/{number}.dcm",
        description="RESEARCH districts",
        number=2010 + number,
        synthetic=synthetic,
    )


def a_report() -> RenderReport:
    return RenderReport(
        software_version="0.1.0",
        model_name="demonstration",
        model_hash="a" * 64,
        plan_hash="b" * 64,
        segmenter="landmarks",
        segmenter_hash="c" * 64,
        missing_districts=(),
        districts={"head": {"volume_ml": 4000.0, "suv_mean": 3.0}},
        segmentation_quality=("head: whole, border found, confidence 0.9.",),
        suv_max=9.0,
        notes=(),
        seconds={"read": 1.0},
        made_at=datetime(2026, 3, 1, tzinfo=UTC).isoformat(),
        revision=2,
        source_series_uid="1.2.3.4",
        source_sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        source_instance_uids=("1.2.3.4.1",),
        pet_series_uid="1.2.8",
        pet_instance_uids=("1.2.8.1",),
        pet_files=("pet/pet-0001.dcm",),
        companions=(companion(1, "SEG", synthetic=False), companion(2, "SR", synthetic=True)),
    )


def header() -> Dataset:
    pet = Dataset()
    pet.SOPClassUID, pet.StudyInstanceUID, pet.PatientID = "1.2.840.10008.5.1.4.1.1.128", "1.2.3", "P1"
    pet.SeriesNumber, pet.DeviceSerialNumber, pet.SeriesDescription = 201, "TS-1", "SYNTHETIC FDG-PET"
    return pet


def test_a_report_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    write_report(tmp_path, a_report())
    assert read_report(tmp_path) == a_report()


def delivered(outcome: Outcome | None, by: str = "query") -> Delivery:
    nothing = dict.fromkeys(field.name for field in fields(Delivery))
    known = {"state": DeliveryState.CONFIRMED, "confirmed_by": by, "outcome": outcome, "after_required": False}
    return Delivery(**cast(Any, {**nothing, **known, "confirmed_at": datetime(2026, 3, 1, tzinfo=UTC)}))


def test_the_twin_still_lists_what_is_sent_again() -> None:
    again = replace(delivered(Outcome(3, 3)), state=DeliveryState.WAITING)
    assert held_companions(a_report(), [again]) == held_companions(a_report(), [delivered(Outcome(3, 3))])


def test_the_twin_lists_a_companion_that_any_destination_took() -> None:
    held = held_companions(
        a_report(), [delivered(Outcome(2, 2, not_taken=("1.2.840.10008.5.1.4.1.1.66.4",))), delivered(Outcome(3, 3))]
    )
    assert held == {"1.2.9.1.1", "1.2.9.2.1"}


def test_what_an_earlier_version_delivered_is_not_in_the_ledger() -> None:
    assert held_companions(a_report(), [delivered(None), delivered(Outcome(3, 3), REPLACED)]) is None


def test_the_twin_lists_only_what_the_pacs_took() -> None:
    not_taken = "1.2.840.10008.5.1.4.1.1.66.4"
    report = a_report()
    seg, sr = report.companions
    report = replace(report, companions=(seg, replace(sr, sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34")))
    held = held_companions(report, [delivered(Outcome(2, 2, not_taken=(not_taken,))), delivered(None)])
    assert held is not None
    update = twin_update(header(), report, (), held)
    assert [series.series_uid for series in update.companion_series] == ["1.2.9.2"]
    assert update.companion_series[0].asserted_by_ai
    every = twin_update(header(), a_report(), (), {"1.2.8.1", "1.2.9.1.1", "1.2.9.2.1"})
    assert [series.asserted_by_ai for series in every.companion_series] == [False, True]


def test_a_revision_replaces_the_companions_of_the_pet_it_replaces() -> None:
    update = twin_update(header(), a_report(), ("1.2.7",), set())
    assert update.replaces_series_uids == ("1.2.7",)
    assert update.replaces_companion_uids == companion_series_uids("1.2.7")


def test_the_twin_gets_what_was_measured_with_the_reports_codes_and_what_is_measured_no_more() -> None:
    report = replace(
        a_report(),
        districts={"head": {"volume_ml": 4000.0, "suv_mean": 3.0}, "liver": {"volume_ml": 1500.0}},
        district_remarks={"head": "head: whole."},
        district_codes={"liver": {"value": "10200004", "scheme": "SCT", "meaning": "Liver"}},
        uncertainty={"calibrated": True, "districts": {"head": 0.25}},
    )
    earlier = Superseded(measured={"head": {"volume_ml", "suv_mean", "suv_peak"}, "legs": {"volume_ml"}})
    pet = header()
    pet.FrameOfReferenceUID = "1.2.3.9"
    update = twin_update(pet, report, ("1.2.7",), set(), earlier)
    head, liver, legs = update.districts
    assert update.frame_of_reference_uid == "1.2.3.9"
    assert (head.volume_ml, head.suv_mean, head.suv_peak, head.withdrawn) == (4000.0, 3.0, None, ("suv_peak",))
    assert (head.remark, head.suv_deviation, head.calibrated) == ("head: whole.", 0.25, True)
    assert (head.site, liver.site) == (("69536005", "SCT", "Head"), ("10200004", "SCT", "Liver"))
    assert (legs.volume_ml, legs.withdrawn) == (None, ("volume_ml",))


def test_the_twin_gets_the_instance_numbers_and_the_body_part_of_the_report() -> None:
    report = replace(
        a_report(), source_instance_numbers=(7,), pet_instance_numbers=(1,), pet_body_part="CHESTABDPELVIS"
    )
    update = twin_update(header(), report, (), {"1.2.9.1.1"})
    assert (update.source_series.instance_numbers, update.pet_series.instance_numbers) == ((7,), (1,))
    assert update.pet_series.body_part_examined == "CHESTABDPELVIS"
    assert update.companion_series[0].instance_numbers == (1,)


def test_the_twin_is_told_how_the_ct_was_resampled() -> None:
    sentence = "The gantry was tilted by 8.0 degrees: the CT was resampled."
    assert (
        twin_update(header(), replace(a_report(), source_derivation=sentence), (), set()).source_derivation == sentence
    )


@pytest.mark.parametrize("phantom_only", [False, True])
def test_the_jobs_log_and_the_twin_know_what_the_model_has_seen(
    tmp_path: Path, phantom_only: bool, caplog: pytest.LogCaptureFixture
) -> None:
    report = replace(a_report(), phantom_only=phantom_only)
    render_lane(tmp_path, report).work(revision(1, None), lambda: None)
    records = [record for record in caplog.records if "trained on phantoms only" in record.getMessage()]
    assert [(vars(one)["job_id"], vars(one)["step"]) for one in records] == [("j1", "render")] * phantom_only
    assert twin_update(header(), report, (), set()).phantom_only is phantom_only


def never(*_: object) -> None:
    raise AssertionError("only the work of a lane is looked at")


def test_a_render_lets_the_ledger_know_its_windows_and_is_not_ended_by_a_ledger_that_is_away(tmp_path: Path) -> None:
    noted: list[tuple[int, int]] = []

    def note(job: Job, done: int, windows: int) -> None:
        noted.append((done, windows))
        if len(noted) == 1:
            raise Transient("locked")

    def render(request: RenderRequest, beat: Beat) -> RenderReport:
        report = writing_windows(request.result)
        beat()
        report(1, 540)
        for _ in range(3):
            beat()
        report(540, 540)
        beat()
        return a_report()

    render_lane(tmp_path, a_report(), render, note).work(revision(1, None), lambda: None)
    assert noted == [(1, 540), (1, 540), (540, 540)]


def render_lane(
    folder: Path,
    report: RenderReport,
    render: Callable[[RenderRequest, Beat], RenderReport] | None = None,
    note_windows: Callable[[Job, int, int], None] = never,
) -> Lane[Any]:
    """The lane of renders, with one that gives this report; the CT of the job j1 is there."""
    folders, nothing = JobFolders(folder), cast(Any, SimpleNamespace())
    folders.ct("j1").mkdir(parents=True)
    template = RenderRequest(
        source=folder,
        result=folder,
        made_at=datetime(2026, 3, 1, tzinfo=UTC),
        model="demonstration",
        model_store=folder,
        segmenter=SegmenterChoice("landmarks"),
        allow_other_segmenter=False,
        missing_district="reject",
        device_serial_number="TS-1",
        accept_synthetic_ct=False,
    )
    rows = SimpleNamespace(claim=never, wake=never, note_windows=note_windows)
    ledger: Any = SimpleNamespace(studies=rows, jobs=rows, deliveries=rows, rendered=never)
    intake: Any = SimpleNamespace(check_real_pet=lambda job, has_left: None)

    rendering = render or (lambda request, beat: report)
    steps = Steps(ledger, folders, intake, rendering, template, (), nothing, "twin", UTC, lambda: nothing, utc_now)
    return next(lane for lane in steps.lanes() if lane.name == "render")


def twin_lane(
    folder: Path, jobs: list[Job], recorded: list[TwinUpdate], confirmed: list[str], images: Sequence[Delivery] = ()
) -> Steps:
    """The twin's lane on a ledger with these jobs; the result of the first lies in ``folder``."""
    folders = JobFolders(folder)
    result = folders.result(jobs[0].job_id)
    (result / "pet").mkdir(parents=True)
    write_report(result, a_report())
    (result / "delivery.json").write_text('["1.2.8.1"]')
    pet = header()
    pet.SOPInstanceUID, pet.file_meta = "1.2.8.1", FileMetaDataset()
    pet.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pet.save_as(result / "pet/pet-0001.dcm", enforce_file_format=True)

    def record(update: TwinUpdate) -> SimpleNamespace:
        recorded.append(update)
        return SimpleNamespace(remarks=())

    nothing: Any = SimpleNamespace()
    ledger: Any = SimpleNamespace(
        jobs=SimpleNamespace(find=lambda job_id: jobs[0], of_study=lambda study_uid, frame_uid: jobs),
        deliveries=SimpleNamespace(
            confirmed=lambda delivery, by: confirmed.append(by),
            of_jobs=lambda job_ids: {job_id: [*images] for job_id in job_ids},
        ),
        updates=SimpleNamespace(keep=lambda update: True),
        results=SimpleNamespace(of_job=lambda job_id: None),
        recorded=lambda delivery, target: confirmed.append(target),
    )
    twin: Any = SimpleNamespace(record=record)
    return Steps(ledger, folders, nothing, nothing, nothing, (), twin, "embedded store", UTC, nothing, utc_now)


def revision(number: int, pet_series_uid: str | None) -> Job:
    facts = {"job_id": f"j{number}", "study_uid": "1.2.3", "series_uid": "1.2.3.4"}
    job = SimpleNamespace(**facts, facts=facts, frame_of_reference_uid="1.9")
    job.revision, job.pet_series_uid, job.made_at = number, pet_series_uid, datetime(2026, 3, 1, tzinfo=UTC)
    job.evidence = "quiet period"
    return cast(Job, job)


@pytest.mark.parametrize("pet_of_the_later", ["1.2.8.9", None])
def test_a_pet_that_a_later_revision_has_replaced_is_not_recorded_after_it(
    tmp_path: Path, pet_of_the_later: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Held, released when the next revision was recorded: the older PET used to become the current one."""
    recorded: list[TwinUpdate] = []
    confirmed: list[str] = []
    steps = twin_lane(tmp_path, [revision(1, "1.2.8"), revision(2, pet_of_the_later)], recorded, confirmed)
    delivery = cast(Delivery, SimpleNamespace(job_id="j1"))
    with caplog.at_level("INFO"):
        steps._record(delivery, lambda: None)()
    if pet_of_the_later is None:
        assert (len(recorded), confirmed) == (1, ["embedded store"])
    else:
        assert (recorded, confirmed) == ([], ["replaced by a later revision"])
        assert "not recorded: a later revision of this PET replaces it" in caplog.messages


def test_a_replaced_pet_that_was_delivered_is_recorded_all_the_same(tmp_path: Path) -> None:
    """Its successor was recorded first, and nothing said how the PET that the PACS holds had come to be."""
    recorded: list[TwinUpdate] = []
    jobs = [revision(1, "1.2.8"), revision(2, "1.2.8.9")]
    steps = twin_lane(tmp_path, jobs, recorded, [], [delivered(Outcome(1, 1))])
    steps._record(cast(Delivery, SimpleNamespace(job_id="j1")), lambda: None)()
    assert [update.pet_series.series_uid for update in recorded] == ["1.2.8"]


def test_a_report_or_a_delivery_that_cannot_be_read_is_a_defect(tmp_path: Path) -> None:
    with pytest.raises(Defect, match="What was delivered"):
        read_delivery(tmp_path)
    write_report(tmp_path, replace(a_report(), companions=()))
    (tmp_path / "report.json").write_text('{"companions": [{"what": 1}]}')
    with pytest.raises(Defect, match="report"):
        read_report(tmp_path)
