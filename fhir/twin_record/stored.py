"""The rows of the embedded store: every version of every resource, and the identifiers to search by."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

from sqlalchemy import Column, Connection, Index, Integer, MetaData, String, Table, Text, delete, select

from twin_record.merging import SERVER_META
from twin_record.resources.content import Resource, short_reference
from twin_scanner.errors import Defect

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
    Index("ix_identifier_of", "type", "id"),
)
"""The business identifiers of the current versions, to search by."""
# What each update and each timeline asks a hundred times: as SQL, which SQLite keeps prepared.
_CURRENT: Final = (
    "SELECT version, recorded_at, content FROM resource WHERE type = ? AND id = ? ORDER BY version DESC LIMIT 1"
)
_NEWEST: Final = "SELECT max(version) FROM resource WHERE type = ? AND id = ?"
_NAMED: Final = "SELECT id FROM identifier WHERE type = ? AND system = ? AND value = ? ORDER BY id"
_ADD: Final = "INSERT INTO resource (type, id, version, recorded_at, content) VALUES (?, ?, ?, ?, ?)"
_FORGET: Final = "DELETE FROM identifier WHERE type = ? AND id = ?"
_NAME: Final = "INSERT INTO identifier (type, system, value, id) VALUES (?, ?, ?, ?)"
_BY_SUBJECT: Final = (
    "CREATE INDEX IF NOT EXISTS ix_resource_subject ON resource (json_extract(content, '$.subject.reference'))"
)
"""SQLAlchemy warns of an index on an expression wherever it looks at the table."""
_REFERENCE: Final = re.compile(r'"reference": ("(?:[^"\\\\]|\\\\.)*")')


def create_tables(connection: Connection) -> None:
    """Make what is not there; a file of an earlier version lacks indexes."""
    TABLES.create_all(connection)
    for index in IDENTIFIER.indexes:
        index.create(connection, checkfirst=True)
    connection.exec_driver_sql(_BY_SUBJECT)


def write_version(connection: Connection, resource: Resource, version: int, recorded_at: str) -> None:
    """Add a version of a resource, and let it be found by the identifiers that it has now."""
    kind, resource_id = resource["resourceType"], resource["id"]
    meta = {key: part for key, part in resource.get("meta", {}).items() if key not in SERVER_META}
    content = {**resource, "meta": meta} if meta else {k: v for k, v in resource.items() if k != "meta"}
    text = json.dumps(content, ensure_ascii=False)
    connection.exec_driver_sql(_ADD, (kind, resource_id, version, recorded_at, text))
    if version > 1:
        connection.exec_driver_sql(_FORGET, (kind, resource_id))
    listed: list[Resource] = resource.get("identifier", [])
    keys = {(key.get("system", ""), key["value"]) for key in listed if "value" in key}
    for system, value in sorted(keys):
        connection.exec_driver_sql(_NAME, (kind, system, value, resource_id))


def current(connection: Connection, kind: str, resource_id: str) -> Resource | None:
    """The newest version of a resource."""
    row = connection.exec_driver_sql(_CURRENT, (kind, resource_id)).first()
    return resource_of(row) if row else None


def newest_version(connection: Connection, kind: str, resource_id: str) -> int:
    """The number of a resource's newest version, 0 where there is none."""
    return int(connection.exec_driver_sql(_NEWEST, (kind, resource_id)).scalar() or 0)


def resource_of(row: Any) -> Resource:
    """A row's resource, with what a server adds to it."""
    content: Resource = json.loads(row.content)
    meta = {**content.get("meta", {}), "versionId": str(row.version), "lastUpdated": row.recorded_at}
    return {**content, "meta": meta}


def with_identifier(connection: Connection, kind: str, system: str, value: str) -> list[str]:
    """The ids of the resources that have this identifier."""
    return list(connection.exec_driver_sql(_NAMED, (kind, system, value)).scalars())


def ids_matching(connection: Connection, kind: str, query: str) -> list[str]:
    """The ids of the resources with the identifier that a query `identifier=system|value` asks for."""
    name, _, token = query.partition("=")
    parts = _unescaped(unquote(token))
    if name != "identifier" or len(parts) != 2:
        raise Defect("The embedded twin store searches by identifier=system|value only.")
    return with_identifier(connection, kind, *parts)


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


def references(connection: Connection) -> Iterator[tuple[str, str]]:
    """Every (resource, what it refers to) that any version ever said, as literal references; it reads all."""
    query = select(RESOURCE.c.type, RESOURCE.c.id, RESOURCE.c.content)
    for row in connection.execution_options(yield_per=100).execute(query):
        for text in _REFERENCE.findall(row.content):
            yield f"{row.type}/{row.id}", short_reference(json.loads(text))


def delete_all(connection: Connection, kind: str, resource_id: str) -> None:
    """Take a resource out with all its versions."""
    for table in (RESOURCE, IDENTIFIER):
        connection.execute(delete(table).where(table.c.type == kind, table.c.id == resource_id))
