"""What two writers at once created twice becomes one again. Oracle: real servers behind a proxy without conditions."""

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from tests.peers.faulty_proxy import FaultyProxy
from tests.peers.twin_rig import Rig
from tests.samples.twin_updates import SITE, a_series, an_update, another_study
from twin_record.remote import FhirClient
from twin_record.resources.codes import SOURCE
from twin_record.update import TwinUpdate
from twin_scanner.errors import Held

pytestmark = pytest.mark.record

Json = dict[str, Any]


@pytest.fixture(params=["r4_rig", "sekmet_rig"], ids=["R4 server", "sekmet"])
def server(request: pytest.FixtureRequest) -> Rig:
    found: Rig = request.getfixturevalue(request.param)
    return found


def living(rig: Rig, update: TwinUpdate) -> dict[str, list[Json]]:
    """What the server holds of a patient and a model and is not in error, by its own listings."""
    keys = {update.patient_id, f"urn:oid:{update.study_uid}", update.model_hash}
    found = {}
    for kind in ("Patient", "ImagingStudy", "Device"):
        held = [one for one in rig.held(kind) if keys & {str(key.get("value")) for key in one.get("identifier", [])}]
        found[kind] = [
            one for one in held if one.get("status") != "entered-in-error" and one.get("active") is not False
        ]
    patients = {f"Patient/{one['id']}" for one in found["Patient"]}
    found["List"] = [
        one
        for one in rig.held("List")
        if one["subject"].get("reference") in patients and one["status"] != "entered-in-error"
    ]
    return found


def test_a_race_leaves_one_of_each_with_the_content_of_both(server: Rig) -> None:
    """Both read an empty server, and both create: HAPI #3141, microsoft/fhir-server #1382."""
    first = an_update()
    second = replace(first, source_series=a_series("CT"), pet_series=a_series("PT"))
    assert server.base_url is not None
    with FaultyProxy(server.base_url) as proxy, closing(FhirClient(proxy.url, SITE)) as client:
        client.plan()
        with proxy.race():
            threads = [threading.Thread(target=client.record, args=(update,)) for update in (first, second)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        receipt = client.record(replace(another_study(first), study_uid=first.study_uid))
        found = living(server, first)
        assert {kind: len(several) for kind, several in found.items()} == dict.fromkeys(found, 1)
        (study,), (record,) = found["ImagingStudy"], found["List"]
        listed = [entry["item"]["reference"] for entry in record["entry"]]
        assert len(listed) == len(set(listed)) == 4
        assert len(study["series"]) == 6
        assert study["subject"]["reference"] == record["subject"]["reference"] == receipt.patient
        for reference in listed[1:]:
            provenance = server.current(reference)
            targets = {target["reference"] for target in provenance["target"]}
            assert targets >= {receipt.imaging_study, receipt.record}
            assert provenance["agent"][0]["who"]["reference"] == receipt.device
        for update in (first, second):
            assert client.record(update).imaging_study == receipt.imaging_study
        assert client.record(first).written == ()


def a_study(update: TwinUpdate, patient: str, **fields: Any) -> Json:
    return {
        "resourceType": "ImagingStudy",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{update.study_uid}"}],
        "status": "available",
        "subject": {"reference": patient},
        **fields,
    }


@pytest.fixture
def doubled(embedded_rig: Rig) -> Iterator[tuple[Rig, TwinUpdate, str]]:
    """A patient whose study we recorded; its reference."""
    update = an_update()
    yield embedded_rig, update, embedded_rig.record(update).imaging_study


def test_the_pacs_own_study_goes_on_and_takes_in_ours(doubled: tuple[Rig, TwinUpdate, str]) -> None:
    rig, update, ours = doubled
    scout = {"uid": "2.25.1", "modality": {"code": "CT"}}
    patient = rig.current(ours)["subject"]["reference"]
    theirs = rig.create(a_study(update, patient, series=[scout], endpoint=[{"display": "WADO-RS"}]))
    receipt = rig.record(update)
    assert receipt.imaging_study == theirs
    kept = rig.current(theirs)
    assert kept["status"] == "available"
    assert kept["endpoint"] == [{"display": "WADO-RS"}]
    assert {series["uid"] for series in kept["series"]} == {
        "2.25.1",
        update.source_series.series_uid,
        update.pet_series.series_uid,
    }
    assert rig.current(ours)["status"] == "entered-in-error"
    listed = [entry["item"]["reference"] for entry in rig.current(receipt.record)["entry"]]
    assert listed == [theirs, receipt.provenance]


def test_two_studies_that_are_not_ours_are_for_a_person(embedded_rig: Rig) -> None:
    update = an_update()
    patient = embedded_rig.record(an_update(patient_id=update.patient_id)).patient
    studies = [embedded_rig.create(a_study(update, patient)) for _ in range(2)]
    with pytest.raises(Held, match="more than one ImagingStudy"):
        embedded_rig.record(update)
    assert [len(embedded_rig.versions(study)) for study in studies] == [1, 1]


@pytest.mark.parametrize("change", [{"meta": {}}, {"birthDate": "1948-03-01"}, {"telecom": [{"value": "1"}]}])
def test_two_patients_are_joined_only_where_both_are_ours_and_say_the_same(embedded_rig: Rig, change: Json) -> None:
    update = an_update()
    patient = embedded_rig.record(update).patient
    theirs = {**embedded_rig.current(patient), "meta": {"source": f"{SOURCE}#request-7"}} | change
    del theirs["id"]
    twin = embedded_rig.create(theirs)
    with pytest.raises(Held, match="more than one Patient"):
        embedded_rig.record(update)
    assert len(embedded_rig.versions(twin)) == 1
