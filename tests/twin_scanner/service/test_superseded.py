"""What the twin is told of an earlier PET: listed while the PACS holds it, gone once its rejection is confirmed."""

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from tests.fakes.archive import Archive
from tests.fakes.clock import Clock
from tests.fakes.delivery_site import DeliverySite, archive_destination
from twin_record.update import TwinUpdate
from twin_scanner.service.answered_instances import forget_answered
from twin_scanner.service.image_delivery import ImageDestination
from twin_scanner.service.ledger import Ledger
from twin_scanner.service.rejection import note_file
from twin_scanner.service.superseded import superseded

pytestmark = pytest.mark.node


@pytest.fixture
def ledger(sqlite_ledger: Ledger) -> Ledger:
    return sqlite_ledger


@pytest.fixture
def make(tmp_path: Path, ledger: Ledger, clock: Clock) -> Callable[..., DeliverySite]:
    """A site with these destinations."""

    def site(*destinations: ImageDestination) -> DeliverySite:
        return DeliverySite(tmp_path, ledger, clock, *destinations)

    return site


def superseded_instances(update: TwinUpdate) -> set[str]:
    return {uid for series in update.superseded_series for uid in series.sop_instance_uids}


def test_a_replaced_pet_is_listed_for_as_long_as_the_pacs_holds_it(
    make: Callable[..., DeliverySite], archive: Archive
) -> None:
    site = make(archive_destination(archive))
    first = site.job(1)
    site.run()
    site.job(2, slices=3)
    site.run()
    before, after = site.recorded
    assert before.superseded_series == ()
    assert superseded_instances(after) == set(site.issued(first)) < archive.kept()
    assert after.superseded_series[0].series_uid == first.pet_series_uid == after.replaces_series_uids[0]


def test_a_rejected_pet_is_listed_no_more(make: Callable[..., DeliverySite], archive: Archive) -> None:
    site = make(archive_destination(archive, rejects=True))
    for number in (1, 2, 3):
        site.job(number, slices=1 + number)
        site.run()
    assert [update.superseded_series for update in site.recorded] == [(), (), ()]
    assert [len(update.replaces_series_uids) for update in site.recorded] == [0, 1, 2]


def test_a_rejection_without_an_answer_leaves_the_pet_listed(
    make: Callable[..., DeliverySite], archive: Archive
) -> None:
    site = make(archive_destination(archive, rejects=True))
    first = site.job(1)
    site.run()
    second = site.job(2, slices=3)
    site.run()
    folder = site.folders.result(second.job_id)
    note = str(pydicom.dcmread(note_file(folder, "pacs", first.job_id)).SOPInstanceUID)
    forget_answered(folder, "pacs", {note})
    revisions = site.ledger.jobs.of_study(second.study_uid, second.frame_of_reference_uid)
    found = superseded(site.ledger, site.folders, second, revisions, site.destinations)
    assert {uid for series in found.series for uid in series.sop_instance_uids} == set(site.issued(first))
    assert found.measured == {"trunk": {"volume_ml", "suv_mean", "suv_max", "suv_peak"}}


def test_what_a_destination_that_is_not_required_keeps_does_not_count(
    make: Callable[..., DeliverySite], archive: Archive
) -> None:
    with Archive() as research:
        site = make(
            archive_destination(archive, rejects=True), archive_destination(research, "research", required=False)
        )
        for number in (1, 2):
            site.job(number, slices=1 + number)
            site.run()
        assert site.recorded[1].superseded_series == ()
