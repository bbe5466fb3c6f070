"""The console as the configuration wires it: who comes in by a token, by the identity provider, or not at all."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.samples.twin_updates import an_update
from twin_record.target import TwinTarget
from twin_scanner import console_server
from twin_scanner.app import open_twin
from twin_scanner.console_server import access_rules, serving
from twin_scanner.errors import Misconfigured
from twin_scanner.service.ledger import KeptUpdate, Ledger, NewJob, migrate
from twin_scanner.settings import Settings

pytestmark = pytest.mark.record
OIDC = {
    "issuer": "https://login.example.org",
    "client_id": "twin-scanner",
    "redirect_uri": "https://scanner.example.org/login/oidc/callback",
    "admins": ["imaging"],
}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    migrate(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", node="twin-scanner-1")) as ledger:
        yield ledger


def settings_of(tmp_path: Path, **sections: Any) -> Settings:
    return Settings.model_validate({"storage": {"folder": tmp_path / "storage"}, **sections})


def test_with_an_identity_provider_a_person_logs_in_and_a_program_shows_its_token(
    tmp_path: Path, ledger: Ledger
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"prometheus metrics {hashlib.sha256(b'secret').hexdigest()}\n")
    settings = settings_of(tmp_path, oidc=OIDC, console={"port": 0, "tokens_file": tokens})
    with serving(settings, None, ledger) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/", headers={"accept": "text/html"}).headers["location"].startswith("/login")
        assert "/login/oidc" in client.get("/login").text
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers={"authorization": "Bearer another"}).status_code == 401
        answer = client.get("/metrics", headers={"authorization": "Bearer secret"})
        assert answer.status_code == 200
        assert "twin_scanner_build_info" in answer.text
        assert client.get("/fhir/metadata", headers={"authorization": "Bearer secret"}).status_code == 401


def test_an_address_that_is_listed_needs_no_token(tmp_path: Path, ledger: Ledger) -> None:
    settings = settings_of(tmp_path, oidc=OIDC, console={"port": 0, "fhir_addresses": ["127.0.0.0/8"]})
    with serving(settings, None, ledger) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/fhir/metadata").status_code == 200
        assert client.get("/metrics").status_code == 401


@pytest.mark.parametrize(
    ("console", "oidc"),
    [({"tokens_file": "nowhere"}, {}), ({}, {**OIDC, "client_secret_file": "nowhere"})],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, console: dict[str, Any], oidc: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="nowhere"):
        access_rules(settings_of(tmp_path, console=console, oidc=oidc))


def test_a_console_that_others_reach_wants_tls_and_a_login(tmp_path: Path, ledger: Ledger) -> None:
    with (
        pytest.raises(Misconfigured, match="without TLS"),
        serving(settings_of(tmp_path, console={"host": "0.0.0.0", "port": 0}), None, ledger),
    ):
        pass


@pytest.mark.parametrize(
    "oidc", [{"issuer": "https://login.example.org"}, {**OIDC, "admins": []}, {**OIDC, "issuer": "login.example.org"}]
)
def test_half_an_identity_provider_is_a_fault(tmp_path: Path, oidc: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"oidc|address"):
        settings_of(tmp_path, oidc=oidc)


def test_the_twin_of_a_job_is_read_from_the_store_that_the_console_holds(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, settings = an_update(), settings_of(tmp_path, console={"port": 0})
    job = ledger.jobs.open(NewJob(update.study_uid, "1.3", "1.4", "1" * 64, 20))
    other = ledger.jobs.open(NewJob("1.2", "1.3", "1.4", "2" * 64, 20))
    ledger.updates.keep(KeptUpdate(job.job_id, update.made_at, update.patient_id, update.as_json()))
    with closing(open_twin(settings)) as twin:
        twin.record(update)
    opened: list[Settings] = []

    def count(of: Settings) -> TwinTarget:
        opened.append(of)
        return open_twin(of)

    monkeypatch.setattr(console_server, "open_twin", count)
    with serving(settings, None, ledger) as server, httpx.Client(base_url=server.url) as client:
        page = client.get(f"/twin/{job.job_id}")
        assert page.status_code == 200 and update.study_uid in page.text
        assert update.patient_id not in page.text
        assert client.get(f"/twin/{other.job_id}").status_code == 404
    assert opened == [settings]
