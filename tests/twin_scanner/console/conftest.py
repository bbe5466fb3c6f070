"""A ledger on SQLite whose clock the test drives, and a small application behind the console's door."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from fastapi import Depends, FastAPI
from fastapi.templating import Jinja2Templates

from tests.fakes.app_browser import AppBrowser
from tests.fakes.clock import Clock
from twin_scanner.console.access.guard import AccessRules, guard
from twin_scanner.console.access.passwords import Passwords
from twin_scanner.console.access.roles import Role, User, needs
from twin_scanner.service.ledger import Ledger, migrate

PASSWORD = "correct horse battery"
TEMPLATES = "twin_scanner/console/templates"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("migrated") / "ledger.sqlite"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture
def ledger(tmp_path: Path, migrated_file: Path, clock: Clock) -> Iterator[Ledger]:
    file = tmp_path / "ledger.sqlite"
    shutil.copyfile(migrated_file, file)
    opened = Ledger(f"sqlite:///{file}", node="node", who="test", now=clock, monotonic_s=clock.monotonic_s)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def passwords() -> Passwords:
    """The same algorithm, with the least work."""
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@dataclass
class Console:
    """A small application behind the door, and browsers for it."""

    app: FastAPI
    ledger: Ledger
    passwords: Passwords
    base_url: str = "https://scanner.example.org"

    def browser(self, address: str = "10.0.0.7") -> AppBrowser:
        return AppBrowser(self.app, self.base_url, address)

    def add(self, name: str, role: Role) -> None:
        self.ledger.users.add(name, role.value, self.passwords.hash(PASSWORD, name))

    def log_in(self, name: str, address: str = "10.0.0.7", password: str = PASSWORD) -> AppBrowser:
        browser = self.browser(address)
        answer = browser.post("/login", data=form(browser, name=name, password=password))
        assert answer.status_code == 303, answer.text
        return browser


def form(browser: AppBrowser, **fields: str) -> dict[str, str]:
    """The fields with the token that the login page has."""
    page = browser.get("/login").text
    token = page.split('name="csrf_token" value="')[1].split('"')[0]
    return {"csrf_token": token, **fields}


MakeConsole = Callable[..., Console]


@pytest.fixture
def make_console(ledger: Ledger, clock: Clock, passwords: Passwords, project: Path) -> MakeConsole:

    def make(base_url: str = "https://scanner.example.org", **rules: Any) -> Console:
        app = FastAPI(openapi_url=None)
        for path, role in (("/seen", Role.VIEWER), ("/done", Role.OPERATOR), ("/changed", Role.ADMIN)):
            _add_routes(app, ledger, path, role)
        for path in ("/fhir/metadata", "/metrics", "/healthz"):
            app.get(path)(lambda: "here")
        app.get("/forgotten")(lambda: "a route that states no role")
        rules = {"local_only": False, **rules}
        guard(
            app,
            ledger,
            AccessRules(**rules),
            Jinja2Templates(project / TEMPLATES),
            passwords=passwords,
            now=clock,
            monotonic_s=clock.monotonic_s,
        )
        return Console(app, ledger, passwords, base_url)

    return make


def _add_routes(app: FastAPI, ledger: Ledger, path: str, role: Role) -> None:
    def answer(user: User = Depends(needs(role))) -> dict[str, str]:  # noqa: B008
        ledger.saw("pages", path)
        return {"user": user.name}

    app.get(path)(answer)
    app.post(path)(answer)


@pytest.fixture
def console(make_console: MakeConsole) -> Console:
    """With a user of each role."""
    made = make_console()
    for role in Role:
        made.add(f"a-{role.value}", role)
    return made
