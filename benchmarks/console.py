"""How long a person waits for each page of the console with 100,000 jobs in the ledger, while a CT is translated.

The console is the verb ``console`` in a process of its own; the load is the verb ``translate``, again and again.
"""

import hashlib
import json
import math
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import sqlalchemy as sa

from benchmarks.figures import Figure, at_most
from benchmarks.latency import SEED, TRUNK
from benchmarks.ledger import NODE, filled
from benchmarks.twin import STUDIES, updates
from training.phantom.files import write_ct_dicom
from training.phantom.phantom import make_phantom
from twin_record.embedded import EmbeddedStore
from twin_scanner.app import twin_site
from twin_scanner.console.access.control import SESSION
from twin_scanner.console.access.roles import Role
from twin_scanner.console.access.sessions import Lifetime, Sessions
from twin_scanner.progress import Progress
from twin_scanner.render.report import REPORT
from twin_scanner.service.ledger import Arrival, KeptUpdate, Ledger, NewJob, StudyFacts, utc_now
from twin_scanner.service.ledger.columns import METADATA
from twin_scanner.settings import Folders, Settings

NAME: Final = "console"
JOBS: Final = 100_000
RESULTS: Final = 2000
"""Of so many of the newest jobs the report is kept here; no page reads those of more."""
PATIENTS: Final = 3
TURNS: Final = 40
PERCENT: Final = 95
GOAL_MS: Final = 100.0
SHORT: Final = replace(TRUNK, field_of_view=(1100.0, 1280.0))
"""60 slices of 512 x 512: what the viewer shows, and what is translated meanwhile."""
JOB_ID: Final = hashlib.sha256(b"0").hexdigest()[:32]
"""The newest of the jobs that are filled in."""
SLICE: Final = f"/jobs/{JOB_ID}/slices/axial"
PAGES: Final = {
    "overview": "/",
    "jobs": "/jobs",
    "jobs, failed": "/jobs?state=failed",
    "jobs, rejected long ago": "/jobs?state=rejected&since=2020-01-01",
    "a job": f"/jobs/{JOB_ID}",
    "slice viewer": f"/jobs/{JOB_ID}/slices",
    "a fused slice": f"{SLICE}/middle.jpeg",
    "values under the pointer": f"{SLICE}/middle/values?row=20&column=20",
    "arriving": "/arriving",
    "destinations": "/destinations",
    "models": "/models",
    "retraining": "/retraining",
    "drift": "/drift",
    "a twin": f"/twin/{JOB_ID}",
    "jobs as JSON": "/api/jobs",
    "a patient by FHIR": "/fhir/Patient?identifier=P-1",
    "metrics": "/metrics",
    "readiness": "/readyz",
}
CONFIGURATION: Final = "twin-scanner.toml"
READY_S: Final = 120.0


