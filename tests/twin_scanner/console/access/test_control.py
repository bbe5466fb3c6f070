"""The door: roles, tokens of forms, programs, and where the console may listen."""

import hashlib
from pathlib import Path

import pytest

from tests.twin_scanner.console.conftest import Console, MakeConsole, form
from twin_scanner.console.access.control import LARGEST_BODY, check_may_listen
from twin_scanner.console.access.roles import Role
from twin_scanner.console.access.tokens import Machines, Purpose, read_tokens
from twin_scanner.errors import Misconfigured

pytestmark = pytest.mark.record


@pytest.mark.parametrize(
    ("role", "answers"),
    [(Role.VIEWER, [200, 403, 403]), (Role.OPERATOR, [200, 200, 403]), (Role.ADMIN, [200, 200, 200])],
)
def test_each_role_does_what_is_its_own_and_no_more(console: Console, role: Role, answers: list[int]) -> None:
    browser = console.log_in(f"a-{role.value}")
    fields = form(browser)
    assert [browser.get(path).status_code for path in ("/seen", "/done", "/changed")] == answers
    assert [browser.post(path, data=fields).status_code for path in ("/seen", "/done", "/changed")] == answers


def test_a_change_without_the_sessions_own_token_is_refused(console: Console) -> None:
    browser, other = console.log_in("a-admin"), console.log_in("a-admin")
    before = len(console.ledger.events.newest(100))
    theirs = form(other)
    for data in ({}, {"csrf_token": ""}, {"csrf_token": "0" * 64}, theirs, {"csrf_token": "é"}):
        assert browser.post("/changed", data=data).status_code == 403
    assert browser.post("/changed", headers={"x-csrf-token": theirs["csrf_token"]}).status_code == 403
    assert browser.post("/changed", json=form(browser)).status_code == 403
    assert browser.post("/changed", files={"csrf_token": ("a", b"x")}).status_code == 403
    assert browser.request("DELETE", "/changed").status_code == browser.request("PUT", "/changed").status_code == 403
    assert len(console.ledger.events.newest(100)) == before
    assert browser.post("/changed", headers={"x-csrf-token": form(browser)["csrf_token"]}).status_code == 200
    assert browser.post("/changed", data=form(browser)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"origin": "http://["}, {"sec-fetch-site": "cross-site"}],
)
def test_a_change_that_another_site_sends_is_refused_even_with_the_token(
    console: Console, headers: dict[str, str]
) -> None:
    browser = console.log_in("a-admin")
    assert browser.post("/changed", data=form(browser), headers=headers).status_code == 403


def test_a_login_that_another_site_sends_is_refused(console: Console) -> None:
    """Login CSRF: a victim who works in the attacker's account."""
    assert console.browser().post("/login", data={"name": "a-admin", "password": "x"}).status_code == 403


def test_a_body_beyond_the_limit_and_a_broken_form_are_refused(console: Console) -> None:
    browser = console.log_in("a-admin")
    assert browser.post("/changed", content=b"x" * (LARGEST_BODY + 1)).status_code == 413
    broken = {"content-type": "multipart/form-data; boundary=b"}
    assert browser.post("/changed", content=b"--c\r\n", headers=broken).status_code in (400, 403)


def test_a_program_gets_in_by_its_token_for_its_own_purpose_alone(make_console: MakeConsole, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# programs\nregistry fhir {hashlib.sha256(b'a-secret').hexdigest()}\n\n")
    console = make_console(machines=Machines(read_tokens(file)))
    browser = console.browser()
    ours = {"authorization": "Bearer a-secret"}
    assert browser.get("/fhir/metadata", headers=ours).status_code == 200
    for path in ("/metrics", "/seen", "/changed"):
        assert browser.get(path, headers=ours).status_code == 401
    for header in ("Bearer another", "Bearer ", "Basic a-secret", ""):
        answer = browser.get("/fhir/metadata", headers={"authorization": header})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_a_program_gets_in_from_an_address_that_is_listed(make_console: MakeConsole) -> None:
    console = make_console(machines=Machines(addresses={Purpose.METRICS: ("10.1.0.0/16", "::1")}))
    answers = {
        address: [console.browser(address).get(path).status_code for path in ("/metrics", "/healthz", "/fhir/metadata")]
        for address in ("10.1.2.3", "::ffff:10.1.2.3", "::1", "10.2.0.1", "testclient")
    }
    let_in, refused = [200, 200, 401], [401, 401, 401]
    assert list(answers.values()) == [let_in, let_in, let_in, refused, refused]
    forged = console.browser("10.2.0.1").get("/metrics", headers={"x-forwarded-for": "10.1.2.3"})
    assert forged.status_code == 401


def test_a_tokens_file_that_holds_the_secret_itself_is_refused_without_repeating_it(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("registry fhir a-secret\n")
    with pytest.raises(Misconfigured, match=r"Line 1 of console\.tokens_file") as raised:
        read_tokens(file)
    assert "a-secret" not in str(raised.value)
    with pytest.raises(Misconfigured, match="cannot be read"):
        read_tokens(tmp_path / "none")


def test_the_console_listens_elsewhere_than_on_loopback_only_with_tls_and_a_login() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.8.0.1"):
        check_may_listen(host, has_tls=False, has_login=False)
    for host in ("0.0.0.0", "::", "10.0.0.1", "scanner.example.org", ""):
        with pytest.raises(Misconfigured, match="without TLS"):
            check_may_listen(host, has_tls=False, has_login=True)
        with pytest.raises(Misconfigured, match="nobody can log in"):
            check_may_listen(host, has_tls=True, has_login=False)
        check_may_listen(host, has_tls=True, has_login=True)
