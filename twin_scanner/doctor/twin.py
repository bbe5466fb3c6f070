"""The twin record: the embedded store opens, or the FHIR server is R4 and answers requests."""

import stat
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from twin_record.capabilities import costs_of
from twin_record.connection import NoCapabilityStatement
from twin_record.embedded import EmbeddedStore
from twin_record.remote import FhirClient
from twin_scanner.app import open_twin
from twin_scanner.doctor.finding import Finding, FindingState
from twin_scanner.errors import Transient
from twin_scanner.settings import Folders, Settings, TwinSection

FHIR_VERSION: Final = "4.0."
"""R4 is 4.0.0 and 4.0.1; R4B is 4.3.0, R5 is 5.0.0."""
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def check_twin(settings: Settings) -> Iterator[Finding]:
    """Open the embedded store, or ask the FHIR server what it can do and for one resource; nothing is written."""
    if not settings.twin.url and not Folders(settings.storage.folder).twin.is_file():
        yield Finding(
            "twin record", "ok", "The embedded twin store is not there yet and is created at the first start."
        )
        return
    target = open_twin(settings)
    if isinstance(target, EmbeddedStore):
        target.close()
        yield Finding("twin record", "ok", "The embedded twin store opens.")
    elif isinstance(target, FhirClient):
        yield from _secrets(settings.twin)
        with closing(target):
            yield from _server(target)


def _secrets(twin: TwinSection) -> Iterator[Finding]:
    """Whether somebody else may read what lets us in."""
    for file in (twin.token_file, twin.client_secret_file, twin.private_key_file):
        if file is not None and file.is_file() and stat.S_IMODE(file.stat().st_mode) & OTHERS:
            sentence = f"Others than its owner may read {file}: give it to the node's own user alone (chmod 0600)."
            yield Finding("twin access", "warning", sentence)


def _server(server: FhirClient) -> Iterator[Finding]:
    name = "twin record"
    release = _release(server)
    if release is not None and not release.startswith(FHIR_VERSION):
        fact = f"The FHIR server speaks release {release} and the twin is R4 (4.0.1)"
        yield Finding(name, "fault", f"{fact}: set twin.url to the server's R4 address.")
        return
    # Reading a device is the least that shows whether the token is good for what the recorder sends.
    request = {"method": "GET", "url": "Device?_count=1"}
    answer = server.exchange({"resourceType": "Bundle", "type": "batch", "entry": [{"request": request}]})
    entries = answer.get("entry") or [{}]
    status = str((entries[0].get("response") or {}).get("status", "none"))
    if not status.startswith("2"):
        fact = f"The FHIR server answers but does not allow reading (status {status[:3]})"
        yield Finding(name, "fault", f"{fact}: check the rights of the token or of the client.")
    elif release is None:
        fact = "The FHIR server answers requests but shows no CapabilityStatement at /metadata"
        yield Finding(name, "warning", f"{fact}: make sure that it speaks R4 (4.0.1).")
    else:
        yield Finding(name, "ok", f"The FHIR server answers requests and is R4 ({release}).")
        for cost in costs_of(server.plan()):
            yield Finding("twin server", "warning", cost)
    yield from _rights(server)


def _rights(server: FhirClient) -> Iterator[Finding]:
    """What the server says against our writing; that it says nothing is no promise."""
    for lacking in server.lacking_rights:
        yield Finding("twin rights", "fault", lacking)
    if not server.lacking_rights:
        fact = "Nothing that the FHIR server says speaks against writing a record there"
        state, dry_run = _dry_run(server)
        yield Finding("twin rights", state, f"{fact}; {dry_run}.")


def _dry_run(server: FhirClient) -> tuple[FindingState, str]:
    """How the server answers to a create that is only to be checked; nothing is written."""
    try:
        passes = server.dry_run({"resourceType": "Device", "status": "active"})
    except Transient as error:
        return "warning", f"it refuses the dry run of a create ($validate): {error}".rstrip(".")
    if passes:
        return "ok", "the dry run of a create ($validate) passes"
    return "ok", "it has no dry run of a create ($validate), so that the first record must show it"


def _release(server: FhirClient) -> str | None:
    """The server's fhirVersion; None where it keeps its CapabilityStatement to itself."""
    try:
        return str(server.capability().get("fhirVersion", "none"))
    except NoCapabilityStatement:
        return None
