"""TLS with mutual authentication, both ways (BCP 195: RFC 8996, 9325; PS3.15 annex B): contexts, handshakes, reload.

Both sides show a certificate that an authority of ``ca_file`` signed; no others are trusted. The names in it say
whose it is, and are compared as a whole: a wildcard is the name of nobody.
"""

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

from twin_scanner.errors import Misconfigured

MinimumVersion: TypeAlias = Literal["1.2", "1.3"]
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2, those with forward secrecy and authenticated encryption (RFC 9325 4.2); 1.3 has no others."""
_NAMES: Final = ("DNS", "IP Address")
TLS_HANDSHAKE: Final = 0x16
"""The first byte of a TLS connection (RFC 8446 5.1); that of an association request is 0x01 (PS3.8 9.3.2)."""
_FAULTS_BY_CODE: Final = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is signed by itself, not by an authority of tls.ca_file",
    19: "its certificate is signed by no authority of tls.ca_file",
    20: "its certificate is signed by no authority of tls.ca_file",
    21: "its certificate is signed by no authority of tls.ca_file",
    26: "its certificate is not for this use (extended key usage)",
}
"""By OpenSSL's verification error."""
_FAULTS_BY_REASON: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "UNSUPPORTED_PROTOCOL": "it speaks no version of TLS that is allowed",
    "UNKNOWN_PROTOCOL": "it speaks no TLS",
    "WRONG_VERSION_NUMBER": "it speaks no TLS",
    "HTTP_REQUEST": "it speaks HTTP",
    "NO_SHARED_CIPHER": "it has no cipher suite that is allowed",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it takes no version of TLS that is allowed here",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority that signed our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it refuses our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that our certificate has expired",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refuses our versions, our cipher suites or our certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it was shown no certificate of ours",
}
"""By OpenSSL's name of the error."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TlsFiles:
    """Our certificate (PEM, with its chain below), its key, and the authorities that signed our peers' certificates."""

    certificate: Path
    key: Path
    ca_file: Path
    key_password_file: Path | None = None
    minimum_version: MinimumVersion = "1.2"

    @property
    def read(self) -> tuple[Path, ...]:
        """All that is read."""
        files = (self.certificate, self.key, self.ca_file)
        return files if self.key_password_file is None else (*files, self.key_password_file)


class ServerTls:
    """Our side of the connections that others open; files that change are read again, for the connections from then on.

    Raises Misconfigured where they cannot be used at the start; later the earlier ones stay in use then.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._seen = _signature(files)
        self._context = context_of(files, ssl.PROTOCOL_TLS_SERVER)

    def context(self) -> ssl.SSLContext:
        """The context of a connection that begins now."""
        seen = _signature(self._files)
        with self._lock:
            if seen != self._seen:
                self._seen = seen
                try:
                    self._context = context_of(self._files, ssl.PROTOCOL_TLS_SERVER)
                    logger.info("The TLS files have changed and are in use now.")
                except Misconfigured as error:
                    logger.error("The TLS files have changed, the earlier ones stay in use: %s", error)
            return self._context

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """The connection by TLS, of which the handshake is still to be made; it raises OSError, see ``fault_of``."""
        return self.context().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)


def client_context(files: TlsFiles, peer_name: str, on_fault: Callable[[str], None]) -> ssl.SSLContext:
    """The context of one connection that we open to the peer of that name; raises Misconfigured.

    Its handshake raises OSError, also where the peer's certificate has another name; ``on_fault`` is given the reason.
    """

    class Checked(ssl.SSLSocket):
        def connect(self, addr: Any) -> None:
            try:
                super().connect(addr)
            except OSError:
                self.close()  # pynetdicom forgets to.
                raise

        def do_handshake(self, block: bool = False) -> None:
            try:
                super().do_handshake(block)
                names = certificate_names(self)
                if not shows_name(names, peer_name):
                    shown = ", ".join(sorted(names)) or "no name"
                    raise NotSecure(f"its certificate has not the name '{peer_name}', but {shown}")
            except OSError as error:
                on_fault(fault_of(error))
                raise

    context = context_of(files, ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = Checked
    return context


def certificate_names(connection: ssl.SSLSocket) -> frozenset[str]:
    """The common names, DNS names and IP addresses in the certificate of the other side."""
    certificate = cast(dict[str, Any], connection.getpeercert() or {})
    common = {value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"}
    return frozenset(common | {value for kind, value in certificate.get("subjectAltName", ()) if kind in _NAMES})


def shows_name(certificate_names: frozenset[str], name: str) -> bool:
    """Whether a certificate with these names is that of ``name``."""
    return name.casefold().rstrip(".") in {shown.casefold().rstrip(".") for shown in certificate_names}


class NotSecure(OSError):
    """A connection that must not go on as it is; its text goes on from the name of the other side."""


def fault_of(error: OSError) -> str:
    """Why a handshake failed, in words that go on from the name of the other side."""
    if isinstance(error, NotSecure):
        return str(error)
    if isinstance(error, TimeoutError):
        return "it did not shake hands in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        words = _FAULTS_BY_CODE.get(error.verify_code)
        return words or f"its certificate cannot be verified ({error.verify_message})"
    if isinstance(error, ssl.SSLError) and error.reason:
        return _FAULTS_BY_REASON.get(error.reason, f"the handshake failed ({error.reason})")
    return "it closed the connection during the handshake"


def is_tls(connection: socket.socket, timeout_s: float) -> bool:
    """Whether the other side begins with TLS; raises OSError where it says nothing in time, or closes."""
    connection.settimeout(timeout_s)
    first = connection.recv(1, socket.MSG_PEEK)
    return bool(first) and first[0] == TLS_HANDSHAKE


def context_of(files: TlsFiles, protocol: int) -> ssl.SSLContext:
    """Our side of a handshake, ssl.PROTOCOL_TLS_SERVER or CLIENT; raises Misconfigured where a file cannot be used."""
    for file in files.read:
        try:
            file.read_bytes()
        except OSError as error:
            raise Misconfigured(f"The TLS file {file} cannot be read ({error.strerror}): check [tls].") from error
    # Without one OpenSSL would ask for it on the terminal.
    password = b"" if files.key_password_file is None else files.key_password_file.read_bytes().strip()
    context = ssl.SSLContext(protocol)
    context.check_hostname = False  # Names are compared by shows_name, both ways alike.
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = _VERSIONS[files.minimum_version]
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    try:
        context.load_cert_chain(files.certificate, files.key, password)
    except ssl.SSLError as error:
        raise Misconfigured(_unusable_key(files, error)) from error
    try:
        context.load_verify_locations(files.ca_file)
    except ssl.SSLError as error:
        raise Misconfigured(
            f"tls.ca_file {files.ca_file} holds no certificate in PEM: give the authorities'."
        ) from error
    return context


def _unusable_key(files: TlsFiles, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"The key {files.key} does not belong to the certificate {files.certificate}: give that which does."
    if files.key.read_bytes().find(b"ENCRYPTED") >= 0:
        return f"The key {files.key} is encrypted and cannot be opened: give its password in tls.key_password_file."
    return f"{files.certificate} or {files.key} is no certificate or key in PEM: check tls.certificate and tls.key."


def _signature(files: TlsFiles) -> tuple[tuple[int, int, int] | None, ...]:
    """Of the files as they are now: what changes where one is written or replaced; None for one that is not there."""
    signature: list[tuple[int, int, int] | None] = []
    for file in files.read:
        try:
            state = file.stat()
        except OSError:
            signature.append(None)
        else:
            signature.append((state.st_mtime_ns, state.st_size, state.st_ino))
    return tuple(signature)
