"""The console of a site with something on every page, where each text that came from outside is an attack on the page.

The application, its ledger, its records, models and files are real; a C-ECHO and a promotion are noted instead of done.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from fastapi import FastAPI
from PIL import Image

from tests.fakes.app_browser import AppBrowser
from tests.samples.twin_updates import measured_update
from tests.samples.viewed_job import write_viewed_job
from twin_scanner.app import open_twin
from twin_scanner.console.access.control import BROWSER, SESSION
from twin_scanner.console.access.guard import AccessRules
from twin_scanner.console.access.passwords import Passwords
from twin_scanner.console.access.roles import Role
from twin_scanner.console.access.sessions import Lifetime, Sessions
from twin_scanner.console.application import create_application
from twin_scanner.console_server import make_site
from twin_scanner.errors import Unavailable
from twin_scanner.models.card import CARD, model_hash_of, read_card
from twin_scanner.models.store import DEMONSTRATION_FOLDER
from twin_scanner.service.ledger import (
    Arrival,
    Destination,
    Job,
    KeptUpdate,
    Ledger,
    NewJob,
    Rendered,
    Result,
    StudyFacts,
    migrate,
    utc_now,
)
from twin_scanner.service.ledger.columns import METADATA
from twin_scanner.settings import Folders, Settings

ATTACK: Final = (
    "<xss-probe onprobe=1>'\"><script src=//evil.example/x.js></script>{{ 7 * 7 }}"
    "averylongwordthatnobodyhasputaspaceintosothatnolinecanbebrokenanywhereinit"
)
"""As text it is shown as it stands; as markup it is an element, an attribute, the end of an attribute and a script."""
AE_TITLE: Final = "'\"><xss-probe>"
"""The same in the 16 characters of an AE (PS3.5 6.2)."""
NODE: Final = "twin-scanner-1"
PASSWORD: Final = "correct horse battery"
CANARY: Final = "a file that no address leads to"
PEER: Final = {"name": "archive", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": 11113}
DESTINATIONS: Final = (
    {"name": "archive", "peer": "archive"},
    {"name": "web", "url": "http://127.0.0.1:9/dicom-web", "required": False},
)
COMPARED: Final = 70
"""Results: enough for the page that compares the newest with those before."""


@dataclass
class AttackedConsole:
    """The application, what was filled in, and what would have left the process."""

    app: FastAPI
    ledger: Ledger
    folder: Path
    job_id: str
    """A job with images, a report, deliveries and a twin."""
    held_id: str
    failed_id: str
    patient_id: str = ""
    """The patient's logical id in the records."""
    asked: list[tuple[str, ...]] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)
    """Destinations that do not answer."""

    def echo(self, name: str) -> None:
        """Note that a destination was asked; raises Unavailable where it does not answer."""
        self.asked.append(("echo", name))
        if name in self.silent:
            raise Unavailable(ATTACK)

    def browser(self, role: Role | None, *, raises: bool = True) -> AppBrowser:
        """A browser that is logged in as a user of this role, or not at all."""
        browser = AppBrowser(self.app, "http://localhost", "127.0.0.1", raises=raises)
        browser.cookies.set(BROWSER, "the secret of a browser")
        if role is not None:
            browser.cookies.set(SESSION, self.session(role))
        return browser

    def session(self, role: Role) -> str:
        """The id of a new session."""
        return Sessions(self.ledger, Lifetime(), utc_now).begin(f"a-{role.value}", None)

    @property
    def pages(self) -> dict[str, str]:
        """Every page that a person who is logged in can come to, by a name for it."""
        return {
            "overview": "/",
            "jobs": "/jobs",
            "job": f"/jobs/{self.job_id}",
            "held job": f"/jobs/{self.held_id}",
            "failed job": f"/jobs/{self.failed_id}",
            "slices": f"/jobs/{self.job_id}/slices",
            "slices cleared": f"/jobs/{self.held_id}/slices",
            "arriving": "/arriving",
            "destinations": "/destinations",
            "models": "/models",
            "retraining": "/retraining",
            "drift": "/drift",
            "twin": f"/twin/{self.job_id}",
            "no such page": "/nowhere",
            "no such job": f"/jobs/{'0' * 32}",
        }


