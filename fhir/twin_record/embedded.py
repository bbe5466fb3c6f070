"""The twin record in one SQLite file: a small FHIR endpoint that executes each transaction in one SQL transaction."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, create_engine, select
from sqlalchemy.exc import DatabaseError, OperationalError

from twin_record.erasure import erase_record
from twin_record.identity import check_identity
from twin_record.importing import import_record, record_of
from twin_record.patient_identity import PatientIdentity
from twin_record.patient_record import read_record, record_bundle
from twin_record.reading import RecordPage, RecordQuery, record_page
from twin_record.refusals import Conflict
from twin_record.resources.codes import RECORD_SYSTEM
from twin_record.resources.content import Resource, literal_of, renamed, short_reference
from twin_record.resources.patient import patient_key
from twin_record.stored import (
    IDENTIFIER,
    RESOURCE,
    create_tables,
    current,
    ids_matching,
    newest_version,
    resource_of,
    write_version,
)
from twin_record.target import TwinReceipt
from twin_record.transaction import DEFAULT_ATTEMPTS, record_update
from twin_record.update import TwinSite, TwinUpdate
from twin_scanner.errors import Defect, Unavailable
from twin_scanner.files.sqlite_file import create_private, prepare_sqlite, write_back

CHANGED = "The twin record changed in the embedded store while it was being written; try again."


class EmbeddedStore:
    """A TwinTarget in a SQLite file (WAL, every commit synced); several threads and processes may hold it open.

    The file holds patient data: it is created readable by its owner only.
    """

    def __init__(
        self,
        path: Path,
        site: TwinSite,
        *,
        attempts: int = DEFAULT_ATTEMPTS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Open the file, or create it; raise Defect where it is no twin store, Unavailable where it cannot be used."""
        self._site = site
        self._attempts = attempts
        self._clock = clock
        self._sleep = sleep
        _create_private(path)
        self._engine = create_engine(f"sqlite:///{path}")
        prepare_sqlite(self._engine, _begin)
        with self._transaction(write=True) as connection:
            create_tables(connection)

    def record(self, update: TwinUpdate) -> TwinReceipt:
        """Record one update in one SQL transaction; see TwinTarget."""
        return record_update(update, self._site, self, self._attempts, self._sleep)

    def check_identity(self, identity: PatientIdentity, study_uid: str) -> tuple[str, ...]:
        """Whether the study may be recorded as this patient's; see TwinTarget."""
        return check_identity(identity, study_uid, self._site, self)

    def patient_record(self, patient_id: str, issuer: str | None) -> Resource:
        """The patient's whole record as a Bundle of type collection; Rejected where there is none."""
        return read_record(patient_key(patient_id, issuer, self._site), self)

    def records(self) -> Iterator[Resource]:
        """The record of each patient, as ``patient_record`` gives it."""
        query = select(IDENTIFIER.c.id).where(IDENTIFIER.c.type == "List", IDENTIFIER.c.system == RECORD_SYSTEM)
        with self._transaction(write=False) as connection:
            found = list(connection.scalars(query.distinct().order_by(IDENTIFIER.c.id)))
        for list_id in found:
            with self._transaction(write=False) as connection:
                record = current(connection, "List", list_id)
                subject = short_reference((record or {}).get("subject", {}).get("reference", ""))
                patient = current(connection, *subject.split("/", 1)) if "/" in subject else None
            if record is not None:
                yield record_bundle(patient, [record], self)

    def erase(self, patient_id: str, issuer: str | None) -> tuple[str, ...]:
        """Take all of the patient out of the file, with every version; the literal references of what there was.

        Raises Rejected where there is no record, Unavailable where another process keeps the file busy.
        """
        bundle = self.patient_record(patient_id, issuer)
        resources = [entry["resource"] for entry in bundle["entry"]]
        theirs = {literal_of(resource) for resource in resources if resource["resourceType"] != "Device"}
        with self._transaction(write=True) as connection:
            erased = erase_record(connection, theirs)
        write_back(self._engine)
        return tuple(erased)

    def import_record(self, document: Resource) -> tuple[str, ...]:
        """Create what a Bundle of an exported record holds and the store does not; the literal references of that.

        All or nothing. Raises Rejected where the Bundle is no twin record, Held where the store holds another state.
        """
        resources = record_of(document)
        with self._transaction(write=True) as connection:
            return import_record(connection, resources, self._clock().isoformat())

    def exchange(self, bundle: Resource) -> Resource:
        """Execute a Bundle of type batch (reads only) or transaction (all or nothing) and return its response."""
        entries = bundle.get("entry", [])
        if bundle["type"] == "batch":
            with self._transaction(write=False) as connection:
                answers = [_answer_read(connection, entry["request"]["url"]) for entry in entries]
            return {"resourceType": "Bundle", "type": "batch-response", "entry": answers}
        with self._transaction(write=True) as connection:
            answers = self._execute(connection, entries)
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": answers}

    def history(self, kind: str, resource_id: str) -> list[Resource]:
        """All versions of one resource, the newest first; empty where there is none."""
        query = select(RESOURCE).where(RESOURCE.c.type == kind, RESOURCE.c.id == resource_id)
        with self._transaction(write=False) as connection:
            return [resource_of(row) for row in connection.execute(query.order_by(RESOURCE.c.version.desc()))]

    def read(self, kind: str, resource_id: str) -> Resource | None:
        """The current version of one resource; None where there is none."""
        with self._transaction(write=False) as connection:
            return current(connection, kind, resource_id)

    def search(self, query: RecordQuery, count: int, after: str = "") -> RecordPage:
        """The current versions that a query asks for, ``count`` at a time, from the id ``after`` on."""
        with self._transaction(write=False) as connection:
            return record_page(connection, query, count, after)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[Connection]:
        """One SQL transaction; a writer takes the lock at once, so what it reads stays true until it commits."""
        engine = self._engine.execution_options(twin_begin="BEGIN IMMEDIATE" if write else "BEGIN")
        try:
            with engine.begin() as connection:
                yield connection
        except OperationalError:
            raise Unavailable("The twin store is busy, full or cannot be written; check its disk.") from None
        except DatabaseError:
            raise Defect("The twin store's file is damaged or no twin store; restore it from a backup.") from None

    def _execute(self, connection: Connection, entries: list[Resource]) -> list[Resource]:
        targets = [_target(connection, entry) for entry in entries]
        literals = {
            entry["fullUrl"]: f"{entry['resource']['resourceType']}/{resource_id}"
            for entry, (resource_id, _) in zip(entries, targets, strict=True)
            if "fullUrl" in entry
        }
        answers = []
        for entry, (resource_id, exists) in zip(entries, targets, strict=True):
            kind = entry["resource"]["resourceType"]
            version = _current_version(connection, entry, resource_id) if exists else 0
            created = version == 0
            if entry["request"]["method"] == "PUT" or not exists:
                version += 1
                content = renamed(entry["resource"], literals)
                write_version(connection, {**content, "id": resource_id}, version, self._clock().isoformat())
            location = f"{kind}/{resource_id}/_history/{version}"
            answers.append({"response": {"status": "201" if created else "200", "location": location}})
        return answers


