"""The console's HTTP server: uvicorn in a thread, on a port that is taken before, with TLS where there are files."""

import logging
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from twin_scanner.errors import Misconfigured, Rejected

OPEN_ANSWERS_S: Final = 2
"""How long a stop waits for answers that are still sent, such as live pages."""
STOP_S: Final = 5.0


@dataclass(frozen=True)
class Listening:
    """Where the console listens; both files or none."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None


class ConsoleServer:
    """Serves one application until it is stopped; the port is taken when it is made."""

    def __init__(self, application: ASGIApp, listening: Listening) -> None:
        """Take the port; raises Rejected where it is not free, Misconfigured where the TLS files cannot be used."""
        self._listening = listening
        self._socket = _bound(listening)
        config = uvicorn.Config(
            application,
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=OPEN_ANSWERS_S,
            ssl_certfile=listening.certificate,
            ssl_keyfile=listening.key,
        )
        try:
            config.load()
        except OSError as error:
            self._socket.close()
            raise Misconfigured(f"The console's certificate or key cannot be used: {error}.") from error
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="console", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = f"[{self._listening.host}]" if ":" in self._listening.host else self._listening.host
        return f"{'https' if self._listening.certificate else 'http'}://{host}:{self.port}/"

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests, let answers under way end, and close the port; also where it never started."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        self._socket.close()


def _bound(listening: Listening) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
        return socket.create_server((listening.host, listening.port), family=family)
    except OSError as error:
        raise Rejected(
            f"The console cannot listen on {listening.host} port {listening.port} ({error.strerror or error}): "
            "free the port, or set another console.port."
        ) from error
