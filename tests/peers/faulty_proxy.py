"""A proxy on loopback before a real FHIR server: it fails as proxies and servers do, and what it passes on is real."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

import httpx

from tests.fakes.scripted_fhir import MAINTENANCE, OUTCOME

Moment = Literal["before", "after"]
"""Whether a request fails before the server sees it, or its answer is lost after the server has written."""
Answer = tuple[int, dict[str, str], bytes]

JSON = {"Content-Type": "application/fhir+json"}
PAGE = MAINTENANCE.encode("utf-8")
FAULTS: dict[str, Answer] = {
    "302": (302, {"Location": "http://127.0.0.1:9/login"}, b""),
    "401": (401, {"WWW-Authenticate": "Bearer"}, b""),
    "403": (403, JSON, json.dumps(OUTCOME).encode("utf-8")),
    "404": (404, {"Content-Type": "text/html"}, PAGE),
    "405": (405, {"Allow": "GET"}, b""),
    "413": (413, {"Content-Type": "text/html"}, PAGE),
    "429": (429, {"Retry-After": "1"}, b""),
    "503": (503, {"Retry-After": "1"}, PAGE),
    "bad JSON": (200, JSON, b'{"resourceType": "Bundle", "entry": [{"respon'),
}
HANGS = "hangs"
PASSED_ON = ("accept", "authorization", "content-type", "if-match", "if-none-exist", "prefer")
LONGEST_WAIT_S = 60.0


class FaultyProxy:
    """`url` stands for the server's; without a fault or a race everything is passed on as it is."""

    def __init__(self, server_url: str) -> None:
        self._root, _, self._path = server_url.rpartition("/")
        self._forward = httpx.Client(verify=False, timeout=LONGEST_WAIT_S, limits=httpx.Limits(max_connections=None))
        self._fault: tuple[str, Moment] | None = None
        self._released = threading.Event()
        self._race: threading.Barrier | None = None
        self._starters: Iterator[int] = iter(())
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._http.server_port}/{self._path}"

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self._forward.close()

    @contextmanager
    def failing(self, fault: str, moment: Moment) -> Iterator[None]:
        """Answer each request (before), or each write that the server has executed (after), with a fault."""
        self._fault = (fault, moment)
        self._released.clear()
        try:
            yield
        finally:
            self._fault = None
            self._released.set()

    @contextmanager
    def race(self, writers: int = 2) -> Iterator[None]:
        """Let the first writes of all `writers` begin together, and take the conditions off what they create.

        So do servers that search before they lock: each of them finds nothing, and each creates.
        """
        self._starters, self._race = iter(range(writers)), threading.Barrier(writers)
        try:
            yield
        finally:
            self._race = None

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer | None:
        """The answer to one request; None hangs up."""
        fault, race, writes = self._fault, self._race, _writes(method, path, body)
        if fault and fault[1] == "before":
            return self._failed(fault[0])
        if race is not None and writes:
            # A writer that waits here sends nothing else: the first write of each is counted once.
            if next(self._starters, None) is not None:
                race.wait(LONGEST_WAIT_S)
            headers.pop("if-none-exist", None)
            body = _unconditional(body)
        answered = self._forward.request(method, self._root + path, headers=headers, content=body)
        if fault and writes and answered.is_success:
            return self._failed(fault[0])
        kept = {name: value for name, value in answered.headers.items() if name in ("content-type", "etag", "location")}
        return answered.status_code, kept, answered.content

    def _failed(self, fault: str) -> Answer | None:
        if fault == HANGS:
            self._released.wait(LONGEST_WAIT_S)
            return None
        return FAULTS[fault]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
                answer = proxy.answer(self.command, self.path, headers, body)
                if answer is None:
                    self.close_connection = True
                    return
                status, kept, content = answer
                self.send_response(status)
                for name, value in {**kept, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_DELETE = do_POST  # noqa: N815

            def log_message(self, *_arguments: Any) -> None:
                """Say nothing."""

        return Handler


def _writes(method: str, path: str, body: bytes) -> bool:
    """Whether a request changes the server: a transaction, or one write to a resource."""
    bundle = _json(body)
    if method == "POST" and bundle.get("resourceType") == "Bundle":
        return bool(bundle.get("type") == "transaction")
    return method in ("POST", "PUT", "DELETE") and not path.endswith("_search")


def _unconditional(body: bytes) -> bytes:
    document = _json(body)
    for entry in document.get("entry", []):
        entry.get("request", {}).pop("ifNoneExist", None)
    return json.dumps(document).encode("utf-8") if document else body


def _json(body: bytes) -> dict[str, Any]:
    document = json.loads(body or b"{}")
    return document if isinstance(document, dict) else {}
