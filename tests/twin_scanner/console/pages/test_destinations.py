"""The page of destinations: the twin record stands beside those of images."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.fakes.app_browser import AppBrowser
from tests.fakes.clock import Clock
from twin_scanner.app import Scanner
from twin_scanner.console.access.guard import AccessRules
from twin_scanner.console.application import create_application
from twin_scanner.console_server import make_site
from twin_scanner.service.ledger import Destination, Ledger, NewJob, Rendered, Result
from twin_scanner.settings import Settings

pytestmark = pytest.mark.record
TO = (Destination("pacs"), Destination("twin", after_required=True))


def rows(ledger: Ledger, tmp_path: Path, scanner: Any = None, **twin: str) -> dict[str, list[str]]:
    """The page's table: the cells of each destination."""
    settings = Settings.model_validate({"storage": {"folder": tmp_path}, "twin": twin})
    site = make_site(settings, None, ledger, cast(Scanner, scanner))
    browser = AppBrowser(create_application(site, AccessRules()), "http://localhost:8042")
    page = browser.get("/destinations", headers={"accept": "text/html"}).text
    found = {}
    for row in page.split("<tr>")[2:]:
        name, *cells = [" ".join(re.sub("<[^>]+>", " ", cell).split()) for cell in re.split("</t[hd]>", row)][:-1]
        found[name] = cells
    return found


def test_the_twin_stands_with_its_state_its_last_success_and_what_waits(
    ledger: Ledger, clock: Clock, tmp_path: Path
) -> None:
    for number in range(3):
        ledger.jobs.open(NewJob(f"1.2.{number}", "1.3", "1.4", f"{number:064x}", 20))
        job = ledger.jobs.claim()
        assert job is not None
        ledger.rendered(job, Rendered(f"2.25.{number}", "m", (), Result({}, {}), TO))
    for name in ("pacs", "twin"):
        delivery = ledger.deliveries.claim(name)
        assert delivery is not None
        clock.pass_s(60.0)
        ledger.deliveries.confirmed(delivery, "query")
    found = rows(ledger, tmp_path)
    assert list(found) == ["pacs", "twin"]
    address, state, last, waiting, confirmed_by, test = found["twin"]
    assert (address, state, confirmed_by, test) == ("the embedded store", "not known here", "FHIR transaction", "-")
    assert (last, waiting) == (f"{clock.now:%Y-%m-%d %H:%M:%S}Z", "2 waiting")


def test_a_twin_that_is_down_is_said_and_its_address_shows_no_password(ledger: Ledger, tmp_path: Path) -> None:
    scanner = SimpleNamespace(down={"twin"}, thread_fault=lambda: None, executor_fault=lambda: None)
    server = {"url": "https://scanner:secret@fhir.example.org/r4", "patient_identifier_system": "urn:oid:1.2.3"}
    found = rows(ledger, tmp_path, scanner, **server)
    assert found["twin"][:2] == ["https://fhir.example.org/r4", "down"]
    assert found["pacs"][1] == "up"
