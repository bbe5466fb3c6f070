"""The record over HTTP: what a server or a proxy may say becomes our errors, and nothing of the patient leaks."""

import itertools
import json
import logging
import ssl
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.scripted_fhir import (
    MAINTENANCE,
    OUTCOME,
    Json,
    Sent,
    empty_server,
    everything_created,
    nothing_found,
    refusing_writes,
    scripted_fhir,
)
from tests.peers.twin_rig import Rig
from tests.samples.twin_updates import SITE, a_series, an_update, another_study
from twin_record.connection import NoCapabilityStatement
from twin_record.refusals import Conflict
from twin_record.remote import FhirClient
from twin_scanner.errors import Held, Misconfigured, Transient, TwinScannerError, Unavailable

pytestmark = pytest.mark.record


def record_at(url: str, **options: Any) -> None:
    """Record some update there, and close."""
    with closing(FhirClient(url, SITE, sleep=lambda _seconds: None, **options)) as server:
        server.record(an_update())


SERVES_NOBODY = [300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 410, 415, 425, 426, 429]
SERVES_NOBODY += [431, 451, 500, 501, 502, 503, 504, 507, 511, 599]
TEXTS = ["", MAINTENANCE, json.dumps(OUTCOME), "{}"]


@pytest.mark.parametrize(("status", "text"), list(zip(SERVES_NOBODY, itertools.cycle(TEXTS))))
def test_a_server_that_serves_nobody_stops_everything_that_is_meant_for_it(status: int, text: str) -> None:
    """Nothing is wrong with this patient's record, so the next one would meet the same."""
    with scripted_fhir(lambda _sent: (status, text)) as (url, seen):
        with pytest.raises(Unavailable, match=f"status {status}"):
            record_at(url)
        assert len(seen) == 1, "a redirect is not followed with patient data, and nothing is asked twice"


@pytest.mark.parametrize(
    ("status", "text"), [(400, json.dumps(OUTCOME)), (400, MAINTENANCE), (413, MAINTENANCE), (422, "")]
)
def test_a_refused_record_is_held_alone(status: int, text: str) -> None:
    with scripted_fhir(refusing_writes(status, text)) as (url, _), pytest.raises(Held, match=f"status {status}"):
        record_at(url)


@pytest.mark.parametrize("status", [409, 412])
def test_somebody_who_wrote_meanwhile_is_a_conflict(status: int) -> None:
    with scripted_fhir(refusing_writes(status)) as (url, _), pytest.raises(Conflict):
        record_at(url)


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_missing_is_the_resource_where_the_address_has_just_answered(status: int) -> None:
    with scripted_fhir(refusing_writes(status)) as (url, _), pytest.raises(Held, match=f"status {status}"):
        record_at(url)


def test_what_is_missing_is_the_address_where_no_fhir_server_says_so() -> None:
    """The server goes away between read and write, and the proxy before it says 404."""
    with scripted_fhir(refusing_writes(404, MAINTENANCE)) as (url, _), pytest.raises(Unavailable, match=r"twin\.url"):
        record_at(url)


def test_what_finds_a_search_wrong_finds_our_address_wrong() -> None:
    """nginx answers 400 and a page where plain HTTP meets its TLS port."""
    with scripted_fhir(lambda _sent: (400, MAINTENANCE)) as (url, _), pytest.raises(Unavailable, match="proxy"):
        record_at(url)


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (302, "redirects to another address"),
        (401, "check the token"),
        (403, "rights of the token"),
        (404, "check twin.url"),
        (405, "takes transactions"),
        (407, "check the proxy"),
        (429, "later"),
        (503, "later"),
    ],
)
def test_the_operator_is_told_what_to_do(status: int, advice: str) -> None:
    with scripted_fhir(lambda _sent: (status, "")) as (url, _), pytest.raises(Unavailable, match=advice):
        record_at(url)


@pytest.mark.parametrize(("status", "times"), [(409, 4), (412, 4), (503, 1), (422, 1)])
def test_only_a_conflict_is_redone_at_once_and_not_for_ever(status: int, times: int) -> None:
    """Everything else is for the ledger's own back-off."""
    with scripted_fhir(refusing_writes(status)) as (url, seen):
        with pytest.raises(TwinScannerError):
            record_at(url, attempts=4)
        assert sum(sent.body["type"] == "transaction" for sent in seen) == times


def test_a_connection_that_breaks_stops_everything(free_port: Callable[[], int]) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        record_at(f"http://127.0.0.1:{free_port()}/fhir")
    with scripted_fhir(lambda _sent: None) as (url, _), pytest.raises(Unavailable, match="cannot be reached"):
        record_at(url)


