"""Sends audit messages to a syslog server: RFC 5424 over UDP (RFC 5426), TCP (RFC 6587) or TLS (RFC 5425)."""

import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from twin_scanner.console.audit.messages import audit_message
from twin_scanner.errors import Misconfigured, Transient, Unavailable
from twin_scanner.service.ledger import Event

TIMEOUT_S: Final = 10.0
PRIORITY: Final = 10 * 8 + 5
"""Facility 10 (security), severity 5 (notice), as PS3.15 A.6 has it."""
MESSAGE_ID: Final = "IHE+RFC-3881"
LARGEST_DATAGRAM: Final = 32_768
"""Bytes; PS3.15 A.6.2 lets a server cut what is longer."""


@dataclass(frozen=True)
class SyslogServer:
    """Where the audit messages go."""

    host: str
    port: int
    transport: Literal["udp", "tcp", "tls"]
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def check(self) -> None:
        """Raise Misconfigured where its files cannot be used."""
        if self.transport == "tls":
            self._context()

    def send(self, events: Sequence[Event]) -> None:
        """Send them all, oldest first; raises Transient where it is not certain that all have arrived.

        A stream is closed by us, and the server's own close is waited for: until then its end may have lost what it
        had not read. A datagram is certain of nothing.
        """
        messages = [syslog_message(event) for event in events]
        try:
            if self.transport == "udp":
                self._send_datagrams(messages)
            else:
                self._send_stream(messages)
        except OSError as error:
            raise Unavailable(
                f"The syslog server {self.host} port {self.port} did not take the audit messages "
                f"({error.strerror or type(error).__name__}): they are sent again."
            ) from error

    def _send_datagrams(self, messages: Sequence[bytes]) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as sender:
            sender.connect(address)
            for message in messages:
                if len(message) > LARGEST_DATAGRAM:
                    raise Transient(f"An audit message of {len(message)} bytes is too long for UDP: use TCP or TLS.")
                sender.send(message)

    def _send_stream(self, messages: Sequence[bytes]) -> None:
        framed = b"".join(b"%d %s" % (len(message), message) for message in messages)
        with closing(socket.create_connection((self.host, self.port), timeout=TIMEOUT_S)) as plain:
            if self.transport == "tcp":
                plain.sendall(framed)
                plain.shutdown(socket.SHUT_WR)
                _wait_for_close(plain)
                return
            with self._context().wrap_socket(plain, server_hostname=self.host) as secure:
                secure.sendall(framed)
                _close_tls(secure)

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            raise Misconfigured(f"The TLS files of [audit] cannot be used: {error}.") from error
        return context


def syslog_message(event: Event) -> bytes:
    """RFC 5424: header, no structured data, and the XML after a byte order mark that says UTF-8."""
    at = event.at.isoformat(timespec="microseconds")
    node = "".join(
        letter if letter.isascii() and letter.isprintable() and letter != " " else "-" for letter in event.node
    )
    header = f"<{PRIORITY}>1 {at} {node or '-'} twin-scanner {os.getpid()} {MESSAGE_ID} - "
    return header.encode() + b"\xef\xbb\xbf" + audit_message(event)


def _wait_for_close(connection: socket.socket) -> None:
    """Return when the server has closed its side, so has read ours; raises OSError where it breaks off or waits."""
    while connection.recv(4096):
        pass


def _close_tls(connection: ssl.SSLSocket) -> None:
    """Say that no more comes, and wait for the same; a server that closes without saying so has closed too."""
    try:
        connection.unwrap()
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return
