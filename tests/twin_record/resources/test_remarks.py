"""What the record cannot take is said to a person."""

import pytest

from tests.samples.twin_updates import SITE, an_update
from twin_record.resources.imaging_study import new_study
from twin_record.resources.patient import new_patient
from twin_record.resources.remarks import remarks_on

pytestmark = pytest.mark.unit


def test_what_cannot_be_read_is_left_out_and_said_without_its_value() -> None:
    update = an_update(
        birth_date="19490229",
        study_date="2026-03-04",
        study_time="noon",
        sex="X",
        timezone_offset="CET",
        issuer_of_patient_id="ELSEWHERE",
    )
    remarks = remarks_on(update, SITE)
    assert len(remarks) == 6
    for value in ("19490229", "2026-03-04", "noon", "CET", "ELSEWHERE", update.patient_id):
        assert not any(value in remark for remark in remarks)
    patient = new_patient(update.identity, SITE)
    assert "birthDate" not in patient
    assert "gender" not in patient
    assert "started" not in new_study(update, SITE, {"reference": "Patient/1"}, "Device/2")
    assert remarks_on(an_update(birth_date="", sex="", study_time="", timezone_offset=None), SITE) == ()
