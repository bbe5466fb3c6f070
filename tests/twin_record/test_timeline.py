"""A record as a person reads it: scans in their order, their PETs and models, values and what became of them."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.samples.twin_updates import MADE_AT, SITE, a_series, an_update, another_study
from twin_record.embedded import EmbeddedStore
from twin_record.timeline import Timeline, timeline_of
from twin_scanner.errors import Held

pytestmark = pytest.mark.unit


@pytest.fixture
def bundle(tmp_path: Path) -> dict[str, Any]:
    """Two scans of one patient, the later one recorded first; the earlier one's PET was replaced."""
    store = EmbeddedStore(tmp_path / "twin.sqlite", SITE)
    first = an_update(study_description="First staging", patient_name="Müller^Jürgen")
    late = replace(
        first,
        pet_series=a_series("PT", description="SYNTHETIC FDG-PET, second"),
        replaces_series_uids=(first.pet_series.series_uid,),
        made_at=MADE_AT + timedelta(minutes=5),
    )
    later = replace(another_study(first), study_date="20260604", study_description="Follow-up")
    for update in (later, first, late):
        store.record(update)
    record = store.patient_record(first.patient_id, None)
    store.close()
    return record


def studies(bundle: dict[str, Any]) -> dict[str, str]:
    """The literal references of the studies by their descriptions."""
    found = [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == "ImagingStudy"]
    return {study["description"]: f"ImagingStudy/{study['id']}" for study in found}


def observation(study: str, value: float | None, **changes: Any) -> dict[str, Any]:
    quantity = {} if value is None else {"valueQuantity": {"value": value, "unit": "g/ml", "code": "{SUVbw}g/ml"}}
    return {
        "resource": {
            "resourceType": "Observation",
            "id": f"{study[13:]}-{value}",
            "status": "final",
            "code": {"text": "SUVmean"},
            "bodySite": {"text": "head", "coding": [{"display": "Head"}]},
            "device": {"reference": "Device/1"},
            "derivedFrom": [{"reference": f"https://fhir.example/r4/{study}"}],
            **quantity,
            **changes,
        }
    }


def test_scans_come_in_the_order_of_their_days_with_their_series_and_models(bundle: dict[str, Any]) -> None:
    timeline = timeline_of(bundle)
    assert (timeline.name, timeline.birth_date, timeline.sex) == ("Jürgen Müller", "1948-02-29", "male")
    assert [scan.description for scan in timeline.scans] == ["First staging", "Follow-up"]
    first, follow_up = timeline.scans
    old, new = first.synthetic
    assert "uperseded" in old.superseded and new.series_uid in old.superseded
    assert (new.superseded, new.description, new.instances) == ("", "SYNTHETIC FDG-PET, second", 3)
    assert [made.model for made in follow_up.synthetic] == ["pix2pix-districts"]
    assert len(new.model_hash) == 32


def test_a_record_without_values_has_none(bundle: dict[str, Any]) -> None:
    assert [(scan.values, scan.changed_since) for scan in timeline_of(bundle).scans] == [((), None), ((), None)]


def test_a_value_is_compared_with_the_last_scan_that_has_it(bundle: dict[str, Any]) -> None:
    first, follow_up = studies(bundle)["First staging"], studies(bundle)["Follow-up"]
    bundle["entry"] += [observation(follow_up, 2.75), observation(first, 2.5)]
    before, after = timeline_of(bundle).scans
    assert [(v.district, v.name, v.value, v.unit, v.change) for v in before.values] == [
        ("head", "SUVmean", 2.5, "g/ml", None)
    ]
    assert [(v.value, v.change) for v in after.values] == [(2.75, 0.25)]
    assert after.changed_since == before.study_uid


@pytest.mark.parametrize(
    "changes",
    [
        {"device": {"reference": "Device/2"}},
        {"bodySite": {"coding": [{"display": "Trunk"}]}},
        {"code": {"coding": [{"code": "126401"}]}},
        {"valueQuantity": {"value": 2.75, "unit": "kg"}},
    ],
)
def test_what_is_not_comparable_has_no_change(bundle: dict[str, Any], changes: dict[str, Any]) -> None:
    """Another model above all: its values differ without the patient having changed."""
    first, follow_up = studies(bundle)["First staging"], studies(bundle)["Follow-up"]
    bundle["entry"] += [observation(first, 2.5), observation(follow_up, 2.75, **changes)]
    assert [value.change for value in timeline_of(bundle).scans[1].values] == [None]


def test_what_has_no_value_or_was_entered_in_error_is_left_out(bundle: dict[str, Any]) -> None:
    first = studies(bundle)["First staging"]
    bundle["entry"] += [observation(first, None), observation(first, 9.0, status="entered-in-error")]
    assert timeline_of(bundle).scans[0].values == ()


def test_a_bundle_without_content_is_an_empty_timeline() -> None:
    assert timeline_of({"resourceType": "Bundle"}) == Timeline("", "", "", ())


def test_a_record_that_is_no_valid_r4_says_where() -> None:
    broken = {"resourceType": "ImagingStudy", "id": "1", "status": "available", "numberOfSeries": "many"}
    with pytest.raises(Held, match="numberOfSeries"):
        timeline_of({"entry": [{"resource": broken}]})
