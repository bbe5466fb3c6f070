"""A patient is found by an id within the domain that issued it."""

import pytest

from tests.samples.twin_updates import SITE, an_update
from twin_record.resources.patient import new_patient, patient_key
from twin_record.resources.record_list import record_value

pytestmark = pytest.mark.unit


def test_equal_ids_of_two_issuers_are_two_patients() -> None:
    keys = [patient_key("4711", issuer, SITE) for issuer in (None, "HOSPITAL", "ELSEWHERE", "A THIRD")]
    assert len({key.system for key in keys}) == 4
    assert len({record_value(key.system, key.value) for key in keys}) == 4
    assert [key.system for key in keys[:2]] == ["urn:oid:2.999.1", "urn:oid:2.999.2"]
    assert keys[2].identifier()["assigner"] == {"display": "ELSEWHERE"}
    assert patient_key(" 4711 ", "", SITE) == keys[0], "padding and an empty issuer mean nothing in DICOM"


def test_a_patient_of_our_making_is_active_says_what_its_identifier_is_and_who_made_it() -> None:
    made = new_patient(an_update().identity, SITE)
    assert made["active"] is True
    coding = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}
    assert made["identifier"][0]["type"]["coding"] == [coding]
    assert made["meta"] == {"source": "urn:twin-scanner"}