@contextmanager
def attacked_console(folder: Path, passwords: Passwords) -> Iterator[AttackedConsole]:
    """The console over a new folder, with a user of each role (``a-viewer`` and so on, all with ``PASSWORD``)."""
    configuration = folder / "retrain.toml"
    configuration.write_text('[train]\nout = "runs"\n')
    settings = Settings.model_validate(
        {
            "node": {"name": NODE},
            "storage": {"folder": folder / "storage"},
            "peers": [PEER],
            "destinations": DESTINATIONS,
            "retrain": {"config": configuration},
        }
    )
    Folders(settings.storage.folder).prepare()
    (settings.storage.folder / "canary.txt").write_text(CANARY)
    migrate(settings.ledger_url)
    with closing(Ledger(settings.ledger_url, node=NODE)) as ledger, closing(open_twin(settings)) as records:
        for role in Role:
            ledger.users.add(f"a-{role.value}", role.value, passwords.hash(PASSWORD, f"a-{role.value}"))
        _write_models(settings.model_store)
        _write_curve(folder / "runs" / "run<xss-probe>")
        ledger.enter("the folder")
        _add_compared(ledger)
        job, held, failed = _fill(ledger)
        _write_images(Folders(settings.storage.folder).jobs, job.job_id)
        update = measured_update(
            patient_name=ATTACK, study_description=ATTACK, accession_number=ATTACK, model_name=ATTACK
        )
        ledger.updates.keep(KeptUpdate(job.job_id, job.made_at, update.patient_id, update.as_json()))
        records.record(update)
        site = replace(make_site(settings, None, ledger, None, records), name=ATTACK)
        console = AttackedConsole(FastAPI(), ledger, folder, job.job_id, held.job_id, failed.job_id)
        site = replace(
            site,
            echo=console.echo,
            promote=lambda model_hash, reason: console.asked.append(("promote", model_hash, reason)),
        )
        console.app = create_application(site, AccessRules())
        found = console.browser(Role.VIEWER).get("/fhir/Patient").json()
        console.patient_id = found["entry"][0]["resource"]["id"]
        yield console


def _fill(ledger: Ledger) -> tuple[Job, Job, Job]:
    """A job or a study in every state; the one with images, one that is held and one that has failed."""
    done = _opened(ledger, 1)
    result = Result(_report(), {"ct": {"slices": 100.0}})
    ledger.rendered(done, Rendered("2.25.1", "m", (), result, (Destination("archive"), Destination("web", False))))
    delivery = ledger.deliveries.claim("archive")
    assert delivery is not None
    ledger.deliveries.confirmed(delivery, "query")
    refused = ledger.deliveries.claim("web")
    assert refused is not None
    ledger.deliveries.hold(refused, ATTACK)
    held, failed = _opened(ledger, 2), _opened(ledger, 3)
    ledger.jobs.hold(held, ATTACK)
    ledger.jobs.fail(failed, ATTACK)
    ledger.jobs.reject(_opened(ledger, 4), ATTACK)
    running = _opened(ledger, 5)
    ledger.jobs.note_windows(running, 120, 540)
    _arrive(ledger, 6)
    ledger.jobs.open(_new(6))
    _arrive(ledger, 7)
    study = ledger.studies.find("1.2.7")
    assert study is not None
    ledger.studies.note_apart(study, 2)
    _arrive(ledger, 8)
    ledger.studies.hold_incomplete("1.2.8", ATTACK[:64], ATTACK)
    ledger.runs.finish(ledger.runs.begin("retrain"), 1)
    return done, held, failed


def _opened(ledger: Ledger, number: int) -> Job:
    _arrive(ledger, number)
    ledger.jobs.open(_new(number))
    job = ledger.jobs.claim()
    assert job is not None
    return job


