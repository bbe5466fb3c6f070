"""FHIR over HTTP: what is read and found, and that nothing can be written; fhir.resources and R4's schema validate."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fhir.resources.R4B import get_fhir_model_class

from tests.conftest import missing
from tests.fakes.app_browser import AppBrowser
from tests.peers.fhir_server import r4_schema_path
from tests.peers.r4_schema import schema_faults
from tests.samples.twin_updates import SITE, another_study, measured_update
from twin_record.embedded import EmbeddedStore
from twin_record.reading import _NEWEST, RecordQuery, _conditions
from twin_record.update import TwinUpdate
from twin_scanner.console.fhir_api.capabilities import TYPES
from twin_scanner.console.fhir_api.router import fhir_router

pytestmark = pytest.mark.record
BEGUN = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Rig:
    """A store with two patients, two studies of the first, each record a minute after the one before."""

    def __init__(self, file: Path) -> None:
        self.now = BEGUN
        self.seen: list[tuple[str, list[str]]] = []
        self.store = EmbeddedStore(file, SITE, clock=lambda: self.now)
        self.first: TwinUpdate = measured_update()
        for update in (self.first, another_study(self.first), measured_update(patient_id="PAT-2")):
            self.store.record(update)
            self.now += timedelta(minutes=1)
        application = FastAPI()
        application.include_router(
            fhir_router(self.store, lambda request, kind, given: self.seen.append((kind, list(given))))
        )
        self.client = AppBrowser(application)

    def get(self, url: str, status: int = 200, **headers: str) -> dict[str, Any]:
        answer = self.client.get(url, headers=headers)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"].startswith("application/fhir+json")
        resource: dict[str, Any] = answer.json()
        get_fhir_model_class(resource["resourceType"]).model_validate_json(answer.text)
        return resource

    def ids(self, url: str) -> set[str]:
        return {entry["resource"]["id"] for entry in self.get(url).get("entry", [])}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("twin") / "twin.sqlite")
    with closing(made.store):
        yield made


def test_every_type_can_be_searched_and_each_match_be_read(rig: Rig) -> None:
    found = {kind: rig.get(f"/fhir/{kind}")["entry"] for kind in TYPES if kind != "DiagnosticReport"}
    for kind, entries in found.items():
        resource = entries[0]["resource"]
        assert urlsplit(entries[0]["fullUrl"]).path == f"/fhir/{kind}/{resource['id']}"
        assert rig.get(f"/fhir/{kind}/{resource['id']}") == resource
    assert len(found["Patient"]) == 2
    assert len(found["ImagingStudy"]) == 3


def test_a_patient_is_found_by_identifier_in_each_of_its_forms(rig: Rig) -> None:
    patient = next(
        entry["resource"]
        for entry in rig.get("/fhir/Patient")["entry"]
        if any(key["value"] == "PAT-2" for key in entry["resource"]["identifier"])
    )
    key = next(key for key in patient["identifier"] if key["value"] == "PAT-2")
    for token in (f"{key['system']}|PAT-2", "PAT-2", f"nothing,{key['system']}|PAT-2"):
        assert rig.ids(f"/fhir/Patient?identifier={token}") == {patient["id"]}
    assert rig.ids("/fhir/Patient?identifier=|PAT-2") == set()
    assert rig.ids("/fhir/Patient?identifier=PAT-2&identifier=PAT-3") == set()
    form = rig.client.post("/fhir/Patient/_search", data={"identifier": f"{key['system']}|PAT-2"})
    assert [entry["resource"]["id"] for entry in form.json()["entry"]] == [patient["id"]]


def test_what_is_of_a_patient_is_found_and_nothing_of_another(rig: Rig) -> None:
    records = {entry["resource"]["id"]: entry["resource"] for entry in rig.get("/fhir/List")["entry"]}
    subjects = [record["subject"]["reference"] for record in records.values()]
    assert len(set(subjects)) == 2
    for kind in ("ImagingStudy", "Observation", "List", "Provenance"):
        parts = [rig.ids(f"/fhir/{kind}?patient={subject}&_count=200") for subject in subjects]
        parts_by_id = [rig.ids(f"/fhir/{kind}?patient={subject[8:]}&_count=200") for subject in subjects]
        assert parts == parts_by_id
        assert not parts[0] & parts[1]
        assert parts[0] | parts[1] == rig.ids(f"/fhir/{kind}?_count=200")
        assert all(parts)


@pytest.mark.parametrize(
    ("asked", "studies"),
    [
        ("2026-03-01", 3), ("2026", 3), ("ge2026-03-01T12:01:00Z", 2), ("gt2026-03-01T12:01Z", 1),
        ("lt2026-03-01T12:01:00Z", 1), ("le2026-03-01T12:01Z", 2), ("eq2026-03-01T13:02:00%2B01:00", 1),
        ("sa2026-03-02", 0), ("eb2026-03-01", 0), ("2026-03", 3), ("2026-03-01T12:00:00.000Z", 1),
    ],
)  # fmt: skip
def test_resources_are_found_by_the_moment_of_their_version(rig: Rig, asked: str, studies: int) -> None:
    """R4 search, 3.1.1.4.6: one study each at 12:00, 12:01 and 12:02."""
    assert rig.get(f"/fhir/ImagingStudy?_lastUpdated={asked}")["total"] == studies


def test_following_the_links_gives_every_match_once(rig: Rig) -> None:
    whole = [entry["resource"]["id"] for entry in rig.get("/fhir/Observation?_count=200")["entry"]]
    url, found = "/fhir/Observation?_count=5", []
    while url:
        page = rig.get(url)
        assert page["total"] == len(whole)
        assert len(page["entry"]) <= 5
        found += [entry["resource"]["id"] for entry in page["entry"]]
        links = {link["relation"]: link["url"] for link in page["link"]}
        url = links.get("next", "")
        assert not url or url.startswith("http://node.example/fhir/")
    assert found == whole
    assert len(set(found)) == len(found) > 5
    assert "entry" not in rig.get("/fhir/Observation?_count=0")


def test_a_version_that_is_known_is_not_sent_again(rig: Rig) -> None:
    study = rig.get("/fhir/ImagingStudy")["entry"][0]["resource"]
    url = f"/fhir/ImagingStudy/{study['id']}"
    answer = rig.client.get(url)
    assert answer.headers["etag"] == f'W/"{study["meta"]["versionId"]}"'
    for known in ({"If-None-Match": answer.headers["etag"]}, {"If-Modified-Since": answer.headers["last-modified"]}):
        again = rig.client.get(url, headers=known)
        assert (again.status_code, again.content) == (304, b"")
    earlier = ["Sun, 01 Mar 2020 00:00:00 GMT", "no date", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"]
    for other in ({"If-None-Match": 'W/"77"'}, *({"If-Modified-Since": date} for date in earlier)):
        assert rig.client.get(url, headers=other).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/fhir", "/fhir/Patient", "/fhir/Patient/1", "/fhir/metadata"])
def test_nothing_can_be_written(rig: Rig, method: str, path: str) -> None:
    answer = rig.client.request(method, path, content=json.dumps({"resourceType": "Patient"}))
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
    assert answer.json()["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/fhir/Patient/none", 404), ("/fhir/Patient/..%2f..%2fetc%2fpasswd", 404), ("/fhir/Basic", 404),
        ("/fhir/Patient/1/_history", 404), ("/fhir", 404), ("/fhir/Patient?name=x", 400),
        ("/fhir/Patient?patient=1", 400), ("/fhir/Provenance?identifier=1", 400), ("/fhir/Patient?identifier=", 400),
        ("/fhir/Patient?identifier=a|b|c", 400), ("/fhir/Patient?_lastUpdated=2026-13", 400),
        ("/fhir/Patient?_lastUpdated=yesterday", 400), ("/fhir/Patient?_lastUpdated=ap2026", 400),
        ("/fhir/Patient?_lastUpdated=9999", 400), ("/fhir/Patient?_count=-1", 400),
        ("/fhir/Observation?patient=Group/1", 400), ("/fhir/Patient?_after='", 400),
        ("/fhir/Patient?_format=xml", 406), ("/fhir/metadata?_format=application/fhir%2Bxml", 406),
    ],
)  # fmt: skip
def test_every_error_is_an_operation_outcome(rig: Rig, url: str, status: int) -> None:
    assert rig.get(url, status)["resourceType"] == "OperationOutcome"


def test_an_error_repeats_nothing_of_what_was_asked(rig: Rig) -> None:
    assert "Oberhuber" not in json.dumps(rig.get("/fhir/Patient?family=Oberhuber", 400))


def test_the_login_is_refused_in_fhirs_words() -> None:
    def refuse() -> None:
        raise HTTPException(401, "Log in.", {"WWW-Authenticate": "Bearer"})

    application = FastAPI()
    application.include_router(fhir_router(None, lambda *_: None), dependencies=[Depends(refuse)])
    answer = AppBrowser(application).get("/fhir/Patient")
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (401, "login")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_node_without_records_of_its_own_says_so() -> None:
    application = FastAPI()
    application.include_router(fhir_router(None, lambda *_: None))
    answer = AppBrowser(application).get("/fhir/Patient")
    assert answer.status_code == 404
    assert "the FHIR server that it writes to" in answer.json()["issue"][0]["diagnostics"]


def test_what_was_given_is_audited_before_it_is_given(rig: Rig) -> None:
    rig.seen.clear()
    patient = rig.get("/fhir/Patient?_count=1")["entry"][0]["resource"]["id"]
    rig.get(f"/fhir/Patient/{patient}")
    assert rig.seen == [("search", [f"Patient/{patient}"]), ("read", [f"Patient/{patient}"])]

    def full(request: Request, kind: str, given: object) -> None:
        raise HTTPException(503, "The audit log cannot be written.")

    application = FastAPI()
    application.include_router(fhir_router(rig.store, full))
    answer = AppBrowser(application).get(f"/fhir/Patient/{patient}")
    assert answer.status_code == 503
    assert patient not in answer.text


def test_the_capability_statement_says_what_the_searches_take(rig: Rig) -> None:
    statement = rig.get("/fhir/metadata")
    assert statement["implementation"]["url"] == "http://node.example/fhir"
    for resource in statement["rest"][0]["resource"]:
        for parameter in ("identifier=a", "patient=b", "_lastUpdated=2026"):
            stated = parameter.split("=")[0] in {one["name"] for one in resource["searchParam"]}
            rig.get(f"/fhir/{resource['type']}?{parameter}", 200 if stated else 400)


def test_every_answer_is_valid_by_the_schema_of_r4(rig: Rig) -> None:
    """The schema comes with the R4 server of the tests; fhir.resources has validated every other answer here."""
    if r4_schema_path() is None:
        missing("the R4 schema (tests/peers/fhir-r4-server)")
    answers = [rig.get(f"/fhir/{kind}?_count=200") for kind in TYPES]
    for resource in (*answers, rig.get("/fhir/metadata"), rig.get("/fhir/Basic", 404)):
        assert schema_faults(resource) == []


def test_the_search_of_a_patient_uses_an_index(tmp_path: Path) -> None:
    with closing(EmbeddedStore(tmp_path / "twin.sqlite", SITE)):
        where, values = _conditions(RecordQuery("Observation", patients=(("1",),)))
        with closing(sqlite3.connect(tmp_path / "twin.sqlite")) as file:
            plan = file.execute(f"EXPLAIN QUERY PLAN SELECT r.id {_NEWEST}{where}", values).fetchall()
    assert "ix_resource_subject" in str(plan)
