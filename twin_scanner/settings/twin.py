"""The section of the twin record."""

from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from twin_scanner.settings.section import Seconds, Section, text_like


def _zone(text: str | None) -> str | None:
    try:
        if text is not None:
            ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError("there is no such time zone: give an IANA name such as Europe/Rome") from error
    return text


OWN_IDENTIFIER_SYSTEM: Final = "urn:twin-scanner:patient-id"
"""The system of patient ids in the embedded store, where the site names none; no hospital's Patient carries it."""


SystemUri = Annotated[str, text_like(r"[^\s|:]+:[^\s|]+", "an identifier system is a URI such as urn:oid:<OID>")]
EndpointReference = Annotated[str, text_like(r"Endpoint/[A-Za-z0-9.-]{1,64}", "a reference such as Endpoint/pacs")]


class TwinSection(Section):
    """Where the twin record is kept: a FHIR R4 server, or the embedded store where url is empty."""

    url: Annotated[str, text_like(r"(https?://.+)?", "a base URL begins with http:// or https://")] = ""
    token_file: Path | None = None
    client_id: str = ""
    client_secret_file: Path | None = None
    private_key_file: Path | None = None
    token_url: Annotated[str, text_like(r"(https?://.+)?", "an address begins with http:// or https://")] = ""
    scope: str = "system/*.crus"
    ca_file: Path | None = None
    timeout_s: Seconds = 30.0
    patient_identifier_system: str = ""
    issuer_systems: dict[str, str] = Field(default_factory=dict)
    zone: Annotated[str | None, AfterValidator(_zone)] = None
    unknown_patient: Literal["hold", "create", "reference"] | None = None
    accept_identifier_alone: bool | None = None
    ask_pacs: bool = True
    deliver_unchecked_after_hours: Annotated[float, Field(ge=0)] | None = None
    check_cron: str = "30 4 * * *"
    check_days: Annotated[float, Field(gt=0)] = 30.0
    instances: Literal["auto", "list", "series"] = "auto"
    accession_system: SystemUri | None = None
    based_on: bool = False
    endpoint: EndpointReference | None = None
    diagnostic_report: bool = False

    @model_validator(mode="after")
    def _server_needs_the_hospitals_system(self) -> "TwinSection":
        if self.url and self.patient_identifier_system in ("", OWN_IDENTIFIER_SYSTEM):
            raise ValueError(
                "twin.url needs twin.patient_identifier_system, the identifier system by which that server knows the "
                "Patient IDs of the CTs (urn:oid:<OID>, or an address): without it every patient gets a second Patient"
            )
        return self

    @model_validator(mode="after")
    def _one_way_in(self) -> "TwinSection":
        files = [self.token_file, self.client_secret_file, self.private_key_file]
        if sum(file is not None for file in files) > 1:
            raise ValueError("give one of twin.token_file, twin.client_secret_file and twin.private_key_file")
        if bool(self.client_id) != (self.client_secret_file is not None or self.private_key_file is not None):
            raise ValueError("twin.client_id needs twin.client_secret_file or twin.private_key_file, and they need it")
        return self

    @property
    def identifier_system(self) -> str:
        """The configured one, else that of the embedded store."""
        return self.patient_identifier_system or OWN_IDENTIFIER_SYSTEM

    @property
    def policy_for_unknown(self) -> Literal["hold", "create", "reference"]:
        """The configured one; else a server's patients are the hospital's to create, the embedded store's are ours."""
        return self.unknown_patient or ("hold" if self.url else "create")

    @property
    def takes_identifier_alone(self) -> bool:
        """As configured; else only the embedded store does, where each Patient was created from a CT's own header."""
        return not self.url if self.accept_identifier_alone is None else self.accept_identifier_alone
