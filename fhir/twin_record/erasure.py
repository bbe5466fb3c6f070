"""Takes everything of one patient out of the embedded store, every version of it."""

from collections import defaultdict
from collections.abc import Collection

from sqlalchemy import Connection

from twin_record.stored import delete_all, references


def erase_record(connection: Connection, record: Collection[str]) -> list[str]:
    """Erase these resources, and whatever ever referred to one of them, directly or by way of another.

    The literal references of what was erased. Another Patient, who may be linked to this one, stays.
    """
    referring = defaultdict(set)
    for resource, reference in references(connection):
        referring[reference].add(resource)
    erased, found = set(record), list(record)
    while found:
        theirs = {one for one in referring[found.pop()] if not one.startswith("Patient/")} - erased
        erased |= theirs
        found += theirs
    for literal in erased:
        kind, _, resource_id = literal.partition("/")
        delete_all(connection, kind, resource_id)
    return sorted(erased)
