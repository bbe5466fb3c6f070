"""kill -9 at random moments from receipt to the twin's update: nothing acknowledged is lost, nothing delivered doubles.

The oracles stand outside the scanner: the sender's own list of 0x0000 answers against the spool, byte for byte;
Orthanc's change log; the R4 server's history.
"""

import gc
import json
import os
import random
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, build_context

from tests.conftest import missing
from tests.peers.fhir_server import running_server, server_folder
from tests.peers.orthanc import Orthanc
from tests.peers.scanner_process import ScannerProcess
from tests.samples.head_ct import write_head_ct
from tests.samples.instances import data_set_bytes

pytestmark = [
    pytest.mark.long,
    pytest.mark.system,
    pytest.mark.timeout(1500),
    # pynetdicom leaves a client's socket open where nobody listens, which is what a killed scanner is for a while.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KILLS = int(os.environ.get("TWIN_SCANNER_KILLS", "16"))
STUDIES = 6
LONGEST_LIFE_S = 9.0
"""Long enough for a start, a warm-up and a whole job, so that every step is hit."""


class Modality:
    """A sender that goes on until each instance was answered 0x0000, and keeps the list of what was."""

    def __init__(self, files: list[Path], port: int) -> None:
        self._files = files
        self._port = port
        self._stop = threading.Event()
        self.acknowledged: dict[Path, bytes] = {}
        self._thread = threading.Thread(target=self._run, name="modality")

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._thread.join(600)
        assert not self._thread.is_alive()

    def abandon(self) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        while len(self.acknowledged) < len(self._files) and not self._stop.is_set():
            self._send_what_is_left()
            self._stop.wait(0.3)

    def _send_what_is_left(self) -> None:
        if not self._somebody_listens():
            return
        entity = AE("MODALITY")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 5
        meta = read_file_meta_info(self._files[0])
        context = build_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", self._port, [context], ae_title="TWINSCANNER")
        if not association.is_established:
            return
        for file in self._files:
            if file in self.acknowledged:
                continue
            if self._stop.is_set() or not association.is_established:
                break
            status = association.send_c_store(file)
            if status.get("Status") != 0x0000:
                break
            self.acknowledged[file] = data_set_bytes(file)
            time.sleep(0.02)
        if association.is_established:
            association.release()
        else:
            association.kill()

    def _somebody_listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True


@pytest.fixture
def node_port(free_port: Callable[[], int]) -> int:
    """Where the scanner listens: for the modality, and for Orthanc's reports on storage commitment."""
    return free_port()


@pytest.fixture
def orthanc(
    tmp_path: Path, free_port: Callable[[], int], node_port: int, peer: Callable[[str], str]
) -> Iterator[Orthanc]:
    peer("Orthanc")
    modalities = {"scanner": ("TWINSCANNER", "127.0.0.1", node_port)}
    with Orthanc(tmp_path / "orthanc", free_port(), free_port(), "PACS", modalities) as running:
        yield running


@pytest.fixture
def fhir_url() -> Iterator[str]:
    if server_folder() is None:
        missing("the FHIR test server (npm install in tests/peers/fhir-r4-server)")
    with running_server() as url:
        yield url


@pytest.fixture
def scanner(tmp_path: Path, orthanc: Orthanc, fhir_url: str, node_port: int) -> Iterator[ScannerProcess]:
    """Its deliveries are confirmed by storage commitment, so that the kills hit that too."""
    process = ScannerProcess(
        tmp_path / "scanner",
        node={
            "port": node_port,
            "quiet_period_s": 1.5,
            "longest_wait_s": 1.5,
            "incomplete": "go on",  # this PACS never holds the CT
            "minimum_free_mb": 0,
        },
        peers=[{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": orthanc.dicom_port}],
        destinations=[{"name": "pacs", "peer": "pacs", "confirm": "commitment", "commitment_timeout_s": 20.0}],
        retry={"first_delay_s": 0.5, "longest_delay_s": 2.0},
        scanner={"accept_synthetic_ct": True},
        twin={"url": fhir_url, "patient_identifier_system": "urn:oid:2.999.1", "unknown_patient": "create"},
    )
    with process:
        yield process


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The instances of several small whole-body CTs, a patient each."""
    folder = tmp_path_factory.mktemp("sources")
    return [file for seed in range(STUDIES) for file in write_head_ct(seed, folder / str(seed))]


def test_kill_9_at_random_moments_loses_nothing_and_doubles_nothing(
    scanner: ScannerProcess, orthanc: Orthanc, fhir_url: str, sources: list[Path]
) -> None:
    moments = random.Random(20260301)
    port = scanner.start()
    modality = Modality(sources, port)
    modality.start()
    states: list[str] = []
    try:
        for _ in range(KILLS):
            time.sleep(moments.uniform(0.2, LONGEST_LIFE_S))
            scanner.kill()
            everything_acknowledged_is_in_the_spool(scanner, dict(modality.acknowledged))
            states += [job["state"] for job in scanner.jobs()] or ["receiving"]
            scanner.start()
        modality.finish()
        jobs = scanner.wait_until_done(STUDIES, 300)
    finally:
        modality.abandon()
        gc.collect()
    print("states seen at the kills:", {state: states.count(state) for state in sorted(set(states))})
    everything_acknowledged_is_in_the_spool(scanner, modality.acknowledged)
    assert len(modality.acknowledged) == len(sources)
    done = [job for job in jobs if job["state"] == "done"]
    assert len({job["study_uid"] for job in done}) == STUDIES
    all_that_was_made_is_in_the_pacs_once(orthanc, scanner, done)
    every_resource_is_on_the_server_once(fhir_url, done)


def everything_acknowledged_is_in_the_spool(scanner: ScannerProcess, acknowledged: dict[Path, bytes]) -> None:
    """Byte for byte what the modality was told is safe."""
    for file, sent in acknowledged.items():
        header = pydicom.dcmread(file, stop_before_pixels=True)
        parts = (header.StudyInstanceUID, header.SeriesInstanceUID, f"{header.SOPInstanceUID}.dcm")
        assert data_set_bytes(scanner.storage.joinpath("spool", *parts)) == sent


def all_that_was_made_is_in_the_pacs_once(
    orthanc: Orthanc, scanner: ScannerProcess, done: list[dict[str, Any]]
) -> None:
    """Orthanc's change log names each instance once, and its content is the one that was rendered."""
    new = [change["ID"] for change in orthanc.changes("NewInstance")]
    assert len(new) == len(set(new))
    held = {}
    for identity in new:
        held[orthanc.rest(f"/instances/{identity}/simplified-tags")["SOPInstanceUID"]] = identity
    rendered = {}
    for job in done:
        folder = scanner.storage / "jobs" / job["job_id"] / "result"
        report = json.loads((folder / "report.json").read_text())
        for name in (*report["pet_files"], *(companion["file"] for companion in report["companions"])):
            rendered[str(pydicom.dcmread(folder / name, stop_before_pixels=True).SOPInstanceUID)] = folder / name
    series = orthanc.rest("/series?expand")
    delivered = {str(pydicom.dcmread(file, stop_before_pixels=True).SeriesInstanceUID) for file in rendered.values()}
    assert {job["pet_series_uid"] for job in done} < delivered
    assert {one["MainDicomTags"]["SeriesInstanceUID"] for one in series} == delivered
    assert held.keys() == rendered.keys()
    for sop_instance_uid, file in rendered.items():
        assert data_set_bytes(orthanc.rest_bytes(f"/instances/{held[sop_instance_uid]}/file")) == data_set_bytes(file)


def every_resource_is_on_the_server_once(fhir_url: str, done: list[dict[str, Any]]) -> None:
    """One Patient, ImagingStudy, List and Provenance a study, one Device in all: each with one version."""
    expected = {"Patient": STUDIES, "ImagingStudy": STUDIES, "List": STUDIES, "Provenance": len(done), "Device": 1}
    for kind, count in expected.items():
        resources = fetch(f"{fhir_url}/{kind}?_count=100")
        assert len(resources) == count, kind
        for resource in resources:
            assert len(fetch(f"{fhir_url}/{kind}/{resource['id']}/_history")) == 1, kind
    studies = fetch(f"{fhir_url}/ImagingStudy?_count=100")
    pets = [series["uid"] for study in studies for series in study["series"] if series["modality"]["code"] == "PT"]
    assert sorted(pets) == sorted(job["pet_series_uid"] for job in done)


def fetch(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return [entry["resource"] for entry in json.load(answer).get("entry", [])]
