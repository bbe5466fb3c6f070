"""Attacks on the real console: markup in texts, ids that lead elsewhere, other roles, other sites, other servers.

Routes are enumerated from the application itself: a new one is attacked too, and a test fails until ROLES has its row.
"""

import re
import socket
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import product
from typing import Any, Final

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from tests.fakes.app_browser import AppBrowser
from tests.samples.attacked_console import AE_TITLE, ATTACK, CANARY, PASSWORD, AttackedConsole, attacked_console
from twin_scanner.console.access.control import BROWSER, SESSION
from twin_scanner.console.access.csrf import token_of
from twin_scanner.console.access.passwords import Passwords
from twin_scanner.console.access.roles import Role
from twin_scanner.service.ledger import State

pytestmark = pytest.mark.record
HTML: Final = {"accept": "text/html"}
SAFE: Final = ("GET", "HEAD")
ENDLESS: Final = "/live"
VIEWER, OPERATOR, ADMIN = [200, 200, 200], [403, 303, 303], [403, 403, 303]
CLOSED, OPEN = 401, 200
ROLES: Final[dict[tuple[str, str], tuple[int, list[int]]]] = {
    ("GET", "/"): (CLOSED, VIEWER),
    ("GET", "/jobs"): (CLOSED, VIEWER),
    ("GET", "/api/jobs"): (CLOSED, VIEWER),
    ("GET", "/jobs/{job_id}"): (CLOSED, VIEWER),
    ("GET", "/jobs/{job_id}/preview.png"): (CLOSED, VIEWER),
    ("POST", "/jobs/{job_id}/retry"): (CLOSED, OPERATOR),
    ("POST", "/jobs/{job_id}/release"): (CLOSED, OPERATOR),
    ("POST", "/jobs/{job_id}/resend"): (CLOSED, OPERATOR),
    ("GET", "/jobs/{job_id}/slices"): (CLOSED, VIEWER),
    ("GET", "/jobs/{job_id}/slices/values"): (CLOSED, VIEWER),
    ("GET", "/jobs/{job_id}/slices/volumes/{name}.nii.gz"): (CLOSED, VIEWER),
    ("GET", "/jobs/{job_id}/slices/{plane}/{place}.{form}"): (CLOSED, VIEWER),
    ("GET", "/jobs/{job_id}/slices/{plane}/{place}/values"): (CLOSED, VIEWER),
    ("GET", "/arriving"): (CLOSED, VIEWER),
    ("GET", "/destinations"): (CLOSED, VIEWER),
    ("POST", "/destinations/echo"): (CLOSED, OPERATOR),
    ("GET", "/models"): (CLOSED, VIEWER),
    ("POST", "/models/promote"): (CLOSED, ADMIN),
    ("POST", "/models/rollback"): (CLOSED, ADMIN),
    ("GET", "/retraining"): (CLOSED, VIEWER),
    ("GET", "/drift"): (CLOSED, VIEWER),
    ("GET", "/twin/{job_id}"): (CLOSED, VIEWER),
    ("GET", "/fhir/metadata"): (CLOSED, VIEWER),
    ("GET", "/fhir/{kind}"): (CLOSED, VIEWER),
    ("POST", "/fhir/{kind}/_search"): (CLOSED, VIEWER),
    ("GET", "/fhir/{kind}/{resource_id}"): (CLOSED, VIEWER),
    ("GET", "/fhir{rest:path}"): (CLOSED, [404] * 3),
    ("POST", "/fhir{rest:path}"): (CLOSED, [405] * 3),
    ("PUT", "/fhir{rest:path}"): (CLOSED, [405] * 3),
    ("PATCH", "/fhir{rest:path}"): (CLOSED, [405] * 3),
    ("DELETE", "/fhir{rest:path}"): (CLOSED, [405] * 3),
    ("GET", "/healthz"): (CLOSED, VIEWER),
    ("GET", "/readyz"): (CLOSED, VIEWER),
    ("GET", "/metrics"): (CLOSED, VIEWER),
    ("GET", "/openapi.json"): (CLOSED, VIEWER),
    ("HEAD", "/openapi.json"): (CLOSED, VIEWER),
    ("GET", "/static"): (OPEN, VIEWER),
    ("GET", "/login"): (OPEN, VIEWER),
    ("POST", "/login"): (401, [401] * 3),
    ("POST", "/logout"): (CLOSED, [303] * 3),
}
"""Of every route: what is answered to whoever is not logged in, and to a viewer, an operator and an admin."""


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory, passwords: Passwords) -> Iterator[AttackedConsole]:
    with attacked_console(tmp_path_factory.mktemp("site"), passwords) as console:
        yield console


