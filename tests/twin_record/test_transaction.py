"""What one job writes into the record, the same on a real R4 server and in the embedded store."""

from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle

from tests.conftest import missing
from tests.peers.fhir_server import server_folder
from tests.peers.r4_schema import schema_faults
from tests.peers.twin_rig import Rig
from tests.samples.twin_updates import (
    SITE,
    a_series,
    an_update,
    another_study,
    companions,
    measured_districts,
    measured_update,
    new_uid,
)
from twin_record.embedded import EmbeddedStore
from twin_record.endpoint import BundleEndpoint
from twin_record.resources.patient import patient_key
from twin_record.target import TwinReceipt
from twin_record.update import TwinUpdate
from twin_scanner.errors import Held, Rejected, Transient

pytestmark = pytest.mark.record

Json = dict[str, Any]


def references(receipt: TwinReceipt) -> tuple[str, ...]:
    return (receipt.patient, receipt.imaging_study, receipt.device, receipt.provenance, receipt.record)


def their_patient(update: TwinUpdate, **fields: Any) -> Json:
    """A Patient as a hospital has it: more than the CT knows."""
    key = patient_key(update.patient_id, update.issuer_of_patient_id, SITE)
    return {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:oid:2.999.77", "value": "SSN"}, {"system": key.system, "value": key.value}],
        "name": [{"family": "Müller", "given": ["Jürgen", "Karl"]}],
        "gender": "male",
        "birthDate": "1948-02-29",
        "telecom": [{"system": "phone", "value": "555-0100"}],
        **fields,
    }


def their_study(update: TwinUpdate, patient: str, **fields: Any) -> Json:
    """An ImagingStudy as a PACS publishes it, with a scout and the CT."""
    return {
        "resourceType": "ImagingStudy",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{update.study_uid}"}],
        "status": "available",
        "subject": {"reference": patient},
        "description": "the PACS's own words",
        "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}],
        "endpoint": [{"display": "WADO-RS"}],
        "numberOfSeries": 2,
        "numberOfInstances": 5,
        "note": [{"text": "seen by the radiologist"}],
        "series": [
            {"uid": new_uid(), "modality": {"code": "CT"}, "description": "scout", "numberOfInstances": 2},
            {
                "uid": update.source_series.series_uid,
                "modality": {"code": "CT"},
                "description": "the PACS's CT",
                "numberOfInstances": 3,
                "performer": [{"actor": {"display": "Radiographer"}}],
            },
        ],
        **fields,
    }


class Before:
    """An endpoint before the real one, at which something else happens just before the first transaction."""

    def __init__(self, endpoint: BundleEndpoint, event: Any, times: int = 1) -> None:
        self.endpoint, self.event, self.times = endpoint, event, times

    def exchange(self, bundle: Json) -> Json:
        if bundle["type"] == "transaction" and self.times:
            self.times -= 1
            self.event()
        return self.endpoint.exchange(bundle)


class After:
    """An endpoint before the real one that loses the answer to the first transaction."""

    def __init__(self, endpoint: BundleEndpoint) -> None:
        self.endpoint = endpoint

    def exchange(self, bundle: Json) -> Json:
        answer = self.endpoint.exchange(bundle)
        if bundle["type"] == "transaction":
            raise Transient("The connection broke after the server had written.")
        return answer


