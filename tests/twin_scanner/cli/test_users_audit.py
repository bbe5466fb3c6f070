"""The verbs on users and on the audit trail: no default password, and one changed byte is found."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.samples.command_line import run
from twin_scanner.service.ledger import Ledger, NewJob
from twin_scanner.service.ledger.events import EVENTS

pytestmark = pytest.mark.record


def test_users_are_added_with_a_password_of_a_file_listed_and_removed(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse battery\n")
    added = run(tmp_path, "users", "add", "maria", "--role", "operator", "--password-file", "password")
    assert (added.returncode, added.stdout) == (0, "maria operator\n"), added.stderr
    account = ledger.users.find("maria")
    assert account is not None and account.role == "operator" and account.password_hash.startswith("$argon2id$")
    again = run(tmp_path, "users", "add", "maria", "--role", "admin", "--password-file", "password")
    assert again.returncode == 1 and "already" in again.stderr
    (listed,) = json.loads(run(tmp_path, "users", "list", "--json").stdout)
    assert (listed["name"], listed["role"]) == ("maria", "operator") and "password" not in str(listed)
    assert run(tmp_path, "users", "remove", "maria").returncode == 0
    assert run(tmp_path, "users", "remove", "maria").returncode == 1
    assert ledger.users.all() == []


def test_there_is_no_default_password_and_no_weak_one(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("admin\n")
    for words in (["--password-file", "short"], ["--password-file", "none"], []):
        done = run(tmp_path, "users", "add", "maria", "--role", "admin", *words)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert run(tmp_path, "users", "add", "a b", "--role", "admin").returncode == 2
    assert run(tmp_path, "users", "add", "maria", "--role", "king").returncode == 2
    assert ledger.users.all() == []


def test_one_changed_byte_and_a_missing_last_event_are_found(ledger: Ledger, tmp_path: Path) -> None:
    for number in range(3):
        ledger.jobs.open(NewJob(f"1.2.{number}", "1.9", "1.2.3", f"{number:064x}", 20))
    holds = run(tmp_path, "audit", "verify")
    assert holds.returncode == 0 and holds.stdout.startswith("twin-scanner-1: the chain holds up to event 3, hash ")
    (newest, *_) = json.loads(run(tmp_path, "audit", "show", "--limit", "1", "--json").stdout)
    assert (newest["what"], newest["of_table"], newest["event_id"]) == ("opened", "jobs", 3)
    with ledger.database.engine.begin() as connection:
        connection.execute(sa.delete(EVENTS).where(EVENTS.c.event_id == 3))
    missing = run(tmp_path, "audit", "verify")
    assert missing.returncode == 1 and "events after event 2 are missing" in missing.stdout
    with ledger.database.engine.begin() as connection:
        connection.execute(EVENTS.update().where(EVENTS.c.event_id == 1).values(what="openee"))
    changed = run(tmp_path, "audit", "verify")
    assert changed.returncode == 1 and "event 1 was changed" in changed.stdout
