"""Changes of champion from the console: what the audit has of them before, after, and where they are cut off."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.app_browser import AppBrowser
from twin_scanner.console.access.guard import AccessRules
from twin_scanner.console.application import create_application
from twin_scanner.console_server import make_site
from twin_scanner.errors import Rejected
from twin_scanner.models.store import ModelStore
from twin_scanner.service.ledger import Ledger
from twin_scanner.settings import Settings

pytestmark = pytest.mark.record
MODEL, BEFORE = "a" * 64, "b" * 64


class PowerCut(BaseException):
    """The process ends where it stands."""


def post(ledger: Ledger, tmp_path: Path, change: Any, verb: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Ask for a promotion or a rollback that does this; the answer's status."""
    monkeypatch.setattr(ModelStore, "rollback", lambda store, reason: change())
    monkeypatch.setattr(ModelStore, "aliases", lambda store: {"previous": MODEL, "champion": BEFORE})
    site = make_site(Settings.model_validate({"storage": {"folder": tmp_path}}), None, ledger)
    site = replace(site, promote=lambda model_hash, against_gate: change())
    browser = AppBrowser(create_application(site, AccessRules()), "http://localhost:8042")
    token = re.search(r'name="csrf_token" value="([^"]+)"', browser.get("/login").text)
    assert token is not None
    fields = {"csrf_token": token[1], "model_hash": MODEL, "reason": "It is worse on arms."}
    return browser.post(f"/models/{verb}", data=fields).status_code


def noted(ledger: Ledger) -> list[tuple[str, str]]:
    return [(event.what, event.who) for event in ledger.events.of_row("models", MODEL)]


@pytest.mark.parametrize(
    ("verb", "asked", "done", "refused"),
    [
        ("promote", "promotion asked", "promoted", "promotion refused"),
        ("rollback", "rollback asked", "rolled back", "rollback refused"),
    ],
)
def test_a_change_of_champion_is_noted_before_it_and_after_it(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, asked: str, done: str, refused: str
) -> None:
    seen: list[list[tuple[str, str]]] = []

    def change() -> None:
        seen.append(noted(ledger))

    def refuse() -> None:
        raise Rejected("The gate has refused it.")

    def crash() -> None:
        raise PowerCut

    who = "this machine"
    assert post(ledger, tmp_path, change, verb, monkeypatch) == 303
    assert seen == [[(asked, who)]], "the wish was in the ledger when the change began"
    assert noted(ledger) == [(asked, who), (done, who)]
    assert post(ledger, tmp_path, refuse, verb, monkeypatch) == 409
    assert noted(ledger)[2:] == [(asked, who), (refused, who)]
    with pytest.raises(PowerCut):
        post(ledger, tmp_path, crash, verb, monkeypatch)
    assert noted(ledger)[4:] == [(asked, who)], "a crash between leaves its trace"
    assert ledger.events.first_break("node") is None