def test_a_new_patients_record_is_whole_and_linked(rig: Rig) -> None:
    update = an_update()
    receipt = rig.record(update)
    bundle = rig.target.patient_record(update.patient_id, update.issuer_of_patient_id)
    Bundle.model_validate(bundle)
    base = rig.base_url or "https://twin-scanner.invalid/fhir"
    assert {entry["fullUrl"] for entry in bundle["entry"]} == {
        f"{base}/{entry['resource']['resourceType']}/{entry['resource']['id']}" for entry in bundle["entry"]
    }
    by_type = {entry["resource"]["resourceType"]: entry["resource"] for entry in bundle["entry"]}
    assert list(by_type) == ["Patient", "List", "ImagingStudy", "Provenance", "Device"]
    assert set(references(receipt)) == set(receipt.written) == {f"{k}/{r['id']}" for k, r in by_type.items()}
    assert by_type["List"]["subject"]["reference"] == receipt.patient
    assert by_type["ImagingStudy"]["subject"]["reference"] == receipt.patient
    items = [entry["item"]["reference"] for entry in by_type["List"]["entry"]]
    assert items == [receipt.imaging_study, receipt.provenance]
    assert [target["reference"] for target in by_type["Provenance"]["target"]] == [
        receipt.imaging_study,
        receipt.record,
        receipt.patient,
    ]
    assert by_type["Provenance"]["agent"][0]["who"]["reference"] == receipt.device
    assert by_type["ImagingStudy"]["series"][1]["performer"][0]["actor"]["reference"] == receipt.device
    assert receipt.remarks == ()


def test_what_stands_in_the_record_is_valid_r4(rig: Rig) -> None:
    if server_folder() is None:
        missing("the R4 schema (tests/peers/fhir-r4-server/node_modules)")
    update = an_update(missing_districts=("legs",))
    rig.record(update)
    rig.record(replace(another_study(update), replaces_series_uids=(update.pet_series.series_uid,)))
    for entry in rig.target.patient_record(update.patient_id, None)["entry"]:
        assert schema_faults(entry["resource"]) == []


def test_the_transactions_themselves_are_valid_r4(rig: Rig) -> None:
    """The first one creates, the second one changes; ids and placeholders are as the Bundle's own rules ask."""
    if server_folder() is None:
        missing("the R4 schema (tests/peers/fhir-r4-server/node_modules)")
    sent: list[Json] = []

    class Listening:
        def exchange(self, bundle: Json) -> Json:
            sent.append(bundle)
            return rig.target.exchange(bundle)

    update = an_update()
    rig.record(update, through=Listening())
    rig.record(another_study(update), through=Listening())
    methods = []
    for bundle in sent:
        Bundle.model_validate(bundle)
        assert schema_faults(bundle) == []
        methods += [entry["request"]["method"] for entry in bundle["entry"] if bundle["type"] == "transaction"]
        full_urls = [entry["fullUrl"] for entry in bundle["entry"] if "fullUrl" in entry]
        assert all(url.startswith("urn:uuid:") for url in full_urls)
        assert len(set(full_urls)) == len(full_urls)
    assert methods == ["POST"] * 4 + ["PUT"] + ["POST", "PUT", "PUT"]


def test_the_same_update_twice_writes_nothing_the_second_time(rig: Rig) -> None:
    update = an_update()
    first, second = rig.record(update), rig.record(update)
    assert second.written == ()
    assert references(first) == references(second)
    assert [len(rig.versions(reference)) for reference in references(first)] == [1] * 5


def test_a_redo_after_a_lost_answer_leaves_one_version_of_each(rig: Rig) -> None:
    """A crash between the server's commit and ours: the job is redone from its start."""
    update = an_update()
    with pytest.raises(Transient, match="broke"):
        rig.record(update, through=After(rig.target))
    receipt = rig.record(update)
    assert receipt.written == ()
    assert [len(rig.versions(reference)) for reference in references(receipt)] == [1] * 5


def test_a_second_study_joins_the_same_record(rig: Rig) -> None:
    update = an_update()
    first, second = rig.record(update), rig.record(another_study(update))
    assert (first.patient, first.record, first.device) == (second.patient, second.record, second.device)
    assert set(second.written) == {second.imaging_study, second.provenance, second.record}
    entries = rig.current(second.record)["entry"]
    expected = [first.imaging_study, first.provenance, second.imaging_study, second.provenance]
    assert [entry["item"]["reference"] for entry in entries] == expected
    assert rig.current(second.record)["date"].startswith("2026-03-04T06:06:07")
    assert rig.record(update).written == (), "the older update, redone, takes nothing back"


