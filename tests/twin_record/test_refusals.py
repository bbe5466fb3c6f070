"""What a server says is repeated without the patient's values."""

import json
from contextlib import closing
from typing import Any

import pytest

from tests.fakes.scripted_fhir import refusing_writes, scripted_fhir
from tests.samples.twin_updates import SITE, an_update
from twin_record.refusals import Conflict, answer_failure, harmless_detail, private_words
from twin_record.remote import FhirClient
from twin_scanner.errors import Held

pytestmark = pytest.mark.unit


def test_a_refusal_is_told_without_the_patients_values() -> None:
    outcome = {
        "resourceType": "OperationOutcome",
        "issue": [
            {
                "severity": "error",
                "code": "invariant",
                "diagnostics": "Patient Müller, Jürgen (born 1948-02-29, MRN 'X-17') breaks: karl of Smith too long",
                "expression": ["Patient.name"],
            }
        ],
    }
    patient = {"name": [{"family": "Müller", "given": ["Jürgen", "Karl"]}], "birthDate": "1948-02-29"}
    detail = harmless_detail(outcome, private_words({"entry": [{"resource": patient}]}))
    assert detail == "invariant Patient (born breaks: of too long Patient.name"
    with (
        scripted_fhir(refusing_writes(422, json.dumps(outcome))) as (url, _),
        closing(FhirClient(url, SITE)) as server,
        pytest.raises(Held) as error,
    ):
        server.record(an_update())
    assert "invariant" in str(error.value)
    for secret in ("Müller", "Jürgen", "Smith", "1948", "X-17", "MRN"):
        assert secret not in str(error.value)


@pytest.mark.parametrize("outcome", [None, [], "text", {"issue": "x"}, {"issue": [1]}, {"issue": [{"details": 3}]}])
def test_an_outcome_that_is_none_is_survived(outcome: Any) -> None:
    assert isinstance(answer_failure(400, outcome, frozenset()), Held)
    assert isinstance(answer_failure(412, outcome, frozenset()), Conflict)
