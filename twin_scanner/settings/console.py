"""The sections of the console: where its pages are served, who comes in by another's word, and who keeps the audit."""

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from twin_scanner.settings.section import ListenPort, Port, Section, text_like

_HTTPS: Final = text_like(r"(https?://.+)?", "an address begins with https:// or http://")


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"'{text}' is no address: give an IP address, or a network such as 10.1.0.0/16") from error
    return text


Network = Annotated[str, AfterValidator(_network)]


class ConsoleSection(Section):
    """The console; without a port `serve` does not serve it."""

    host: str = "127.0.0.1"
    port: ListenPort | None = None
    certificate: Path | None = None
    key: Path | None = None
    idle_minutes: float = Field(30.0, gt=0)
    session_hours: float = Field(12.0, gt=0)
    tokens_file: Path | None = None
    fhir_addresses: tuple[Network, ...] = ()
    metrics_addresses: tuple[Network, ...] = ()

    @model_validator(mode="after")
    def _both_files(self) -> "ConsoleSection":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("console.certificate and console.key belong together: give both, or none")
        return self


class OidcSection(Section):
    """The hospital's identity provider; without an issuer there is none."""

    issuer: Annotated[str, _HTTPS] = ""
    client_id: str = ""
    client_secret_file: Path | None = None
    redirect_uri: Annotated[str, _HTTPS] = ""
    roles_claim: str = "groups"
    name_claim: str = "preferred_username"
    scope: str = "openid profile"
    viewers: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    admins: tuple[str, ...] = ()
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "OidcSection":
        if self.issuer and not (self.client_id and self.redirect_uri):
            raise ValueError("oidc.issuer needs oidc.client_id and oidc.redirect_uri: give both, or no issuer")
        if self.issuer and not (self.viewers or self.operators or self.admins):
            raise ValueError(
                "oidc.issuer lets nobody in: list the claim's values in oidc.viewers, oidc.operators or oidc.admins"
            )
        return self


class AuditSection(Section):
    """The syslog server that keeps the audit; without a host there is none."""

    host: str = ""
    port: Port = 6514
    transport: Literal["udp", "tcp", "tls"] = "tls"
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
