"""FHIR behind the console's door: a token opens it, nothing else does, and the events say who was given what."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.templating import Jinja2Templates

from tests.fakes.app_browser import AppBrowser
from tests.samples.twin_updates import SITE, measured_update
from twin_record.embedded import EmbeddedStore
from twin_scanner.console.access.guard import AccessRules, guard
from twin_scanner.console.access.tokens import Machines, Purpose, Token
from twin_scanner.console.fhir_api.router import router
from twin_scanner.service.ledger import Ledger, migrate

pytestmark = pytest.mark.record
TOKEN = "a token of sixteen letters or more"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    migrate(url)
    with closing(Ledger(url, node="node", who="test")) as opened:
        yield opened


def test_a_token_opens_fhir_and_each_resource_it_was_given_is_in_the_events(ledger: Ledger, tmp_path: Path) -> None:
    machines = Machines((Token("research", Purpose.FHIR, hashlib.sha256(TOKEN.encode()).hexdigest()),))
    application = FastAPI()
    with closing(EmbeddedStore(tmp_path / "twin.sqlite", SITE)) as store:
        store.record(measured_update())
        application.include_router(router(ledger, store))
        guard(application, ledger, AccessRules(local_only=False, machines=machines), Jinja2Templates(tmp_path))
        client = AppBrowser(application)
        refused = client.get("/fhir/Patient")
        assert (refused.status_code, refused.json()["resourceType"]) == (401, "OperationOutcome")
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert client.post("/fhir/Patient", json={}, headers=bearer).status_code == 405
        found = client.post("/fhir/Patient/_search", data={"identifier": "PAT-1"}, headers=bearer)
        assert found.status_code == 200
        patients = client.get("/fhir/Patient", headers=bearer).json()["entry"]
    events = [event for event in ledger.events.newest(50) if event.of_table == "fhir"]
    assert (events[0].who, events[0].row_id) == ("research", f"Patient/{patients[0]['resource']['id']}")
