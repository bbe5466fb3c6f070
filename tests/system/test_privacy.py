"""A known patient is fed through every path of a real `serve`, and comes out nowhere that is not for patients' data.

Oracle: the four values themselves. They are searched for in what the log, the metrics, the health addresses, the pages
without login, the addresses of all pages, the audit messages, the events, the support bundle and the commands say.
"""

import base64
import json
import re
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt

from dicom_node.peers import Peer
from dicom_node.store_scu import send
from tests.fakes.scripted_fhir import Sent, scripted_fhir
from tests.fakes.scripted_stow import ScriptedStow
from tests.fakes.syslog_server import SyslogListener
from tests.peers.orthanc import Orthanc
from tests.peers.scanner_process import ScannerProcess
from training.phantom.files import write_ct_dicom
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_record.embedded import EmbeddedStore
from twin_record.refusals import Conflict
from twin_record.update import TwinSite

pytestmark = [pytest.mark.long, pytest.mark.system, pytest.mark.timeout(900)]

PATIENT: Final = {
    "PatientName": "ZQXFAMILY^ZQXGIVEN",
    "PatientID": "MRN-ZQX-900417",
    "PatientBirthDate": "19310207",
    "AccessionNumber": "ZQXACC5511",
    "ReferringPhysicianName": "ZQXREFERRER^R",
}
"""Nobody: each value is unmistakable, wherever it stands."""
IDENTITY: Final = ("zqxfamily", "zqxgiven", "zqx-900417", "zqx900417", "19310207", "1931-02-07", "zqxreferrer")
"""What names the patient, in the notations of DICOM and FHIR."""
ANYTHING: Final = (*IDENTITY, "zqxacc5511", "19620811", "1962-08-11")
"""And the accession number, which `status` and `jobs` show (docs/status.md), and the other birth date."""
OTHER_BIRTH_DATE: Final = "19620811"
QUOTED: Final = " ".join(PATIENT.values())
"""What a talkative server says of whom it refuses."""
SITE: Final = TwinSite(patient_identifier_system="urn:oid:2.999.1")
PASSWORD: Final = "correct horse battery"
WAIT_S: Final = 240.0
PAGES: Final = (
    *("/", "/jobs", "/arriving", "/destinations", "/models", "/retraining", "/drift", "/api/jobs", "/openapi.json"),
    *("/login", "/metrics", "/healthz", "/readyz", "/fhir/metadata", "/fhir/Patient", "/nowhere"),
)


class TalkativeServer:
    """An R4 server that refuses, or fails, and quotes the patient each time."""

    def __init__(self, store: EmbeddedStore) -> None:
        self.mood = "works"
        self._store = store

    def __call__(self, sent: Sent) -> tuple[int, str] | None:
        if self.mood == "fails":
            return 500, f"<html>{QUOTED}</html>"
        if self.mood == "refuses" and sent.body["type"] == "transaction":
            issue = {"severity": "error", "code": "invalid", "diagnostics": QUOTED, "details": {"text": QUOTED}}
            return 422, json.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
        try:
            return 200, json.dumps(self._store.exchange(sent.body))
        except Conflict:
            return 412, ""


@dataclass
class Said:
    """Where something was said, and what."""

    texts: dict[str, str] = field(default_factory=dict)

    def add(self, where: str, text: str) -> None:
        """Keep it, with what is written there in base64 too."""
        decoded = [_decoded(part) for part in re.findall(r"[A-Za-z0-9+/]{12,}={0,2}", text)]
        self.texts[where] = "\n".join([self.texts.get(where, ""), text, *decoded])

    def leaks(self, values: tuple[str, ...]) -> list[str]:
        """Where which of these values stands, and around what."""
        return [
            f"{where}: {text[max(0, at - 120) : at + 60]!r}"
            for where, text in self.texts.items()
            for value in values
            if (at := text.lower().find(value)) >= 0
        ]


def _decoded(part: str) -> str:
    try:
        return base64.b64decode(part, validate=True).decode("utf-8")
    except ValueError:
        return ""


