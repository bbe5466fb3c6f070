"""The sections of the DICOM applications around us: [[peers]], the short form [pacs], and [tls], our identity."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, model_validator

from dicom_node.peers import ALL_ROLES, Priority, Role
from dicom_node.tls import MinimumVersion
from twin_scanner.settings.destinations import Associations, Confirmation, DestinationSection
from twin_scanner.settings.section import AeTitle, Port, Seconds, Section, text_like

PACS: Final = "pacs"
"""The name of the peer and of the destination that [pacs] is the short form of."""
CALLING_ROLES: Final = frozenset({Role.SEND_CT, Role.COMMIT})
"""In these it opens associations to us."""
_HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")

PeerName = Annotated[
    str,
    text_like(r"[A-Za-z0-9_.-]{1,32}", "a peer's name has 1 to 32 letters, digits, dots, hyphens and underscores"),
]


def _caller_address(text: str) -> str:
    """An IP address, a network or a host name; a network of which host bits are set is a slip, and none of them."""
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        looks_numeric = "/" in text or ":" in text or re.fullmatch(r"[0-9.]+", text) is not None
        if looks_numeric or _HOST_NAME.fullmatch(text) is None:
            raise ValueError(
                f"'{text}' is no address: give an IP address, a network such as 10.1.0.0/16, or a host name"
            ) from error
    return text


class PeerSection(Section):
    """A DICOM application that we know."""

    name: PeerName
    ae_title: AeTitle
    host: str = ""
    port: Port = 104
    addresses: tuple[Annotated[str, AfterValidator(_caller_address)], ...] = ()
    roles: tuple[Role, ...] = tuple(sorted(ALL_ROLES))
    tls: bool = False
    certificate_name: str = ""
    priority: Priority = Priority.ROUTINE
    timeout_s: Seconds = 60.0

    @model_validator(mode="after")
    def _is_somewhere(self) -> "PeerSection":
        if not self.host and not self.addresses:
            raise ValueError(f"the peer '{self.name}' needs a host that we call, or addresses from where it calls")
        if self.certificate_name and not self.tls:
            raise ValueError(f"the peer '{self.name}' has a certificate_name: set tls = true, or leave it out")
        if self.tls and not (self.certificate_name or self.host):
            raise ValueError(f"the peer '{self.name}' has tls = true and no host: give its certificate_name")
        return self


class PacsSection(Section):
    """The PACS of a site that has one: short for a peer and a destination, both named "pacs"."""

    ae_title: AeTitle = "PACS"
    host: str = "127.0.0.1"
    port: Port = 104
    timeout_s: Seconds = 60.0
    associations: Associations = 2
    confirm: Confirmation = "query"

    def as_peer(self) -> PeerSection:
        """The peer that it is short for; one that proves nothing but its status is not queried either."""
        roles = ALL_ROLES - {Role.QUERY} if self.confirm == "status" else ALL_ROLES
        return PeerSection(
            name=PACS, roles=tuple(sorted(roles)), **self.model_dump(exclude={"associations", "confirm"})
        )

    def as_destination(self) -> DestinationSection:
        """The destination that it is short for."""
        return DestinationSection(name=PACS, peer=PACS, associations=self.associations, confirm=self.confirm)


class TlsSection(Section):
    """Our TLS identity; without a certificate there is no TLS."""

    certificate: Path | None = None
    key: Path | None = None
    key_password_file: Path | None = None
    ca_file: Path | None = None
    minimum_version: MinimumVersion = Field("1.2")
    listen_tls: bool = True

    @model_validator(mode="after")
    def _is_whole(self) -> "TlsSection":
        files = {"tls.certificate": self.certificate, "tls.key": self.key, "tls.ca_file": self.ca_file}
        missing = [key for key, file in files.items() if file is None]
        if missing and len(missing) < len(files):
            raise ValueError(f"TLS with mutual authentication also needs {' and '.join(missing)}")
        return self
