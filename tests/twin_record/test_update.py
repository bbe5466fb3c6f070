"""What one job tells the record is checked where it is made."""

import json
from dataclasses import MISSING, fields, replace
from datetime import datetime, timedelta, timezone

import pytest

from tests.samples.twin_updates import a_series, an_update, companions
from twin_record.update import DistrictValues, SeriesEntry, TwinSite, TwinUpdate
from twin_scanner.errors import Defect, Misconfigured, Rejected

pytestmark = pytest.mark.unit


def test_a_ct_without_a_patient_id_belongs_to_no_twin() -> None:
    with pytest.raises(Rejected, match="no PatientID"):
        an_update(patient_id="  ")
    with pytest.raises(Rejected, match="no StudyInstanceUID"):
        an_update(study_uid="")


def test_a_callers_mistake_is_a_defect() -> None:
    series = a_series("PT")
    with pytest.raises(Defect, match="cannot replace its own"):
        an_update(pet_series=series, replaces_series_uids=(series.series_uid,))
    with pytest.raises(Defect, match="no time zone"):
        an_update(made_at=an_update().made_at.replace(tzinfo=None))


def test_a_companion_cannot_replace_itself() -> None:
    (seg, report) = companions()
    with pytest.raises(Defect, match="its own series"):
        an_update(companion_series=(seg, report), replaces_companion_uids=(seg.series_uid,))


def an_update_with_every_field() -> TwinUpdate:
    seg, report = companions()
    return an_update(
        issuer_of_patient_id="HOSPITAL",
        made_at=datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
        missing_districts=("arms", "legs"),
        replaces_series_uids=("1.2.3", "1.2.4"),
        companion_series=(seg, replace(report, asserted_by_ai=True, instance_numbers=(7, None))),
        replaces_companion_uids=("1.2.5",),
        phantom_only=True,
        source_derivation="The CT was resampled to 0.9 x 1.1 x 3.0 mm.",
        superseded_series=(replace(a_series("PT"), series_uid="1.2.3"),),
        frame_of_reference_uid="1.2.6",
        outside_training=("The slice spacing is outside of the training data.",),
        districts=(
            DistrictValues("head", ("69536005", "SCT", "Head"), 4100.5, 1.5, 9.0, 8.5, "cut", 0.25, True, ("suv_max",)),
        ),
    )


def test_the_update_that_goes_through_json_leaves_no_field_at_its_default() -> None:
    update = an_update_with_every_field()
    for entry in (update, update.companion_series[1], update.districts[0]):
        for field in fields(entry):
            default = field.default if field.default_factory is MISSING else field.default_factory()
            assert getattr(entry, field.name) != default, f"give {field.name} a value in the test's update"


def test_an_update_comes_back_from_json_as_it_was() -> None:
    update = an_update_with_every_field()
    text = json.dumps(update.as_json(), allow_nan=False)
    again = TwinUpdate.from_json(json.loads(text))
    assert again == update
    assert again.made_at.isoformat() == update.made_at.isoformat()
    assert type(again.companion_series[0]) is SeriesEntry
    assert json.dumps(again.as_json()) == text


def test_what_an_earlier_version_did_not_write_has_its_default() -> None:
    required = {field.name for field in fields(TwinUpdate) if field.default is MISSING}
    update = an_update()
    earlier = {name: value for name, value in update.as_json().items() if name in required}
    assert TwinUpdate.from_json({**earlier, "written_by_a_later_version": 1}) == update


def test_a_document_that_is_no_update_is_a_defect_that_names_no_value() -> None:
    document = an_update_with_every_field().as_json()
    with pytest.raises(Defect, match="see its patient_name") as caught:
        TwinUpdate.from_json({**document, "patient_name": ["Müller"]})
    assert "Müller" not in str(caught.value)


@pytest.mark.parametrize("system", ["hospital", "", "urn:oid:1 2", "urn:x|y"])
def test_a_site_with_a_system_that_is_no_uri_is_rejected(system: str) -> None:
    with pytest.raises(Misconfigured, match="is no URI"):
        TwinSite(patient_identifier_system=system)


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "../etc/passwd", ""])
def test_a_site_with_an_unknown_zone_is_rejected(zone: str) -> None:
    with pytest.raises(Misconfigured, match="no IANA time zone"):
        TwinSite(patient_identifier_system="urn:oid:2.999.1", zone=zone)