def test_a_server_that_does_not_answer_stops_everything() -> None:
    released = threading.Event()

    def wait(_sent: Sent) -> None:
        released.wait(20)

    with scripted_fhir(wait) as (url, _):
        try:
            with pytest.raises(Unavailable, match="did not answer in time"):
                record_at(url, timeout_s=0.2)
        finally:
            released.set()


def test_an_answer_that_trickles_has_an_end() -> None:
    """Each piece comes within the time-out and the whole never does; the clock is driven."""
    moments = iter(range(0, 10_000, 20))
    long_answer = json.dumps(OUTCOME) + " " * 10_000_000
    with scripted_fhir(lambda _sent: (200, long_answer)) as (url, _), pytest.raises(Unavailable, match="whole in time"):
        record_at(url, timeout_s=30.0, clock=lambda: float(next(moments)))


@pytest.mark.parametrize(
    "text",
    [MAINTENANCE, "[]", '{"resourceType": "Patient"}', "", '{"resourceType": "Bundle", "ent', "null", "[" * 100_000],
    ids=["page", "list", "Patient", "empty", "cut off", "null", "deep"],
)
def test_a_success_that_is_no_bundle_stops_everything(text: str) -> None:
    with scripted_fhir(lambda _sent: (200, text)) as (url, _), pytest.raises(Unavailable, match="no FHIR Bundle"):
        record_at(url)


def test_a_wrong_base_path_stops_everything(r4_url: str) -> None:
    """A real server below another path than the configured one."""
    with pytest.raises(Unavailable, match="twin"):
        record_at(f"{r4_url}/wrong")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("400", Held),
        ("404 Not Found", Held),
        ("412", Conflict),
        ("422 Unprocessable", Held),
        ("401", Unavailable),
        ("403 Forbidden", Unavailable),
        ("429", Unavailable),
        ("500", Transient),
        ("nonsense", Transient),
    ],
)
def test_one_failed_entry_inside_a_success_is_the_failure_of_all(status: str, error: type[TwinScannerError]) -> None:
    """A server that is not atomic answers 200 and says in one entry that it did not write it."""

    def answer(sent: Sent) -> tuple[int, str]:
        if sent.body["type"] == "batch":
            return empty_server(sent)
        created = everything_created(sent.body)
        created["entry"][3] = {"response": {"status": status}}
        return 200, json.dumps(created)

    with scripted_fhir(answer) as (url, _), pytest.raises(TwinScannerError) as raised:
        record_at(url)
    assert type(raised.value) is error


@pytest.mark.parametrize("cut", [0, 2])
def test_an_incomplete_answer_is_asked_for_again(cut: int) -> None:
    def answer(sent: Sent) -> tuple[int, str]:
        found = nothing_found(sent.body) if sent.body["type"] == "batch" else {"resourceType": "Bundle", "entry": []}
        return 200, json.dumps({**found, "entry": found["entry"][: cut or None]})

    with scripted_fhir(answer) as (url, _), pytest.raises(Transient, match="incompletely"):
        record_at(url)


def test_a_server_that_ignores_the_search_does_not_give_us_a_stranger() -> None:
    """A server may drop a parameter it does not know and answer with every Patient it has."""
    stranger = {"resourceType": "Patient", "id": "7", "identifier": [{"system": "urn:x:y", "value": "1"}]}
    written: list[str] = []

    def answer(sent: Sent) -> tuple[int, str]:
        if sent.body["type"] == "transaction":
            written.extend(entry["resource"]["resourceType"] for entry in sent.body["entry"])
            return empty_server(sent)
        found = nothing_found(sent.body)
        for entry, asked in zip(found["entry"], sent.body["entry"], strict=True):
            if asked["request"]["url"].startswith("Patient"):
                entry["resource"]["entry"] = [{"resource": stranger}]
        return 200, json.dumps(found)

    with scripted_fhir(answer) as (url, _):
        record_at(url)
    assert "Patient" in written


def test_a_half_written_transaction_is_completed_by_the_redo(r4_rig: Rig) -> None:
    """The R4 server here is not atomic: one entry fails, the others stay; the redo adds what is missing, once."""

    class LosingTheProvenance:
        def exchange(self, bundle: Json) -> Json:
            if bundle["type"] == "transaction":
                bundle["entry"][-1]["request"]["ifMatch"] = 'W/"no such version"'
            return r4_rig.target.exchange(bundle)

    update = an_update()
    with pytest.raises(TwinScannerError):
        r4_rig.record(update, through=LosingTheProvenance())
    receipt = r4_rig.record(update)
    assert receipt.written == (receipt.provenance,)
    found = (receipt.patient, receipt.imaging_study, receipt.device, receipt.provenance, receipt.record)
    assert [len(r4_rig.versions(reference)) for reference in found] == [1] * 5