@dataclass
class Hospital:
    """The scanner, its peers, and what each of them heard."""

    scanner: ScannerProcess
    server: TalkativeServer
    fhir: list[Sent]
    web: ScriptedStow
    syslog: SyslogListener
    pacs: Orthanc
    console_url: str
    port: int = 0

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Another verb on the same configuration."""
        command = [sys.executable, "-m", "twin_scanner.cli", *words, "--config", str(self.scanner.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def push(self, files: list[Path]) -> None:
        """C-STORE, as a modality does."""
        send(files, Peer("TWINSCANNER", "127.0.0.1", self.port), calling_ae="CT01")

    def work(self) -> dict[str, Any]:
        """`status --json`."""
        answer: dict[str, Any] = json.loads(self.run("status", "--json", "--since", "2020-01-01").stdout)
        return answer

    def change_ledger(self, statement: str, value: str) -> None:
        """Damage the ledger, or mend it."""
        with closing(sqlite3.connect(self.scanner.storage / "ledger.sqlite", timeout=60)) as ledger, ledger:
            assert ledger.execute(statement, (value,)).rowcount == 1

    def wait_for(self, what: str, found: Callable[[dict[str, Any]], bool]) -> None:
        """Return when `status` shows it."""
        deadline = time.monotonic() + WAIT_S
        while not found(self.work()):
            assert time.monotonic() < deadline, f"{what} did not come: {self.work()} {self.scanner.log()[-3000:]}"
            time.sleep(0.5)


@pytest.fixture
def rude_pacs() -> Iterator[int]:
    """The port of a PACS that refuses every instance and says of whom it is."""

    def refuse(_event: evt.Event) -> Dataset:
        status = Dataset()
        status.Status, status.ErrorComment = 0xC001, QUOTED[:64]
        return status

    application = AE("RUDE")
    application.supported_contexts = AllStoragePresentationContexts
    server = application.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, refuse)])
    yield server.server_address[1]
    server.shutdown()


@pytest.fixture
def hospital(
    tmp_path: Path, free_port: Callable[[], int], peer: Callable[[str], str], rude_pacs: int
) -> Iterator[Hospital]:
    peer("Orthanc")
    node, console, pacs_port, rest = (free_port() for _ in range(4))
    web = ScriptedStow()
    with ExitStack() as stack:
        store = stack.enter_context(closing(EmbeddedStore(tmp_path / "server.sqlite", SITE)))
        server = TalkativeServer(store)
        fhir_url, fhir = stack.enter_context(scripted_fhir(server))
        web_url = stack.enter_context(web.listening())
        syslog = stack.enter_context(closing(SyslogListener()))
        modality = {"twin-scanner": ("TWINSCANNER", "127.0.0.1", node)}
        pacs = stack.enter_context(Orthanc(tmp_path / "pacs", pacs_port, rest, "PACS", modality))
        optional = {"required": False, "confirm": "status"}
        scanner = ScannerProcess(
            tmp_path / "scanner",
            node={
                "port": node,
                "quiet_period_s": 0.5,
                "longest_wait_s": 2.0,
                "incomplete": "go on",
                "minimum_free_mb": 0,
            },
            peers=[
                {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs_port},
                {"name": "dead", "ae_title": "DEAD", "host": "127.0.0.1", "port": 1},
                {"name": "rude", "ae_title": "RUDE", "host": "127.0.0.1", "port": rude_pacs},
            ],
            destinations=[
                {"name": "archive", "peer": "pacs"},
                {"name": "dead", "peer": "dead", **optional},
                {"name": "rude", "peer": "rude", **optional},
                {"name": "web", "url": web_url, **optional},
            ],
            retry={"first_delay_s": 0.5, "longest_delay_s": 1.0},
            scanner={"accept_synthetic_ct": True},
            twin={
                "url": fhir_url,
                "patient_identifier_system": SITE.patient_identifier_system,
                "unknown_patient": "create",
                "timeout_s": 5.0,
            },
            console={"port": console},
            audit={"host": "127.0.0.1", "port": syslog.port, "transport": "tcp"},
            log={"level": "DEBUG"},
        )
        stack.enter_context(scanner)
        made = Hospital(scanner, server, fhir, web, syslog, pacs, f"http://127.0.0.1:{console}", node)
        scanner.start()
        (tmp_path / "password").write_text(PASSWORD)
        added = made.run("users", "add", "anna", "--role", "admin", "--password-file", str(tmp_path / "password"))
        assert added.returncode == 0, added.stderr
        yield made


def ct_of_the_patient(seed: int, folder: Path, **attributes: str) -> list[Path]:
    """Head and neck on a coarse grid, of the patient."""
    options = PhantomOptions(spacing_mm=(10.0, 5.0, 5.0))
    ct = make_phantom(seed, options).ct
    depth, height, width = ct.geometry.shape
    head = ct.cropped((slice(depth - 26, depth), slice(0, height), slice(0, width)))
    files = sorted(write_ct_dicom(head, folder, seed=seed, options=options))
    for file in files:
        image = pydicom.dcmread(file)
        for keyword, value in {**PATIENT, **attributes}.items():
            setattr(image, keyword, value)
        image.save_as(file)
    return files


def standing(work: dict[str, Any], name: str, count: int) -> bool:
    return len(work[name]) >= count


def feed(hospital: Hospital, folder: Path, said: Said) -> None:
    """Every path: done with destinations that fail, held, rejected, two contents, refused, and an outage."""
    files = ct_of_the_patient(1, folder / "ct1")
    hospital.web.script = [(400, {"message": QUOTED}, {"Warning": f'299 web "{QUOTED}"'}) for _ in range(1000)]
    hospital.push(files)
    hospital.wait_for("the first PET", lambda work: standing(work, "done", 1))

    hospital.push(ct_of_the_patient(2, folder / "ct2", PatientBirthDate=OTHER_BIRTH_DATE))
    hospital.wait_for("another birth date", lambda work: standing(work, "held", 1))

    gap = ct_of_the_patient(3, folder / "ct3")
    hospital.push(gap[:8] + gap[12:])
    hospital.wait_for("a CT with a gap", lambda work: standing(work, "rejected", 1))

    changed = pydicom.dcmread(files[0])
    changed.PatientComments = QUOTED
    changed.save_as(files[0])
    hospital.push(files[:1])
    hospital.wait_for("an instance with two contents", lambda work: bool(work["kept_apart"]))

    hospital.server.mood = "refuses"
    hospital.push(ct_of_the_patient(4, folder / "ct4"))
    hospital.wait_for("a refused record", lambda work: standing(work, "held", 2))

    hospital.server.mood = "fails"
    hospital.push(ct_of_the_patient(5, folder / "ct5"))
    hospital.wait_for("a FHIR server that fails", lambda work: any("500" in one["reason"] for one in work["waiting"]))

    send(ct_of_the_patient(6, folder / "ct6"), Peer("PACS", "127.0.0.1", hospital.pacs.dicom_port), calling_ae="CT01")
    pulled = hospital.run("pull", "--patient", PATIENT["PatientID"], "--out", str(folder / "pulled"))
    assert pulled.returncode == 0, pulled.stderr
    assert list((folder / "pulled").rglob("*.dcm"))
    said.add("pull", pulled.stdout + pulled.stderr)
    failed = hospital.run("pull", "--patient", PATIENT["PatientID"], "--peer", "dead")
    assert failed.returncode == 1
    said.add("pull of a PACS that is dead", failed.stdout + failed.stderr)


def look(hospital: Hospital, said: Said) -> None:
    """Every page without a login, then every page that a link leads to, and the answers to what is wrong."""
    html = {"accept": "text/html"}
    with httpx.Client(base_url=hospital.console_url, timeout=60) as client:
        for path in (*PAGES, f"/jobs/{PATIENT['PatientID']}"):
            for accept in ("text/html", "application/json"):
                answer = client.get(path, headers={"accept": accept})
                said.add("pages without login", f"{answer.headers} {answer.text}".replace(PATIENT["PatientID"], ""))
        refused = client.get(f"/fhir/Patient?identifier={PATIENT['PatientID']}")
        assert refused.status_code == 401
        said.add("pages without login", refused.text)
        token = client.get("/login").text.split('name="csrf_token" value="')[1].split('"')[0]
        client.post("/login", data={"csrf_token": token, "name": PATIENT["PatientID"], "password": QUOTED})
        client.post("/login", data={"csrf_token": token, "name": "anna", "password": PASSWORD})
        assert client.get("/jobs", headers=html).status_code == 200, "anna is in"
        pages, seen = list(PAGES), set[str]()
        while pages:
            path = pages.pop()
            if path in seen or "logout" in path:
                continue
            seen.add(path)
            answer = client.get(path, headers=html)
            if path in ("/metrics", "/healthz", "/readyz"):
                assert answer.status_code in (200, 503)
                said.add(path, answer.text)
            found = re.findall(r'(?:href|src|action)="(/[^"]*)"', answer.text)
            said.add("addresses", "\n".join([path, str(answer.headers), *found]))
            pages += [one for one in found if not one.endswith(("/retry", "/release", "/echo", "/logout"))]
        assert {"/jobs", "/arriving"} <= seen
        assert any("/slices" in path for path in seen)
        assert any(path.startswith("/twin/") for path in seen)
        errors(hospital, client, said)


def errors(hospital: Hospital, client: httpx.Client, said: Said) -> None:
    """404 and 422 of what is asked for, and a 500 whose cause quotes the patient."""
    for path in ("/jobs/x", "/twin/x", f"/jobs/{'0' * 32}", f"/jobs/{'0' * 32}/slices", "/jobs?state=x", "/fhir/x?y=z"):
        answer = client.get(path, headers={"accept": "text/html"})
        assert 400 <= answer.status_code < 500, path
        said.add("errors of the console", answer.text)
    for path in (f"/jobs/{PATIENT['PatientID']}", f"/jobs?since={PATIENT['PatientName']}"):
        assert 400 <= client.get(path).status_code < 500, path
    hospital.change_ledger(
        "INSERT INTO runs (name, node, state, started_at) VALUES ('retrain', 'n', 'ended', ?)", QUOTED
    )
    answer = client.get("/retraining", headers={"accept": "text/html"})
    hospital.change_ledger("DELETE FROM runs WHERE started_at = ?", QUOTED)
    assert answer.status_code == 500, "a moment that is none fails the page, and the error quotes it"
    said.add("errors of the console", answer.text)


def ask(hospital: Hospital, folder: Path, said: Said) -> None:
    """What the commands say, and the support bundle."""
    commands = {
        "doctor": (["doctor"], ["doctor", "--json"]),
        "audit": (["audit", "show"], ["audit", "show", "--json"], ["audit", "verify"]),
        "jobs": (["status"], ["status", "--json"], ["jobs", "list"], ["jobs", "list", "--json"]),
    }
    for where, lines in commands.items():
        for words in lines:
            done = hospital.run(*words)
            assert done.stdout, f"{words} {done.stderr}"
            said.add(where, done.stdout + done.stderr)
    for job in hospital.scanner.jobs():
        for form in ([], ["--json"]):
            said.add("jobs", hospital.run("jobs", "show", job["job_id"], *form).stdout)
    bundle = folder / "support.zip"
    written = hospital.run("support-bundle", "--out", str(bundle), "--log", str(hospital.scanner.folder / "serve.log"))
    assert written.returncode == 0, written.stderr
    said.add("support bundle", written.stdout + written.stderr)
    with zipfile.ZipFile(bundle) as opened:
        names = opened.namelist()
        assert {"log.json", "events.json", "counts.json", "configuration.json", "findings.json"} <= set(names)
        for name in names:
            said.add("support bundle", name + opened.read(name).decode("utf-8"))


def command_lines(pid: int) -> str:
    """Of a process and of all that it started: every user of the machine reads them."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    ours = {pid}
    while more := {child for child, parent in parents.items() if parent in ours} - ours:
        ours |= more
    assert len(ours) > 1, "a translation runs in a process of its own"
    lines = [Path("/proc", str(one), "cmdline") for one in ours]
    return "\n".join(line.read_bytes().decode().replace("\0", " ") for line in lines if line.exists())


