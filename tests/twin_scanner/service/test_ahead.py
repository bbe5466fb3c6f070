"""What is begun for a study before it is known to be complete, and that it counts only where the files are the same."""

import errno
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from dicom_node.spool import Spool
from twin_scanner.dicom.read.series_choice import Choice
from twin_scanner.service import ahead as module
from twin_scanner.service.ahead import Ahead

pytestmark = pytest.mark.unit

STUDY = "1.2.3"


class Rig:
    """A real spool, and processes that a test speaks for."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder)
        self.choosing: list[Future[list[Choice]]] = []
        self.read: list[Sequence[Path]] = []
        self.reading: list[Future[bool]] = []
        self.is_idle = True
        self.ahead = Ahead(self.spool, self._choose, self._read)

    def receive(self, number: int, study_uid: str = STUDY) -> None:
        self.spool.store([b"slice"], study_uid, "1.2.3.4", f"1.2.3.4.{number}")

    def _choose(self, study_uid: str, files: Sequence[Path]) -> "Future[list[Choice]]":
        self.choosing.append(Future())
        return self.choosing[-1]

    def _read(self, files: Sequence[Path]) -> "Future[bool] | None":
        if not self.is_idle:
            return None
        self.read.append(files)
        self.reading.append(Future())
        return self.reading[-1]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "spool")


def test_a_study_that_is_the_same_in_the_end_has_its_choices_once(rig: Rig) -> None:
    rig.receive(1)
    rig.ahead.begin(STUDY)
    rig.ahead.begin(STUDY)
    assert len(rig.choosing) == len(rig.read) == 1
    assert rig.ahead.choosing() == rig.choosing
    assert rig.ahead.take(STUDY) is rig.choosing[0]
    assert rig.ahead.take(STUDY) is None
    assert rig.ahead.choosing() == []


def test_a_slice_that_comes_late_throws_away_what_was_begun(rig: Rig) -> None:
    rig.receive(1)
    rig.ahead.begin(STUDY)
    rig.receive(2)
    assert rig.ahead.take(STUDY) is None


def test_a_study_that_has_grown_is_begun_again(rig: Rig) -> None:
    rig.receive(1)
    rig.ahead.begin(STUDY)
    rig.receive(2)
    rig.ahead.begin(STUDY)
    assert rig.ahead.take(STUDY) is rig.choosing[1]


def test_one_ct_is_read_at_a_time_and_none_while_the_worker_works(rig: Rig) -> None:
    rig.receive(1)
    rig.receive(1, "1.2.4")
    rig.receive(1, "1.2.5")
    rig.is_idle = False
    rig.ahead.begin(STUDY)
    assert rig.ahead.reading() is None
    rig.is_idle = True
    rig.ahead.begin("1.2.4")
    assert rig.ahead.reading() is rig.reading[0]
    rig.ahead.begin("1.2.5")
    assert len(rig.read) == 1 and len(rig.choosing) == 3
    rig.reading[0].set_result(True)
    assert rig.ahead.reading() is None


def test_a_study_of_very_many_files_or_of_none_is_not_begun(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 1)
    rig.ahead.begin(STUDY)
    rig.receive(1)
    rig.receive(2)
    rig.ahead.begin(STUDY)
    assert rig.choosing == []


def test_what_is_never_asked_for_is_forgotten(rig: Rig) -> None:
    for number in range(module.MOST_STUDIES + 1):
        rig.receive(1, f"1.2.{number}")
        rig.ahead.begin(f"1.2.{number}")
    assert rig.ahead.take("1.2.0") is None
    assert rig.ahead.take("1.2.1") is rig.choosing[1]


def test_a_service_that_stops_begins_nothing_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def shut_down(files: Sequence[Path]) -> None:
        raise RuntimeError("The executor is shut down and takes no more work.")

    monkeypatch.setattr(rig.ahead, "_read", shut_down)
    rig.receive(1)
    rig.ahead.begin(STUDY)
    assert rig.ahead.take(STUDY) is None


def test_a_machine_that_gives_no_process_more_begins_nothing_and_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inquiry's thread ends the service with itself at whatever is no error of ours."""

    def refuse(study_uid: str, files: Sequence[Path]) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(rig.ahead, "_choose", refuse)
    rig.receive(1)
    rig.ahead.begin(STUDY)
    assert rig.ahead.take(STUDY) is None
    assert rig.ahead.reading() is rig.reading[0], "a render waits for what has begun all the same"
