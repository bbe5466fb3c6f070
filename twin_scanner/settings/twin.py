"""The section of the twin record."""

from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from twin_scanner.settings.section import Seconds, Section, text_like


def _zone(text: str | None) -> str | None:
    try:
        if text is not None:
            ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError("there is no such time zone: give an IANA name such as Europe/Rome") from error
    return text


class TwinSection(Section):
    """Where the twin record is kept: a FHIR R4 server, or the embedded store where url is empty."""

    url: Annotated[str, text_like(r"(https?://.+)?", "a base URL begins with http:// or https://")] = ""
    token_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: Seconds = 30.0
    patient_identifier_system: str = "urn:twin-scanner:patient-id"
    issuer_systems: dict[str, str] = Field(default_factory=dict)
    zone: Annotated[str | None, AfterValidator(_zone)] = None