def test_a_second_pet_of_one_study_joins_its_imaging_study(rig: Rig) -> None:
    update = an_update()
    other = replace(update, source_series=a_series("CT"), pet_series=a_series("PT"), accession_number="")
    rig.record(update)
    study = rig.current(rig.record(other).imaging_study)
    updates = (update, other)
    expected = [uid for u in updates for uid in (u.source_series.series_uid, u.pet_series.series_uid)]
    assert [series["uid"] for series in study["series"]] == expected
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (4, 12)
    assert len(study["note"]) == 2
    assert [rig.record(one).written for one in (*updates, *updates)] == [()] * 4, "a replay takes no turns"


def test_the_hospitals_patient_is_linked_and_never_overwritten(rig: Rig) -> None:
    update = an_update(patient_name="Mueller^Juergen")
    theirs = rig.create(their_patient(update))
    receipt = rig.record(update)
    assert receipt.patient == theirs
    assert len(rig.versions(theirs)) == 1
    assert receipt.remarks == ()


@pytest.mark.parametrize("name", ["MULLER^JURGEN", "Müller^Jürgen^Karl", "müller^jürgen karl"])
def test_a_name_that_differs_in_case_or_accents_is_the_same(rig: Rig, name: str) -> None:
    update = an_update(patient_name=name)
    names = [{"family": "Müller", "given": ["Jürgen", "Karl"]}, {"family": "MULLER", "given": ["Jurgen"]}]
    rig.create(their_patient(update, name=names))
    assert rig.record(update).remarks == ()


@pytest.mark.parametrize(
    "theirs", [{"birthDate": "1948-02-28"}, {"gender": "female"}, {"birthDate": "1949"}, {"gender": "other"}]
)
def test_a_contradicting_birth_date_or_sex_stops_everything(rig: Rig, theirs: Json) -> None:
    """The alarm for the wrong patient: one sentence, no value in it, nothing written."""
    update = an_update()
    rig.create(their_patient(update, **theirs))
    with pytest.raises(Held, match="may be the wrong patient") as error:
        rig.record(update)
    for value in (update.patient_id, "Müller", "1948", "1949", "female"):
        assert value not in str(error.value)
    with pytest.raises(Rejected, match="no twin record"):
        rig.target.patient_record(update.patient_id, None)


@pytest.mark.parametrize("theirs", [{"birthDate": "1948"}, {"birthDate": "1948-02"}, {"gender": "unknown"}, {}])
def test_what_one_side_does_not_know_contradicts_nothing(rig: Rig, theirs: Json) -> None:
    update = an_update() if theirs else an_update(birth_date="", sex="")
    rig.create(their_patient(update, **theirs))
    assert rig.record(update).remarks == ()


def test_equal_ids_of_two_issuers_have_two_records(rig: Rig) -> None:
    here = an_update(issuer_of_patient_id="HOSPITAL")
    elsewhere = replace(another_study(here), issuer_of_patient_id="ELSEWHERE", birth_date="20010101")
    first, second = rig.record(here), rig.record(elsewhere)
    assert first.patient != second.patient
    assert first.record != second.record
    assert any("not in the configuration" in remark for remark in second.remarks)
    listed = rig.target.patient_record(here.patient_id, "HOSPITAL")["entry"]
    assert len(listed) == 5


def test_the_pacs_own_study_keeps_everything_it_had(rig: Rig) -> None:
    update = an_update()
    patient = rig.create(their_patient(update))
    theirs = their_study(update, patient)
    reference = rig.create(theirs)
    assert rig.record(update).imaging_study == reference
    merged = rig.current(reference)
    assert merged["series"][:2] == theirs["series"]
    assert merged["series"][2]["uid"] == update.pet_series.series_uid
    for field in ("identifier", "status", "description", "endpoint"):
        assert merged[field] == theirs[field]
    assert merged["note"][0] == theirs["note"][0]
    assert (merged["numberOfSeries"], merged["numberOfInstances"]) == (3, 8)
    assert [modality["code"] for modality in merged["modality"]] == ["CT", "PT"]
    assert len(rig.versions(reference)) == 2


