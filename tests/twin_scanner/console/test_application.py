"""The console's pages over a ledger with a job in every state, asked as a browser does."""

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from tests.fakes.app_browser import AppBrowser
from tests.twin_scanner.cli.test_status import fill
from twin_scanner.console.access.guard import AccessRules
from twin_scanner.console.access.roles import Role, User
from twin_scanner.console.application import create_application
from twin_scanner.console.frame import make_frame
from twin_scanner.console.looks import LookLog
from twin_scanner.console.pages import job
from twin_scanner.console.serving import ConsoleServer, Listening
from twin_scanner.console_server import make_site
from twin_scanner.service.ledger import Ledger, State, migrate
from twin_scanner.settings import Folders, Settings

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
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def jobs_folder(storage: Path) -> Path:
    return Folders(storage.resolve()).jobs


@pytest.fixture(scope="module")
def browser(ledger: Ledger, storage: Path) -> Iterator[httpx.Client]:
    settings = Settings.model_validate({"storage": {"folder": storage}})
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


def test_reloads_of_a_job_and_its_picture_are_one_look_of_a_person(
    browser: httpx.Client, ledger: Ledger, jobs_folder: Path
) -> None:
    (rejected,) = ledger.overview.jobs(1, state=State.REJECTED)
    assert rejected.job is not None
    job_id = rejected.job.job_id
    picture = jobs_folder / job_id / "result" / "preview.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"a picture")

    def looks() -> list[str]:
        return [event.who for event in ledger.events.of_row("jobs", job_id) if event.what == "seen"]

    assert browser.get(f"/jobs/{'0' * 32}/preview.png").status_code == 404
    assert browser.get(f"/jobs/{job_id}/preview.png").content == b"a picture"
    assert looks() == ["this machine"]
    assert [browser.get(f"/jobs/{job_id}").status_code for _ in range(3)] == [200] * 3
    assert looks() == ["this machine"]


def test_a_confirmed_delivery_is_sent_again_from_the_jobs_page_by_an_operator_with_a_reason(
    browser: httpx.Client, ledger: Ledger
) -> None:
    (work,) = ledger.overview.jobs(1, state=State.DONE)
    assert work.job is not None
    address = f"/jobs/{work.job.job_id}"
    page = browser.get(address).text
    assert "Send again to pacs" in page and "Send again to twin" not in page
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token is not None
    form = {"csrf_token": token[1], "destination": "pacs", "reason": "lost"}
    assert browser.post(f"{address}/resend", data={**form, "csrf_token": "another"}).status_code == 403
    assert browser.post(f"{address}/resend", data={**form, "reason": "Jane Doe's"}).status_code == 422
    assert browser.post(f"{address}/resend", data={**form, "destination": "elsewhere"}).status_code == 409
    assert ledger.jobs.find(work.job.job_id).state == State.DONE
    answer = browser.post(f"{address}/resend", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{address}?said=resend%20asked")
    assert ledger.jobs.find(work.job.job_id).state == State.RENDERED
    shown = browser.get(address).text
    assert "resend asked" in shown and "pacs, lost" in shown and "Send again to pacs" not in shown
    assert browser.post(f"{address}/resend", data=form).status_code == 409, "it is under way"
    events = ledger.events.of_row("deliveries", work.deliveries[0].delivery_id)
    assert ("resend asked", "this machine") in [(event.what, event.who) for event in events]


@pytest.mark.parametrize(("role", "status"), [(Role.VIEWER, 403), (Role.OPERATOR, 404)])
@pytest.mark.parametrize("verb", ["resend", "retry", "release"])
def test_only_an_operator_lets_a_job_go_on(ledger: Ledger, tmp_path: Path, verb: str, role: Role, status: int) -> None:
    site = make_site(Settings.model_validate({"storage": {"folder": tmp_path}}), None, ledger)
    application = FastAPI()
    application.include_router(job.router(site, make_frame("a site"), LookLog(lambda job_id: None)))

    async def as_user(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["user"] = User("ana", role)
        await application(scope, receive, send)

    answer = AppBrowser(as_user).post(f"/jobs/{'0' * 32}/{verb}", data={"destination": "pacs", "reason": "lost"})
    assert answer.status_code == status, answer.text


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
