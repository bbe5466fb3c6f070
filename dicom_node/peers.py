"""The DICOM applications that we know: who they are, from where they may call, and what they may do."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dicom_node.tls import TlsFiles, shows_name


class Role(StrEnum):
    """What we do with a peer, and it with us."""

    SEND_CT = "send_ct"
    """It sends CT to us by C-STORE."""
    TAKE_PET = "take_pet"
    """It takes our PET by C-STORE."""
    QUERY = "query"
    """It answers C-FIND, C-MOVE and C-GET."""
    COMMIT = "commit"
    """It and we ask each other for storage commitment."""


class Priority(StrEnum):
    """In which order the work of a peer is done."""

    URGENT = "urgent"
    ROUTINE = "routine"
    BACKFILL = "backfill"


ALL_ROLES: Final = frozenset(Role)


@dataclass(frozen=True)
class Peer:
    """A DICOM application on the network.

    ``host`` and ``port`` are where we call it; ``addresses`` (IP addresses, networks, host names) are from where it may
    call us, and none means those of ``host``. With ``tls`` both sides use TLS, and the certificate that it shows must
    have ``certificate_name`` as common name or as DNS name; where that is empty, our calls expect the name of ``host``.
    """

    ae_title: str
    host: str
    port: int
    name: str = ""
    addresses: tuple[str, ...] = ()
    roles: frozenset[Role] = ALL_ROLES
    tls: TlsFiles | None = None
    certificate_name: str = ""
    priority: Priority = Priority.ROUTINE

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"

    @property
    def shown_name(self) -> str:
        """The name that its certificate must have."""
        return self.certificate_name or self.host

    def is_shown_by(self, certificate_names: frozenset[str]) -> bool:
        """Whether a certificate with these names is its own."""
        return shows_name(certificate_names, self.shown_name)