def _create_private(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        create_private(path)
    except OSError as error:
        raise Unavailable(f"The twin store {path} cannot be opened: {error.strerror}; check the folder.") from None


def _begin(connection: Connection) -> str:
    return str(connection.get_execution_options().get("twin_begin", "BEGIN"))


def _answer_read(connection: Connection, url: str) -> Resource:
    kind, _, query = url.partition("?")
    if query:
        found = [current(connection, kind, resource_id) for resource_id in ids_matching(connection, kind, query)]
        matches = {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": match} for match in found]}
        return {"response": {"status": "200"}, "resource": matches}
    kind, _, resource_id = url.partition("/")
    resource = current(connection, kind, resource_id)
    return {"response": {"status": "200"}, "resource": resource} if resource else {"response": {"status": "404"}}


def _target(connection: Connection, entry: Resource) -> tuple[str, bool]:
    """The id an entry is about, and whether a resource has it already."""
    request, kind = entry["request"], entry["resource"]["resourceType"]
    if request["method"] == "PUT":
        named_kind, _, resource_id = request["url"].partition("/")
        if named_kind != kind or not resource_id or entry["resource"].get("id") != resource_id:
            raise Defect("The embedded twin store takes POST of a type, and PUT of an id.")
        return resource_id, True
    if request["method"] != "POST" or request["url"] != kind:
        raise Defect("The embedded twin store takes POST of a type, and PUT of an id.")
    matches = ids_matching(connection, kind, request["ifNoneExist"]) if "ifNoneExist" in request else []
    if len(matches) > 1:
        raise Conflict(CHANGED)
    return (matches[0], True) if matches else (str(uuid.uuid4()), False)


def _current_version(connection: Connection, entry: Resource, resource_id: str) -> int:
    """The version the resource has, 0 where there is none; a different If-Match refuses the entry."""
    kind = entry["resource"]["resourceType"]
    version = newest_version(connection, kind, resource_id)
    expected = entry["request"].get("ifMatch")
    if expected is not None and expected != f'W/"{version}"':
        raise Conflict(CHANGED)
    return version
