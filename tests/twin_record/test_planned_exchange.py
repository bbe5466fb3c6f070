"""The same record on servers that differ in what they take. Oracle: a real R4 server behind each of them."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.conftest import missing
from tests.fakes.other_server import OtherServer, statement
from tests.peers.sekmet_server import peers_folder, running_sekmet
from tests.samples.twin_updates import SITE, a_series, an_update, another_study
from twin_record.refusals import Conflict, TooLarge
from twin_record.remote import FhirClient
from twin_record.target import TwinReceipt
from twin_record.update import TwinUpdate
from twin_scanner.errors import Held, TwinScannerError, Unavailable

pytestmark = pytest.mark.record

Json = dict[str, Any]
CHOOSING = statement(updateCreate=True)
GIVING = statement(updateCreate=False)
SINGLE = statement(interactions=["history-system"])
SINGLE_CHOOSING = statement(interactions=["history-system"], updateCreate=True)
ALL = {"our ids": CHOOSING, "its ids": GIVING, "single requests": SINGLE, "single, our ids": SINGLE_CHOOSING}


def client_of(url: str, server: OtherServer, **options: Any) -> FhirClient:
    return FhirClient(url, SITE, transport=server, sleep=lambda _seconds: None, **options)


def everything(url: str, update: TwinUpdate, receipt: TwinReceipt) -> dict[str, list[Json]]:
    """All that the server holds for an update, asked of it directly."""
    study = f"urn:dicom:uid|urn:oid:{update.study_uid}"
    queries = {
        "Patient": {"identifier": f"urn:oid:2.999.1|{update.patient_id}"},
        "Device": {"identifier": f"urn:twin-scanner:model-hash|{update.model_hash}"},
        "ImagingStudy": {"identifier": study},
        "List": {"subject": receipt.patient},
        "Provenance": {"target": receipt.record},
    }
    found = {}
    for kind, query in queries.items():
        entries = httpx.get(f"{url}/{kind}", params=query).json().get("entry", [])
        found[kind] = [entry["resource"] for entry in entries]
    return found


def refuses_a_put_that_creates(url: str) -> Callable[[httpx.Request], httpx.Response | None]:
    """As Medplum's own server does."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "not-found"}]}
        if request.method == "PUT" and httpx.get(str(request.url)).status_code == 404:
            return httpx.Response(404, json=outcome)
        if request.method == "POST" and request.url.path == "/fhir":
            for entry in json.loads(request.content)["entry"]:
                to = entry["request"]
                if to["method"] == "PUT" and httpx.get(f"{url}/{to['url']}").status_code == 404:
                    return httpx.Response(404, json=outcome)
        return None

    return answer


@pytest.mark.parametrize("said", ALL.values(), ids=ALL.keys())
def test_every_server_gets_one_of_each_and_nothing_the_second_time(r4_url: str, said: Json) -> None:
    update = an_update()
    server = OtherServer(said, refuses_a_put_that_creates(r4_url) if said is GIVING else lambda _request: None)
    with closing(client_of(r4_url, server)) as client:
        receipt = client.record(update)
        found = everything(r4_url, update, receipt)
        assert {kind: len(held) for kind, held in found.items()} == dict.fromkeys(found, 1)
        (study,), (record,), (provenance,) = found["ImagingStudy"], found["List"], found["Provenance"]
        assert [entry["item"]["reference"] for entry in record["entry"]] == [receipt.imaging_study, receipt.provenance]
        assert receipt.provenance == f"Provenance/{provenance['id']}"
        assert {target["reference"] for target in provenance["target"]} >= {receipt.imaging_study, receipt.record}
        assert study["subject"]["reference"] == record["subject"]["reference"] == receipt.patient
        assert study["series"][1]["performer"][0]["actor"]["reference"] == receipt.device
        assert client.record(update).written == ()
    with closing(client_of(r4_url, OtherServer(said))) as fresh:
        assert fresh.record(update).written == ()