def test_a_study_of_six_hundred_slices_is_recorded(rig: Rig) -> None:
    update = an_update(source_series=a_series("CT", instances=600), pet_series=a_series("PT", instances=600))
    study = rig.current(rig.record(update).imaging_study)
    assert study["numberOfInstances"] == 1200
    assert [series["numberOfInstances"] for series in study["series"]] == [600, 600]
    assert not any("instance" in series for series in study["series"])


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
    with scripted_fhir(refusing_writes(422)) as (url, seen):
        with pytest.raises(Held):
            record_at(url)
        assert {sent.path for sent in seen} == {"/fhir"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "fhir.hospital",
        "ftp://h/fhir",
        "https://user:pw@h/fhir",
        "https://h/fhir?x=1",
        "https://h/fhir#x",
        "http://",
        "https://h:x/",
        "https://fhir..hospital/",
        f"https://{'h' * 64}.hospital/",
    ],
)
def test_a_base_url_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(Misconfigured, match="base URL") as error:
        FhirClient(url, SITE)
    assert "pw" not in str(error.value)


def test_a_certificate_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be used"):
        FhirClient("https://127.0.0.1/fhir", SITE, ca_file=tmp_path / "absent.pem")
    (tmp_path / "no.pem").write_text("this is no certificate")
    with pytest.raises(Misconfigured, match="cannot be used"):
        FhirClient("https://127.0.0.1/fhir", SITE, ca_file=tmp_path / "no.pem")


def certificate(folder: Path, name: str, openssl: str, *, days: int = 2) -> tuple[Path, ssl.SSLContext]:
    """A certificate of its own authority for ``name``, and a server's context with it."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert)]
    command += ["-days", str(days), "-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:{name}"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context


def test_only_a_certificate_that_is_trusted_and_names_the_host_is_spoken_to(
    tmp_path: Path, peer: Callable[[str], str]
) -> None:
    """No byte of a patient goes to a server that is not the one that was configured."""
    ours, right = certificate(tmp_path, "127.0.0.1", peer("openssl"))
    foreign, wrong_name = certificate(tmp_path, "127.0.0.2", peer("openssl"))
    with scripted_fhir(empty_server, right) as (url, seen):
        for ca_file in (None, foreign):
            with pytest.raises(Unavailable, match=r"certificate is not trusted .*self-signed.*twin\.ca_file"):
                record_at(url, ca_file=ca_file)
        assert seen == []
        record_at(url, ca_file=ours)
        assert seen[-1].body["type"] == "transaction"
    with scripted_fhir(empty_server, wrong_name) as (url, seen):
        with pytest.raises(Unavailable, match=r"certificate is not trusted .*IP address mismatch"):
            record_at(url, ca_file=foreign)
        assert seen == []


def test_plain_http_at_a_tls_port_and_tls_at_a_plain_one_stop_everything(
    tmp_path: Path, peer: Callable[[str], str]
) -> None:
    ours, context = certificate(tmp_path, "127.0.0.1", peer("openssl"))
    with scripted_fhir(empty_server, context) as (url, seen):
        with pytest.raises(Unavailable, match="cannot be reached"):
            record_at(url.replace("https:", "http:"))
        assert seen == []
    with scripted_fhir(empty_server) as (url, seen):
        with pytest.raises(Unavailable, match="cannot be reached"):
            record_at(url.replace("http:", "https:"), ca_file=ours)
        assert seen == []


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_server_that_shows_no_capability_statement_is_told_from_one_that_is_not_there(
    status: int, free_port: Callable[[], int]
) -> None:
    with (
        scripted_fhir(empty_server, metadata=(status, "{}")) as (url, _),
        closing(FhirClient(url, SITE)) as client,
        pytest.raises(NoCapabilityStatement, match=f"status {status}"),
    ):
        client.capability()
    with closing(FhirClient(f"http://127.0.0.1:{free_port()}", SITE)) as client, pytest.raises(Unavailable) as error:
        client.capability()
    assert not isinstance(error.value, NoCapabilityStatement)


@pytest.mark.parametrize(
    ("status", "value", "retry_after_s"),
    [
        (503, "120", 120.0),
        (429, "Fri, 31 Dec 9999 23:59:59 GMT", None),
        (429, "soon", 0.0),
        (503, "-5", 0.0),
        (500, "120", 0.0),
    ],
)
def test_a_server_that_says_when_to_come_again_is_heard(status: int, value: str, retry_after_s: float | None) -> None:
    server = scripted_fhir(lambda _sent: (status, MAINTENANCE), headers={"Retry-After": value})
    with server as (url, _), pytest.raises(Unavailable) as raised:
        record_at(url)
    if retry_after_s is None:
        assert raised.value.retry_after_s > 1e9, "a date far away; who asks again bounds it"
    else:
        assert raised.value.retry_after_s == retry_after_s
