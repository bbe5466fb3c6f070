"""The ImagingStudy lists what was made and says what AI made of it."""

import pytest

from tests.samples.twin_updates import SITE, a_series, an_update, companions
from twin_record.resources.codes import AIAST, INLINE_LABEL_EXTENSION
from twin_record.resources.imaging_study import new_study
from twin_record.resources.provenance import new_provenance
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.unit


def test_only_the_synthetic_series_is_labelled_as_made_by_ai() -> None:
    """AI Transparency on FHIR: an inline label on the element, PROCESSINLINELABEL on the resource around it."""
    update = an_update(missing_districts=("legs",), pet_series=a_series("PT", description="FDG"))
    study = new_study(update, SITE, "Patient/1", "Device/2")
    ct, pet = study["series"]
    assert pet["extension"] == [{"url": INLINE_LABEL_EXTENSION, "valueCoding": AIAST}]
    assert "extension" not in ct
    assert [label["code"] for label in study["meta"]["security"]] == ["PROCESSINLINELABEL"]
    assert pet["description"] == "SYNTHETIC FDG"
    assert pet["modality"]["code"] == "PT"
    assert "endpoint" not in pet
    assert pet["performer"][0]["actor"] == {"reference": "Device/2"}
    assert "Not synthesised: legs." in study["note"][0]["text"]
    assert new_provenance(update, "ImagingStudy/1", "List/1", "Device/2")["meta"]["security"] == [AIAST]


def test_a_uid_that_fhir_cannot_take_is_rejected_without_its_value() -> None:
    update = an_update(source_series=a_series("CT", series_uid="1.2.3_4711"))
    with pytest.raises(Rejected, match=r"valid FHIR ImagingStudy: correct its .*series") as error:
        new_study(update, SITE, "Patient/1", "Device/2")
    assert "4711" not in str(error.value)


def test_what_stands_beside_the_pet_is_listed_and_labelled_where_a_network_had_its_part() -> None:
    update = an_update(companion_series=companions())
    study = new_study(update, SITE, "Patient/1", "Device/1")
    listed = {series["uid"]: series for series in study["series"]}
    assert study["numberOfSeries"] == len(listed) == 4
    assert {coding["code"] for coding in study["modality"]} == {"CT", "PT", "SEG", "SR"}
    seg, report = (listed[series.series_uid] for series in update.companion_series)
    assert "extension" not in seg
    assert report["extension"][0]["valueCoding"]["code"] == "AIAST"
    assert report["performer"][0]["actor"]["reference"] == "Device/1"
