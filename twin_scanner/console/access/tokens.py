"""How programs get in: a bearer token whose hash stands in a file, or an address that the configuration lists."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from starlette.requests import Request

from twin_scanner.errors import Misconfigured

_LINE: Final = re.compile(r"([A-Za-z0-9_.-]{1,64}) +(fhir|metrics) +([0-9a-f]{64})")


class Purpose(StrEnum):
    """What a token or an address opens."""

    FHIR = "fhir"
    METRICS = "metrics"


PURPOSES: Final = {
    "/fhir": Purpose.FHIR,
    "/metrics": Purpose.METRICS,
    "/healthz": Purpose.METRICS,
    "/readyz": Purpose.METRICS,
}
"""The first folder of a path, and what opens it besides a login."""


def purpose_of(path: str) -> Purpose | None:
    """What opens a path besides a login."""
    return PURPOSES.get("/" + path.split("/", 2)[1]) if path.startswith("/") else None


@dataclass(frozen=True)
class Token:
    """A program's token: its name in the audit trail, what it opens, and the SHA-256 of the token."""

    name: str
    purpose: Purpose
    sha256: str


@dataclass(frozen=True)
class Machines:
    """The programs that get in without a login."""

    tokens: tuple[Token, ...] = ()
    addresses: dict[Purpose, tuple[str, ...]] = field(default_factory=dict)
    """Networks by what they may ask for."""

    def name_of(self, request: Request, purpose: Purpose) -> str | None:
        """The program's name in the audit trail; None where it is not let in."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            digest = hashlib.sha256(given.strip().encode()).hexdigest()
            fitting = [token for token in self.tokens if hmac.compare_digest(token.sha256, digest)]
            return next((token.name for token in fitting if token.purpose == purpose), None)
        host = request.client.host if request.client else ""
        return host if _is_in(host, self.addresses.get(purpose, ())) else None


def read_tokens(file: Path) -> tuple[Token, ...]:
    """The tokens of a file: a line each, ``NAME fhir|metrics SHA256``; raises Misconfigured where it is another."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"console.tokens_file {file} cannot be read: {type(error).__name__}.") from error
    tokens = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = _LINE.fullmatch(text)
        if found is None:
            raise Misconfigured(
                f"Line {number} of console.tokens_file {file} is not NAME fhir|metrics SHA256: "
                "docs/security.md shows how a token is made."
            )
        tokens.append(Token(found.group(1), Purpose(found.group(2)), found.group(3)))
    return tuple(tokens)


def _is_in(host: str, networks: Iterable[str]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in ipaddress.ip_network(network) for network in networks)
