"""The verbs `backup` and `restore`, as an administrator types them: from one storage folder into another."""

import json
from pathlib import Path

import pytest

from tests.samples.command_line import run
from twin_scanner.service.ledger import Ledger, NewJob, migrate

pytestmark = pytest.mark.record


def test_a_node_comes_back_from_its_backup_with_its_jobs(tmp_path: Path) -> None:
    folder = tmp_path / "twin-scanner-data"
    folder.mkdir()
    migrate(f"sqlite:///{folder / 'ledger.sqlite'}")
    ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}", node="twin-scanner-1")
    job = ledger.jobs.open(NewJob("1.2.3", "1.9", "1.2.3", "a" * 64, 2))
    done = run(tmp_path, "backup", "backups", "--keep", "1", "--json")
    ledger.close()
    backup = json.loads(done.stdout)["backup"]
    refused = run(tmp_path, "restore", backup)
    assert refused.returncode == 1 and "is there already" in refused.stderr
    for file in folder.glob("ledger.sqlite*"):
        file.unlink()
    restored = run(tmp_path, "restore", backup)
    assert (restored.returncode, "twin-scanner-1" in restored.stdout) == (0, True), restored.stderr
    again = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}", node="twin-scanner-1")
    assert again.jobs.find(job.job_id).study_uid == "1.2.3"
    again.close()
