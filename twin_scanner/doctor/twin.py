"""The twin record: the embedded store opens, or the FHIR server is R4 and answers requests."""

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from twin_record.embedded import EmbeddedStore
from twin_record.remote import FhirClient, NoCapabilityStatement
from twin_scanner.app import open_twin
from twin_scanner.doctor.finding import Finding
from twin_scanner.settings import Folders, Settings

FHIR_VERSION: Final = "4.0."
"""R4 is 4.0.0 and 4.0.1; R4B is 4.3.0, R5 is 5.0.0."""


def check_twin(settings: Settings) -> Iterator[Finding]:
    """Open the embedded store, or ask the FHIR server for its release and for one resource; nothing is written."""
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
        with closing(target):
            yield from _server(target)


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
        yield Finding(name, "fault", f"{fact}: check the rights of the token in twin.token_file.")
    elif release is None:
        fact = "The FHIR server answers requests but shows no CapabilityStatement at /metadata"
        yield Finding(name, "warning", f"{fact}: make sure that it speaks R4 (4.0.1).")
    else:
        yield Finding(name, "ok", f"The FHIR server answers requests and is R4 ({release}).")


def _release(server: FhirClient) -> str | None:
    """The server's fhirVersion; None where it keeps its CapabilityStatement to itself."""
    try:
        return str(server.capability().get("fhirVersion", "none"))
    except NoCapabilityStatement:
        return None
