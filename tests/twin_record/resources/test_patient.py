"""A patient is found by an id within the domain that issued it."""

import pytest

from tests.samples.twin_updates import SITE
from twin_record.resources.patient import patient_key
from twin_record.resources.record_list import record_value

pytestmark = pytest.mark.unit


def test_equal_ids_of_two_issuers_are_two_patients() -> None:
    keys = [patient_key("4711", issuer, SITE) for issuer in (None, "HOSPITAL", "ELSEWHERE", "A THIRD")]
    assert len({key.system for key in keys}) == 4
    assert len({record_value(key) for key in keys}) == 4
    assert [key.system for key in keys[:2]] == ["urn:oid:2.999.1", "urn:oid:2.999.2"]
    assert keys[2].identifier()["assigner"] == {"display": "ELSEWHERE"}
    assert patient_key(" 4711 ", "", SITE) == keys[0], "padding and an empty issuer mean nothing in DICOM"