def routes_of(console: AttackedConsole) -> list[tuple[str, str]]:
    """Method and path of everything that is answered; what is mounted, such as files, by its folder."""
    contexts = list(iter_route_contexts(console.app.routes))
    found = [(method, context.path) for context in contexts for method in sorted(context.methods or {"GET"})]
    assert all(path is not None for _, path in found)
    return [(method, path or "") for method, path in found]


class Request:
    """A request of a route that its parameters allow, and that each role may be answered."""

    def __init__(self, console: AttackedConsole, method: str, path: str) -> None:
        job = {"/jobs/{job_id}/retry": console.failed_id, "/jobs/{job_id}/release": console.held_id}
        self.values = {
            "job_id": job.get(path, console.job_id),
            "name": "pet",
            "plane": "axial",
            "place": "middle",
            "form": "png",
            "kind": "Patient",
            "resource_id": console.patient_id,
            "rest:path": "/Patient/1/_history/1",
        }
        self.method, self.path = method, path
        self.query = dict.fromkeys(("x", "y", "z", "row", "column") if path.endswith("/values") else (), "0")
        self.form = {
            "destination": "archive",
            "model_hash": "b" * 64,
            "reason": "lost",
            "name": "nobody",
            "password": "a wrong password",
        }

    def sent(self, browser: AppBrowser, form: dict[str, str] | None = None, **arguments: Any) -> httpx.Response:
        """Its answer; with a form of ours unless another is given."""
        path = "/static/console.css" if self.path == "/static" else self.path
        url = re.sub(r"{([^}]+)}", lambda found: self.values[found[1]], path)
        if self.method in SAFE:
            return browser.request(self.method, url, params=self.query, **arguments)
        content = {**self.form, "csrf_token": token(browser)} if form is None else form
        content = {} if self.path.startswith("/fhir") else content
        headers = {"content-type": "application/x-www-form-urlencoded", **arguments.pop("headers", {})}
        return browser.request(self.method, url, data=content, headers=headers, **arguments)


def token(browser: AppBrowser) -> str:
    """What the pages of this browser have in their forms."""
    return token_of(browser.cookies.get(SESSION) or browser.cookies.get(BROWSER) or "")


