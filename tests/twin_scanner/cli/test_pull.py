"""`pull` from a real Orthanc: what it lists, the folder that `prepare` reads, what it does a second time."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_node.peers import Peer
from dicom_node.store_scu import send
from tests.peers.orthanc import Orthanc
from tests.samples import instances
from tests.samples.command_line import run
from tests.samples.loopback_node import SHORT
from training.data.studies import find_studies

pytestmark = pytest.mark.system


@pytest.fixture
def pacs(
    peer: Callable[[str], str], tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Peer]:
    """An Orthanc that the configuration calls its PACS."""
    with Orthanc(tmp_path / "pacs", free_port(), free_port(), "PACS", program=peer("Orthanc")) as orthanc:
        monkeypatch.setenv("TWIN_SCANNER__PACS__PORT", str(orthanc.dicom_port))
        yield Peer("PACS", "127.0.0.1", orthanc.dicom_port)


def test_studies_are_listed_and_fetched_and_what_is_there_is_not_fetched_again(pacs: Peer, tmp_path: Path) -> None:
    files = instances.series(tmp_path / "ct", 3, StudyDate="20260102")
    files += instances.series(tmp_path / "mr", 1, study_uid="1.2.4", series_uid="1.2.4.1", Modality="MR")
    files += instances.series(tmp_path / "b", 2, study_uid="1.2.5", series_uid="1.2.5.1", StudyDate="20260301")
    send(files, pacs, calling_ae="CT", timeouts=SHORT)
    of_patient = ("pull", "--patient", instances.PATIENT_ID, "--out", "pulled", "--json")
    listed = run(tmp_path, *of_patient, "--dry-run")
    assert (listed.returncode, (tmp_path / "pulled").exists()) == (0, False)
    wanted = [(one["study_uid"], one["series"], one["present"]) for one in json.loads(listed.stdout)]
    assert wanted == [("1.2.3", {"1.2.3.1": 3}, 0), ("1.2.5", {"1.2.5.1": 2}, 0)], "a study without CT is none"
    assert run(tmp_path, "pull", "--study", "1.2.3", "--out", "pulled").returncode == 0
    again = run(tmp_path, *of_patient)
    assert [(one["series"], one["present"]) for one in json.loads(again.stdout)] == [({}, 3), ({"1.2.5.1": 2}, 0)]
    assert sorted(file.stem for file in (tmp_path / "pulled").glob("*/*/*.dcm")) == [
        *(f"1.2.3.1.{number}" for number in (1, 2, 3)),
        *(f"1.2.5.1.{number}" for number in (1, 2)),
    ]
    since = run(tmp_path, "pull", "--since", "2026-02-01", "--out", "pulled", "--json")
    assert [one["study_uid"] for one in json.loads(since.stdout)] == ["1.2.5"]
    for text in (listed.stderr, again.stdout, since.stderr):
        assert instances.PATIENT_ID not in text


def test_a_pull_that_says_not_what_it_wants_or_from_whom_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    assert "give --patient, --study" in run(tmp_path, "pull", "--out", "x").stderr
    other = run(tmp_path, "pull", "--study", "1.2", "--peer", "other")
    assert other.returncode == 2 and "no peer 'other'" in other.stderr and "such peers are pacs" in other.stderr
    wild = run(tmp_path, "pull", "--patient", "*")
    assert wild.returncode == 1
    monkeypatch.setenv("TWIN_SCANNER__PACS__PORT", str(free_port()))
    nobody = run(tmp_path, "pull", "--study", "1.2")
    assert nobody.returncode == 1 and "cannot be reached" in nobody.stderr and "Traceback" not in nobody.stderr


@pytest.fixture
def pulled_thorax(pacs: Peer, shared_data: Path, tmp_path: Path) -> Path:
    """The real PET/CT as Orthanc gave it back."""
    thorax = shared_data / "thorax_petct"
    files = [*sorted((thorax / "ct").glob("*")), *sorted((thorax / "pet_ac").glob("*"))]
    send(files, pacs, calling_ae="CT")
    pulled = run(tmp_path, "pull", "--since", "1950-01-01", "--out", "pulled", "--json")
    assert pulled.returncode == 0, pulled.stderr
    (study,) = json.loads(pulled.stdout)
    assert sum(study["series"].values()) == len(files)
    return tmp_path / "pulled"


def test_a_pulled_pet_ct_is_one_pair_for_prepare(pulled_thorax: Path) -> None:
    (study,) = find_studies(pulled_thorax)
    assert study.place.is_relative_to(pulled_thorax)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_prepare_reads_what_was_pulled(pulled_thorax: Path, tmp_path: Path) -> None:
    prepared = run(tmp_path, "prepare", "pulled", "--out", "store", timeout_s=1000)
    assert "1 studies, 0 refused" in prepared.stdout, prepared.stderr
