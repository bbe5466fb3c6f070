"""Looks at studies that arrive: a real spool, sources that a test speaks for, and a real Orthanc that has more."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pydicom
import pytest

from dicom_node.evidence import Completeness, EvidenceKind
from dicom_node.peers import Peer
from dicom_node.query import SeriesCount, find_series_counts
from dicom_node.spool import Spool
from dicom_node.store_scu import send
from tests.fakes.clock import Clock
from tests.peers.orthanc import Orthanc
from tests.samples.loopback_node import SHORT
from tests.samples.small_ct import write_series
from twin_scanner.errors import Transient
from twin_scanner.service.breaker import Breaker
from twin_scanner.service.inquiry import Inquiry, Source

pytestmark = pytest.mark.node

STUDY = "1.2.3"
Find = Callable[[str], Sequence[SeriesCount]]


class Rig:
    """A spool and an inquiry about it; ``asked`` are the studies that sources were asked for."""

    def __init__(self, folder: Path, clock: Clock, *finds: Find) -> None:
        self.clock = clock
        self.spool = Spool(folder / "spool")
        self.completeness = Completeness(quiet_period_s=30.0, longest_wait_s=300.0, settle_s=5.0, look_patience_s=60.0)
        self.asked: list[int] = []
        self.real_pets: list[tuple[str, str]] = []
        self.promising: list[str] = []
        sources = [
            Source(
                f"pacs-{number}", partial(self._find, number, find), Breaker(lambda failures: 60.0, clock.monotonic_s)
            )
            for number, find in enumerate(finds)
        ]
        self.inquiry = Inquiry(
            self.completeness,
            self.spool,
            sources,
            is_ours=lambda series_uid: series_uid == "2.25.1",
            on_real_pet=lambda study_uid, series_uid: self.real_pets.append((study_uid, series_uid)),
            on_promising=self.promising.append,
            monotonic_s=clock.monotonic_s,
        )

    def receive(self, files: Sequence[Path], association: int = 1) -> None:
        for file in files:
            header = pydicom.dcmread(file, stop_before_pixels=True)
            uids = (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
            self.spool.store([file.read_bytes()], *uids)
            self.completeness.touch(STUDY, self.clock.monotonic_s(), association)

    def evidence_after(self, seconds: int) -> str:
        """What says that the study is complete when so many seconds have passed, in which it was looked at."""
        for _ in range(seconds):
            self.clock.pass_s(1.0)
            self.inquiry.look()
            for _, evidence in self.completeness.complete(self.clock.monotonic_s()):
                return str(evidence)
        return ""

    def _find(self, number: int, find: Find, study_uid: str) -> Sequence[SeriesCount]:
        self.asked.append(number)
        return find(study_uid)


def _refuse(study_uid: str) -> Sequence[SeriesCount]:
    raise Transient("pacs-0 cannot be reached: check that it runs.")


def _has(*series: SeriesCount) -> Find:
    return lambda study_uid: series


def _ct(instances: int) -> SeriesCount:
    return SeriesCount("1.2.3.4", "CT", "", instances)


def test_a_source_that_has_as_many_says_so_after_two_looks(tmp_path: Path, clock: Clock) -> None:
    rig = Rig(tmp_path, clock, _has(_ct(24)))
    rig.receive(write_series(tmp_path / "ct"))
    assert rig.evidence_after(1) == ""
    assert rig.evidence_after(1) == "C-FIND: 24 of 24"


def test_a_study_is_asked_for_where_it_is_known(tmp_path: Path, clock: Clock) -> None:
    rig = Rig(tmp_path, clock, _has(), _has(_ct(24)))
    rig.receive(write_series(tmp_path / "ct"))
    assert rig.evidence_after(2) == "C-FIND: 24 of 24"
    assert rig.asked == [0, 1, 0, 1]


def test_a_source_that_is_down_is_asked_rarely_and_leaves_the_release(tmp_path: Path, clock: Clock) -> None:
    rig = Rig(tmp_path, clock, _refuse)
    rig.receive(write_series(tmp_path / "ct"))
    rig.completeness.association_released(1)
    assert rig.evidence_after(4) == ""
    assert rig.evidence_after(1) == EvidenceKind.RELEASED
    assert rig.asked == [0], "the breaker keeps the others from it"


def test_a_source_that_is_down_is_not_taken_for_one_that_does_not_know_the_study(tmp_path: Path, clock: Clock) -> None:
    rig = Rig(tmp_path, clock, _has(), _refuse)
    rig.receive(write_series(tmp_path / "ct"))
    rig.completeness.association_closed(1)
    assert rig.evidence_after(40) == EvidenceKind.QUIET


def test_without_a_source_a_missing_slice_leaves_the_quiet_period(tmp_path: Path, clock: Clock) -> None:
    rig = Rig(tmp_path, clock)
    files = write_series(tmp_path / "ct")
    rig.receive(files[:9] + files[10:])
    rig.completeness.association_released(1)
    assert rig.evidence_after(29) == ""
    assert rig.evidence_after(1) == EvidenceKind.QUIET


def test_a_study_that_came_whole_is_begun_with_after_the_first_of_two_looks(tmp_path: Path, clock: Clock) -> None:
    rig = Rig(tmp_path, clock, _has(_ct(24)))
    rig.receive(write_series(tmp_path / "ct"))
    rig.completeness.association_released(1)
    assert rig.evidence_after(1) == ""
    assert rig.promising == [STUDY]
    assert rig.evidence_after(1) == "C-FIND: 24 of 24", "and it is still looked at twice"


@pytest.mark.parametrize(
    ("find", "associations", "lost"),
    [(_has(_ct(25)), 1, 0), (_has(), 1, 0), (_has(_ct(23)), 1, 9), (_has(_ct(24)), 2, 0)],
    ids=["the peer has more", "the peer does not know it", "a gap", "two associations"],
)
def test_nothing_is_begun_with_a_study_that_may_not_be_whole(
    tmp_path: Path, clock: Clock, find: Find, associations: int, lost: int
) -> None:
    rig = Rig(tmp_path, clock, find)
    files = write_series(tmp_path / "ct")
    if lost:
        del files[lost]
    rig.receive(files[:12], association=1)
    rig.receive(files[12:], association=associations)
    for association in range(1, associations + 1):
        rig.completeness.association_released(association)
    rig.evidence_after(1)
    assert rig.promising == []


def test_nothing_is_begun_while_the_sender_may_send_more(tmp_path: Path, clock: Clock) -> None:
    rig = Rig(tmp_path, clock, _has(_ct(24)))
    rig.receive(write_series(tmp_path / "ct"))
    rig.evidence_after(1)
    assert rig.promising == []


def test_a_pet_that_nobody_of_us_made_is_reported(tmp_path: Path, clock: Clock) -> None:
    ours = SeriesCount("2.25.1", "PT", "anything", 24)
    neighbours = SeriesCount("2.25.2", "PT", "SYNTHETIC FDG-PET, RESEARCH", 24)
    rig = Rig(tmp_path, clock, _has(_ct(24), ours, neighbours, SeriesCount("1.2.3.6", "PT", "", 0)))
    rig.receive(write_series(tmp_path / "ct"))
    rig.evidence_after(2)
    assert rig.real_pets == []
    rig = Rig(tmp_path / "other", clock, _has(_ct(24), ours, SeriesCount("1.2.3.7", "PT", "WB 3D", 207)))
    rig.receive(write_series(tmp_path / "ct"))
    rig.evidence_after(1)
    assert rig.real_pets == [(STUDY, "1.2.3.7")]


@pytest.fixture
def orthanc(peer: Callable[[str], str], tmp_path: Path, free_port: Callable[[], int]) -> Orthanc:
    return Orthanc(tmp_path / "orthanc", free_port(), free_port(), program=peer("Orthanc"))


def test_a_pause_longer_than_the_quiet_period_starts_nothing_while_orthanc_has_more(
    orthanc: Orthanc, tmp_path: Path, clock: Clock
) -> None:
    """The sender releases after two thirds of the series, which has no gap, and goes on after ten minutes."""
    pacs = Peer("ORTHANC", "127.0.0.1", orthanc.dicom_port)
    with orthanc:
        files = write_series(tmp_path / "ct")
        send(files, pacs, calling_ae="CT", timeouts=SHORT)
        rig = Rig(tmp_path, clock, partial(find_series_counts, pacs, calling_ae="US", timeouts=SHORT))
        rig.receive(files[:16])
        rig.completeness.association_released(1)
        for _ in range(4):
            clock.pass_s(70.0)
            assert rig.evidence_after(1) == ""
        rig.receive(files[16:], association=2)
        rig.completeness.association_released(2)
        assert rig.evidence_after(2) == "C-FIND: 24 of 24"
