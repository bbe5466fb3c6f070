"""Deliveries to archives on loopback, on a real ledger whose clock the test drives: sent, confirmed, down, and back."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dicom_node.commitment import CommitmentReport, CommitmentReports
from dicom_node.peers import Peer
from dicom_node.spool import Spool
from dicom_node.stow import StowService
from tests.fakes.archive import Archive
from tests.fakes.clock import Clock
from tests.fakes.delivery_site import (
    CALLING_AE,
    HOUR_S,
    PROBE_S,
    TIMEOUTS,
    DeliverySite,
    archive_destination,
    eventually,
)
from tests.fakes.full_disk import files_end_at
from tests.fakes.scripted_stow import ScriptedStow
from tests.peers.orthanc import Orthanc
from tests.samples.loopback_node import Node, start_node
from twin_scanner.service.answered_instances import answering, forget_answered, read_answered
from twin_scanner.service.image_delivery import SETTLING_S, ImageDestination
from twin_scanner.service.image_target import DicomTarget, StowTarget
from twin_scanner.service.ledger import REPLACED, DeliveryState, Ledger, ResendReason
from twin_scanner.service.retry import DAY_S
from twin_scanner.service.worker import Stopped

pytestmark = pytest.mark.node

Open = Callable[..., Ledger]
COERCED = 0xB000


@pytest.fixture
def ledger(sqlite_ledger: Ledger) -> Ledger:
    return sqlite_ledger


@pytest.fixture
def make(tmp_path: Path, ledger: Ledger, clock: Clock) -> Callable[..., DeliverySite]:
    """A site with these destinations."""

    def site(*destinations: ImageDestination, **policy: Any) -> DeliverySite:
        return DeliverySite(tmp_path, ledger, clock, *destinations, **policy)

    return site


@pytest.fixture
def node(tmp_path: Path, ledger: Ledger, archive: Archive) -> Iterator[Node]:
    """Our own listener, which takes the archive's reports into the ledger."""

    def kept(report: CommitmentReport) -> bool:
        return ledger.deliveries.reported(report.transaction_uid, report.kept)

    running = start_node(Spool(tmp_path / "spool"), reports=CommitmentReports(kept), peers=[archive.peer])
    archive.caller = (CALLING_AE, running.peer.port)
    yield running
    running.listener.stop(20.0)


def reports_to(ledger: Ledger) -> CommitmentReports:
    return CommitmentReports(lambda report: ledger.deliveries.reported(report.transaction_uid, report.kept))


def test_a_delivery_is_confirmed_once_the_archive_lists_every_instance(
    make: Callable[..., DeliverySite], archive: Archive
) -> None:
    site = make(archive_destination(archive))
    job = site.job()
    site.run()
    assert site.state(job) == "done"
    assert site.delivery(job).confirmed_by == "query"
    assert archive.kept() == set(site.issued(job)) and set(archive.counts()) == {1}
    (update,) = site.recorded
    assert [series.modality for series in update.companion_series] == ["SR"]