def test_a_known_patient_comes_out_nowhere(hospital: Hospital, tmp_path: Path) -> None:
    said = Said()
    feed(hospital, tmp_path, said)
    assert hospital.scanner.process is not None
    said.add("command lines", command_lines(hospital.scanner.process.pid))
    look(hospital, said)
    ask(hospital, tmp_path, said)
    stored = hospital.scanner.storage
    said.add("names of files", "\n".join(str(path.relative_to(stored)) for path in stored.rglob("*")))
    with closing(sqlite3.connect(stored / "ledger.sqlite", timeout=60)) as ledger:
        said.add("events", "\n".join(map(str, ledger.execute("SELECT * FROM events"))))
    assert hospital.scanner.stop() == 0
    hospital.syslog.wait_for(20)
    said.add("audit messages", "\n".join(message.decode("utf-8") for message in hospital.syslog.messages))
    assert "the console failed" in hospital.scanner.log(), "the error of the page is in the log"
    said.add("log", hospital.scanner.log())
    said.add("addresses at the FHIR server", "\n".join(f"{sent.path} {sent.headers}" for sent in hospital.fhir))
    said.add("addresses at the DICOMweb server", "\n".join(hospital.web.paths))
    assert hospital.web.posts
    assert hospital.fhir

    study_uids = {str(pydicom.dcmread(next((tmp_path / f"ct{n}").iterdir())).StudyInstanceUID) for n in (1, 2, 3, 4, 5)}
    assert all(uid in said.texts["jobs"] for uid in study_uids)
    assert not [uid for uid in study_uids if uid in said.texts["audit messages"]], "docs/security.md: rows, no study"
    jobs = said.texts.pop("jobs")
    assert PATIENT["AccessionNumber"] in jobs, "docs/status.md says that it is shown"
    assert Said({"jobs": jobs}).leaks(IDENTITY) == []
    assert said.leaks(ANYTHING) == []


def test_the_search_finds_what_is_there() -> None:
    said = Said()
    said.add("plain", "of Zqxfamily")
    said.add("encoded", base64.b64encode(PATIENT["PatientID"].encode()).decode())
    assert [leak.split(":")[0] for leak in said.leaks(IDENTITY)] == ["plain", "encoded"]
