"""The bundle for support: what is in it, and that no patient, secret or address is.

Oracle: values that a test has put wherever one may stand, looked for in every byte of every file.
"""

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.samples.examined import examined_settings
from twin_scanner.app import open_ledger
from twin_scanner.doctor.support import configuration_of, log_lines, write_bundle
from twin_scanner.errors import Rejected
from twin_scanner.service.ledger import NewJob, StudyFacts, migrate
from twin_scanner.service.ledger.studies import Arrival
from twin_scanner.settings import Settings

pytestmark = pytest.mark.record

SECRETS = ("DOE^JANE", "ACC-4711", "PID-0815", "1.2.840.99.1", "hunter2", "pacs.hospital.example", "SECRETAE", "Thorax")
LINE = {
    "time": "2026-03-01T12:00:00",
    "level": "ERROR",
    "message": "the study of DOE^JANE at pacs.hospital.example",
    "logger": "twin_scanner.worker",
    "step": "render",
    "error": "Transient",
    "reason": "PID-0815 has ACC-4711",
    "study_uid": "1.2.840.99.1",
    "ae_title": "SECRETAE",
}


def settings_of(folder: Path, port: int) -> Settings:
    """A scanner with a secret wherever one may be configured."""
    return examined_settings(
        folder,
        port,
        node={"ae_title": "SECRETAE"},
        pacs={"ae_title": "SECRETAE", "timeout_s": 0.5},
        model={"accept_phantom_only": True},
    )


def test_a_bundle_holds_no_patient_no_secret_and_no_address(tmp_path: Path, closed_port: int) -> None:
    settings = settings_of(tmp_path, closed_port)
    settings.storage.folder.mkdir()
    migrate(settings.ledger_url)
    ledger = open_ledger(settings)
    now = datetime(2026, 3, 1, tzinfo=UTC)
    ledger.studies.arrived([Arrival("1.2.840.99.1", "SECRETAE", 20, now, now)])
    ledger.studies.describe("1.2.840.99.1", StudyFacts("20260301", "ACC-4711", "Thorax of DOE^JANE"))
    ledger.jobs.open(NewJob("1.2.840.99.1", "1.9", "1.2.840.99.1.4", "0" * 64, 20))
    job = ledger.jobs.claim()
    assert job is not None
    ledger.jobs.postpone(job, 5.0, "PID-0815 at pacs.hospital.example", error="Transient")
    ledger.close()
    log = tmp_path / "service.log"
    log.write_text(json.dumps(LINE) + "\nTraceback of DOE^JANE\n")
    out = tmp_path / "bundle.zip"
    names = write_bundle(out, settings, log)
    with zipfile.ZipFile(out) as bundle:
        assert bundle.namelist() == names
        texts = {name: bundle.read(name).decode() for name in names}
    assert names == [
        "versions.json",
        "configuration.json",
        "findings.json",
        "migrations.json",
        "counts.json",
        "events.json",
        "log.json",
    ]
    for secret in (*SECRETS, str(tmp_path), "127.0.0.1"):
        shown = [name for name, text in texts.items() if secret in text]
        assert not shown, secret
    assert json.loads(texts["counts.json"])["jobs"]["queued"] == 1
    assert {event["what"] for event in json.loads(texts["events.json"])} >= {"opened", "tried", "arriving"}
    (line,) = json.loads(texts["log.json"])
    assert line == {key: LINE[key] for key in ("time", "level", "logger", "step", "error")}
    with pytest.raises(Rejected, match="already"):
        write_bundle(out, settings, None)


def test_the_configuration_is_shown_by_numbers_switches_and_choices() -> None:
    settings = Settings.model_validate(
        {
            "ledger": {"url": "postgresql+psycopg://twin:hunter2@pacs.hospital.example/ledger"},
            "node": {"ae_title": "SECRETAE", "port": 11113, "other_ae_titles": {"SECRETAE2": "urgent"}},
            "selection": {"real_pet": "hold"},
            "pacs": {"ae_title": "SECRETAE", "host": "pacs.hospital.example"},
            "twin": {"url": "https://pacs.hospital.example/fhir", "patient_identifier_system": "urn:oid:2.999.1"},
        }
    )
    shown = configuration_of(settings)
    assert not [secret for secret in SECRETS if secret in json.dumps(shown)]
    assert shown["selection"]["real_pet"] == "hold"
    assert shown["node"]["port"] == 11113
    assert shown["ledger"]["url"] == "(set)"
    assert set(shown) == set(Settings.model_fields)


def test_of_a_log_the_last_lines_are_taken(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    log.write_text("".join(json.dumps({**LINE, "step": f"{number}"}) + "\n" for number in range(2500)))
    lines = log_lines(log)
    assert len(lines) == 2000
    assert lines[-1]["step"] == "2499"
