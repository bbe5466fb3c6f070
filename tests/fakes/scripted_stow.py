"""A DICOMweb server on loopback whose answers a test scripts; it takes multipart bodies apart as RFC 2046 says."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import pydicom

FAILED, REFERENCED = "00081198", "00081199"


def sequence(tag: str, items: dict[str, int | None], number: str) -> dict[str, Any]:
    """A sequence of the answer: by SOP Instance UID the number beside it, if any."""
    values = []
    for uid, reason in items.items():
        item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
        if reason is not None:
            item[number] = {"vr": "US", "Value": [reason]}
        values.append(item)
    return {tag: {"vr": "SQ", "Value": values}}


class ScriptedStow:
    """Keeps what is posted, unless ``script`` (statuses with documents, one for each POST) says something else."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, int]] = {}
        """Series, and how often it came, by SOP Instance UID."""
        self.script: list[tuple[int, Any, dict[str, str]]] = []
        self.posts: list[list[str]] = []
        self.tokens: list[str] = []
        self.paths: list[str] = []
        self.loses: set[str] = set()
        self.page = 500

    @contextmanager
    def listening(self) -> Iterator[str]:
        """The service root, until the end of the block."""
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(*site.take(body, str(self.headers["Content-Type"])))

            def do_GET(self) -> None:
                self._answer(*site.list(self.path))

            def _answer(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
                site.paths.append(self.path)
                site.tokens.append(self.headers.get("Authorization", ""))
                content = b"" if document is None else json.dumps(document).encode()
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def take(self, body: bytes, content_type: str) -> tuple[int, Any, dict[str, str]]:
        boundary = content_type.split("boundary=")[1].encode()
        parts = body.split(b"--" + boundary)[1:-1]
        datasets = [pydicom.dcmread(BytesIO(part.split(b"\r\n\r\n", 1)[1][:-2])) for part in parts]
        self.posts.append([str(one.SOPInstanceUID) for one in datasets])
        if self.script:
            return self.script.pop(0)
        for one in datasets:
            uid = str(one.SOPInstanceUID)
            if uid not in self.loses:
                self.kept[uid] = (str(one.SeriesInstanceUID), self.kept.get(uid, ("", 0))[1] + 1)
        return 200, sequence(REFERENCED, dict.fromkeys(self.posts[-1]), "00081196"), {}

    def list(self, path: str) -> tuple[int, Any]:
        if "/series/" not in path:
            return 200, []
        series_uid = path.split("/series/")[1].split("/")[0]
        offset = int(path.split("offset=")[1].split("&")[0])
        uids = sorted(uid for uid, (series, _) in self.kept.items() if series == series_uid)
        page = uids[offset : offset + self.page]
        return (200, [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in page]) if page else (204, None)
