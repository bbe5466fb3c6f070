"""A FHIR server that fails in every way a hospital sees loses no record, doubles none, and rejects nobody's PET."""

import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pydicom
import pytest

from tests.fakes.scripted_fhir import MAINTENANCE, OUTCOME, Json, Sent, scripted_fhir
from tests.peers.scanner_process import ScannerProcess
from training.phantom.files import write_ct_dicom
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_record.embedded import EmbeddedStore
from twin_record.refusals import Conflict
from twin_record.update import TwinSite
from twin_scanner.dicom.district_measurements import QUANTITIES
from twin_scanner.imaging.district_labels import DISTRICT_NAMES

pytestmark = [pytest.mark.long, pytest.mark.system, pytest.mark.timeout(900)]

STUDIES: Final = 2
WAIT_S: Final = 300.0
TOKEN: Final = "s3cret-token"
SITE: Final = TwinSite(patient_identifier_system="urn:oid:2.999.1")


class FailingServer:
    """An R4 server, atomic and with a history, that fails as it is told."""

    def __init__(self, store: EmbeddedStore, released: threading.Event) -> None:
        self.fault = "hangs up"
        self.refused_patient = ""
        self._store = store
        self._released = released

    def __call__(self, sent: Sent) -> tuple[int, str] | None:
        if self.fault == "hangs up":
            return None
        if self.fault == "is silent":
            self._released.wait(30)
            return None
        answers: dict[str, tuple[int, str]] = {
            "answers 503": (503, ""),
            "answers 403": (403, json.dumps(OUTCOME)),
            "answers 302": (302, ""),
            "answers 404": (404, MAINTENANCE),
            "answers a page": (200, MAINTENANCE),
        }
        if self.fault in answers:
            return answers[self.fault]
        if self.fault == "wants a new token" and sent.headers["Authorization"] != f"Bearer {TOKEN}-2":
            return 401, ""
        status, document = self._executed(sent.body)
        text = json.dumps(document)
        if self.fault == "cuts its answers off":
            return status, text[: len(text) // 2]
        if self.fault == "damages its answers":
            return status, json.dumps({**document, "entry": [None, *document["entry"][1:]]})
        return status, text

    def _executed(self, bundle: Json) -> tuple[int, Json]:
        if bundle["type"] == "transaction" and self.refused_patient and self.refused_patient in json.dumps(bundle):
            return 422, OUTCOME
        try:
            return 200, self._store.exchange(bundle)
        except Conflict:
            return 412, OUTCOME


FAULTS: Final = {
    "hangs up": "cannot be reached",
    "is silent": "did not answer in time",
    "answers 503": "status 503",
    "answers 403": "rights of the token",
    "answers 302": "redirects to another address",
    "answers 404": "check twin.url",
    "answers a page": "sends no FHIR Bundle (status 200)",
    "cuts its answers off": "sends no FHIR Bundle (status 200)",
    "damages its answers": "answer is damaged",
    "wants a new token": "check the token",
}
"""Each way to fail, and what the operator reads of it."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with closing(EmbeddedStore(tmp_path / "server.sqlite", SITE)) as opened:
        yield opened


def write_small_ct(seed: int, folder: Path) -> tuple[Path, ...]:
    """Head and neck on a coarse grid."""
    options = PhantomOptions(spacing_mm=(10.0, 5.0, 5.0))
    ct = make_phantom(seed, options).ct
    depth, height, width = ct.geometry.shape
    head = ct.cropped((slice(depth - 26, depth), slice(0, height), slice(0, width)))
    return write_ct_dicom(head, folder, seed=seed, options=options)


def wait_for(what: str, found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not found():
        assert time.monotonic() < deadline, f"{what} did not come within {WAIT_S} s"
        time.sleep(0.2)


def states(scanner: ScannerProcess) -> list[str]:
    return sorted(job["state"] for job in scanner.jobs())


def test_a_server_that_fails_in_every_way_loses_and_doubles_no_record(
    store: EmbeddedStore, tmp_path: Path, free_port: Callable[[], int], peer: Callable[[str], str]
) -> None:
    released = threading.Event()
    server = FailingServer(store, released)
    token, received, pacs_port = tmp_path / "token", tmp_path / "pacs", free_port()
    token.write_text(f"{TOKEN}-1\n")
    received.mkdir()
    sources = [write_small_ct(seed, tmp_path / f"ct{seed}") for seed in range(STUDIES)]
    patients = [str(pydicom.dcmread(files[0]).PatientID) for files in sources]
    with (
        subprocess.Popen([peer("storescp"), "-od", str(received), str(pacs_port)]) as pacs,
        scripted_fhir(server) as (url, _),
        ScannerProcess(
            tmp_path / "scanner",
            node={"port": 0, "quiet_period_s": 1.0, "minimum_free_mb": 0},
            pacs={"ae_title": "PACS", "port": pacs_port, "confirm": "status"},
            retry={"first_delay_s": 0.2, "longest_delay_s": 1.0},
            scanner={"accept_synthetic_ct": True},
            twin={
                "url": url,
                "token_file": str(token),
                "timeout_s": 1.0,
                "patient_identifier_system": SITE.patient_identifier_system,
                "unknown_patient": "create",
            },
        ) as scanner,
    ):
        try:
            port = scanner.start()
            for files in sources:
                send = [peer("storescu"), "-aec", "TWINSCANNER", "127.0.0.1", str(port), *map(str, files)]
                subprocess.run(send, check=True, timeout=120, env={"TCP_NODELAY": "1"})
            for fault, sentence in FAULTS.items():
                before = len(scanner.log())
                server.fault = fault
                wait_for(sentence, lambda said=sentence, since=before: said in scanner.log()[since:])  # type: ignore[misc]
                assert store_is_empty(store, patients), fault
                assert not {"rejected", "failed", "held"} & set(states(scanner)), fault
            released.set()
            server.refused_patient = patients[0]
            token.write_text(f"{TOKEN}-2\n")
            wait_for("one record and one that is held", lambda: states(scanner) == ["done", "held"])
            (held,) = [job for job in scanner.jobs() if job["state"] == "held"]
            shown = json.loads(scanner.ask("jobs", "show", held["job_id"], "--json"))
            assert any("status 422" in delivery["reason"] for delivery in shown["deliveries"])
            server.refused_patient = ""
            scanner.ask("jobs", "release", held["job_id"])
            scanner.wait_until_done(STUDIES, WAIT_S)
            assert scanner.stop() == 0
        finally:
            released.set()
            pacs.kill()
    for patient_id in patients:
        kinds = Counter(record_of(store, patient_id))
        assert kinds.pop(("Observation", 1)) in (len(QUANTITIES) * shown for shown in range(1, len(DISTRICT_NAMES) + 1))
        assert kinds == Counter((kind, 1) for kind in ("Patient", "List", "ImagingStudy", "Provenance", "Device"))
    assert TOKEN not in scanner.log()
    for patient_id in patients:
        assert patient_id not in scanner.log()


def store_is_empty(store: EmbeddedStore, patients: list[str]) -> bool:
    """Whether nothing was recorded of anybody."""
    urls = [f"Patient?identifier={SITE.patient_identifier_system}|{patient_id}" for patient_id in patients]
    batch = {"type": "batch", "entry": [{"request": {"method": "GET", "url": url}} for url in urls]}
    return not any(answer["resource"]["entry"] for answer in store.exchange(batch)["entry"])


def record_of(store: EmbeddedStore, patient_id: str) -> list[tuple[Any, int]]:
    """The kinds of the patient's resources, and how many versions each has."""
    found = [entry["resource"] for entry in store.patient_record(patient_id, None)["entry"]]
    return [(one["resourceType"], len(store.history(one["resourceType"], one["id"]))) for one in found]
