"""The embedded store: all of a transaction or nothing, a history, and several processes at one file."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from tests.samples.twin_updates import MADE_AT, SITE, an_update, another_study
from twin_record.embedded import EmbeddedStore
from twin_record.refusals import Conflict
from twin_scanner.errors import Defect, Unavailable

pytestmark = pytest.mark.record

Json = dict[str, Any]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "twin" / "twin.db"


@pytest.fixture
def store(file: Path) -> Iterator[EmbeddedStore]:
    # Many attempts: eight threads that write one List at once meet more conflicts than a hospital ever will.
    with closing(EmbeddedStore(file, SITE, clock=lambda: MADE_AT, attempts=50)) as opened:
        yield opened


def transaction(*entries: Json) -> Json:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


def creating(value: str, **request: str) -> Json:
    """An entry that creates a Patient with an identifier."""
    resource = {"resourceType": "Patient", "identifier": [{"system": "urn:x:y", "value": value}]}
    return {"resource": resource, "request": {"method": "POST", "url": "Patient", **request}}


def rows(file: Path) -> list[tuple[Any, ...]]:
    """What stands in the file, read without our code."""
    with sqlite3.connect(file) as connection:
        found = list(connection.execute("SELECT type, id, version, content FROM resource ORDER BY type, id, version"))
        found += connection.execute("SELECT * FROM identifier ORDER BY type, system, value, id")
    connection.close()
    return found


def test_what_was_read_once_is_not_read_from_the_file_again_however_many_patients_there_are(
    store: EmbeddedStore, file: Path
) -> None:
    """Each question of a timeline read the keys of 190,000 resources from the file again: 130 reads."""
    ids = [str(uuid.uuid5(uuid.NAMESPACE_OID, str(number))) for number in range(40_000)]
    with sqlite3.connect(file) as connection:
        patients = [("Patient", one, 1, "", '{"resourceType": "Patient"}') for one in ids]
        connection.executemany(
            "INSERT INTO resource (type, id, version, recorded_at, content) VALUES (?,?,?,?,?)", patients
        )
    connection.close()
    batch = {"type": "batch", "entry": [{"request": {"method": "GET", "url": f"Patient/{one}"}} for one in ids[::40]]}
    store.exchange(batch)
    before = reads_of_this_process()
    store.exchange(batch)
    assert reads_of_this_process() - before < 100


def reads_of_this_process() -> int:
    """How often Linux was asked for the content of a file."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["syscr"])


