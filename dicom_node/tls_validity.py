"""How long our certificate is valid, and that it serves both ways; found by shaking hands with ourselves in memory."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

from dicom_node.tls import TlsFiles, context_of, fault_of
from twin_scanner.errors import Misconfigured

_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python has no name for: the end of an expired certificate is read too."""
WARN_BEFORE: Final = timedelta(days=30)
"""A hospital's authority takes its time to sign a new one."""
_MOST_FLIGHTS: Final = 10


@dataclass(frozen=True)
class Validity:
    """From when until when a certificate is valid."""

    certificate: Path
    begin: datetime
    end: datetime

    def holds(self, now: datetime) -> bool:
        """Whether it is valid."""
        return self.begin <= now < self.end

    def concern(self, now: datetime) -> str | None:
        """What is to be done about it now or soon, in a sentence; None where nothing is."""
        if now >= self.end:
            return f"{self.certificate} expired on {self.end:%Y-%m-%d}: have a new one signed."
        if now < self.begin:
            fact = f"{self.certificate} is valid from {self.begin:%Y-%m-%d %H:%M} UTC on"
            return f"{fact}: wait, or set this machine's clock."
        if self.end - now < WARN_BEFORE:
            fact = f"{self.certificate} is valid until {self.end:%Y-%m-%d}, {(self.end - now).days} days more"
            return f"{fact}: have a new one signed; it is read without a restart."
        return None


def validity_of(files: TlsFiles) -> Validity:
    """Of our certificate. Raises Misconfigured where it cannot be used on any date."""
    server, client = _trusting_itself(files, ssl.PROTOCOL_TLS_SERVER), _trusting_itself(files, ssl.PROTOCOL_TLS_CLIENT)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = {
        "as a client's": server.wrap_bio(to_server, to_client, server_side=True),
        "as a server's": client.wrap_bio(to_client, to_server),
    }
    for _ in range(_MOST_FLIGHTS):
        for use, side in sides.items():
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                fault = fault_of(error).removeprefix("its certificate ")
                raise Misconfigured(
                    f"{files.certificate} {fault}, tried {use}: it needs clientAuth and serverAuth."
                ) from error
    certificate = cast(dict[str, Any], sides["as a server's"].getpeercert())
    begin, end = (ssl.cert_time_to_seconds(certificate[key]) for key in ("notBefore", "notAfter"))
    return Validity(files.certificate, datetime.fromtimestamp(begin, UTC), datetime.fromtimestamp(end, UTC))


def _trusting_itself(files: TlsFiles, protocol: int) -> ssl.SSLContext:
    """Our side of a handshake whose other side shows our own certificate."""
    context = context_of(files, protocol)
    context.load_verify_locations(files.certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    return context
