"""The verbs on twin records, on a node with a ledger and an embedded store: show, sync, erase, export, import."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import sqlalchemy as sa

from tests.fakes.scripted_fhir import empty_server, scripted_fhir
from tests.samples.command_line import run
from tests.samples.twin_updates import an_update, another_study
from twin_record.embedded import EmbeddedStore
from twin_record.update import TwinSite, TwinUpdate
from twin_scanner.service.ledger import KeptUpdate, Ledger, NewJob

pytestmark = pytest.mark.record

PATIENT = "PID-forget-me"
Verb = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def updates(ledger: Ledger) -> list[TwinUpdate]:
    """What the ledger keeps: two studies of one patient and one of another, none of them recorded."""
    first = an_update(patient_id=PATIENT, patient_name="Vergessen^Viktor", study_description="Staging of the first")
    kept = [first, another_study(first), replace(an_update(), issuer_of_patient_id="ELSEWHERE", patient_id=PATIENT)]
    for number, update in enumerate(kept):
        job = ledger.jobs.open(NewJob(update.study_uid, "1.3", "1.4", f"{number:064x}", 20))
        ledger.updates.keep(KeptUpdate(job.job_id, update.made_at, PATIENT, update.as_json()))
    return kept


@pytest.fixture
def verb(tmp_path: Path) -> Verb:
    """Runs `twin-scanner twin` with these words."""

    def call(*words: str) -> "CompletedProcess[str]":
        done = run(tmp_path, "twin", *words)
        assert "Traceback" not in done.stderr
        return done

    return call


def succeeded(done: "CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sync_records_what_is_missing_once(updates: list[TwinUpdate], verb: Verb) -> None:
    assert json.loads(succeeded(verb("sync", "--dry-run", "--json"))) == {"would_be_recorded": 3, "kept_no_update": 0}
    report = json.loads(succeeded(verb("sync", "--json")))
    assert (len(report["written"]), report["there"], report["refused"]) == (3, [], {})
    assert "written         0" in succeeded(verb("sync"))
    again = json.loads(succeeded(verb("sync", "--all", "--json")))
    assert (again["written"], len(again["there"])) == ([], 3)
    future = json.loads(succeeded(verb("sync", "--since", "2999-01-01", "--json")))
    assert (future["written"], future["there"]) == ([], [])


def test_sync_says_what_was_refused_and_ends_with_1(updates: list[TwinUpdate], ledger: Ledger, verb: Verb) -> None:
    wrong = replace(another_study(updates[0]), birth_date="19910101")
    ledger.updates.keep(KeptUpdate("f" * 32, wrong.made_at, PATIENT, wrong.as_json()))
    done = verb("sync")
    assert done.returncode == 1
    assert "refused         1" in done.stdout and f"job {'f' * 32}: The birth date in the CT contradicts" in done.stderr
    assert PATIENT not in done.stdout + done.stderr


def test_a_server_that_does_not_answer_ends_sync_in_one_sentence(
    updates: list[TwinUpdate], tmp_path: Path, verb: Verb, free_port: Callable[[], int]
) -> None:
    address = f'url = "http://127.0.0.1:{free_port()}/r4"\npatient_identifier_system = "urn:oid:2.999.1"\n'
    (tmp_path / "moved.toml").write_text(f"[twin]\n{address}")
    done = verb("sync", "--config", "moved.toml")
    assert done.returncode == 1
    assert "3 updates are left: 'twin-scanner twin sync' goes on with them." in done.stderr


def test_one_choice_of_updates_at_a_time(verb: Verb) -> None:
    done = verb("sync", "--all", "--patient", "P1")
    assert done.returncode == 2 and "give one of --since, --patient and --all" in done.stderr


def test_show_is_a_timeline_for_people_for_scripts_and_as_a_bundle(updates: list[TwinUpdate], verb: Verb) -> None:
    succeeded(verb("sync"))
    text = succeeded(verb("show", PATIENT))
    assert "Viktor Vergessen" in text and "Staging of the first" in text and "pix2pix-districts" in text
    timeline = json.loads(succeeded(verb("show", PATIENT, "--json")))
    assert [scan["study_uid"] for scan in timeline["scans"]] == [update.study_uid for update in updates[:2]]
    assert json.loads(succeeded(verb("show", PATIENT, "--bundle")))["resourceType"] == "Bundle"
    assert len(json.loads(succeeded(verb("show", PATIENT, "--issuer", "ELSEWHERE", "--json")))["scans"]) == 1


def test_an_erased_patient_is_in_no_file_and_in_no_event(
    updates: list[TwinUpdate], ledger: Ledger, tmp_path: Path, verb: Verb
) -> None:
    succeeded(verb("sync"))
    refused = verb("erase", PATIENT)
    assert refused.returncode == 2 and "give --yes" in refused.stderr
    (tmp_path / "twin-scanner-data" / "jobs" / ledger.jobs.newest()[-1].job_id / "ct").mkdir(parents=True)
    out = json.loads(succeeded(verb("erase", PATIENT, "--yes", "--json")))
    assert (len(out["updates"]), len(out["files"]), len(out["resources"]), out["elsewhere"]) == (2, 1, 6, [])
    assert verb("show", PATIENT).returncode == 1
    assert succeeded(verb("show", PATIENT, "--issuer", "ELSEWHERE"))
    assert len(json.loads(succeeded(verb("sync", "--all", "--json")))["there"]) == 1
    with ledger.database.read() as connection:
        events = [dict(row._mapping) for row in connection.execute(sa.text("SELECT * FROM events"))]
    assert sum(event["what"] == "erased" for event in events) == 3
    assert PATIENT not in json.dumps(events, default=str)
    ledger.close()
    kept = b"".join(file.read_bytes() for file in (tmp_path / "twin-scanner-data").iterdir() if file.is_file())
    assert b"Vergessen" not in kept and updates[0].pet_series.series_uid.encode() not in kept
    nobody = verb("erase", "P-unknown", "--yes")
    assert nobody.returncode == 1 and "no twin record" in nobody.stderr


def test_what_is_on_a_fhir_server_is_listed_and_not_erased(
    updates: list[TwinUpdate], tmp_path: Path, verb: Verb
) -> None:
    """The store of before the move is erased all the same."""
    succeeded(verb("sync"))
    with scripted_fhir(empty_server) as (address, _):
        (tmp_path / "moved.toml").write_text(
            f'[twin]\nurl = "{address}"\npatient_identifier_system = "urn:oid:2.999.1"\n'
        )
        out = json.loads(succeeded(verb("erase", PATIENT, "--yes", "--json", "--config", "moved.toml")))
    assert (len(out["updates"]), len(out["resources"]), out["elsewhere"]) == (2, 6, [])


@pytest.mark.parametrize("out", ["records", "records.ndjson"])
def test_exported_records_are_imported_on_another_node_once(
    updates: list[TwinUpdate], tmp_path: Path, verb: Verb, out: str
) -> None:
    succeeded(verb("sync"))
    assert succeeded(verb("export", "--out", out)) == f"2 records in {out}\n"
    exported = tmp_path / out
    assert PATIENT not in "".join(file.name for file in exported.glob("*"))
    (tmp_path / "other.toml").write_text('[storage]\nfolder = "other"\n')
    there = ("import", out, "--config", "other.toml", "--json")
    assert json.loads(succeeded(verb(*there))) == {"imported": 2, "there_already": 0, "refused": {}}
    assert json.loads(succeeded(verb(*there))) == {"imported": 0, "there_already": 2, "refused": {}}
    shown = ("show", PATIENT, "--json")
    assert succeeded(verb(*shown, "--config", "other.toml")) == succeeded(verb(*shown))


def test_a_record_that_is_refused_does_not_keep_the_others_out(tmp_path: Path, verb: Verb) -> None:
    site = TwinSite(patient_identifier_system="urn:twin-scanner:patient-id")
    store = EmbeddedStore(tmp_path / "store.sqlite", site)
    store.record(an_update())
    (record,) = store.records()
    store.close()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text("{")
    (tmp_path / "in" / "b.json").write_text(json.dumps(record))
    done = verb("import", "in")
    assert done.returncode == 1
    assert "a.json: It is no JSON document." in done.stderr and "imported       1" in done.stdout
    assert verb("import", "nowhere").returncode == 1
