"""The List that is the twin record."""

import pytest

from tests.samples.twin_updates import SITE
from twin_record.resources.record_list import record_value

pytestmark = pytest.mark.unit


def test_the_records_identifier_does_not_show_the_patient_id() -> None:
    assert "4711" not in record_value(SITE.patient_identifier_system, "4711").split("-")
