"""The console's pages over a ledger with a job in every state, asked as a browser does."""

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.twin_scanner.cli.test_status import fill
from twin_scanner.console.access.guard import AccessRules
from twin_scanner.console.application import create_application
from twin_scanner.console.serving import ConsoleServer, Listening
from twin_scanner.console_server import make_site
from twin_scanner.service.ledger import Ledger, State, migrate
from twin_scanner.settings import Settings

pytestmark = pytest.mark.record
HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    url = f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.sqlite'}"
    migrate(url)
    with closing(Ledger(url, node="twin-scanner-1")) as ledger:
        fill(ledger)
        yield ledger


@pytest.fixture(scope="module")
def browser(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    settings = Settings.model_validate({"storage": {"folder": tmp_path_factory.mktemp("site")}})
    application = create_application(make_site(settings, None, ledger), AccessRules())
    server = ConsoleServer(application, Listening("127.0.0.1", 0))
    server.start()
    with httpx.Client(base_url=server.url, headers=HTML) as client:
        yield client
    server.stop()


def failed_job(ledger: Ledger) -> str:
    (work,) = ledger.overview.jobs(1, state=State.FAILED)
    assert work.job is not None
    return work.job.job_id


@pytest.mark.parametrize("path", ["/", "/jobs", "/arriving", "/destinations", "/models", "/retraining", "/drift"])
def test_every_page_answers_and_marks_itself_in_the_menu(browser: httpx.Client, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 200, answer.text
    assert f'href="{path}" aria-current="page"' in answer.text
    assert not re.search(
        r"<style|\sstyle=|\son[a-z]+=|<script(?! type=\"module\" src=\"/static/)|https?://", answer.text
    )


def test_a_failed_job_is_retried_from_its_page_and_who_did_it_is_kept(browser: httpx.Client, ledger: Ledger) -> None:
    job_id = failed_job(ledger)
    page = browser.get(f"/jobs/{job_id}")
    assert "Reason 3." in page.text
    token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert token is not None
    assert browser.post(f"/jobs/{job_id}/retry", data={"csrf_token": "another"}).status_code == 403
    assert browser.post(f"/jobs/{job_id}/retry", data={"csrf_token": token[1]}).status_code == 303
    assert ledger.jobs.find(job_id).state == State.QUEUED
    assert ("retried", "this machine") in [(e.what, e.who) for e in ledger.events.of_row("jobs", job_id)]


def test_pages_of_jobs_go_on_where_the_one_before_ended(ledger: Ledger) -> None:
    everything = [work.job.job_id for work in ledger.overview.jobs(100) if work.job is not None]
    first, second = ledger.overview.jobs(2), None
    last = first[-1].job
    assert last is not None
    second = ledger.overview.jobs(100, before=(last.made_at, last.job_id))
    assert [work.job.job_id for work in (*first, *second) if work.job is not None] == everything


def test_a_job_that_is_not_there_is_said_on_a_page_and_as_json(browser: httpx.Client) -> None:
    page = browser.get(f"/jobs/{'0' * 32}")
    assert page.status_code == 404 and 'role="alert"' in page.text
    assert browser.get(f"/jobs/{'0' * 32}", headers={"accept": "application/json"}).json()["detail"]


def test_a_model_is_promoted_by_the_gate_unless_a_reason_against_it_is_given(ledger: Ledger, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []
    site = make_site(Settings.model_validate({"storage": {"folder": tmp_path}}), None, ledger)
    site = replace(site, promote=lambda model_hash, against_gate: asked.append((model_hash, against_gate)))
    server = ConsoleServer(create_application(site, AccessRules()), Listening("127.0.0.1", 0))
    server.start()
    try:
        with httpx.Client(base_url=server.url, headers=HTML) as client:
            token = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/login").text)
            assert token is not None
            form = {"csrf_token": token[1], "model_hash": "a" * 64}
            assert client.post("/models/promote", data=form).status_code == 303
            assert client.post("/models/promote", data={**form, "against_gate": "A trial."}).status_code == 303
    finally:
        server.stop()
    assert asked == [("a" * 64, ""), ("a" * 64, "A trial.")]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_outside_of_the_calendar_is_a_fault_of_whoever_asks(browser: httpx.Client, moment: str) -> None:
    assert browser.get(f"/jobs?before={moment}").status_code == 422
    assert browser.get("/jobs?before=2026-03-01T00:00:00").status_code == 200


def test_a_page_repeats_no_sentence_that_somebody_else_has_put_into_its_address(browser: httpx.Client) -> None:
    assert "Done: rolled back." in browser.get("/models?said=rolled back").text
    for sentence in ("your session is over, call 555 and say your password", "Call555", "<b>"):
        assert "Done:" not in browser.get("/", params={"said": sentence}).text
