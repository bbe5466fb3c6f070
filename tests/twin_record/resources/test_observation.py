"""The Observations say what the measurement report says, in its own codes."""

from dataclasses import replace

import pytest
from pydicom.sr.codedict import codes

from tests.samples.twin_updates import SITE, a_series, companions, measured_districts, measured_update
from twin_record.resources.codes import AIAST, MEASUREMENT_SYSTEM
from twin_record.resources.content import Resource
from twin_record.resources.diagnostic_report import new_report
from twin_record.resources.observation import measurement_value, new_observations
from twin_record.update import TwinUpdate
from twin_scanner.dicom.district_measurements import QUANTITIES, SUV_MEAN, SUV_PEAK, VOLUME

pytestmark = pytest.mark.unit

PATIENT = {"reference": "Patient/1"}
SCT, DCM, UCUM = "http://snomed.info/sct", "http://dicom.nema.org/resources/ontology/DCM", "http://unitsofmeasure.org"


def observations(update: TwinUpdate) -> dict[str, Resource]:
    return new_observations(update, SITE, PATIENT, "ImagingStudy/1", "Device/1")


def one(update: TwinUpdate, district: str, key: str) -> Resource:
    quantity = next(quantity for quantity in QUANTITIES if quantity.key == key)
    return observations(update)[measurement_value(update, district, quantity)]


def test_each_district_has_an_observation_for_each_quantity_that_was_measured() -> None:
    """The legs have no network: their volume alone."""
    made = observations(measured_update())
    assert len(made) == 4 + 1
    for value, observation in made.items():
        assert observation["identifier"][0] == {"system": MEASUREMENT_SYSTEM, "value": value}
        assert observation["meta"]["security"] == [AIAST]
        assert observation["subject"] == PATIENT and observation["device"] == {"reference": "Device/1"}
        assert observation["derivedFrom"] == observation["partOf"] == [{"reference": "ImagingStudy/1"}]
        assert (observation["status"], observation["effectiveDateTime"][:10]) == ("final", "2026-03-04")


def test_a_value_has_the_codes_and_the_unit_of_the_measurement_report() -> None:
    """Oracle: the triples that PS3.16 gives (CID 7464, TID 1419) and UCUM."""
    mean = one(measured_update(), "trunk", "suv_mean")
    assert mean["code"]["coding"] == [{"system": DCM, "code": "126401", "display": "SUVbw"}]
    assert mean["valueQuantity"] == {"value": 1.25, "unit": "g/ml", "system": UCUM, "code": "{SUVbw}g/ml"}
    assert mean["bodySite"]["coding"] == [{"system": SCT, "code": "22943007", "display": "Trunk"}]
    derivation, deviation = mean["component"]
    assert derivation["code"]["coding"][0]["code"] == "121401"
    assert derivation["valueCodeableConcept"]["coding"] == [{"system": SCT, "code": "373098007", "display": "Mean"}]
    assert "coding" not in deviation["code"] and deviation["valueQuantity"]["value"] == 0.5
    volume = one(measured_update(), "trunk", "volume_ml")
    assert volume["code"]["coding"] == [{"system": SCT, "code": codes.SCT.Volume.value, "display": "Volume"}]
    assert volume["valueQuantity"] == {"value": 30000.125, "unit": "cm3", "system": UCUM, "code": "cm3"}
    assert "component" not in volume
    peak = one(measured_update(), "trunk", "suv_peak")
    assert peak["component"][0]["valueCodeableConcept"]["coding"][0]["code"] == "126031"


def test_what_the_segmenter_says_of_a_district_and_that_it_was_not_synthesised_are_notes() -> None:
    update = measured_update(missing_districts=("legs",))
    assert [note["text"] for note in one(update, "trunk", "suv_max")["note"]] == ["trunk: cut by the field of view."]
    assert "no network" in one(update, "legs", "volume_ml")["note"][0]["text"]


def test_the_report_that_says_the_same_is_the_second_identifier_and_none_where_the_pacs_holds_none() -> None:
    update = measured_update(companion_series=companions())
    report = update.companion_series[1].sop_instance_uids[0]
    assert one(update, "trunk", "suv_mean")["identifier"][1:] == [
        {"system": "urn:dicom:uid", "value": f"urn:oid:{report}"}
    ]
    assert len(one(measured_update(), "trunk", "suv_mean")["identifier"]) == 1


def test_a_late_slice_corrects_the_same_observation() -> None:
    first = measured_update()
    again = replace(first, pet_series=a_series("PT"), replaces_series_uids=(first.pet_series.series_uid,))
    assert observations(first).keys() == observations(again).keys()
    assert {observation["status"] for observation in observations(again).values()} == {"corrected"}


def test_another_study_frame_of_reference_district_or_quantity_is_another_measurement() -> None:
    update = measured_update()
    values = {
        measurement_value(other, district, quantity)
        for other in (update, replace(update, study_uid="1.2.3"), replace(update, frame_of_reference_uid="1.2.4"))
        for district in ("trunk", "head")
        for quantity in (VOLUME, SUV_MEAN, SUV_PEAK)
    }
    assert len(values) == 3 * 2 * 3


def test_what_was_measured_before_and_is_not_any_more_has_no_value() -> None:
    trunk = replace(measured_districts()[0], suv_peak=None, withdrawn=("suv_peak",))
    update = measured_update(districts=(trunk,), replaces_series_uids=("2.25.1",))
    peak = one(update, "trunk", "suv_peak")
    assert "valueQuantity" not in peak and peak["status"] == "corrected"
    assert peak["dataAbsentReason"]["coding"][0]["code"] == "not-performed"


def test_a_site_code_without_a_uri_in_fhir_is_named_and_not_coded() -> None:
    liver = replace(measured_districts()[0], district="liver", site=("L-1", "99HOSPITAL", "Liver"))
    assert one(measured_update(districts=(liver,)), "liver", "suv_mean")["bodySite"] == {"text": "liver"}


def test_the_diagnostic_report_names_the_measurements_and_says_that_nobody_verified_it() -> None:
    report = new_report(measured_update(), SITE, PATIENT, "ImagingStudy/1", ["Observation/1", "Observation/2"])
    assert [result["reference"] for result in report["result"]] == ["Observation/1", "Observation/2"]
    assert report["code"]["coding"][0]["code"] == "126000"
    assert report["meta"]["security"] == [AIAST] and "No person has read" in report["conclusion"]
