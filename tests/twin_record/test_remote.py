"""The record over HTTP: faults become our errors, half a transaction is completed, nothing of the patient leaks."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.peers.fhir_server import running_server, server_folder
from tests.peers.twin_rig import Rig, server_rig
from tests.samples.twin_updates import SITE, a_series, an_update, another_study
from twin_record.refusals import Conflict, failure, harmless_detail, private_words
from twin_record.remote import FhirServer
from twin_scanner.errors import Rejected, Transient

pytestmark = pytest.mark.record

Json = dict[str, Any]
Answer = tuple[int, str]


@pytest.fixture(scope="module")
def r4_url() -> Iterator[str]:
    if server_folder() is None:
        missing("the R4 server (tests/peers/fhir-r4-server/node_modules)")
    with running_server() as url:
        yield url


@pytest.fixture
def rig(r4_url: str) -> Iterator[Rig]:
    found = server_rig(r4_url)
    yield found
    found.target.close()


@contextmanager
def answering(answer: Callable[[Json], Answer | None]) -> Iterator[tuple[str, list[tuple[str, Json, Json]]]]:
    """A real HTTP server that answers each Bundle by a script (None: it hangs up), and what it was sent."""
    seen: list[tuple[str, Json, Json]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, dict(self.headers), body))
            answered = answer(body)
            if answered is None:
                self.connection.close()
                return
            status, text = answered
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()
            self.wfile.write(text.encode("utf-8"))

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/fhir", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def nothing_found(body: Json) -> Json:
    """The answer of an empty server to a batch of searches and reads."""
    empty = {"response": {"status": "200"}, "resource": {"resourceType": "Bundle", "type": "searchset"}}
    absent = {"response": {"status": "404"}}
    entries = [empty if "?" in entry["request"]["url"] else absent for entry in body["entry"]]
    return {"resourceType": "Bundle", "type": "batch-response", "entry": entries}


def refusing_writes(status: int, outcome: Json | None = None) -> Callable[[Json], Answer]:
    """An empty server that answers every transaction with ``status``."""

    def answer(body: Json) -> Answer:
        if body["type"] == "batch":
            return 200, json.dumps(nothing_found(body))
        return status, json.dumps(outcome or {"resourceType": "OperationOutcome", "issue": []})

    return answer


def record_at(url: str, **options: Any) -> None:
    """Record some update there, and close."""
    with FhirServer(url, SITE, sleep=lambda _seconds: None, **options) as server:
        server.record(an_update())


@pytest.mark.parametrize("status", [401, 408, 409, 412, 429, 500, 502, 503, 504])
def test_an_answer_that_may_change_later_is_transient(status: int) -> None:
    with answering(refusing_writes(status)) as (url, _), pytest.raises(Transient):
        record_at(url)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 422])
def test_an_answer_that_will_not_change_is_rejected(status: int) -> None:
    with answering(refusing_writes(status)) as (url, _), pytest.raises(Rejected, match=f"status {status}"):
        record_at(url)


@pytest.mark.parametrize(("status", "times"), [(409, 4), (412, 4), (503, 1), (422, 1)])
def test_only_a_conflict_is_redone_at_once_and_not_for_ever(status: int, times: int) -> None:
    """Everything else is for the ledger's own back-off."""
    with answering(refusing_writes(status)) as (url, seen):
        with pytest.raises((Transient, Rejected)):
            record_at(url, attempts=4)
        assert sum(body["type"] == "transaction" for _, _, body in seen) == times


def test_a_connection_that_breaks_is_transient(free_port: Callable[[], int]) -> None:
    with pytest.raises(Transient, match="cannot be reached"):
        record_at(f"http://127.0.0.1:{free_port()}/fhir")
    with answering(lambda _body: None) as (url, _), pytest.raises(Transient, match="cannot be reached"):
        record_at(url)


def test_a_server_that_does_not_answer_is_transient() -> None:
    released = threading.Event()

    def wait(_body: Json) -> None:
        released.wait(20)

    with answering(wait) as (url, _):
        try:
            with pytest.raises(Transient, match="did not answer in time"):
                record_at(url, timeout_s=0.2)
        finally:
            released.set()


@pytest.mark.parametrize("text", ["<html>maintenance</html>", "[]", '{"resourceType": "Patient"}', ""])
def test_an_answer_that_is_no_bundle_is_transient(text: str) -> None:
    with answering(lambda _body: (200, text)) as (url, _), pytest.raises(Transient, match="no FHIR Bundle"):
        record_at(url)


def test_a_redirect_is_not_followed_with_patient_data() -> None:
    with answering(lambda _body: (302, "")) as (url, seen), pytest.raises(Rejected, match="redirects"):
        record_at(url)
    assert len(seen) == 1


@pytest.mark.parametrize("status", ["404 Not Found", "412", "500", "nonsense"])
def test_one_failed_entry_inside_a_success_is_the_failure_of_all(status: str) -> None:
    """A server that is not atomic answers 200 and says in one entry that it did not write it."""

    def answer(body: Json) -> Answer:
        if body["type"] == "batch":
            return 200, json.dumps(nothing_found(body))
        created: list[Json] = [
            {"response": {"status": "201 Created", "location": f"{entry['resource']['resourceType']}/1"}}
            for entry in body["entry"]
        ]
        created[3] = {"response": {"status": status}}
        return 200, json.dumps({"resourceType": "Bundle", "type": "transaction-response", "entry": created})

    with answering(answer) as (url, _), pytest.raises((Transient, Rejected)):
        record_at(url)


