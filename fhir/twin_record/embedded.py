"""The twin record in one SQLite file: a small FHIR endpoint that executes each transaction in one SQL transaction."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.exc import DatabaseError, OperationalError

from twin_record.merging import SERVER_META
from twin_record.refusals import Conflict
from twin_record.resources.content import Resource
from twin_record.resources.patient import patient_key
from twin_record.search import read_record
from twin_record.target import TwinReceipt
from twin_record.transaction import DEFAULT_ATTEMPTS, record_update
from twin_record.update import TwinSite, TwinUpdate
from twin_scanner.errors import Defect, Unavailable
from twin_scanner.files.sqlite_file import create_private, prepare_sqlite

CHANGED = "The twin record changed in the embedded store while it was being written; try again."

TABLES = MetaData()
RESOURCE = Table(
    "resource",
    TABLES,
    Column("type", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("recorded_at", String, nullable=False),
    Column("content", Text, nullable=False),
)
"""Every version of every resource; the newest one is current, the others are its history."""
IDENTIFIER = Table(
    "identifier",
    TABLES,
    Column("type", String, primary_key=True),
    Column("system", String, primary_key=True),
    Column("value", String, primary_key=True),
    Column("id", String, primary_key=True),
)
"""The business identifiers of the current versions, to search by."""


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
            TABLES.create_all(connection)

    def record(self, update: TwinUpdate) -> TwinReceipt:
        """Record one update in one SQL transaction; see TwinTarget."""
        return record_update(update, self._site, self, self._attempts, self._sleep)

    def patient_record(self, patient_id: str, issuer: str | None) -> Resource:
        """The patient's whole record as a Bundle of type collection; Rejected where there is none."""
        return read_record(patient_key(patient_id, issuer, self._site), self)

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
            return [_resource(row) for row in connection.execute(query.order_by(RESOURCE.c.version.desc()))]

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
            kind, version = entry["resource"]["resourceType"], _current_version(connection, entry, resource_id)
            created = version == 0
            if entry["request"]["method"] == "PUT" or not exists:
                version += 1
                content = _resolved(entry["resource"], literals)
                self._write(connection, {**content, "id": resource_id}, version)
            location = f"{kind}/{resource_id}/_history/{version}"
            answers.append({"response": {"status": "201" if created else "200", "location": location}})
        return answers

    def _write(self, connection: Connection, resource: Resource, version: int) -> None:
        kind, resource_id = resource["resourceType"], resource["id"]
        meta = {key: part for key, part in resource.get("meta", {}).items() if key not in SERVER_META}
        content = {**resource, "meta": meta} if meta else {k: v for k, v in resource.items() if k != "meta"}
        row = {"type": kind, "id": resource_id, "version": version, "recorded_at": self._clock().isoformat()}
        connection.execute(insert(RESOURCE), [row | {"content": json.dumps(content, ensure_ascii=False)}])
        connection.execute(delete(IDENTIFIER).where(IDENTIFIER.c.type == kind, IDENTIFIER.c.id == resource_id))
        keys = {(key.get("system", ""), key["value"]) for key in _identifiers(resource) if "value" in key}
        rows = [{"type": kind, "system": system, "value": value, "id": resource_id} for system, value in sorted(keys)]
        if rows:
            connection.execute(insert(IDENTIFIER), rows)


def _create_private(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        create_private(path)
    except OSError as error:
        raise Unavailable(f"The twin store {path} cannot be opened: {error.strerror}; check the folder.") from None


def _begin(connection: Connection) -> str:
    return str(connection.get_execution_options().get("twin_begin", "BEGIN"))


def _identifiers(resource: Resource) -> list[Resource]:
    listed: list[Resource] = resource.get("identifier", [])
    return listed


def _search(connection: Connection, kind: str, query: str) -> list[str]:
    """The ids of the resources with the identifier that a query `identifier=system|value` asks for."""
    name, _, token = query.partition("=")
    parts = _unescaped(unquote(token))
    if name != "identifier" or len(parts) != 2:
        raise Defect("The embedded twin store searches by identifier=system|value only.")
    where = (IDENTIFIER.c.type == kind, IDENTIFIER.c.system == parts[0], IDENTIFIER.c.value == parts[1])
    return list(connection.scalars(select(IDENTIFIER.c.id).where(*where).order_by(IDENTIFIER.c.id)))


def _unescaped(token: str) -> list[str]:
    parts, escaped = [""], False
    for character in token:
        if escaped or character not in "\\|":
            parts[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            parts.append("")
    return parts


def _answer_read(connection: Connection, url: str) -> Resource:
    kind, _, query = url.partition("?")
    if query:
        found = [_current(connection, kind, resource_id) for resource_id in _search(connection, kind, query)]
        matches = {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": match} for match in found]}
        return {"response": {"status": "200"}, "resource": matches}
    kind, _, resource_id = url.partition("/")
    resource = _current(connection, kind, resource_id)
    return {"response": {"status": "200"}, "resource": resource} if resource else {"response": {"status": "404"}}


def _current(connection: Connection, kind: str, resource_id: str) -> Resource | None:
    query = select(RESOURCE).where(RESOURCE.c.type == kind, RESOURCE.c.id == resource_id)
    row = connection.execute(query.order_by(RESOURCE.c.version.desc()).limit(1)).first()
    return _resource(row) if row else None


def _resource(row: Any) -> Resource:
    content: Resource = json.loads(row.content)
    meta = {**content.get("meta", {}), "versionId": str(row.version), "lastUpdated": row.recorded_at}
    return {**content, "meta": meta}


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
    matches = _search(connection, kind, request["ifNoneExist"]) if "ifNoneExist" in request else []
    if len(matches) > 1:
        raise Conflict(CHANGED)
    return (matches[0], True) if matches else (str(uuid.uuid4()), False)


def _current_version(connection: Connection, entry: Resource, resource_id: str) -> int:
    """The version the resource has, 0 where there is none; a different If-Match refuses the entry."""
    kind = entry["resource"]["resourceType"]
    newest = select(func.max(RESOURCE.c.version)).where(RESOURCE.c.type == kind, RESOURCE.c.id == resource_id)
    version = connection.scalar(newest) or 0
    expected = entry["request"].get("ifMatch")
    if expected is not None and expected != f'W/"{version}"':
        raise Conflict(CHANGED)
    return int(version)


def _resolved(value: Any, literals: dict[str, str]) -> Any:
    """The resource with every placeholder reference replaced by the literal one."""
    if isinstance(value, dict):
        return {
            key: literals.get(part, part) if key == "reference" and isinstance(part, str) else _resolved(part, literals)
            for key, part in value.items()
        }
    return [_resolved(item, literals) for item in value] if isinstance(value, list) else value