def _new(number: int) -> NewJob:
    skipped = (("1.2.3.<xss-probe>", ATTACK),)
    return NewJob(f"1.2.{number}", "1.3", "1.4", f"{number:064x}", 20, skipped=skipped, evidence=ATTACK[:64])


def _arrive(ledger: Ledger, number: int) -> None:
    now = utc_now()
    ledger.studies.arrived([Arrival(f"1.2.{number}", AE_TITLE, 7, now, now)])
    ledger.studies.describe(f"1.2.{number}", StudyFacts("20260301", ATTACK[:64], ATTACK))


def _report() -> dict[str, object]:
    districts = {"trunk": {"volume_ml": 2.0, "suv_mean": 1.0, "suv_max": 9.0}, ATTACK: {"volume_ml": 1.0}}
    words = ("model_name", "segmenter", "source_derivation", "stitching", "intended_use")
    return {"districts": districts, "notes": [ATTACK], **dict.fromkeys(words, ATTACK)}


def _add_compared(ledger: Ledger) -> None:
    """Ended jobs whose results the page of the drift compares."""
    moment, tables = ledger.database.steady(), METADATA.tables
    jobs, results = [], []
    for number in range(COMPARED):
        study = {"study_uid": f"1.9.{number}", "frame_of_reference_uid": "1.3", "series_uid": "1.4"}
        ended = {"made_at": moment, "updated_at": moment, "ended_at": moment, "state": "done", "reason": ""}
        plain = {"attempts": 0, "kind": "render", "priority": 0, "revision": 1, "held_for": "", "skipped": []}
        row = {"job_id": f"c{number:031x}", "node": NODE, "source_digest": f"{number:064x}", "instance_count": 9}
        jobs.append({**row, **study, **ended, **plain})
        features = {ATTACK: float(number % 7), "slices": 100.0 + number % 5 + 9 * (number > COMPARED // 2)}
        results.append({"job_id": row["job_id"], "report": {}, "features": features})
    with ledger.database.engine.begin() as connection:
        connection.execute(sa.insert(tables["jobs"]), jobs)
        connection.execute(sa.insert(tables["results"]), results)


def _write_models(store: Path) -> None:
    """A champion, another model whose card is an attack, a change of champion, and a decision of the gate."""
    card = read_card(DEMONSTRATION_FOLDER)
    decides = card.weights_sha256, card.plan, card.partition, card.architecture
    other, champion = model_hash_of(*decides), card.model_hash
    data = {**card.training_data, "kind": ATTACK}
    about = {"intended_use": ATTACK, "training_data": data, "metrics": {ATTACK: {"mae": ATTACK}}}
    attack = replace(card, name=ATTACK, model_hash=other, stitching="uniform", about=about)
    (store / other).mkdir(parents=True)
    (store / other / CARD).write_bytes(attack.as_bytes())
    for weights in DEMONSTRATION_FOLDER.glob("*.safetensors"):
        shutil.copyfile(weights, store / other / weights.name)
    aliases = {"champion": champion, "previous": other, "challenger": other}
    (store / "aliases.json").write_text(json.dumps(aliases))
    change = {"number": 1, "at": "2026-03-01T00:00:00+00:00", "champion": champion, "previous": other}
    _write(store / "promotions" / "000001.json", {**change, "by": "force", "reason": ATTACK})
    decision = {"verdict": ATTACK, "challenger": other, "reason": ATTACK}
    _write(store / "decisions" / "000001.json", decision)


def _write(file: Path, content: dict[str, object]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))


def _write_curve(run: Path) -> None:
    run.mkdir(parents=True)
    rows = [{"network": ATTACK, "step": step, ATTACK: 1.0 / step, "loss": 2.0 / step} for step in range(1, 20)]
    (run / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_images(jobs: Path, job_id: str) -> None:
    jobs.mkdir(exist_ok=True)
    result = write_viewed_job(jobs, job_id, phantom_only=True) / "result"
    Image.new("RGB", (400, 300), "gray").save(result / "preview.png")