REFUSED: dict[str, Json] = {
    "a version that is not there": {
        "resource": {"resourceType": "List", "id": "1"},
        "request": {"method": "PUT", "url": "List/1", "ifMatch": 'W/"3"'},
    },
    "an id that is not the address's": {
        "resource": {"resourceType": "List", "id": "2"},
        "request": {"method": "PUT", "url": "List/1"},
    },
    "a method it does not know": {
        "resource": {"resourceType": "List"},
        "request": {"method": "PATCH", "url": "List/1"},
    },
    "a search it does not know": creating("c", ifNoneExist="name=x"),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_refused_entry_undoes_the_whole_transaction(
    store: EmbeddedStore, file: Path, refused: Json, place: int
) -> None:
    """The oracle is the file itself, read by SQLite's own module."""
    store.record(an_update())
    before = rows(file)
    entries = [creating("a"), creating("b")]
    entries.insert(place, refused)
    with pytest.raises((Conflict, Defect)):
        store.exchange(transaction(*entries))
    assert rows(file) == before


def test_a_disk_that_fails_in_the_middle_undoes_the_whole_transaction(store: EmbeddedStore, file: Path) -> None:
    """SQLite's own limit on the file's size stands in for the full disk."""
    store.record(an_update())
    before = rows(file)

    def no_more_pages(connection: Any, _record: Any, _proxy: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    event.listen(store._engine, "checkout", no_more_pages)
    with pytest.raises(Unavailable, match="full"):
        for _ in range(50):
            store.record(an_update())
    event.remove(store._engine, "checkout", no_more_pages)
    left = rows(file)
    assert len([row for row in left if row[0] == "Patient" and len(row) == 4 and isinstance(row[2], int)]) == len(
        [row for row in left if row[0] == "Provenance" and isinstance(row[2], int)]
    )
    assert set(before) <= set(left)


def test_every_version_is_kept_with_its_time(store: EmbeddedStore) -> None:
    update = an_update()
    first = store.record(update)
    store.record(another_study(update))
    kind, resource_id = first.record.split("/")
    newest, oldest = store.history(kind, resource_id)
    assert [version["meta"]["versionId"] for version in (newest, oldest)] == ["2", "1"]
    assert oldest["meta"]["lastUpdated"] == MADE_AT.isoformat()
    assert newest["entry"][:2] == oldest["entry"]
    assert store.history("List", "nobody") == []


def test_a_conditional_create_finds_what_is_there(store: EmbeddedStore, file: Path) -> None:
    query = "identifier=urn%3Ax%3Ay%7Ca"
    first = store.exchange(transaction(creating("a", ifNoneExist=query)))["entry"][0]["response"]
    second = store.exchange(transaction(creating("a", ifNoneExist=query)))["entry"][0]["response"]
    assert (first["status"], second["status"]) == ("201", "200")
    assert first["location"] == second["location"]
    store.exchange(transaction(creating("a")))
    with pytest.raises(Conflict):
        store.exchange(transaction(creating("a", ifNoneExist=query)))


@pytest.mark.parametrize("value", ["a|b", "a,b", "a\\b", "a$b", "a%7Cb", "a\\|b", "ü ß", "'; DROP TABLE resource; --"])
def test_an_identifier_with_signs_that_searches_use_is_found(store: EmbeddedStore, value: str) -> None:
    """R4 search 3.1.1.4.2: a backslash before the signs that have a meaning."""
    receipt = store.record(an_update(patient_id=value))
    assert store.patient_record(value, None)["entry"][0]["resource"]["id"] == receipt.patient.split("/")[1]


def test_a_changed_identifier_is_no_longer_found_by_the_old_one(store: EmbeddedStore) -> None:
    location = store.exchange(transaction(creating("old")))["entry"][0]["response"]["location"].split("/")
    resource = {"resourceType": "Patient", "id": location[1], "identifier": [{"system": "urn:x:y", "value": "new"}]}
    store.exchange(
        transaction(
            {"resource": resource, "request": {"method": "PUT", "url": "/".join(location[:2]), "ifMatch": 'W/"1"'}}
        )
    )
    urls = ["Patient?identifier=urn%3Ax%3Ay%7Cold", "Patient?identifier=urn%3Ax%3Ay%7Cnew"]
    batch = {"type": "batch", "entry": [{"request": {"method": "GET", "url": url}} for url in urls]}
    answers = store.exchange(batch)["entry"]
    assert [len(answer["resource"]["entry"]) for answer in answers] == [0, 1]


def test_the_file_is_durable_and_private(store: EmbeddedStore, file: Path) -> None:
    """PRAGMA synchronous: 2 is FULL; the file holds patient data, so nobody but its owner reads it."""
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    store.record(an_update())
    assert {path.stat().st_mode & 0o077 for path in file.parent.iterdir()} == {0}


def test_a_reopened_file_holds_the_record(file: Path) -> None:
    update = an_update()
    with closing(EmbeddedStore(file, SITE)) as store:
        receipt = store.record(update)
    with closing(EmbeddedStore(file, SITE)) as store:
        assert store.record(update).written == ()
        assert store.patient_record(update.patient_id, None)["entry"][0]["resource"]["id"] == receipt.patient[8:]


def test_a_file_that_is_no_store_is_a_defect(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are notes, and more than one hundred bytes of them " * 40)
    with pytest.raises(Defect, match="no twin store"):
        EmbeddedStore(tmp_path / "notes.txt", SITE)


def test_a_folder_that_cannot_be_used_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be opened"):
        EmbeddedStore(tmp_path / "file" / "twin.db", SITE)


def test_threads_share_one_store(store: EmbeddedStore) -> None:
    first = an_update()
    updates = [first, *(another_study(first) for _ in range(7))]
    threads = [threading.Thread(target=store.record, args=(update,)) for update in updates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bundle = store.patient_record(first.patient_id, None)
    kinds = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "Patient": 1,
        "List": 1,
        "ImagingStudy": 8,
        "Provenance": 8,
        "Device": 1,
    }


WRITER = """
import sys
from contextlib import closing
from pathlib import Path
from twin_record.embedded import EmbeddedStore
from tests.samples.twin_updates import SITE, an_update, another_study
first = an_update(patient_id="PID-shared", model_hash="one model", plan_hash="one plan")
with closing(EmbeddedStore(Path(sys.argv[1]), SITE, attempts=50)) as store:
    for _ in range(int(sys.argv[2])):
        receipt = store.record(another_study(first))
        print(receipt.imaging_study, receipt.provenance, flush=True)
"""


def start_writer(project: Path, file: Path, times: int) -> subprocess.Popen[str]:
    """Another process that records studies of one patient and prints each after it is written."""
    environment = os.environ | {"PYTHONPATH": str(project)}
    command = [sys.executable, "-c", WRITER, str(file), str(times)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_two_processes_writing_one_patient_lose_nothing(project: Path, file: Path) -> None:
    """Oracle: what each process says it has written."""
    writers = [start_writer(project, file, 12) for _ in range(2)]
    said = [set(writer.communicate(timeout=60)[0].split()) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    with closing(EmbeddedStore(file, SITE)) as store:
        bundle = store.patient_record("PID-shared", None)
    found = [f"{entry['resource']['resourceType']}/{entry['resource']['id']}" for entry in bundle["entry"]]
    assert len(found) == len(set(found)) == 3 + 48
    assert said[0] | said[1] <= set(found)


def test_a_killed_writer_leaves_whole_transactions_only(project: Path, file: Path) -> None:
    """kill -9 in the middle of work: all it said is there, and every reference in the file leads somewhere."""
    writer = start_writer(project, file, 100_000)
    assert writer.stdout is not None
    said = [writer.stdout.readline().split() for _ in range(7)]
    writer.kill()
    said += [line.split() for line in writer.stdout.read().splitlines() if len(line.split()) == 2]
    writer.stdout.close()
    writer.wait(30)
    current = {f"{row[0]}/{row[1]}": row[3] for row in rows(file) if isinstance(row[2], int)}
    assert {reference for line in said for reference in line} <= set(current)
    for content in current.values():
        assert "urn:uuid:" not in content
        for reference in re.findall(r'"reference": "([^"]+)"', content):
            assert reference in current
        json.loads(content)