def test_an_archive_that_lists_later_is_asked_again_and_sent_nothing_twice(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    site = make(archive_destination(archive))
    job = site.job()
    late = site.issued(job)[1]
    archive.loses = {late}
    site.run()
    assert site.delivery(job).state == DeliveryState.STORED
    assert "has answered for 7 instances and lists 6 of them" in site.delivery(job).reason
    archive.series[late] = site.report(job).pet_series_uid
    clock.pass_s(16.0)
    site.run()
    assert site.state(job) == "done" and set(archive.counts()) == {1}


def test_exactly_what_an_archive_never_lists_is_sent_again(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    """It answered success for an instance and does not have it: that used to be the end of it."""
    site = make(archive_destination(archive))
    job = site.job()
    lost = site.issued(job)[2]
    archive.loses = {lost}
    site.run()
    archive.loses = set()
    clock.pass_s(SETTLING_S + 1.0)
    site.run()
    assert site.delivery(job).state == DeliveryState.WAITING
    clock.pass_s(HOUR_S)
    site.run()
    assert site.state(job) == "done"
    assert {uid: len(sent) for uid, sent in archive.stored.items()} == {
        uid: 2 if uid == lost else 1 for uid in site.issued(job)
    }


def test_an_archive_that_answers_no_query_confirms_nothing_and_the_reason_says_what_to_do(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    archive.stop()
    archive.finds = False
    archive.start()
    site = make(archive_destination(archive))
    job = site.job()
    site.run()
    assert site.delivery(job).state == DeliveryState.STORED
    assert 'needs confirm = "status"' in site.delivery(job).reason
    by_status = make(archive_destination(archive, confirm="status"))
    clock.pass_s(16.0)
    by_status.run()
    assert by_status.delivery(job).confirmed_by == "C-STORE status"


def test_warnings_are_kept_for_each_instance_and_are_no_failure(
    make: Callable[..., DeliverySite], archive: Archive
) -> None:
    site = make(archive_destination(archive, confirm="status"))
    job = site.job()
    coerced = site.issued(job)[3]
    archive.statuses = {coerced: COERCED}
    site.run()
    outcome = site.outcome(job)
    assert (outcome.asked, outcome.stored, outcome.warnings, outcome.refused) == (7, 7, {"0xB000": (coerced,)}, {})
    assert site.state(job) == "done"


def test_a_refused_instance_is_named_with_its_status_and_sent_again_alone(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    site = make(archive_destination(archive, confirm="status"))
    job = site.job()
    refused, coerced = site.issued(job)[1], site.issued(job)[0]
    archive.statuses = {refused: 0xC000, coerced: COERCED}
    site.run()
    outcome = site.outcome(job)
    assert (outcome.stored, outcome.refused) == (6, {"0xC000": (refused,)})
    archive.statuses = {}
    clock.pass_s(16.0)
    site.run()
    outcome = site.outcome(job)
    assert (outcome.stored, outcome.refused, outcome.warnings) == (7, {}, {"0xB000": (coerced,)})
    assert len(archive.stored[refused]) == 2 and len(archive.stored[coerced]) == 1


def test_a_class_that_the_archive_does_not_take_is_left_out_and_the_twin_does_not_list_it(
    make: Callable[..., DeliverySite], archive: Archive
) -> None:
    site = make(archive_destination(archive))
    job = site.job()
    archive.stop()
    archive.classes = ["1.2.840.10008.5.1.4.1.1.128"]
    archive.start()
    site.run()
    assert site.state(job) == "done"
    assert (site.outcome(job).asked, len(site.outcome(job).not_taken)) == (6, 1)
    assert site.recorded[0].companion_series == ()


def test_an_archive_without_room_stops_its_lane_and_is_served_again_when_it_has_room(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    """0xA700 used to be each delivery's own failure: all that waited were tried, each by itself, at growing delays."""
    site = make(archive_destination(archive))
    jobs = [site.job(number, study=number) for number in (1, 2, 3)]
    archive.full = True
    site.run()
    assert sum(len(sent) for sent in archive.stored.values()) == 1, "one instance was tried, for all three jobs"
    archive.full = False
    clock.pass_s(PROBE_S + 1.0)
    site.run()
    assert [site.state(job) for job in jobs] == ["done"] * 3


def test_an_archive_that_was_down_for_a_weekend_gets_everything_once(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    site = make(archive_destination(archive))
    archive.stop()
    jobs = []
    for hour in range(60):
        if hour % 20 == 0:
            jobs.append(site.job(hour + 1, study=hour + 1))
        site.run()
        clock.pass_s(HOUR_S)
    assert archive.kept() == set()
    archive.start()
    site.run()
    assert [site.state(job) for job in jobs] == ["done"] * 3
    assert set(archive.counts()) == {1}


def test_of_two_archives_one_of_which_is_dead_the_other_gets_its_pet_and_the_twin_lists_what_is_true(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    with Archive() as dead:
        destinations = (archive_destination(archive), archive_destination(dead, "second", required=False))
        site = make(*destinations)
        dead.stop()
        job = site.job()
        site.run()
        assert archive.kept() == set(site.issued(job))
        assert (site.state(job), site.delivery(job, "second").state) == ("done", DeliveryState.WAITING)
        assert len(site.recorded) == 1 and len(site.recorded[0].companion_series) == 1
        dead.start()
        clock.pass_s(PROBE_S + 1.0)
        site.run()
        assert dead.kept() == set(site.issued(job))
        assert site.delivery(job, "second").state == DeliveryState.CONFIRMED


def test_the_twin_waits_for_a_required_archive_that_is_dead(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    with Archive() as dead:
        site = make(archive_destination(archive), archive_destination(dead, "second"))
        dead.stop()
        job = site.job()
        site.run()
        assert (site.state(job), site.recorded) == ("rendered", [])
        dead.start()
        clock.pass_s(PROBE_S + 1.0)
        site.run()
        assert site.state(job) == "done" and len(site.recorded) == 1


def test_an_archive_that_takes_implicit_vr_only_gets_the_same_values_in_it(
    make: Callable[..., DeliverySite], archive: Archive
) -> None:
    archive.stop()
    archive.transfer_syntaxes = ["1.2.840.10008.1.2"]
    archive.start()
    site = make(archive_destination(archive, implicit=True))
    job = site.job()
    site.run()
    assert site.state(job) == "done"
    report = site.report(job)
    for name, uid in zip(report.pet_files, report.pet_instance_uids, strict=True):
        sent = archive.datasets[uid]
        assert sent.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
        assert sent == pydicom.dcmread(site.folders.result(job.job_id) / name)


@pytest.mark.parametrize("on_same_association", [False, True])
def test_storage_commitment_confirms_on_whichever_association_the_report_comes(
    make: Callable[..., DeliverySite], archive: Archive, node: Node, ledger: Ledger, on_same_association: bool
) -> None:
    archive.on_same_association = on_same_association
    site = make(archive_destination(archive, confirm="commitment", reports=reports_to(ledger)))
    job = site.job()
    site.run("pacs")
    eventually(lambda: archive.answers)
    site.run()
    assert archive.answers == [0x0000]
    assert (site.state(job), site.delivery(job).confirmed_by) == ("done", "storage commitment")
    (asked,) = archive.asked
    assert asked.TransactionUID == site.delivery(job).transaction_uid
    assert {item.ReferencedSOPInstanceUID for item in asked.ReferencedSOPSequence} == set(site.issued(job))


def test_exactly_what_a_commitment_says_is_not_kept_is_sent_again(
    make: Callable[..., DeliverySite], archive: Archive, node: Node, clock: Clock
) -> None:
    site = make(archive_destination(archive, confirm="commitment"))
    job = site.job()
    lost = site.issued(job)[4]
    archive.loses = {lost}
    site.run("pacs")
    eventually(lambda: archive.answers)
    site.run("pacs")
    assert "says that it does not keep 1 of 7 instances" in site.delivery(job).reason
    archive.loses = set()
    clock.pass_s(HOUR_S)
    site.run("pacs")
    eventually(lambda: len(archive.answers) == 2)
    site.run()
    assert site.state(job) == "done"
    assert sorted(archive.counts()) == [1] * 6 + [2] and len(archive.stored[lost]) == 2


def test_a_report_after_a_restart_and_twice_and_for_nothing_is_answered_as_it_should_be(
    make: Callable[..., DeliverySite], archive: Archive, node: Node, ledger: Ledger
) -> None:
    archive.reports = False
    site = make(archive_destination(archive, confirm="commitment"))
    job = site.job()
    site.run()
    assert (site.delivery(job).state, len(archive.asked)) == (DeliveryState.STORED, 1)
    ledger.enter("folder of node")
    site.run()
    assert len(archive.asked) == 1, "a restart asks for nothing anew while the report may come"
    archive.report(archive.asked[0])
    archive.report(archive.asked[0])
    site.run()
    assert site.state(job) == "done"
    archive.asked[0].TransactionUID = "1.2.3.4"
    archive.report(archive.asked[0])
    assert archive.answers == [0x0000, 0x0000, 0x0115]


def test_a_report_that_does_not_come_is_replaced_by_a_query(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    archive.reports = False
    site = make(archive_destination(archive, confirm="commitment"))
    job = site.job()
    site.run()
    clock.pass_s(HOUR_S + 1.0)
    site.run()
    assert (site.state(job), site.delivery(job).confirmed_by) == ("done", "query")


def test_without_a_query_an_overdue_report_is_asked_for_again_and_an_earlier_one_still_counts(
    make: Callable[..., DeliverySite], archive: Archive, node: Node, clock: Clock
) -> None:
    archive.stop()
    archive.reports = archive.finds = False
    archive.start()
    site = make(archive_destination(archive, confirm="commitment"))
    job = site.job()
    site.run()
    clock.pass_s(HOUR_S + 1.0)
    site.run()
    assert "did not report on storage commitment within 3600 s" in site.delivery(job).reason
    clock.pass_s(HOUR_S)
    site.run()
    first, second = archive.asked
    assert first.TransactionUID != second.TransactionUID
    archive.report(first)
    site.run()
    assert (site.state(job), set(archive.counts())) == ("done", {1})


def test_an_archive_without_storage_commitment_is_queried_instead(
    make: Callable[..., DeliverySite], archive: Archive
) -> None:
    archive.stop()
    archive.commits = False
    archive.start()
    site = make(archive_destination(archive, confirm="commitment"))
    job = site.job()
    site.run()
    assert (site.state(job), site.delivery(job).confirmed_by) == ("done", "query")


def test_what_was_stored_before_a_stop_is_not_sent_again(make: Callable[..., DeliverySite], archive: Archive) -> None:
    """A stop during a slow delivery used to end in 106 of 212 instances that were delivered twice."""
    site = make(archive_destination(archive))
    job = site.job()
    lane = next(lane for lane in site.lanes() if lane.name == "pacs")
    delivery = lane.claim()
    left = iter((None, None))

    def beat() -> None:
        if next(left, "stop") == "stop":
            raise Stopped("The service stops.")

    with pytest.raises(Stopped):
        lane.work(delivery, beat)
    lane.rows.put_back(delivery)
    assert archive.counts() == [1, 1]
    site.run()
    assert site.state(job) == "done" and archive.counts() == [1] * 7


def test_a_file_that_cannot_be_read_stops_its_own_delivery_and_not_the_lane(
    make: Callable[..., DeliverySite], archive: Archive
) -> None:
    """One job's lost file used to count as a PACS that is down: all others waited."""
    site = make(archive_destination(archive))
    damaged, whole = site.job(1, study=1), site.job(2, study=2)
    (site.folders.result(damaged.job_id) / "pet/pet-0002.dcm").unlink()
    site.run()
    assert "pet-0002.dcm cannot be read" in site.delivery(damaged).reason
    assert site.state(whole) == "done"


def test_a_full_disk_is_no_fault_of_the_job(make: Callable[..., DeliverySite], archive: Archive) -> None:
    site = make(archive_destination(archive))
    job = site.job()
    (site.folders.result(job.job_id) / "stored-at-pacs").write_text("1.2.3\n" * 100)
    lane = next(lane for lane in site.lanes() if lane.name == "pacs")
    delivery = lane.claim()
    with files_end_at(600), pytest.raises(Exception, match="What the destination has answered for cannot be written"):
        lane.work(delivery, lambda: None)


def test_a_line_that_a_power_cut_left_half_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "stored-at-pacs").write_text("1.2.3\n1.2.4 0xB000\n1.2.")
    with answering(tmp_path, "pacs") as (stored, _):
        assert stored == {"1.2.3": "", "1.2.4": "0xB000"}
    forget_answered(tmp_path, "pacs", {"1.2.3"})
    assert read_answered(tmp_path, "pacs") == {"1.2.4": "0xB000"}


def test_an_earlier_revision_that_has_not_left_yet_is_not_sent_any_more(
    make: Callable[..., DeliverySite], archive: Archive
) -> None:
    site = make(archive_destination(archive))
    archive.stop()
    first = site.job(1)
    site.run()
    second = site.job(2, slices=3)
    archive.start()
    site.clock.pass_s(PROBE_S + 1.0)
    site.run()
    assert (site.delivery(first).confirmed_by, site.delivery(second).confirmed_by) == (REPLACED, "query")
    assert archive.kept() == set(site.issued(second))
    assert [site.state(job) for job in (first, second)] == ["done", "done"]


def test_a_later_revision_rejects_the_earlier_one_where_the_site_wants_that(
    make: Callable[..., DeliverySite], archive: Archive
) -> None:
    """IHE IOCM: a Key Object Selection (113001, DCM) in the same study that names every instance of the older PET."""
    with Archive() as plain:
        site = make(archive_destination(archive, rejects=True), archive_destination(plain, "plain"))
        first = site.job(1)
        site.run()
        before = archive.kept()
        second = site.job(2, slices=3)
        site.run()
        assert site.state(second) == "done"
        (uid,) = archive.kept() - before - set(site.issued(second))
        assert plain.kept() == archive.kept() - {uid}
    note = archive.datasets[uid]
    title = note.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113001", "DCM")
    assert note.Modality == "KO" and note.StudyInstanceUID == first.study_uid
    (study,) = note.CurrentRequestedProcedureEvidenceSequence
    named = {
        instance.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    assert named == set(site.issued(first))
    assert set(archive.counts()) == {1}


def test_the_third_revision_rejects_the_second_alone_and_only_what_the_archive_has(
    make: Callable[..., DeliverySite], archive: Archive
) -> None:
    site = make(archive_destination(archive, rejects=True))
    jobs = []
    for number in (1, 2, 3):
        jobs.append(site.job(number, slices=1 + number))
        site.run()
    assert [site.state(job) for job in jobs] == ["done"] * 3
    issued = {uid for job in jobs for uid in site.issued(job)}
    notes = [archive.datasets[uid] for uid in archive.kept() - issued]
    named = [
        {i.ReferencedSOPInstanceUID for s in n.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
         for i in s.ReferencedSOPSequence} for n in notes
    ]  # fmt: skip
    assert sorted(named, key=sorted) == sorted([set(site.issued(job)) for job in jobs[:2]], key=sorted)


def test_a_repeat_of_the_rejection_sends_the_same_note_once(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    site = make(archive_destination(archive, rejects=True))
    site.job(1)
    site.run()
    second = site.job(2, slices=3)
    lane = next(lane for lane in site.lanes() if lane.name == "pacs")
    for _ in range(2):  # sent, and then confirmed without that being recorded, as by a kill
        delivery = lane.claim()
        record = lane.work(delivery, lambda: None)
        if delivery.state == DeliveryState.WAITING:
            record()
        lane.rows.forget(delivery)
        site.ledger.beat()
    site.run()
    assert site.state(second) == "done" and set(archive.counts()) == {1}


def test_a_result_whose_files_were_cleared_fails_and_says_so(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    with Archive() as dead:
        site = make(archive_destination(archive), archive_destination(dead, "second", required=False))
        dead.stop()
        job = site.job()
        site.run()
        clock.pass_s(8 * DAY_S)
        site.ledger.jobs.clear([job.job_id])
        shutil.rmtree(site.folders.of(job.job_id))
        dead.start()
        site.run()
    assert site.delivery(job, "second").state == DeliveryState.FAILED
    assert "were cleared" in site.delivery(job, "second").reason
    assert site.state(job) == "done"


def test_a_dicomweb_server_is_a_destination_whose_list_confirms_and_409_is_a_success(
    make: Callable[..., DeliverySite], clock: Clock
) -> None:
    server = ScriptedStow()
    with server.listening() as url, closing(StowService("cloud", url)) as service:
        site = make(ImageDestination("cloud", StowTarget(service), "query"))
        first, second = site.job(1, study=1), site.job(2, study=2)
        lost = site.issued(first)[0]
        server.loses = {lost}
        site.run()
        assert (site.state(first), site.state(second)) == ("rendered", "done")
        assert "lists 6 of them" in site.delivery(first, "cloud").reason
        server.loses = set()
        clock.pass_s(SETTLING_S + 1.0)
        site.run()
        clock.pass_s(HOUR_S)
        server.script = [(409, None, {})]
        server.kept[lost] = (site.report(first).pet_series_uid, 1)
        site.run()
        assert (site.state(first), site.delivery(first, "cloud").confirmed_by) == ("done", "query")
        assert server.posts[-1] == [lost]
        server.script = [(503, None, {})]
        third = site.job(3, study=3)
        site.run()
        assert site.state(third) == "rendered"
        clock.pass_s(PROBE_S + 1.0)
        site.run()
        assert site.state(third) == "done"


REAL_PET = "1.2.1.77"


def test_a_real_pet_that_came_after_the_render_rejects_the_job_and_nothing_is_sent_until_a_person_retries_it(
    make: Callable[..., DeliverySite], archive: Archive, ledger: Ledger
) -> None:
    site = make(archive_destination(archive), archive_destination(archive, "research", required=False))
    job = site.job()
    site.real_pets[job.study_uid] = REAL_PET
    site.run()
    rejected = ledger.jobs.find(job.job_id)
    assert rejected.state == "rejected" and archive.kept() == set() and site.recorded == []
    assert f"holds a real PET (series {REAL_PET})" in rejected.reason and "retry this job" in rejected.reason
    assert {site.delivery(job).state, site.delivery(job, "research").state} == {DeliveryState.HELD}
    assert ledger.retry(job.job_id).state == "rendered"
    site.run()
    assert site.state(job) == "done" and set(archive.kept()) == set(site.issued(job))


def test_a_real_pet_that_came_after_the_render_holds_the_job_where_the_site_wants_that(
    make: Callable[..., DeliverySite], archive: Archive, ledger: Ledger
) -> None:
    site = make(archive_destination(archive), real_pet="hold")
    job = site.job()
    site.real_pets[job.study_uid] = REAL_PET
    site.run()
    held = ledger.jobs.find(job.job_id)
    assert held.state == "held" and "release this job" in held.reason and archive.kept() == set()
    ledger.release(job.job_id)
    site.run()
    assert site.state(job) == "done"


def test_a_site_that_delivers_beside_a_real_pet_asks_nobody(
    make: Callable[..., DeliverySite], archive: Archive, ledger: Ledger
) -> None:
    site = make(archive_destination(archive), real_pet="deliver")
    job = site.job()
    site.real_pets[job.study_uid] = REAL_PET
    site.run()
    assert site.state(job) == "done" and ledger.studies.find(job.study_uid) is None


def test_a_delivery_that_was_begun_before_the_real_pet_came_is_finished_and_the_next_destination_waits_for_a_person(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    """Half a series beside a real PET would be worse than a whole one; and what is there, a person must look at."""
    site = make(archive_destination(archive), archive_destination(archive, "research"))
    job = site.job()
    archive.statuses[site.issued(job)[1]] = 0xC000
    site.run("pacs")
    assert len(archive.kept()) > 0 and site.delivery(job).state == DeliveryState.WAITING
    site.real_pets[job.study_uid] = REAL_PET
    archive.statuses.clear()
    clock.pass_s(HOUR_S)
    site.run()
    assert site.delivery(job).state == DeliveryState.CONFIRMED
    second = site.delivery(job, "research")
    assert second.state == DeliveryState.HELD and "release this job" in second.reason
    assert site.state(job) == "held"


def test_a_release_from_before_the_real_pet_came_has_not_decided_on_it(
    make: Callable[..., DeliverySite], archive: Archive, ledger: Ledger
) -> None:
    site = make(archive_destination(archive))
    job = site.job()
    (claimed,) = [ledger.deliveries.claim("pacs")]
    assert claimed is not None
    ledger.deliveries.hold(claimed, "The destination refuses it.")
    ledger.release(job.job_id)
    site.real_pets[job.study_uid] = REAL_PET
    site.run()
    assert site.state(job) == "rejected" and archive.kept() == set()


@pytest.mark.parametrize("confirm", ["status", "query"])
def test_what_an_archive_has_lost_is_sent_again_as_the_same_instances_and_is_never_a_second_pet(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock, confirm: str
) -> None:
    site = make(archive_destination(archive, confirm=confirm))
    job = site.job()
    site.run()
    sent = set(archive.kept())
    lost = site.issued(job)[1]
    del archive.series[lost]
    site.ledger.resend(job.job_id, "pacs", ResendReason.LOST)
    site.run()
    assert site.state(job) == "done" and site.delivery(job).confirmed_at == clock.now
    assert archive.kept() == sent == set(site.issued(job)), "one PET, whole again"
    assert set(archive.counts()) == {2}
    first, second = archive.stored[lost]
    assert first == second, "the same bytes"
    assert len(site.recorded) == 1, "the twin is as it was"
    assert site.run() == 0


def test_a_destination_that_is_down_gets_again_what_it_was_to_get_and_what_it_took_is_not_sent_a_third_time(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    site = make(archive_destination(archive))
    job = site.job()
    site.run()
    archive.statuses = {site.issued(job)[3]: 0xC000}
    site.ledger.resend(job.job_id, "pacs", ResendReason.DAMAGED)
    site.run()
    assert (site.state(job), site.delivery(job).state) == ("rendered", DeliveryState.WAITING)
    archive.statuses = {}
    clock.pass_s(16.0)
    site.run()
    assert site.state(job) == "done"
    assert {uid: len(sent) for uid, sent in archive.stored.items()} == {
        uid: 3 if uid == site.issued(job)[3] else 2 for uid in site.issued(job)
    }
    site.ledger.resend(job.job_id, "pacs", ResendReason.DAMAGED)
    site.run()
    assert min(archive.counts()) == 3, "each wish is served anew"


def test_a_commitment_from_before_does_not_confirm_what_is_sent_again(
    make: Callable[..., DeliverySite], archive: Archive, ledger: Ledger, node: Node
) -> None:
    site = make(archive_destination(archive, reports=reports_to(ledger), confirm="commitment"))
    job = site.job()

    def confirmed() -> bool:
        site.run()
        return site.state(job) == "done"

    eventually(confirmed)
    ledger.resend(job.job_id, "pacs", ResendReason.RESTORED)
    eventually(confirmed)
    delivery = site.delivery(job)
    assert delivery.confirmed_by == "storage commitment" and set(archive.counts()) == {2}
    asked = [e.what for e in ledger.events.of_row("deliveries", delivery.delivery_id) if e.what == "commitment asked"]
    assert len(asked) == 2


def test_a_pet_that_is_replaced_while_it_waits_to_be_sent_again_stays_as_it_was(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    site = make(archive_destination(archive))
    job = site.job()
    site.run()
    confirmed_at = site.delivery(job).confirmed_at
    clock.pass_s(60.0)
    site.ledger.resend(job.job_id, "pacs", ResendReason.REQUESTED)
    later = site.job(2, slices=4)
    site.run()
    assert [site.state(one) for one in (job, later)] == ["done", "done"]
    assert (site.delivery(job).confirmed_by, site.delivery(job).confirmed_at) == ("query", confirmed_at)
    assert set(archive.counts()) == {1}, "neither is there twice"
    assert [series.series_uid for series in site.recorded[-1].superseded_series][:1] == [job.pet_series_uid]


def test_a_note_that_rejected_an_earlier_pet_still_counts_while_and_after_its_pet_was_to_be_sent_again(
    make: Callable[..., DeliverySite], archive: Archive, clock: Clock
) -> None:
    """Else the twin would list as there what the archive was told is replaced."""
    site = make(archive_destination(archive, rejects=True))
    first = site.job(1)
    site.run()
    second = site.job(2, slices=3)
    site.run()
    site.ledger.resend(second.job_id, "pacs", ResendReason.RESTORED)
    archive.stop()
    site.run()
    archive.start()
    assert site.delivery(second).state == DeliveryState.WAITING
    third = site.job(3, slices=4)
    clock.pass_s(HOUR_S)
    site.run()
    assert [site.state(one) for one in (first, second, third)] == ["done"] * 3
    assert site.recorded[-1].pet_series.series_uid == third.pet_series_uid
    assert site.recorded[-1].superseded_series == (), "both are rejected"


def test_a_pet_that_is_sent_again_brings_again_the_note_that_rejects_the_one_before(
    make: Callable[..., DeliverySite], archive: Archive
) -> None:
    """An archive that was restored has the earlier PET back, and not the note."""
    site = make(archive_destination(archive, rejects=True))
    first = site.job(1)
    site.run()
    second = site.job(2, slices=3)
    site.run()
    (note,) = archive.kept() - set(site.issued(first)) - set(site.issued(second))
    site.ledger.resend(second.job_id, "pacs", ResendReason.RESTORED)
    site.run()
    assert site.state(second) == "done"
    assert {uid: len(sent) for uid, sent in archive.stored.items()} == {
        uid: 1 if uid in site.issued(first) else 2 for uid in (*site.issued(first), *site.issued(second), note)
    }


def test_an_archive_that_got_a_pet_is_not_sent_it_again_beside_a_real_one_without_a_person(
    make: Callable[..., DeliverySite], archive: Archive
) -> None:
    site = make(archive_destination(archive))
    job = site.job()
    site.run()
    site.ledger.studies.complete("1.2.1", "quiet period")
    site.real_pets["1.2.1"] = "1.2.840.1"
    site.ledger.resend(job.job_id, "pacs", ResendReason.LOST)
    site.run()
    assert (site.state(job), site.delivery(job).state) == ("held", DeliveryState.HELD)
    assert site.delivery(job).was_confirmed and set(archive.counts()) == {1}
    site.ledger.release(job.job_id)
    site.run()
    assert site.state(job) == "done" and set(archive.counts()) == {2}


def test_a_real_orthanc_that_still_has_a_pet_holds_one_after_it_was_sent_again_and_gets_back_what_was_deleted(
    make: Callable[..., DeliverySite], tmp_path: Path, free_port: Callable[[], int], peer: Callable[[str], str]
) -> None:
    with Orthanc(tmp_path / "orthanc", free_port(), free_port(), "PACS", program=peer("Orthanc")) as orthanc:
        target = DicomTarget(
            Peer("PACS", "127.0.0.1", orthanc.dicom_port), CALLING_AE, TIMEOUTS, CommitmentReports(lambda report: False)
        )
        site = make(ImageDestination("pacs", target, confirm="query"))
        job = site.job()

        def held() -> set[str]:
            found = orthanc.find("Instance", {"StudyInstanceUID": job.study_uid})
            assert len(orthanc.find("Series", {"StudyInstanceUID": job.study_uid})) == 2
            return {one["MainDicomTags"]["SOPInstanceUID"] for one in found}

        site.run()
        assert held() == set(site.issued(job))
        site.ledger.resend(job.job_id, "pacs", ResendReason.REQUESTED)
        site.run()
        assert (site.state(job), held()) == ("done", set(site.issued(job)))
        (lost,) = orthanc.find("Instance", {"SOPInstanceUID": site.issued(job)[1]})
        orthanc.rest(f"/instances/{lost['ID']}", method="DELETE")
        assert len(held()) == len(site.issued(job)) - 1
        site.ledger.resend(job.job_id, "pacs", ResendReason.INCOMPLETE)
        site.run()
        assert (site.state(job), held()) == ("done", set(site.issued(job)))
