"""`twin check`: its table, its JSON and its exit status. Oracle: a PACS stand-in whose patient a test corrects."""

import json
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from tests.fakes.archive import Archive
from tests.samples.command_line import run
from tests.samples.twin_updates import an_update
from twin_scanner.service.ledger import KeptUpdate, Ledger, NewJob, Rendered, Result, migrate

pytestmark = pytest.mark.record


def test_a_corrected_patient_is_named_by_job_and_study_and_ends_with_1(tmp_path: Path) -> None:
    update = an_update(patient_id="P1", patient_name="Doe^Jane")
    (tmp_path / "twin-scanner-data").mkdir()
    url = f"sqlite:///{tmp_path / 'twin-scanner-data' / 'ledger.sqlite'}"
    migrate(url)
    ledger = Ledger(url, node="twin-scanner-1")
    job = ledger.jobs.open(NewJob(update.study_uid, "1.9", "1.2.3", "0" * 64, 3))
    ledger.enter("folder")
    claimed = ledger.jobs.claim()
    assert claimed is not None
    ledger.rendered(claimed, Rendered(update.pet_series.series_uid, "m", (), Result({}, {}), ()))
    ledger.updates.keep(KeptUpdate(job.job_id, job.made_at, update.patient_id, update.as_json()))
    ledger.close()
    patient = Dataset()
    patient.PatientID, patient.PatientName = "P1", "Doe^Jane"
    with Archive() as archive:
        archive.patients = {update.study_uid: [patient]}
        config = tmp_path / "node.toml"
        config.write_text(f'[pacs]\nae_title = "PACS"\nport = {archive.peer.port}\n')
        same = run(tmp_path, "twin", "check", "--config", str(config))
        patient.PatientID = "P2"
        changed = run(tmp_path, "twin", "check", "--json", "--config", str(config))
    assert (same.returncode, "1 studies asked for at pacs, 0 differ." in same.stderr) == (0, True)
    assert changed.returncode == 1
    (one,) = json.loads(changed.stdout)["changed"]
    assert one == {"job_id": job.job_id, "study_uid": update.study_uid, "pacs": "pacs", "differing": ["patient id"]}
    assert not any(word in changed.stdout + changed.stderr for word in ("P1", "P2", "Doe"))


def test_where_no_pacs_may_be_asked_it_says_so_and_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "twin-scanner-data").mkdir()
    migrate(f"sqlite:///{tmp_path / 'twin-scanner-data' / 'ledger.sqlite'}")
    (tmp_path / "node.toml").write_text("[twin]\nask_pacs = false\n")
    asked = run(tmp_path, "twin", "check", "--config", str(tmp_path / "node.toml"))
    assert (asked.returncode, "set twin.ask_pacs" in asked.stderr) == (1, True)
