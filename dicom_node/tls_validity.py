"""How long a certificate is valid: ours, found by shaking hands with ourselves in memory, and that of a peer."""

import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from dicom_node.peers import Peer
from dicom_node.tls import TlsFiles, client_context, context_of, fault_of
from twin_scanner.errors import Misconfigured, Transient

_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python has no name for: the end of an expired certificate is read too."""
WARN_BEFORE: Final = timedelta(days=30)
"""A hospital's authority takes its time to sign a new one."""
_MOST_FLIGHTS: Final = 10


@dataclass(frozen=True)
class Validity:
    """From when until when a certificate is valid; ``certificate`` says which, as the subject of a sentence."""

    certificate: str
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
    return _validity(str(files.certificate), sides["as a server's"])


def validity_shown_by(peer: Peer, files: TlsFiles, timeout_s: float) -> Validity:
    """Of the certificate that the peer shows to us. Raises Transient where none is shown, or not a valid one."""
    faults: list[str] = []
    context = client_context(files, peer.shown_name, faults.append)
    try:
        with (
            socket.create_connection((peer.host, peer.port), timeout_s) as connection,
            context.wrap_socket(connection, server_hostname=peer.host) as shown,
        ):
            return _validity(f"The certificate of {peer}", shown)
    except OSError as error:
        raise Transient(f"{peer} was called by TLS, but {(faults or [str(error)])[0]}: check its TLS there.") from error


def _validity(name: str, shown: ssl.SSLSocket | ssl.SSLObject) -> Validity:
    certificate = cast(dict[str, Any], shown.getpeercert())
    begin, end = (ssl.cert_time_to_seconds(certificate[key]) for key in ("notBefore", "notAfter"))
    return Validity(name, datetime.fromtimestamp(begin, UTC), datetime.fromtimestamp(end, UTC))


def _trusting_itself(files: TlsFiles, protocol: int) -> ssl.SSLContext:
    """Our side of a handshake whose other side shows our own certificate."""
    context = context_of(files, protocol)
    context.load_verify_locations(files.certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    return context