class Markup(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


SHOWN: Final = {
    "overview": [ATTACK, AE_TITLE],
    "jobs": [ATTACK, AE_TITLE],
    "job": [ATTACK, AE_TITLE, "1.2.3.<xss-probe>"],
    "held job": [ATTACK, AE_TITLE],
    "failed job": [ATTACK],
    "arriving": [ATTACK, AE_TITLE],
    "models": [ATTACK],
    "retraining": [ATTACK, "run<xss-probe>"],
    "drift": [ATTACK],
    "twin": [ATTACK],
}
"""Where the texts of a CT, a peer, a person or a package are shown, so that the absence of markup says something."""


def test_no_text_from_outside_becomes_markup_on_any_page(console: AttackedConsole) -> None:
    browser = console.browser(Role.ADMIN)
    for name, path in console.pages.items():
        page = Markup(browser.get(path, headers=HTML).text)
        without_header = page.text.replace(ATTACK, "", 1)
        assert all(text in without_header for text in SHOWN.get(name, [])), name
        assert "49" not in re.findall(r"\b\d+\b", page.text), name
        for tag, attributes in page.elements:
            assert tag != "xss-probe", name
            assert not any(attribute.startswith("on") for attribute in attributes), (name, attributes)
            assert tag != "script" or (attributes["src"] or "").startswith("/static/"), (name, attributes)
            for address in (attributes.get("href"), attributes.get("src"), attributes.get("action")):
                assert address is None or re.match(r"[/#?](?!/)", address), (name, address)


def test_a_live_part_is_as_harmless_as_the_page(console: AttackedConsole) -> None:
    page = console.browser(Role.VIEWER).get("/", headers=HTML).text
    live = page.split('<div id="live">')[1]
    assert "&lt;xss-probe" in live and "<xss-probe" not in live


ELSEWHERE: Final = (
    "%2e%2e",
    "%2e",
    "%2e%2e%2f%2e%2e%2fcanary.txt",
    "..%2f..%2fcanary.txt",
    "..%5c..%5ccanary.txt",
    "%2fetc%2fpasswd",
    "....%2f%2fcanary.txt",
    "%00",
    "..%00canary",
    "%c0%ae%c0%ae%2fcanary.txt",
    "canary.txt%23",
    "1.2.826.0.1%2f..%2f..",
    "a" * 5000,
)


def test_no_id_in_an_address_leads_to_another_file(console: AttackedConsole) -> None:
    browser = console.browser(Role.ADMIN)
    asked = 0
    for method, path in routes_of(console):
        request = Request(console, method, path)
        names = re.findall(r"{([^}]+)}", path)
        for name, value in product(names, ELSEWHERE):
            request.values = {**Request(console, method, path).values, name: value}
            answer = request.sent(browser)
            assert 400 <= answer.status_code < 500, (path, name, value, answer.status_code)
            assert CANARY not in answer.text and "root:" not in answer.text, (path, name, value)
            asked += 1
    for value in ELSEWHERE:
        answer = browser.get(f"/static/{value}")
        assert answer.status_code in (307, 404) and CANARY not in answer.text
    assert asked > 100


def test_every_route_has_a_row_that_says_what_each_role_is_answered(console: AttackedConsole) -> None:
    routes = {route for route in routes_of(console) if route[1] != ENDLESS}
    assert routes - ROLES.keys() == set(), "a new route needs a row in ROLES"
    assert ROLES.keys() - routes == set(), "these routes are gone"


@pytest.mark.parametrize("route", ROLES, ids=lambda route: " ".join(route))
def test_each_role_is_answered_what_is_its_own(console: AttackedConsole, route: tuple[str, str]) -> None:
    nobody, expected = ROLES[route]
    request = Request(console, *route)
    _stand_again(console)
    assert request.sent(console.browser(None)).status_code == nobody
    for role, status in zip(Role, expected, strict=True):
        _stand_again(console)
        assert request.sent(console.browser(role)).status_code == status, role


def _stand_again(console: AttackedConsole) -> None:
    """The held and the failed job are as they were filled in, so that the next role finds something to do."""
    with console.ledger.database.engine.begin() as connection:
        for job_id, state in ((console.held_id, State.HELD), (console.failed_id, State.FAILED)):
            update = "UPDATE jobs SET state = ?, stood_at = 'queued' WHERE job_id = ?"
            connection.exec_driver_sql(update, (state.value, job_id))
        stored = "UPDATE deliveries SET state = 'confirmed' WHERE destination = 'archive' AND job_id = ?"
        connection.exec_driver_sql(stored, (console.job_id,))


def test_the_stream_of_the_overview_is_closed_to_strangers(console: AttackedConsole) -> None:
    assert console.browser(None).get(ENDLESS).status_code == 401


FORGED: Final = {
    "no token": ({}, {}),
    "an empty token": ({"csrf_token": ""}, {}),
    "a guessed token": ({"csrf_token": "0" * 64}, {}),
    "another site's request": (None, {"origin": "https://evil.example"}),
    "a sandboxed frame's request": (None, {"origin": "null"}),
    "a cross-site fetch": (None, {"sec-fetch-site": "cross-site"}),
    "a sibling host's fetch": (None, {"sec-fetch-site": "same-site"}),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_no_change_is_made_by_a_form_of_another_site(console: AttackedConsole, forgery: str) -> None:
    form, headers = FORGED[forgery]
    changes = [route for route in routes_of(console) if route[0] not in SAFE and not route[1].startswith("/fhir")]
    assert len(changes) >= 7
    before = len(console.asked)
    for route in changes:
        browser = console.browser(Role.ADMIN)
        request = Request(console, *route)
        sent = None if form is None else {**request.form, **form}
        assert request.sent(browser, sent, headers=headers).status_code == 403, route
        assert browser.get("/jobs").status_code == 200, route
    assert console.ledger.jobs.find(console.held_id).state == State.HELD
    assert len(console.asked) == before


def test_a_session_begins_with_the_login_and_ends_with_the_logout_and_the_role(
    console: AttackedConsole, passwords: Passwords
) -> None:
    browser = console.browser(None)
    browser.cookies.set(SESSION, "chosen-by-an-attacker")
    browser.get("/login")
    login = {"name": "a-operator", "password": PASSWORD, "csrf_token": token_of(browser.cookies.get(BROWSER, ""))}
    assert browser.post("/login", data=login).status_code == 303
    first = browser.cookies.get(SESSION, domain="localhost.local") or ""
    assert first not in ("", "chosen-by-an-attacker")
    assert _status_with(console, "chosen-by-an-attacker") == 401
    assert _status_with(console, first) == 200
    again = {**login, "csrf_token": token_of(first)}
    stale = _with_session(console, first)
    assert stale.post("/login", data=again).status_code == 303
    assert _status_with(console, first) == 401
    second = console.session(Role.OPERATOR)
    console.ledger.users.remove("a-operator")
    console.ledger.users.add("a-operator", Role.VIEWER.value, passwords.hash(PASSWORD, "a-operator"))
    assert _status_with(console, second) == 401
    console.ledger.users.remove("a-operator")
    console.ledger.users.add("a-operator", Role.OPERATOR.value, passwords.hash(PASSWORD, "a-operator"))
    third = console.session(Role.OPERATOR)
    assert _with_session(console, third).post("/logout", data={"csrf_token": token_of(third)}).status_code == 303
    assert _status_with(console, third) == 401


def _with_session(console: AttackedConsole, session_id: str) -> AppBrowser:
    browser = console.browser(None)
    browser.cookies.set(SESSION, session_id)
    return browser


def _status_with(console: AttackedConsole, session_id: str) -> int:
    return _with_session(console, session_id).get("/jobs").status_code


def test_no_address_in_a_request_is_asked_by_the_console(
    console: AttackedConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Server-side request forgery: every field of every route holds an address, and no connection is tried."""
    tried: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: tried.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *names, **_: tried.append(names) or [])
    before = list(console.asked)
    for method, path in routes_of(console):
        if path == ENDLESS:
            continue
        for target in ("http://169.254.169.254/latest", "//127.0.0.1:11112/x"):
            request = Request(console, method, path)
            browser = console.browser(Role.ADMIN)
            request.query |= dict.fromkeys(("url", "next", "said", "state", "identifier", "patient", "show"), target)
            fields = ("destination", "model_hash", "without", "name", "next", "url", "against_gate")
            form = {**dict.fromkeys(fields, target), "reason": target, "csrf_token": token(browser)}
            headers = {"referer": target, "x-forwarded-host": target, "x-forwarded-for": target, "forwarded": target}
            answer = request.sent(browser, form, headers=headers)
            assert answer.status_code < 500, (path, target)
            assert not answer.headers.get("location", "/").startswith((target, "http")), (path, target)
    assert tried == []
    assert console.asked == before


@pytest.mark.parametrize("destination", ["web", "twin", "http://127.0.0.1:9", "127.0.0.1", "archive ", "ARCHIVE", ""])
def test_only_a_configured_peer_is_asked_by_c_echo(console: AttackedConsole, destination: str) -> None:
    before = list(console.asked)
    browser = console.browser(Role.ADMIN)
    form = {"destination": destination, "csrf_token": token(browser), "host": "127.0.0.1", "port": "9"}
    assert browser.post("/destinations/echo", data=form).status_code in (404, 422)
    assert console.asked == before
    assert browser.post("/destinations/echo", data={**form, "destination": "archive"}).status_code == 303
    assert console.asked[len(before) :] == [("echo", "archive")]


def test_nothing_of_a_patient_stands_in_an_address_of_a_page(console: AttackedConsole) -> None:
    browser = console.browser(Role.ADMIN)
    patient = browser.get(f"/fhir/Patient/{console.patient_id}").json()
    identity = [patient["identifier"][0]["value"], patient["birthDate"]]
    for path in console.pages.values():
        page = Markup(browser.get(path, headers=HTML).text)
        addresses = [attributes.get("href") or attributes.get("src") or "" for _, attributes in page.elements]
        assert not [one for one in addresses for value in identity if value in one]