@pytest.mark.parametrize("cut", [0, 2])
def test_an_incomplete_answer_is_transient(cut: int) -> None:
    def answer(body: Json) -> Answer:
        found = nothing_found(body) if body["type"] == "batch" else {"resourceType": "Bundle", "entry": []}
        return 200, json.dumps({**found, "entry": found["entry"][: cut or None]})

    with answering(answer) as (url, _), pytest.raises(Transient, match="incompletely"):
        record_at(url)


def test_a_server_that_ignores_the_search_does_not_give_us_a_stranger() -> None:
    """A server may drop a parameter it does not know and answer with every Patient it has."""
    stranger = {"resourceType": "Patient", "id": "7", "identifier": [{"system": "urn:x:y", "value": "1"}]}

    def answer(body: Json) -> Answer:
        if body["type"] == "batch":
            found = nothing_found(body)
            for entry, asked in zip(found["entry"], body["entry"], strict=True):
                if asked["request"]["url"].startswith("Patient"):
                    entry["resource"]["entry"] = [{"resource": stranger}]
            return 200, json.dumps(found)
        assert "Patient" in [entry["resource"]["resourceType"] for entry in body["entry"]]
        return 422, "{}"

    with answering(answer) as (url, _), pytest.raises(Rejected, match="422"):
        record_at(url)


def test_a_half_written_transaction_is_completed_by_the_redo(rig: Rig) -> None:
    """The R4 server here is not atomic: one entry fails, the others stay; the redo adds what is missing, once."""

    class LosingTheProvenance:
        def exchange(self, bundle: Json) -> Json:
            if bundle["type"] == "transaction":
                bundle["entry"][-1]["request"]["ifMatch"] = 'W/"no such version"'
            return rig.target.exchange(bundle)

    update = an_update()
    with pytest.raises((Transient, Rejected)):
        rig.record(update, through=LosingTheProvenance())
    receipt = rig.record(update)
    assert receipt.written == (receipt.provenance,)
    found = (receipt.patient, receipt.imaging_study, receipt.device, receipt.provenance, receipt.record)
    assert [len(rig.versions(reference)) for reference in found] == [1] * 5


def test_a_study_of_six_hundred_slices_is_recorded(rig: Rig) -> None:
    update = an_update(source_series=a_series("CT", instances=600), pet_series=a_series("PT", instances=600))
    study = rig.current(rig.record(update).imaging_study)
    assert study["numberOfInstances"] == 1200
    assert [len(series["instance"]) for series in study["series"]] == [600, 600]


def test_nothing_of_the_patient_is_in_the_logs_or_in_an_address(
    rig: Rig, r4_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    update = an_update(accession_number="ACC-SECRET-5")
    with caplog.at_level(logging.DEBUG):
        rig.record(update)
        rig.record(another_study(update))
        rig.target.patient_record(update.patient_id, None)
    for secret in (update.patient_id, "Müller", "Jürgen", "19480229", "1948-02-29", "ACC-SECRET-5", update.study_uid):
        assert secret not in caplog.text
    assert r4_url not in caplog.text
    with answering(refusing_writes(422)) as (url, seen):
        with pytest.raises(Rejected):
            record_at(url)
        assert {path for path, _, _ in seen} == {"/fhir"}


def test_the_token_goes_into_the_header_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), answering(refusing_writes(401)) as (url, seen):
        with pytest.raises(Transient, match="token") as error:
            record_at(url, token="s3cret-token\n")
        assert {headers["Authorization"] for _, headers, _ in seen} == {"Bearer s3cret-token"}
        assert {headers["Content-Type"] for _, headers, _ in seen} == {"application/fhir+json"}
    assert "s3cret" not in str(error.value) + caplog.text


def test_a_refusal_is_told_without_the_patients_values() -> None:
    outcome = {
        "resourceType": "OperationOutcome",
        "issue": [
            {
                "severity": "error",
                "code": "invariant",
                "diagnostics": "Patient Müller, Jürgen (born 1948-02-29, MRN 'X-17') breaks: karl of Smith too long",
                "expression": ["Patient.name"],
            }
        ],
    }
    patient = {"name": [{"family": "Müller", "given": ["Jürgen", "Karl"]}], "birthDate": "1948-02-29"}
    detail = harmless_detail(outcome, private_words({"entry": [{"resource": patient}]}))
    assert detail == "invariant Patient (born breaks: of too long Patient.name"
    with answering(refusing_writes(422, outcome)) as (url, _), pytest.raises(Rejected) as error:
        record_at(url)
    assert "invariant" in str(error.value)
    for secret in ("Müller", "Jürgen", "Smith", "1948", "X-17", "MRN"):
        assert secret not in str(error.value)


@pytest.mark.parametrize("outcome", [None, [], "text", {"issue": "x"}, {"issue": [1]}, {"issue": [{"details": 3}]}])
def test_an_outcome_that_is_none_is_survived(outcome: Any) -> None:
    assert isinstance(failure(400, outcome, frozenset()), Rejected)
    assert isinstance(failure(412, outcome, frozenset()), Conflict)


@pytest.mark.parametrize(
    "url",
    ["", "fhir.hospital", "ftp://h/fhir", "https://user:pw@h/fhir", "https://h/fhir?x=1", "http://", "https://h:x/"],
)
def test_a_base_url_that_cannot_be_one_is_rejected(url: str) -> None:
    with pytest.raises(Rejected, match="base URL") as error:
        FhirServer(url, SITE)
    assert "pw" not in str(error.value)


def test_the_servers_certificate_is_checked_against_the_file_that_is_named(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="cannot be used"):
        FhirServer("https://127.0.0.1/fhir", SITE, ca_file=tmp_path / "absent.pem")
    (tmp_path / "no.pem").write_text("this is no certificate")
    with pytest.raises(Rejected, match="cannot be used"):
        FhirServer("https://127.0.0.1/fhir", SITE, ca_file=tmp_path / "no.pem")