def measure(progress: Progress = lambda done, total: None, jobs: int = JOBS, turns: int = TURNS) -> list[Figure]:
    """The 95th percentile of each page, asked in turns by a person who is logged in."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_ct_dicom(make_phantom(SEED, SHORT).ct, folder / "ct", seed=SEED, options=SHORT)
        configuration = folder / CONFIGURATION
        configuration.write_text(
            f'[node]\nname = "{NODE}"\n[storage]\nfolder = "{folder / "site"}"\n[console]\nport = 0\n'
            '[scanner]\naccept_synthetic_ct = true\n[model]\naccept_phantom_only = true\n[log]\nlevel = "ERROR"\n'
        )
        settings = Settings.model_validate({"node": {"name": NODE}, "storage": {"folder": folder / "site"}})
        filled(folder / "site", jobs)
        progress(1, turns + 2)
        _translate(folder)
        with closing(Ledger(settings.ledger_url, node=NODE, who="benchmark")) as ledger:
            fill_beside(ledger, folder, settings)
            session = Sessions(ledger, Lifetime(), utc_now).begin("viewer", Role.VIEWER)
            ledger.users.add("admin", Role.ADMIN.value, "no password has this hash")
            progress(2, turns + 2)
            with _served(configuration) as url, httpx.Client(base_url=url, cookies={SESSION: session}) as client:
                first_s = {what: _asked_s(client, page) for what, page in PAGES.items()}
                with _rendering(folder):
                    times = _times_s(client, progress, turns)
    size = f"{jobs:,} jobs, a render beside it"
    figures = [at_most(NAME, f"{what}, {size}", 1000 * percentile(s), GOAL_MS, "ms") for what, s in times.items()]
    return [*figures, Figure(NAME, f"metrics for the first time, {jobs:,} jobs", first_s["metrics"], "s", "", 0.0, 1.0)]


def percentile(seconds: Sequence[float]) -> float:
    """The least of them that 95 % are not above (nearest rank)."""
    return sorted(seconds)[math.ceil(len(seconds) * PERCENT / 100) - 1]


def _times_s(client: httpx.Client, progress: Progress, turns: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {what: [] for what in PAGES}
    for turn in range(turns):
        for what, page in PAGES.items():
            times[what].append(_asked_s(client, page))
        progress(turn + 3, turns + 2)
    return times


def _asked_s(client: httpx.Client, page: str) -> float:
    begin_s = time.perf_counter()
    answer = client.get(page, headers={"accept": "*/*"}, timeout=READY_S)
    taken_s = time.perf_counter() - begin_s
    answer.raise_for_status()
    return taken_s


@contextmanager
def _served(configuration: Path) -> Iterator[str]:
    """The console's address, while it runs."""
    command = [sys.executable, "-m", "twin_scanner.cli", "console", "--config", str(configuration)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        word, _, url = process.stdout.readline().strip().partition(" ")
        if word != "console":
            raise RuntimeError(f"The console did not start (status {process.wait()}): see above.")
        try:
            yield url
        finally:
            process.terminate()


@contextmanager
def _rendering(folder: Path) -> Iterator[None]:
    """A CT is translated again and again."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            _translate(folder)

    thread = threading.Thread(target=work, name="render")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _translate(folder: Path) -> None:
    out = folder / "translated"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "twin_scanner.cli", "translate", str(folder / "ct"), "--out", str(out)]
    done = subprocess.run([*command, "--config", str(folder / CONFIGURATION)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"The translation beside the console failed: {done.stderr.strip()}")


def fill_beside(ledger: Ledger, folder: Path, settings: Settings) -> None:
    """What a node has beside ended jobs: images, reports, records, failures, and what arrives, waits and runs."""
    places = Folders(settings.storage.folder)
    shutil.copytree(folder / "translated", places.jobs / JOB_ID / "result")
    shutil.copytree(folder / "ct", places.jobs / JOB_ID / "ct" / "1.2.3")
    report = json.loads((folder / "translated" / REPORT).read_bytes())
    with ledger.database.engine.begin() as connection:
        _give_up(connection)
        newest = sa.text(f"SELECT job_id FROM jobs ORDER BY made_at DESC LIMIT {RESULTS}")
        rows = [
            {"job_id": job_id, **_result(report, n)} for n, job_id in enumerate(connection.execute(newest).scalars())
        ]
        connection.execute(sa.insert(METADATA.tables["results"]), rows)
    with closing(EmbeddedStore(places.twin, twin_site(settings))) as store:
        for number in range(PATIENTS):
            for update in updates(f"P-{number}", STUDIES):
                store.record(update)
    ledger.updates.keep(KeptUpdate(JOB_ID, utc_now(), update.patient_id, update.as_json()))
    ledger.enter("the benchmark")
    for number in range(20):
        now = utc_now()
        ledger.studies.arrived([Arrival(f"1.5.{number}", "CTROOM2", 300, now, now)])
        ledger.studies.describe(f"1.5.{number}", StudyFacts("20260301", f"A-{number}", "CT thorax"))
        ledger.jobs.open(NewJob(f"1.5.{number}", "1.3", "1.4", f"{number:064x}", 300))
    ledger.jobs.claim()


def _result(report: dict[str, Any], number: int) -> dict[str, Any]:
    volumes = {name: values.get("volume_ml", 0.0) + number % 7 for name, values in report["districts"].items()}
    return {"report": report, "features": {"slices": 300 + number % 5, "volume_ml": volumes}}


def _give_up(connection: sa.Connection) -> None:
    """One job in a hundred each has failed, is held or was rejected, and one has a delivery that is held."""
    jobs = sa.text("UPDATE jobs SET state = :state, reason = 'A reason.' WHERE substr(study_uid, 5) % 100 = :rest")
    for rest, state in enumerate(("failed", "held", "rejected"), start=1):
        connection.execute(jobs, {"state": state, "rest": rest})
    held = "UPDATE deliveries SET state = 'held', reason = 'A reason.' WHERE delivery_id % 200 = 0"
    connection.execute(sa.text(held))
