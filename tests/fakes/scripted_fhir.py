"""A real HTTP server on loopback that answers FHIR Bundles by a script: what a hospital's server or proxy may say."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

Json = dict[str, Any]

MAINTENANCE = "<html><body><h1>Maintenance</h1></body></html>"
"""What a proxy before the server says."""
OUTCOME: Json = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "processing"}]}


@dataclass(frozen=True)
class Sent:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: Json


Script = Callable[[Sent], tuple[int, str] | None]
"""The status and text for one request; None hangs up."""


NO_STATEMENT = (404, "")
"""What a server says that keeps its CapabilityStatement to itself."""


@contextmanager
def scripted_fhir(
    script: Script,
    tls: ssl.SSLContext | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
    metadata: tuple[int, str] = NO_STATEMENT,
) -> Iterator[tuple[str, list[Sent]]]:
    """The server's base URL, and everything that it was sent so far; every answer has these ``headers``.

    What it can do is asked for in between: ``metadata`` is its answer, of which nothing is kept.
    """
    seen: list[Sent] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append(Sent(self.path, dict(self.headers), json.loads(body or b"{}")))
            answer = script(seen[-1])
            self._send(answer)

        def do_GET(self) -> None:
            self._send(metadata)

        def _send(self, answer: tuple[int, str] | None) -> None:
            if answer is None:
                self.connection.close()
                return
            status, text = answer
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode("utf-8"))

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_arguments: Any) -> None:
            """Say nothing of clients that break off, as one does that trusts no certificate of ours."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}/fhir", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def nothing_found(batch: Json) -> Json:
    """The answer of an empty server to a batch of searches and reads."""
    empty = {"response": {"status": "200"}, "resource": {"resourceType": "Bundle", "type": "searchset"}}
    absent = {"response": {"status": "404"}}
    entries = [empty if "?" in entry["request"]["url"] else absent for entry in batch["entry"]]
    return {"resourceType": "Bundle", "type": "batch-response", "entry": entries}


def everything_created(transaction: Json) -> Json:
    """The answer of a server that wrote every entry of a transaction."""
    entries = [
        {"response": {"status": "201 Created", "location": f"{entry['resource']['resourceType']}/1/_history/1"}}
        for entry in transaction["entry"]
    ]
    return {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}


def empty_server(sent: Sent) -> tuple[int, str]:
    """The script of a server that holds nothing and takes everything."""
    answer = nothing_found if sent.body["type"] == "batch" else everything_created
    return 200, json.dumps(answer(sent.body))


def refusing_writes(status: int, text: str = json.dumps(OUTCOME)) -> Script:
    """The script of an empty server that answers every write with ``status``."""
    return lambda sent: empty_server(sent) if sent.body.get("type") == "batch" else (status, text)