def test_a_pet_that_the_pacs_listed_first_is_marked_as_synthetic(rig: Rig) -> None:
    """The PACS may publish our series before we do; it knows nothing of its making."""
    update = an_update()
    pet = {"uid": update.pet_series.series_uid, "modality": {"code": "PT"}, "endpoint": [{"display": "WADO-RS"}]}
    patient = rig.create(their_patient(update))
    reference = rig.create(their_study(update, patient, series=[pet], numberOfSeries=9, numberOfInstances=900))
    rig.record(update)
    study = rig.current(reference)
    assert [series["uid"] for series in study["series"]] == [
        update.pet_series.series_uid,
        update.source_series.series_uid,
    ]
    assert study["series"][0]["endpoint"] == pet["endpoint"]
    assert study["series"][0]["description"].startswith("SYNTHETIC")
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (9, 900), "the PACS counts series it does not list"
    assert rig.record(update).written == ()


def test_a_replaced_pet_leaves_the_study_and_stays_in_the_history(rig: Rig) -> None:
    old = an_update()
    new = replace(old, pet_series=a_series("PT"), replaces_series_uids=(old.pet_series.series_uid,))
    first, second = rig.record(old), rig.record(new)
    study = rig.current(second.imaging_study)
    assert [series["uid"] for series in study["series"]] == [new.source_series.series_uid, new.pet_series.series_uid]
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (2, 6)
    assert [note["text"].split()[1] for note in study["note"]] == [new.pet_series.series_uid]
    entries = {entry["item"]["reference"]: entry for entry in rig.current(second.record)["entry"]}
    assert new.pet_series.series_uid in entries[first.provenance]["flag"]["text"]
    assert "flag" not in entries[second.provenance]
    roles = [entity["role"] for entity in rig.current(second.provenance)["entity"]]
    assert roles == ["source", "revision"]
    late = rig.record(old)
    assert late.written == ()
    assert any("already replaced" in remark for remark in late.remarks)


@pytest.mark.parametrize("in_flight", [True, False])
def test_of_a_pet_that_comes_after_the_one_that_replaces_it_the_provenance_is_recorded(
    rig: Rig, in_flight: bool
) -> None:
    """It was under way when the next revision was recorded: it becomes no second current PET of the study."""
    old = an_update()
    new = replace(old, pet_series=a_series("PT"), replaces_series_uids=(old.pet_series.series_uid,))
    if in_flight:
        receipts: list[TwinReceipt] = []
        late = rig.record(old, through=Before(rig.target, lambda: receipts.append(rig.record(new))))
        (first,) = receipts
    else:
        first, late = rig.record(new), rig.record(old)
    # In flight the Provenance was put by the try that met the other writer.
    written = {"List"} if in_flight else {"List", "Provenance"}
    assert {reference.partition("/")[0] for reference in late.written} == written
    assert any("already replaced" in remark for remark in late.remarks)
    series = [series["uid"] for series in rig.current(first.imaging_study)["series"]]
    assert series == [new.source_series.series_uid, new.pet_series.series_uid]
    entries = {
        entry["item"]["reference"]: entry.get("flag", {}).get("text") for entry in rig.current(first.record)["entry"]
    }
    flag = f"Superseded by series {new.pet_series.series_uid}"
    assert entries == {first.imaging_study: None, first.provenance: None, late.provenance: flag}
    assert old.source_series.series_uid in str(rig.current(late.provenance)["entity"])
    assert rig.record(old).written == ()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_of_three_pets_in_any_order_each_is_flagged_by_the_newest(embedded_rig: Rig, order: tuple[int, ...]) -> None:
    first = an_update()
    second = replace(first, pet_series=a_series("PT"), replaces_series_uids=(first.pet_series.series_uid,))
    both = (first.pet_series.series_uid, second.pet_series.series_uid)
    third = replace(first, pet_series=a_series("PT"), replaces_series_uids=both, made_at=first.made_at + timedelta(1))
    receipts = [embedded_rig.record((first, second, third)[number]) for number in order]
    flags = [one["flag"]["text"] for one in embedded_rig.current(receipts[-1].record)["entry"] if "flag" in one]
    assert flags == [f"Superseded by series {third.pet_series.series_uid}"] * 2


