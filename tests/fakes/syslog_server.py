"""A syslog server on loopback over UDP, TCP or TLS that keeps every message it has read to its end."""

import socket
import ssl
import threading


class SyslogListener:
    """Listens until it is closed; ``breaks_off`` has it cut each connection before it reads."""

    def __init__(self, tls: ssl.SSLContext | None = None, *, udp: bool = False) -> None:
        self.messages: list[bytes] = []
        self.breaks_off = False
        self._tls = tls
        self._socket = socket.socket(type=socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._arrived = threading.Condition()
        if not udp:
            self._socket.listen()
        self._thread = threading.Thread(target=self._datagrams if udp else self._streams, daemon=True)
        self._thread.start()

    def wait_for(self, count: int) -> None:
        """Return when so many messages are here."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.messages) >= count, timeout=20.0)

    def close(self) -> None:
        """Listen no more."""
        self._socket.shutdown(socket.SHUT_RDWR) if self._socket.type == socket.SOCK_STREAM else None
        self._socket.close()
        self._thread.join(1.0)

    def _keep(self, messages: list[bytes]) -> None:
        with self._arrived:
            self.messages += messages
            self._arrived.notify_all()

    def _datagrams(self) -> None:
        while True:
            try:
                self._keep([self._socket.recv(65_536)])
            except OSError:
                return

    def _streams(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            try:
                self._read(plain)
            except OSError:
                plain.close()

    def _read(self, plain: socket.socket) -> None:
        if self.breaks_off:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            plain.close()
            return
        connection = plain if self._tls is None else self._tls.wrap_socket(plain, server_side=True)
        stream = b""
        with connection:
            while part := connection.recv(65_536):
                stream += part
        self._keep(_unframed(stream))


def _unframed(stream: bytes) -> list[bytes]:
    """RFC 6587 3.4.1: a message's length, a space, the message."""
    messages = []
    while stream:
        length, _, rest = stream.partition(b" ")
        messages.append(rest[: int(length)])
        stream = rest[int(length) :]
    return messages
