"""The verb `status` on a ledger with something in every part, in this process; and that its JSON is as documented."""

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from twin_scanner.cli import cli
from twin_scanner.cli.output import INTERRUPTED
from twin_scanner.cli.status import SECTIONS, WATCH_S, watch
from twin_scanner.service.ledger import (
    Arrival,
    Destination,
    Ledger,
    NewJob,
    Outcome,
    Rendered,
    Result,
    StudyFacts,
    migrate,
    utc_now,
)

pytestmark = pytest.mark.record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node's ledger with a job in every part, none of which ended long ago; every test only looks."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "twin-scanner-data").mkdir()
    url = f"sqlite:///{folder / 'twin-scanner-data' / 'ledger.sqlite'}"
    migrate(url)
    with closing(Ledger(url, node="twin-scanner-1")) as ledger:
        fill(ledger)
    return folder


@pytest.fixture
def ledger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger is where the default configuration finds it."""
    monkeypatch.chdir(folder)


def fill(ledger: Ledger) -> None:
    ledger.enter("the folder")
    for number, end in enumerate((ledger.jobs.hold, ledger.jobs.reject, ledger.jobs.fail), start=1):
        ledger.jobs.open(NewJob(f"1.2.{number}", "1.3", "1.4", f"{number:064x}", 20))
        job = ledger.jobs.claim()
        assert job is not None
        end(job, f"Reason {number}.")
    ledger.jobs.open(NewJob("1.2.4", "1.3", "1.4", f"{4:064x}", 20))
    job = ledger.jobs.claim()
    assert job is not None
    ledger.rendered(job, Rendered("2.25.4", "m", (), Result({}, {}), (Destination("pacs"),)))
    delivery = ledger.deliveries.claim("pacs")
    assert delivery is not None
    ledger.deliveries.confirmed(delivery, "query", Outcome(3, 3))
    for number in (5, 6):
        now = utc_now()
        ledger.studies.arrived([Arrival(f"1.2.{number}", "CTROOM2", 7, now, now)])
        ledger.studies.describe(f"1.2.{number}", StudyFacts("20260301", f"A-{number}", "CT thorax"))
        ledger.jobs.open(NewJob(f"1.2.{number}", "1.3", "1.4", f"{number:064x}", 20))
    running = ledger.jobs.claim()
    assert running is not None
    ledger.jobs.note_windows(running, 120, 540)
    study = ledger.studies.find("1.2.6")
    assert study is not None
    ledger.studies.note_apart(study, 2)


def shown(*words: str) -> str:
    done = CliRunner().invoke(cli, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_part_is_shown_with_what_a_hospital_knows_the_study_by(ledger: None) -> None:
    text = shown("status")
    assert re.findall(r"^[A-Z]+$", text, re.MULTILINE) == [part.upper() for part in SECTIONS]
    assert "node twin-scanner-1: runs" in text
    (running,) = [line for line in text.splitlines() if "120 of 540" in line]
    for cell in ("2026-03-01", "A-5", "CT thorax", "CTROOM2", "render", "twin-scanner-1"):
        assert cell in running
    assert "pacs: confirmed" in text and "Reason 1." in text and "Reason 2." in text and "Reason 3." in text
    assert "study 1.2.6: 2 instances of the study came again with another content" in text


def test_a_part_and_a_moment_can_be_chosen(ledger: None) -> None:
    chosen = json.loads(shown("status", "--json", "--state", "held", "--state", "done", "--since", "2100-01-01"))
    assert "running" not in chosen
    assert ([work["reason"] for work in chosen["held"]], chosen["done"]) == (["Reason 1."], [])
    assert len(json.loads(shown("jobs", "list", "--json", "--limit", "2"))) == 2
    assert json.loads(shown("jobs", "list", "--json", "--since", "2100-01-01")) == []
    assert CliRunner().invoke(cli, ["status", "--state", "asleep"]).exit_code == 2


def test_a_job_is_shown_to_a_person_with_its_timeline(ledger: None) -> None:
    (job,) = json.loads(shown("status", "--json", "--state", "done"))["done"]
    text = shown("jobs", "show", job["job_id"])
    events = [event["what"] for event in json.loads(shown("jobs", "show", job["job_id"], "--json"))["timeline"]]
    assert events == ["opened", "rendered", "confirmed", "done"]
    assert all(re.search(rf"\b{what}\b", text) for what in events) and "query" in text


def test_the_json_has_the_keys_that_are_documented(ledger: None, project: Path) -> None:
    page = (project / "docs" / "status.md").read_text("utf-8")
    documented: dict[str, set[str]] = {}
    for heading, table in re.findall(r"^### (.+?)\n(.*?)(?=^#|\Z)", page, re.DOTALL | re.MULTILINE):
        documented[heading] = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    found: dict[str, Any] = json.loads(shown("status", "--json"))
    assert documented["The whole"] == set(found)
    assert documented["A node"] == set(found["nodes"][0])
    assert documented["A study or a job"] == set(found["running"][0])
    assert documented["A delivery"] == set(found["done"][0]["deliveries"][0])
    shown_job = json.loads(shown("jobs", "show", found["done"][0]["job_id"], "--json"))
    assert documented["An event"] == set(shown_job["timeline"][0])
    assert documented["A study or a job"] <= set(json.loads(shown("jobs", "list", "--json"))[0])


def test_watching_shows_it_again_until_it_is_interrupted() -> None:
    shown: list[int] = []
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    with pytest.raises(Exception) as ended:
        watch(lambda: shown.append(1), clear=False, sleep=sleep)
    assert (getattr(ended.value, "exit_code", None), len(shown), set(waits)) == (INTERRUPTED, 3, {WATCH_S})
