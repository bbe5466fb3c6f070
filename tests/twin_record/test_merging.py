"""Our resources merged into what is there already."""

from dataclasses import replace

import pytest

from tests.samples.twin_updates import SITE, a_series, an_update, companions
from twin_record.merging import content_of, merged_study
from twin_record.resources.imaging_study import new_study

pytestmark = pytest.mark.unit


def test_a_revision_takes_the_place_of_the_companions_too() -> None:
    first = an_update(companion_series=companions())
    theirs = new_study(first, SITE, "Patient/1", "Device/1")
    foreign = {"uid": "1.2.3.99", "modality": {"code": "MR"}, "numberOfInstances": 7}
    theirs["series"].append(foreign)
    again = replace(
        first,
        pet_series=a_series("PT"),
        companion_series=companions(),
        replaces_series_uids=(first.pet_series.series_uid,),
        replaces_companion_uids=tuple(series.series_uid for series in first.companion_series),
    )
    merged = merged_study(theirs, new_study(again, SITE, "Patient/1", "Device/1"), again)
    assert {series["uid"] for series in merged["series"]} == {
        "1.2.3.99",
        first.source_series.series_uid,
        *(series.series_uid for series in again.made_series),
    }


def test_contents_are_compared_without_what_a_server_adds() -> None:
    first = {"meta": {"versionId": "1", "lastUpdated": "x"}, "subject": {"reference": "https://h/fhir/Patient/1"}}
    assert content_of(first) == content_of({"subject": {"reference": "Patient/1"}, "meta": {}})
    assert content_of(first) != content_of({"subject": {"reference": "Patient/2"}})