def test_a_study_of_another_patient_stops_everything(rig: Rig) -> None:
    update = an_update()
    stranger = rig.create(their_patient(an_update()))
    study = rig.create(their_study(update, stranger))
    with pytest.raises(Held, match="another Patient"):
        rig.record(update)
    assert len(rig.versions(study)) == 1


def test_a_study_whose_patient_is_gone_is_given_to_ours(rig: Rig) -> None:
    """What a server that is not atomic leaves behind: a study of a Patient that was never created."""
    update = an_update()
    study = rig.create(their_study(update, "Patient/00000000-0000-0000-0000-00000000dead"))
    receipt = rig.record(update)
    assert receipt.imaging_study == study
    assert rig.current(study)["subject"]["reference"] == receipt.patient


def test_two_patients_with_one_identifier_are_for_a_person_to_merge(rig: Rig) -> None:
    update = an_update()
    rig.create(their_patient(update))
    rig.create(their_patient(update))
    with pytest.raises(Held, match="more than one Patient"):
        rig.record(update)


def test_a_series_that_the_pacs_adds_meanwhile_is_not_lost(rig: Rig) -> None:
    """Lost update: the PACS writes between our read and our write; If-Match makes us read again."""
    update = an_update()
    patient = rig.create(their_patient(update))
    reference = rig.create(their_study(update, patient))
    added = {"uid": new_uid(), "modality": {"code": "SR"}}

    def pacs_adds_a_series() -> None:
        study = rig.current(reference)
        rig.replace({**study, "series": [*study["series"], added]})

    rig.record(update, through=Before(rig.target, pacs_adds_a_series))
    uids = [series["uid"] for series in rig.current(reference)["series"]]
    assert added["uid"] in uids
    assert update.pet_series.series_uid in uids
    assert len(uids) == 4


def test_two_first_updates_of_one_patient_at_once_make_one_record(rig: Rig) -> None:
    """Both read an empty server; the slower one finds everything created and merges into it."""
    first = an_update()
    second = replace(first, source_series=a_series("CT"), pet_series=a_series("PT"))
    receipt = rig.record(second, through=Before(rig.target, lambda: rig.record(first)))
    bundle = rig.target.patient_record(first.patient_id, None)
    kinds = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    assert sorted(kinds) == ["Device", "ImagingStudy", "List", "Patient", "Provenance", "Provenance"]
    assert len(rig.current(receipt.imaging_study)["series"]) == 4
    assert len(rig.versions(receipt.patient)) == 1


def test_a_record_that_never_stands_still_is_tried_again_later(rig: Rig) -> None:
    update = an_update()
    patient = rig.create(their_patient(update))
    reference = rig.create(their_study(update, patient))
    before = Before(rig.target, lambda: rig.replace(rig.current(reference)), times=99)
    with pytest.raises(Transient, match="changed"):
        rig.record(update, through=before, attempts=3)
    assert before.times == 96
    assert len(rig.current(reference)["series"]) == 2


def test_an_unknown_patient_has_no_record(rig: Rig) -> None:
    with pytest.raises(Rejected, match="no twin record") as error:
        rig.target.patient_record("PID-nobody", None)
    assert "nobody" not in str(error.value)


