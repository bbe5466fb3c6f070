"""A scanner and a real Orthanc that is its PACS: when a study begins to be translated, and when it must not be."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dicom_node.peers import Peer
from dicom_node.store_scu import NotStored, send
from tests.fakes.scanner_node import fake_render
from tests.peers.orthanc import Orthanc
from tests.samples.small_ct import write_series
from twin_scanner.app import Scanner
from twin_scanner.errors import Rejected
from twin_scanner.render.report import RenderReport
from twin_scanner.render.request import RenderRequest
from twin_scanner.service.ledger import Job, State, StudyState
from twin_scanner.service.worker import Beat
from twin_scanner.settings import Settings

pytestmark = pytest.mark.node

STUDY = "1.2.3"
DEADLINE_S = 150.0
"""The process that reads headers imports much, which takes long where many tests run."""
Render = Callable[[RenderRequest, Beat], RenderReport]
PET = {"Modality": "PT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128", "SeriesInstanceUID": "1.2.3.7"}


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Rig:
    """A scanner whose render notes what it was asked for and goes no further."""

    def __init__(self, folder: Path, pacs_port: int, render: Render | None = None, **node: Any) -> None:
        self.asked: list[RenderRequest] = []
        settings = Settings.model_validate(
            {
                "node": {"port": 0, "open_to_loopback": True, "minimum_free_mb": 0, **node},
                "pacs": {"port": pacs_port},
                "storage": {"folder": folder / "data"},
                "model": {"accept_phantom_only": True},
            }
        )
        self.scanner = Scanner(settings, render=render or self._render)

    def send(self, files: list[Path]) -> None:
        """Over an association of its own."""
        send(files, Peer("TWINSCANNER", "127.0.0.1", self.scanner.receiver.port), calling_ae="CT")

    def job(self) -> Job:
        """The one job, when it has ended."""
        _wait_for(lambda: [job.state for job in self.scanner.ledger.jobs.newest()] == [State.REJECTED])
        return self.scanner.ledger.jobs.newest()[0]

    def _render(self, request: RenderRequest, beat: Beat) -> RenderReport:
        self.asked.append(request)
        raise Rejected("This test renders nothing.")


@pytest.fixture
def orthanc(peer: Callable[[str], str], tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Orthanc]:
    with Orthanc(tmp_path / "pacs", free_port(), free_port(), "PACS", program=peer("Orthanc")) as running:
        yield running


def _archive(orthanc: Orthanc, files: list[Path]) -> None:
    send(files, Peer("PACS", "127.0.0.1", orthanc.dicom_port), calling_ae="CT")


def test_a_study_that_lacks_slices_of_the_pacs_is_held_and_goes_on_by_itself_when_they_come(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    """The first 20 of 24 slices have no gap, their association is released, and the quiet period passes."""
    files = write_series(tmp_path / "ct")
    _archive(orthanc, files)
    rig = Rig(tmp_path, orthanc.dicom_port, quiet_period_s=0.5, settle_s=0.5, longest_wait_s=3.0)
    studies = rig.scanner.ledger.studies
    with rig.scanner.running():
        rig.send(files[:20])
        _wait_for(lambda: (study := studies.find(STUDY)) is not None and study.state == StudyState.HELD)
        held = studies.find(STUDY)
        assert held is not None and held.evidence == "incomplete: 20 of 24"
        assert "send the rest" in held.reason and rig.scanner.ledger.jobs.newest() == []
        rig.send(files[20:])
        assert rig.job().evidence == "C-FIND: 24 of 24"
    assert [request.source_evidence for request in rig.asked] == ["C-FIND: 24 of 24"]


def test_a_study_of_which_the_pacs_holds_a_real_pet_is_skipped(orthanc: Orthanc, tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct")
    _archive(orthanc, [*files, *write_series(tmp_path / "pet", **PET)])
    rig = Rig(tmp_path, orthanc.dicom_port, quiet_period_s=60.0)
    with rig.scanner.running():
        rig.send(files)
        job = rig.job()
    assert "holds a real PET (series 1.2.3.7)" in job.reason and rig.asked == []


@pytest.mark.long
def test_a_real_pet_that_reaches_the_pacs_while_ours_is_rendered_keeps_ours_back(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    """A PET/CT scanner sends its PET minutes after its CT."""
    files = write_series(tmp_path / "ct")
    _archive(orthanc, files)

    def render(request: RenderRequest, beat: Beat) -> RenderReport:
        _archive(orthanc, write_series(tmp_path / "pet", slices=2, **PET))
        return fake_render(request, beat)

    rig = Rig(tmp_path, orthanc.dicom_port, render, quiet_period_s=60.0)
    with rig.scanner.running():
        rig.send(files)
        job = rig.job()
    assert job.stood_at == State.RENDERED and "holds a real PET (series 1.2.3.7)" in job.reason
    assert {series["MainDicomTags"]["SeriesInstanceUID"] for series in orthanc.find("Series", {})} == {
        "1.2.3.4",
        "1.2.3.7",
    }


@pytest.mark.long
def test_the_study_of_a_real_pet_ct_scanner_is_skipped_with_its_pet_as_the_reason(
    orthanc: Orthanc, tmp_path: Path, shared_data: Path
) -> None:
    ct, pet = (sorted((shared_data / "thorax_petct" / name).iterdir()) for name in ("ct", "pet_ac"))
    _archive(orthanc, [*ct, *pet])
    rig = Rig(tmp_path, orthanc.dicom_port, quiet_period_s=60.0)
    with rig.scanner.running():
        rig.send(ct)
        job = rig.job()
    series_uid = str(pydicom.dcmread(pet[0], stop_before_pixels=True).SeriesInstanceUID)
    assert f"holds a real PET (series {series_uid})" in job.reason and rig.asked == []
    assert job.evidence == f"C-FIND: {len(ct)} of {len(ct)}"


@pytest.mark.long
def test_a_study_of_which_a_real_pet_was_sent_to_us_is_skipped(tmp_path: Path) -> None:
    """Only CT is kept; nobody answers C-FIND here, and the release of the association is the evidence."""
    rig = Rig(tmp_path, 1, quiet_period_s=60.0, settle_s=1.5)
    with rig.scanner.running():
        with pytest.raises(NotStored):
            rig.send(write_series(tmp_path / "pet", slices=1, **PET))
        rig.send(write_series(tmp_path / "ct"))
        job = rig.job()
    assert (job.evidence, rig.asked) == ("association release", [])
    assert "holds a real PET (series 1.2.3.7)" in job.reason
