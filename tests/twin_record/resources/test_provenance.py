"""The Provenance: what it says of how a PET came to be."""

import pytest

from tests.samples.twin_updates import an_update
from twin_record.resources.codes import TARGET_PATH_EXTENSION
from twin_record.resources.provenance import new_provenance

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("derivation", "text"),
    [
        ("", "CT to synthetic PET"),
        (
            "The gantry was tilted by 8.0 degrees: the CT was resampled (linear).",
            "CT to synthetic PET. The gantry was tilted by 8.0 degrees: the CT was resampled (linear).",
        ),
    ],
)
def test_the_activity_names_a_resampling_of_the_ct(derivation: str, text: str) -> None:
    update = an_update(source_derivation=derivation)
    made = new_provenance(update, {"reference": "Patient/1"}, "ImagingStudy/1", "List/1", "Device/1")
    assert made["activity"]["text"] == text


def test_the_source_and_what_is_replaced_resolve_to_the_study_and_the_series_in_it() -> None:
    """An identifier of a series is none of an ImagingStudy: no server finds anything by it."""
    update = an_update(replaces_series_uids=("2.25.1",))
    made = new_provenance(update, {"reference": "Patient/1"}, "ImagingStudy/1", "List/1", "Device/1")
    for entity, series_uid in zip(made["entity"], (update.source_series.series_uid, "2.25.1"), strict=True):
        assert entity["what"]["reference"] == "ImagingStudy/1"
        path = f"ImagingStudy.series.where(uid = '{series_uid}')"
        assert entity["what"]["extension"] == [{"url": TARGET_PATH_EXTENSION, "valueString": path}]


def test_a_provenance_is_found_from_its_patient() -> None:
    """R4: the search parameter patient, and so the Patient's compartment, is a target that is a Patient."""
    made = new_provenance(an_update(), {"reference": "Patient/1"}, "ImagingStudy/1", "List/1", "Device/1")
    assert {"reference": "Patient/1"} in made["target"]


def test_the_activity_says_what_of_the_ct_the_model_was_not_trained_on() -> None:
    update = an_update(outside_training=("the patient's age is not known", "the pixel spacing is 2 mm"))
    made = new_provenance(update, {"reference": "Patient/1"}, "ImagingStudy/1", "List/1", "Device/1")
    said = "The CT is outside of the training data: the patient's age is not known; the pixel spacing is 2 mm."
    assert made["activity"]["text"] == f"CT to synthetic PET. {said}"
