"""Where the twin record is kept. Oracles: a real R4 server, and one that answers as it is told."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.conftest import missing
from tests.peers.fhir_server import running_server, server_folder
from tests.samples.examined import examined_settings, found
from twin_record.capabilities import RECORDED
from twin_scanner.doctor import Finding, findings_of
from twin_scanner.doctor.twin import check_twin
from twin_scanner.settings import Settings

pytestmark = pytest.mark.node

SECRET = "s3cret-token-4711"


def look(settings: Settings) -> list[Finding]:
    return list(findings_of("twin record", check_twin, settings))


def test_a_real_r4_server_is_well_and_an_absent_one_is_not(
    tmp_path: Path, closed_port: int, peer: Callable[[str], str]
) -> None:
    peer("node")
    if server_folder() is None:
        missing("the FHIR test server (npm install in tests/peers/fhir-r4-server)")
    with running_server() as url:
        finding = found(look(examined_settings(tmp_path, closed_port, twin={"url": url})), "twin record")
        assert finding.state != "fault"
        assert "answers requests" in finding.sentence
    finding = found(look(examined_settings(tmp_path, closed_port, twin={"url": url})), "twin record")
    assert finding.state == "fault"
    assert "cannot be reached" in finding.sentence


class _Answers(http.server.BaseHTTPRequestHandler):
    """Answers every request with the next of ``answers``: status and JSON."""

    answers: ClassVar[list[tuple[int, Any]]] = []

    def do_GET(self) -> None:
        status, document = self.answers.pop(0)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def answering(answers: list[tuple[int, Any]]) -> Iterator[str]:
    """The base URL of a server that gives these answers, one after the other."""
    handler = type("Handler", (_Answers,), {"answers": list(answers)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/fhir"
        server.shutdown()
        thread.join()


STATEMENT = {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}
UNREADABLE = {"resourceType": "Bundle", "type": "batch-response", "entry": [{"response": {"status": "403"}}]}


@pytest.mark.parametrize(
    ("answers", "advice"),
    [
        ([(200, {**STATEMENT, "fhirVersion": "5.0.0"})], "speaks release 5.0.0"),
        ([(200, {"hello": "world"})] * 2, "sends no FHIR Bundle"),
        ([(404, {})] * 2, "(status 404); check twin.url"),
        ([(302, {})] * 2, "redirects to another address"),
        ([(200, STATEMENT), (401, {})], "check the token"),
        ([(200, STATEMENT), (200, UNREADABLE)], "does not allow reading (status 403)"),
    ],
    ids=["R5", "no FHIR", "not found", "redirect", "token refused", "no rights"],
)
def test_a_server_that_will_not_do_is_told_without_the_token(
    answers: list[tuple[int, Any]], advice: str, tmp_path: Path, closed_port: int
) -> None:
    (tmp_path / "token").write_text(SECRET)
    with answering(answers) as url:
        findings = look(examined_settings(tmp_path, closed_port, twin={"url": url, "token_file": tmp_path / "token"}))
    finding = found(findings, "twin record")
    assert finding.state == "fault"
    assert advice in finding.sentence
    assert all(SECRET not in one.sentence for one in findings)


@pytest.mark.parametrize(
    ("metadata", "state"), [((200, STATEMENT), "ok"), ((403, {}), "warning")], ids=["R4", "hidden"]
)
def test_a_server_that_takes_our_requests_is_well_and_should_say_its_release(
    metadata: tuple[int, Any], state: str, tmp_path: Path, closed_port: int
) -> None:
    readable = {**UNREADABLE, "entry": [{"response": {"status": "200 OK"}}]}
    with answering([metadata, (200, readable)]) as url:
        finding = found(look(examined_settings(tmp_path, closed_port, twin={"url": url})), "twin record")
    assert finding.state == state
    assert "answers requests" in finding.sentence


def test_what_a_server_lacks_is_told_with_what_that_costs(tmp_path: Path, closed_port: int) -> None:
    """As Medplum's own server and Google's are, and one that takes no Bundles."""
    listed = [{"type": kind, "searchParam": [{"name": "identifier"}]} for kind in RECORDED]
    said = {**STATEMENT, "rest": [{"mode": "server", "resource": listed, "interaction": [{"code": "batch"}]}]}
    readable = {**UNREADABLE, "entry": [{"response": {"status": "200 OK"}}]}
    with answering([(200, said), (200, readable)]) as url:
        findings = look(examined_settings(tmp_path, closed_port, twin={"url": url}))
    told = [one.sentence for one in findings if one.name == "twin server"]
    assert ["no transactions" in told[0], "no PUT create a Device or ImagingStudy or List" in told[1]] == [True, True]
    assert "found by a tag" in told[2]
    assert len(told) == 3


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_secret_that_others_may_read_is_told(tmp_path: Path, closed_port: int, mode: int, warned: bool) -> None:
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "token").chmod(mode)
    twin = {"url": f"http://127.0.0.1:{closed_port}/fhir", "token_file": tmp_path / "token"}
    findings = look(examined_settings(tmp_path, closed_port, twin=twin))
    assert ["chmod 0600" in one.sentence for one in findings if one.name == "twin access"] == [True] * warned


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", "pässword".encode()], ids=["empty", "binary", "umlaut"])
def test_a_token_that_is_none_is_told(content: bytes, tmp_path: Path, closed_port: int) -> None:
    (tmp_path / "token").write_bytes(content)
    twin = {"url": f"http://127.0.0.1:{closed_port}/fhir", "token_file": tmp_path / "token"}
    finding = found(look(examined_settings(tmp_path, closed_port, twin=twin)), "twin record")
    assert finding.state == "fault"
    assert "pässword" not in finding.sentence


def test_a_file_that_is_no_twin_store_is_told(tmp_path: Path, closed_port: int) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "twin.sqlite").write_bytes(b"no database at all, but long enough to be taken for one" * 9)
    assert found(look(examined_settings(tmp_path, closed_port)), "twin record").state == "fault"
