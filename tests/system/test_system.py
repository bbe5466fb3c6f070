"""The whole way on a real patient: storescu, Orthanc's auto-routing, the scanner, Orthanc again, and an R4 server."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.conftest import missing
from tests.peers.check_dicom import errors_in
from tests.peers.fhir_server import running_server, server_folder
from tests.peers.orthanc import Orthanc
from tests.peers.scanner_process import ScannerProcess

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(600)]


@dataclass
class Hospital:
    """A PACS, a FHIR server and the scanner, wired as in deploy/."""

    pacs: Orthanc
    fhir_url: str
    scanner: ScannerProcess
    node_port: int

    def fhir(self, query: str) -> list[dict[str, Any]]:
        """The resources that a search finds."""
        with urllib.request.urlopen(f"{self.fhir_url}/{query}", timeout=30) as answer:
            return [entry["resource"] for entry in json.load(answer).get("entry", [])]

    def series(self, study_uid: str, modality: str) -> list[dict[str, Any]]:
        """The study's series of one modality in the PACS."""
        return self.pacs.find("Series", {"StudyInstanceUID": study_uid, "Modality": modality})


@pytest.fixture
def hospital(
    project: Path, tmp_path: Path, free_port: Callable[[], int], peer: Callable[[str], str]
) -> Iterator[Hospital]:
    peer("Orthanc")
    if server_folder() is None:
        missing("the FHIR test server (npm install in tests/peers/fhir-r4-server)")
    node_port, dicom_port, http_port = free_port(), free_port(), free_port()
    pacs = Orthanc(
        tmp_path / "orthanc",
        dicom_port,
        http_port,
        "PACS",
        {"twin-scanner": ("TWINSCANNER", "127.0.0.1", node_port)},
        [project / "deploy" / "orthanc" / "autoroute.lua"],
    )
    with running_server() as fhir_url, pacs:
        scanner = ScannerProcess(
            tmp_path / "scanner",
            node={"port": node_port, "quiet_period_s": 3, "open_to_loopback": False, "minimum_free_mb": 0},
            pacs={"ae_title": "PACS", "port": dicom_port},
            twin={
                "url": fhir_url,
                "zone": "America/New_York",
                "patient_identifier_system": "urn:oid:2.999.1",
                "unknown_patient": "create",
            },
        )
        with scanner:
            scanner.start()
            yield Hospital(pacs, fhir_url, scanner, node_port)


def modality_sends(storescu: str, folder: Path, port: int) -> None:
    """dcmtk's storescu as the CT scanner."""
    command = [
        storescu,
        "-aet",
        "CT01",
        "-aec",
        "PACS",
        "--propose-jls-lossless",
        "+sd",
        "127.0.0.1",
        str(port),
        str(folder),
    ]
    subprocess.run(command, check=True, env=os.environ | {"TCP_NODELAY": "1"}, timeout=120)


def wait_for(what: str, found: Callable[[], bool], timeout_s: float = 240.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not found():
        assert time.monotonic() < deadline, f"{what} did not come within {timeout_s} s"
        time.sleep(0.5)


def fetched(hospital: Hospital, series: dict[str, Any], folder: Path) -> list[Path]:
    """The series' files as the PACS gives them out."""
    folder.mkdir()
    files = []
    for instance in series["Instances"]:
        files.append(folder / f"{instance}.dcm")
        files[-1].write_bytes(hospital.pacs.rest_bytes(f"/instances/{instance}/file"))
    return files


def test_a_ct_in_the_pacs_comes_back_as_a_pet_of_the_same_study_and_the_twin_knows_it(
    hospital: Hospital, project: Path, shared_data: Path, tmp_path: Path, peer: Callable[[str], str]
) -> None:
    source = shared_data / "thorax_petct" / "ct"
    ct = pydicom.dcmread(next(source.glob("*.dcm")), stop_before_pixels=True)
    study_uid = str(ct.StudyInstanceUID)
    modality_sends(peer("storescu"), source, hospital.pacs.dicom_port)
    wait_for("the PET series", lambda: bool(hospital.series(study_uid, "PT")))
    hospital.scanner.wait_until_done(1, 240.0)

    (pet_series,) = hospital.series(study_uid, "PT")
    files = fetched(hospital, pet_series, tmp_path / "pet")
    peer("dciodvfy")
    assert errors_in([tmp_path / "pet"], synthetic=True) == []
    beside = {modality: hospital.series(study_uid, modality) for modality in ("SEG", "SR", "OT", "KO")}
    made = [fetched(hospital, series, tmp_path / modality)[0] for modality, (series,) in beside.items()]
    assert errors_in(made) == []
    pet = pydicom.dcmread(files[0], stop_before_pixels=True)
    assert len(files) == pet.NumberOfSlices
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "PatientBirthDate"):
        assert pet[keyword].value == ct[keyword].value

    (study,) = hospital.fhir(f"ImagingStudy?identifier=urn:dicom:uid|urn:oid:{study_uid}")
    assert {series["uid"]: series["modality"]["code"] for series in study["series"]} == {
        str(ct.SeriesInstanceUID): "CT",
        str(pet.SeriesInstanceUID): "PT",
        **{str(pydicom.dcmread(file).SeriesInstanceUID): modality for modality, file in zip(beside, made, strict=True)},
    }
    (patient,) = hospital.fhir("Patient")
    assert study["subject"]["reference"] == f"Patient/{patient['id']}"
    assert patient["identifier"][0]["value"] == str(ct.PatientID)
    (record,) = hospital.fhir("List")
    assert record["subject"]["reference"] == f"Patient/{patient['id']}"
    assert f"ImagingStudy/{study['id']}" in json.dumps(record)

    it_all_happened_once(hospital, study_uid, len(files))
    own_output_is_dropped(hospital, [pet_series["ID"], *(series["ID"] for (series,) in beside.values())])
    assert hospital.scanner.stop() == 0
    log = hospital.scanner.log()
    assert str(ct.PatientID) not in log
    assert str(ct.PatientName) not in log


def it_all_happened_once(hospital: Hospital, study_uid: str, pet_count: int) -> None:
    """The PACS heard of each PET instance, and of each companion, once, however often it was sent."""
    new = [change["ID"] for change in hospital.pacs.changes("NewInstance")]
    pets = {i for series in hospital.series(study_uid, "PT") for i in series["Instances"]}
    assert sum(identity in pets for identity in new) == pet_count == len(pets)
    for modality in ("SEG", "SR", "OT", "KO"):
        ((instance,),) = (series["Instances"] for series in hospital.series(study_uid, modality))
        assert new.count(instance) == 1


def own_output_is_dropped(hospital: Hospital, series_ids: list[str]) -> None:
    """The PACS routes our own series back to us: acknowledged, dropped, and no new job."""
    answer = hospital.pacs.rest("/modalities/twin-scanner/store", {"Resources": series_ids, "Synchronous": True})
    assert answer["FailedInstancesCount"] == 0
    assert answer["InstancesCount"] > 0
    (job,) = hospital.scanner.jobs()
    spooled = list((hospital.scanner.storage / "spool").rglob("*.dcm"))
    assert len(spooled) == job["instance_count"]