@pytest.mark.parametrize("said", ALL.values(), ids=ALL.keys())
def test_a_replaced_pet_is_flagged_on_every_server(r4_url: str, said: Json) -> None:
    old = an_update()
    new = replace(old, pet_series=a_series("PT"), replaces_series_uids=(old.pet_series.series_uid,))
    server = OtherServer(said, refuses_a_put_that_creates(r4_url) if said is GIVING else lambda _request: None)
    with closing(client_of(r4_url, server)) as client:
        first, second = client.record(old), client.record(new)
        (record,) = everything(r4_url, new, second)["List"]
        flagged = {entry["item"]["reference"]: "flag" in entry for entry in record["entry"]}
        assert flagged == {first.imaging_study: False, first.provenance: True, second.provenance: False}
        assert any("already replaced" in remark for remark in client.record(old).remarks)


def test_ids_of_ours_are_the_same_whoever_writes_and_a_patient_gets_none(r4_url: str) -> None:
    update = an_update()
    server = OtherServer(CHOOSING)
    with closing(client_of(r4_url, server)) as client:
        receipt = client.record(update)
    (transaction,) = [request for request in server.seen if b'"transaction"' in request.content]
    entries = json.loads(transaction.content)["entry"]
    puts = {entry["request"]["url"] for entry in entries if entry["request"]["method"] == "PUT"}
    assert puts == {receipt.device, receipt.imaging_study, receipt.provenance, receipt.record}
    assert [entry["request"]["url"] for entry in entries if entry["request"]["method"] == "POST"] == ["Patient"]


def test_a_server_that_forgets_the_list_keeps_one_of_each_patient(r4_url: str) -> None:
    """sekmet-fhir finds no List by identifier and would refuse the search."""
    update = an_update()
    server = OtherServer(statement(updateCreate=True, without=["List"]))
    with closing(client_of(r4_url, server)) as client:
        first, second = client.record(update), client.record(another_study(update))
    assert first.record == second.record
    assert not any(b"List?" in request.content for request in server.seen)


def test_a_server_without_search_or_ids_for_the_list_is_asked_for_the_patients_lists(r4_url: str) -> None:
    update = an_update()
    said = statement()
    for resource in said["rest"][0]["resource"]:
        if resource["type"] == "List":
            resource["searchParam"] = [{"name": "subject", "type": "reference"}]
    with closing(client_of(r4_url, OtherServer(said))) as client:
        first, second = client.record(update), client.record(another_study(update))
        assert first.record == second.record
        assert client.record(update).written == ()


def test_a_server_that_would_double_the_record_is_not_written_to(r4_url: str) -> None:
    server = OtherServer(statement(parameters=["_id"]))
    with (
        closing(client_of(r4_url, server)) as client,
        pytest.raises(Unavailable, match="no Device and no ImagingStudy"),
    ):
        client.record(an_update())
    assert server.seen == []


def test_nobody_who_creates_the_same_at_once_is_overwritten(r4_url: str) -> None:
    """Both read an empty server, and both put the study and the List under the same id."""
    first = an_update()
    second = replace(first, source_series=a_series("CT"), pet_series=a_series("PT"))
    receipts: list[TwinReceipt] = []

    def another_writes_first(request: httpx.Request) -> None:
        if b'"transaction"' in request.content and not receipts:
            with closing(client_of(r4_url, OtherServer(CHOOSING))) as other:
                receipts.append(other.record(first))

    with closing(client_of(r4_url, OtherServer(CHOOSING, before=another_writes_first))) as client:
        receipt = client.record(second)
    found = everything(r4_url, second, receipt)
    assert {kind: len(held) for kind, held in found.items()} == {**dict.fromkeys(found, 1), "Provenance": 2}
    series = {series["uid"] for series in found["ImagingStudy"][0]["series"]}
    pets = {first.pet_series.series_uid, second.pet_series.series_uid}
    assert series == pets | {first.source_series.series_uid, second.source_series.series_uid}
    assert len(found["List"][0]["entry"]) == 3


