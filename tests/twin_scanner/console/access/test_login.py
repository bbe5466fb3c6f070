"""Logins by password: what a stranger learns, how often one may try, and what a session is worth."""

import re
from datetime import timedelta

import pytest

from tests.fakes.app_browser import AppBrowser
from tests.fakes.clock import Clock
from tests.twin_scanner.console.conftest import PASSWORD, Console, MakeConsole, form
from twin_scanner.console.access.control import SESSION
from twin_scanner.console.access.headers import HEADERS
from twin_scanner.console.access.passwords import Passwords
from twin_scanner.console.access.roles import Role
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.record

COOKIE = f"__Host-{SESSION}"


def tries(browser: AppBrowser, name: str, password: str, count: int) -> list[int]:
    fields = form(browser, name=name, password=password)
    return [browser.post("/login", data=fields).status_code for _ in range(count)]


def test_whoever_is_not_logged_in_is_led_to_the_login_and_sees_nothing_else(console: Console) -> None:
    browser = console.browser()
    page = browser.get("/forgotten?a=1", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login?next=%2Fforgotten%3Fa%3D1")
    assert browser.get("/forgotten").status_code == 401
    assert browser.post("/done").status_code in (401, 403)


def test_a_person_logs_in_comes_to_the_page_asked_for_and_goes(console: Console) -> None:
    browser = console.browser()
    answer = browser.post("/login", data=form(browser, name="a-viewer", password=PASSWORD, next="/seen?x=1"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/seen?x=1")
    cookie = next(line for line in answer.headers.get_list("set-cookie") if line.startswith(COOKIE))
    assert {part.strip().lower() for part in cookie.split(";")[1:]} == {"httponly", "secure", "samesite=lax", "path=/"}
    assert browser.get("/seen").json() == {"user": "a-viewer"}
    kept = browser.cookies[COOKIE]
    assert browser.post("/logout", data=form(browser)).status_code == 303
    browser.cookies.set(COOKIE, kept)
    assert browser.get("/seen").status_code == 401


@pytest.mark.parametrize("elsewhere", ["//evil.example", "/\\evil.example", "https://evil.example", "/a\r\nb: c", ""])
def test_a_login_leads_to_no_other_site(console: Console, elsewhere: str) -> None:
    browser = console.browser()
    answer = browser.post("/login", data=form(browser, name="a-viewer", password=PASSWORD, next=elsewhere))
    assert answer.headers["location"] == "/"


def test_a_session_id_that_somebody_gave_the_browser_before_is_worth_nothing_after_the_login(console: Console) -> None:
    browser = console.browser()
    browser.cookies.set(COOKIE, "chosen-by-the-attacker", domain="scanner.example.org", path="/")
    browser.post("/login", data=form(browser, name="a-admin", password=PASSWORD))
    attacker = console.browser()
    attacker.cookies.set(COOKIE, "chosen-by-the-attacker")
    assert attacker.get("/seen").status_code == 401
    assert "chosen-by-the-attacker" not in [cookie.value for cookie in browser.cookies.jar]


def test_a_second_login_ends_the_session_of_the_first(console: Console) -> None:
    browser = console.log_in("a-viewer")
    before = browser.cookies[COOKIE]
    browser.post("/login", data=form(browser, name="a-admin", password=PASSWORD))
    other = console.browser()
    other.cookies.set(COOKIE, before)
    assert other.get("/seen").status_code == 401
    assert browser.get("/seen").json() == {"user": "a-admin"}


def test_a_session_ends_by_idleness_and_by_age(console: Console, clock: Clock) -> None:
    idle, busy = console.log_in("a-viewer"), console.log_in("a-viewer")
    for _ in range(36):
        clock.pass_s(timedelta(minutes=20).total_seconds())
        if busy.get("/seen").status_code != 200:
            break
    assert clock.now.hour == 0 or busy.get("/seen").status_code == 200
    assert idle.get("/seen").status_code == 401
    clock.pass_s(timedelta(minutes=20).total_seconds())
    assert busy.get("/seen").status_code == 401


def test_a_user_who_was_removed_is_out_at_once(console: Console) -> None:
    browser = console.log_in("a-operator")
    console.ledger.users.remove("a-operator")
    assert browser.get("/seen").status_code == 401


def test_the_ledger_holds_neither_a_password_nor_a_session_id(console: Console) -> None:
    browser = console.log_in("a-viewer")
    account = console.ledger.users.find("a-viewer")
    assert account is not None and account.password_hash.startswith("$argon2id$")
    with console.ledger.database.engine.connect() as connection:
        rows = str(connection.exec_driver_sql("SELECT * FROM sessions").all())
    assert browser.cookies[COOKIE] not in rows and PASSWORD not in rows + str(account)


def test_an_unknown_user_costs_as_much_work_as_a_wrong_password_and_reads_the_same(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle is the number of hashes that are computed, not a time."""
    computed: list[str] = []
    hasher = console.passwords._hasher
    verify = type(hasher).verify

    def counted(self: object, kept: str, password: str) -> bool:
        computed.append(kept)
        return verify(self, kept, password)  # type: ignore[arg-type]

    monkeypatch.setattr(type(hasher), "verify", counted)
    pages = []
    for name in ("a-viewer", "nobody", "no name: '<>"):
        browser = console.browser()
        answer = browser.post("/login", data=form(browser, name=name, password="wrong password"))
        pages.append((answer.status_code, re.sub('value="[0-9a-f]{64}"', "", answer.text)))
    assert pages == [pages[0]] * 3 and pages[0][0] == 401
    parameters = {kept.rsplit("$", 2)[0] for kept in computed}
    assert len(computed) == 3 and len(parameters) == 1


def test_too_many_tries_must_wait_and_not_for_good(console: Console, clock: Clock) -> None:
    browser = console.browser()
    assert tries(browser, "a-viewer", "wrong", 7) == [401] * 5 + [429] * 2
    refused = browser.post("/login", data=form(browser, name="a-viewer", password=PASSWORD))
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) <= 30
    clock.pass_s(31)
    assert console.log_in("a-viewer").get("/seen").status_code == 200


def test_strangers_who_try_an_account_do_not_lock_its_person_out(console: Console) -> None:
    console.log_in("a-viewer", address="10.0.0.7")
    answers = [tries(console.browser(f"203.0.113.{n}"), "a-viewer", "wrong", 5) for n in range(14)]
    assert answers[-1] == [429] * 5
    assert console.log_in("a-viewer", address="10.0.0.7").get("/seen").status_code == 200


def test_one_address_tries_few_passwords_of_many_accounts(console: Console) -> None:
    browser = console.browser()
    fields = form(browser, password="wrong")
    answers = [browser.post("/login", data={**fields, "name": f"user-{n}"}).status_code for n in range(32)]
    assert answers == [401] * 30 + [429] * 2


def test_logins_and_refusals_are_noted_and_what_was_typed_as_a_name_is_not(console: Console) -> None:
    browser = console.log_in("a-viewer")
    browser.post("/logout", data=form(browser))
    tries(console.browser(), "a-viewer", "wrong", 1)
    tries(console.browser(), PASSWORD, "wrong", 1)
    noted = [(event.row_id, event.what) for event in console.ledger.events.newest(4)]
    assert noted == [
        ("unknown", "login refused"),
        ("a-viewer", "login refused"),
        ("a-viewer", "logged out"),
        ("a-viewer", "logged in"),
    ]


def test_what_a_person_does_through_a_page_is_noted_by_the_persons_name(console: Console) -> None:
    console.log_in("a-operator").get("/seen")
    (event,) = console.ledger.events.newest(1)
    assert (event.who, event.of_table, event.row_id) == ("a-operator", "pages", "/seen")


def test_a_password_is_long_and_not_the_name(passwords: Passwords) -> None:
    for password in ("too short", "x" * 1025, "Maria-Of-Lisbon"):
        with pytest.raises(Rejected):
            passwords.hash(password, "maria-of-lisbon")
    assert not passwords.fits("x" * 100_000, passwords.hash(PASSWORD, "maria"))


def test_every_answer_has_the_headers_whatever_it_is(console: Console) -> None:
    browser = console.browser()
    for path in ("/login", "/forgotten", "/no-such-page", "/metrics"):
        headers = browser.get(path).headers
        assert HEADERS.items() <= dict(headers).items()
        assert headers["cache-control"] == "no-store" and "max-age=" in headers["strict-transport-security"]
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy


def test_on_loopback_without_users_this_machine_is_admin_until_there_is_a_user(make_console: MakeConsole) -> None:
    console = make_console("http://127.0.0.1:8080", local_only=True)
    browser = console.browser("127.0.0.1")
    assert browser.get("/changed").json() == {"user": "this machine"}
    console.add("maria", Role.ADMIN)
    assert browser.get("/changed").status_code == 401


def test_a_page_elsewhere_that_points_its_name_at_this_machine_gets_nothing(make_console: MakeConsole) -> None:
    """DNS rebinding: the browser believes that evil.example is this machine."""
    console = make_console("http://evil.example:8080", local_only=True)
    assert console.browser("127.0.0.1").get("/changed").status_code == 421