@pytest.mark.parametrize("patient_id", ["a b+c&d=e", "ß/ü#1?", "100%"])
def test_a_patient_id_with_signs_that_urls_use_is_found_again(rig: Rig, patient_id: str) -> None:
    update = an_update(patient_id=f"{new_uid()[-8:]} {patient_id}")
    receipt = rig.record(update)
    assert rig.record(update).written == ()
    assert rig.record(another_study(update)).patient == receipt.patient


def test_each_measurement_is_an_observation_of_the_record_and_a_late_slice_corrects_it_in_place(rig: Rig) -> None:
    first = measured_update(companion_series=companions())
    before = rig.record(first)
    written = [reference for reference in before.written if reference.startswith("Observation/")]
    assert len(written) == 5
    assert rig.record(first).written == ()
    trunk, legs = first.districts
    again = replace(
        first,
        pet_series=a_series("PT"),
        companion_series=companions(),
        districts=(replace(trunk, suv_mean=1.5, suv_peak=None, withdrawn=("suv_peak",)), legs),
        replaces_series_uids=(first.pet_series.series_uid,),
    )
    after = rig.record(again)
    assert {one for one in after.written if one.startswith("Observation/")} == set(written)
    assert rig.record(again).written == ()
    mean, peak = (rig.current(written[number]) for number in (1, 3))
    assert mean["code"]["text"] == "SUVmean" and mean["valueQuantity"]["value"] == 1.5
    assert {rig.current(reference)["status"] for reference in written} == {"corrected"}
    assert peak["code"]["text"] == "SUVpeak" and "valueQuantity" not in peak and "dataAbsentReason" in peak
    report = again.companion_series[1].sop_instance_uids[0]
    assert [identifier["value"] for identifier in mean["identifier"]][1:] == [f"urn:oid:{report}"]
    listed = [entry["item"]["reference"] for entry in rig.current(after.record)["entry"]]
    assert set(written) < set(listed) and len(listed) == len(set(listed))
    assert mean["derivedFrom"] == [{"reference": after.imaging_study}] and mean["device"]["reference"] == after.device


def test_an_observation_is_not_created_to_say_that_nothing_was_measured(rig: Rig) -> None:
    trunk = replace(measured_districts()[0], suv_peak=None, withdrawn=("suv_peak",))
    receipt = rig.record(measured_update(districts=(trunk,), replaces_series_uids=("2.25.1",)))
    assert sum(reference.startswith("Observation/") for reference in receipt.written) == 3


def test_a_diagnostic_report_is_written_where_the_site_wants_it_and_corrected_in_place(tmp_path: Path) -> None:
    first = measured_update()
    with closing(EmbeddedStore(tmp_path / "twin.db", replace(SITE, diagnostic_report=True))) as store:
        store.record(first)
        assert store.record(first).written == ()
        store.record(replace(first, pet_series=a_series("PT"), replaces_series_uids=(first.pet_series.series_uid,)))
        bundle = store.patient_record(first.patient_id, None)
    reports = [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "DiagnosticReport"]
    assert [report["status"] for report in reports] == ["corrected"]
    assert len(reports[0]["result"]) == 5


def test_of_two_observations_that_two_writers_made_one_goes_on_and_the_other_is_withdrawn(rig: Rig) -> None:
    """Conditional creates at the same moment make two of one on some servers (HAPI #3141)."""
    update = measured_update()
    receipt = rig.record(update)
    first = next(reference for reference in receipt.written if reference.startswith("Observation/"))
    double = {key: part for key, part in rig.current(first).items() if key not in ("id", "meta")}
    second = rig.create(double)
    assert len(rig.record(update).written) >= 1
    statuses = sorted(rig.current(reference)["status"] for reference in (first, second))
    assert statuses == ["entered-in-error", "final"]
    assert rig.record(update).written == ()