def test_what_could_not_be_brought_back_at_once_is_brought_back_at_the_next_try(r4_url: str) -> None:
    """After five conflicts the other writer's part was left out until somebody called twin sync."""
    first = an_update()
    second = replace(first, source_series=a_series("CT"), pet_series=a_series("PT"))
    receipts: list[TwinReceipt] = []

    def another_writes_first(request: httpx.Request) -> None:
        if b'"transaction"' in request.content and not receipts:
            with closing(client_of(r4_url, OtherServer(CHOOSING))) as other:
                receipts.append(other.record(first))

    def refuses_what_is_brought_back(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(412) if receipts and b"ifMatch" in request.content else None

    server = OtherServer(CHOOSING, refuses_what_is_brought_back, before=another_writes_first)
    with closing(client_of(r4_url, server)) as client:
        with pytest.raises(Conflict):
            client.record(second)
        server.answer = lambda _request: None
        receipt = client.record(second)
    found = everything(r4_url, second, receipt)
    series = {series["uid"] for series in found["ImagingStudy"][0]["series"]}
    assert series >= {first.pet_series.series_uid, second.pet_series.series_uid}
    assert len(found["List"][0]["entry"]) == 3


def test_a_transaction_names_the_address_of_all_that_it_writes(r4_url: str) -> None:
    """R4 wants a fullUrl of each entry with a resource; those that were put had none."""
    update = an_update()
    server = OtherServer(GIVING)
    with closing(client_of(r4_url, server)) as client:
        client.record(update)
        client.record(another_study(update))
    entries = [
        entry
        for request in server.seen
        if b'"transaction"' in request.content
        for entry in json.loads(request.content)["entry"]
    ]
    assert all("fullUrl" in entry for entry in entries)
    puts = {entry["fullUrl"] for entry in entries if entry["request"]["method"] == "PUT"}
    assert puts != set() and all(address.startswith(f"{r4_url}/") for address in puts)


def test_single_requests_hold_no_patient_in_an_address(r4_url: str) -> None:
    update = an_update()
    server = OtherServer(SINGLE)
    with closing(client_of(r4_url, server)) as client:
        client.record(update)
    writes = [asked for asked in server.asked() if "_search" not in asked and not asked.startswith("GET")]
    kinds = ["POST /Patient", "POST /Device", "POST /ImagingStudy", "POST /List", "POST /Provenance"]
    assert [write.split("/")[1] for write in writes] == [kind.split("/")[1] for kind in kinds] + ["List"]
    for request in server.seen:
        assert update.patient_id not in str(request.url)
        assert update.study_uid not in str(request.url)


@pytest.mark.parametrize("broken_after", range(1, 6))
def test_single_writes_that_break_off_are_completed_by_the_next_try(r4_url: str, broken_after: int) -> None:
    update = an_update()
    left = [broken_after]

    def breaks(request: httpx.Request) -> httpx.Response | None:
        if "_search" in request.url.path or request.method == "GET":
            return None
        left[0] -= 1
        return httpx.Response(503) if left[0] < 0 else None

    with closing(client_of(r4_url, OtherServer(SINGLE, breaks))) as client, pytest.raises(Unavailable):
        client.record(update)
    with closing(client_of(r4_url, OtherServer(SINGLE))) as client:
        receipt = client.record(update)
    found = everything(r4_url, update, receipt)
    assert {kind: len(held) for kind, held in found.items()} == dict.fromkeys(found, 1)
    assert len(found["List"][0]["entry"]) == 2


def test_what_is_too_large_as_a_whole_is_sent_in_parts(r4_url: str) -> None:
    update = an_update()

    def answer(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(413, text="<html>") if b'"transaction"' in request.content else None

    with closing(client_of(r4_url, OtherServer(None, answer))) as client:
        receipt = client.record(update)
        assert client.record(update).written == ()
    found = everything(r4_url, update, receipt)
    assert {kind: len(held) for kind, held in found.items()} == dict.fromkeys(found, 1)


def takes_no_more_than(size: int) -> Callable[[httpx.Request], httpx.Response | None]:
    return lambda request: httpx.Response(413) if len(request.content) > size else None


def test_a_list_of_instances_that_is_too_large_even_alone_is_left_out(r4_url: str) -> None:
    update = an_update(source_series=a_series("CT", instances=60), pet_series=a_series("PT", instances=60))
    with closing(client_of(r4_url, OtherServer(None, takes_no_more_than(9_000)))) as client:
        receipt = client.record(update)
        assert "number of theirs" in receipt.remarks[-1]
        (study,) = everything(r4_url, update, receipt)["ImagingStudy"]
        assert [(series["numberOfInstances"], "instance" in series) for series in study["series"]] == [(60, False)] * 2
        assert client.record(update).written == ()


def test_a_study_that_is_too_large_in_every_form_holds_its_own_job(r4_url: str) -> None:
    client = client_of(r4_url, OtherServer(None, takes_no_more_than(1_500)))
    with closing(client), pytest.raises(TooLarge, match="status 413"):
        client.record(an_update())


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, Unavailable) for status in (302, 401, 403, 404, 405, 429, 500, 503)),
        *((413, TooLarge), (422, Held), (409, Conflict)),
    ],
)
def test_a_refusal_means_the_same_for_a_single_request(r4_url: str, status: int, error: type[TwinScannerError]) -> None:
    """A 404 without an OperationOutcome is the address's, as a proxy answers."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        refused = request.method in ("POST", "PUT") and "_search" not in request.url.path
        return httpx.Response(status, headers={"Retry-After": "7"}) if refused else None

    with closing(client_of(r4_url, OtherServer(SINGLE, answer))) as client, pytest.raises(TwinScannerError) as raised:
        client.record(an_update())
    assert type(raised.value) is error
    if status in (429, 503):
        assert isinstance(raised.value, Unavailable)
        assert raised.value.retry_after_s == 7.0


def test_after_a_refusal_the_server_is_asked_anew_what_it_can_do(r4_url: str) -> None:
    """It lost the PUT that creates with an update, and was asked only once before."""
    server = OtherServer(CHOOSING)
    with closing(client_of(r4_url, server)) as client:
        client.record(an_update())
        server.answer, server.statement = refuses_a_put_that_creates(r4_url), GIVING
        update = an_update()
        with pytest.raises(Held):
            client.record(update)
        assert client.record(update).written != ()


def test_a_real_server_that_forgets_the_list_keeps_one_of_each_patient() -> None:
    """sekmet-fhir as shipped; what the preflight asks of it is answered too."""
    if peers_folder() is None:
        missing("sekmet-fhir (tests/peers/sekmet/install.sh)")
    update = an_update()
    with running_sekmet() as url, closing(FhirClient(url, SITE)) as client:
        assert client.plan().unsearchable == {"List"}
        receipts = [client.record(update), client.record(another_study(update))]
        assert client.check_identity(update.identity, update.study_uid) == ()
        assert len({(receipt.patient, receipt.record, receipt.device) for receipt in receipts}) == 1
        assert client.record(update).written == ()


def test_a_server_that_was_away_when_it_was_asked_is_asked_again() -> None:
    answers = iter([httpx.Response(503, headers={"Retry-After": "9"}), httpx.Response(200, json=CHOOSING)])
    transport = httpx.MockTransport(lambda _request: next(answers))
    with closing(FhirClient("https://fhir.hospital/r4", SITE, transport=transport)) as client:
        with pytest.raises(Unavailable) as raised:
            client.plan()
        assert raised.value.retry_after_s == 9.0
        assert client.plan().our_ids >= {"List", "ImagingStudy"}
