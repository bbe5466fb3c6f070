"""Our resources merged into what is there already."""

from dataclasses import replace
from typing import Any

import pytest

from tests.samples.twin_updates import SITE, a_series, an_update, companions, measured_update, new_uid
from twin_record.merging import content_of, merged_measurement, merged_study
from twin_record.resources.content import Resource
from twin_record.resources.imaging_study import new_study
from twin_record.resources.observation import new_observations
from twin_record.update import TwinUpdate

pytestmark = pytest.mark.unit


def study_of(update: TwinUpdate) -> Resource:
    return new_study(update, SITE, {"reference": "Patient/1"}, "Device/1")


def revised(first: TwinUpdate, **changes: Any) -> TwinUpdate:
    """A revision from the same CT with two late slices."""
    source = first.source_series
    late = replace(source, sop_instance_uids=(new_uid(), *source.sop_instance_uids, new_uid()))
    revision = replace(
        first,
        source_series=late,
        pet_series=a_series("PT", instances=5),
        companion_series=companions(),
        replaces_series_uids=(first.pet_series.series_uid,),
        replaces_companion_uids=tuple(series.series_uid for series in first.companion_series),
    )
    return replace(revision, **changes)


def test_a_rejected_pet_leaves_the_study_with_its_companions() -> None:
    first = an_update(companion_series=companions())
    theirs = study_of(first)
    foreign = {"uid": "1.2.3.99", "modality": {"code": "MR"}, "numberOfInstances": 7}
    theirs["series"].append(foreign)
    again = revised(first)
    merged = merged_study(theirs, study_of(again), again)
    assert {series["uid"] for series in merged["series"]} == {
        "1.2.3.99",
        first.source_series.series_uid,
        *(series.series_uid for series in again.made_series),
    }
    assert not any(first.pet_series.series_uid in note["text"] for note in merged["note"])


def test_late_slices_join_the_source_series_and_the_counts_follow() -> None:
    """FHIR said CT 50 and study 110 where the PACS held 70 and 174."""
    first = an_update(companion_series=companions())
    again = revised(first, superseded_series=first.made_series)
    merged = merged_study(study_of(first), study_of(again), again)
    listed = {series["uid"]: series for series in merged["series"]}
    ct = listed[first.source_series.series_uid]
    assert ct["numberOfInstances"] == 5
    assert {one["uid"] for one in ct["instance"]} == set(again.source_series.sop_instance_uids)
    assert merged["numberOfSeries"] == len(listed) == 7
    assert merged["numberOfInstances"] == 5 + (3 + 1 + 1) + (5 + 1 + 1)


def test_a_source_series_that_the_pacs_lists_with_more_keeps_all_of_them() -> None:
    update = an_update()
    theirs = study_of(update)
    theirs["series"][0]["instance"].append({"uid": "1.2.3.7", "sopClass": {"code": "x"}, "title": "theirs"})
    theirs["series"][0] |= {"numberOfInstances": 4, "description": "their own words"}
    theirs["numberOfInstances"] += 1
    merged = merged_study(theirs, study_of(update), update)
    ct = merged["series"][0]
    assert (ct["numberOfInstances"], len(ct["instance"]), ct["description"]) == (4, 4, "their own words")
    assert merged["numberOfInstances"] == theirs["numberOfInstances"]


def test_a_superseded_pet_stays_listed_and_marked_until_its_rejection_is_confirmed() -> None:
    first = an_update(companion_series=companions())
    again = revised(first, superseded_series=first.made_series)
    merged = merged_study(study_of(first), study_of(again), again)
    listed = {series["uid"]: series for series in merged["series"]}
    for series in first.made_series:
        assert listed[series.series_uid]["description"].startswith("SUPERSEDED ")
    pet = listed[first.pet_series.series_uid]
    assert pet["description"] == "SUPERSEDED SYNTHETIC FDG-PET"
    assert pet["extension"], "it is still what a network made"
    (note,) = (note for note in merged["note"] if first.pet_series.series_uid in note["text"])
    assert f"superseded by series {again.pet_series.series_uid}" in note["text"]
    assert merged_study(merged, study_of(again), again) == merged, "a repeat changes nothing"
    rejected = replace(again, superseded_series=())
    uids = {series["uid"] for series in merged_study(merged, study_of(rejected), rejected)["series"]}
    assert uids.isdisjoint({series.series_uid for series in first.made_series})


def test_the_record_is_the_same_whether_or_not_the_first_pet_was_recorded_before_the_second() -> None:
    first = an_update(companion_series=companions())
    again = revised(first, superseded_series=first.made_series)
    after = merged_study(study_of(first), study_of(again), again)
    alone = study_of(again)
    assert by_uid(after) == by_uid(alone)
    assert {key: after[key] for key in ("numberOfSeries", "numberOfInstances", "modality")} == {
        key: alone[key] for key in ("numberOfSeries", "numberOfInstances", "modality")
    }


def by_uid(study: Resource) -> dict[str, Resource]:
    """The series, each with its instances in an order of their own."""
    return {
        series["uid"]: {**series, "instance": sorted(series["instance"], key=lambda one: str(one["uid"]))}
        for series in study["series"]
    }


def test_a_modality_that_an_earlier_version_listed_and_that_acquires_nothing_is_taken_out() -> None:
    update = an_update(companion_series=companions())
    theirs = study_of(update)
    theirs["modality"] += [{"code": "SEG"}, {"code": "SR"}, {"code": "MR"}]
    assert [one["code"] for one in merged_study(theirs, study_of(update), update)["modality"]] == ["CT", "PT", "MR"]


def test_contents_are_compared_without_what_a_server_adds() -> None:
    first = {"meta": {"versionId": "1", "lastUpdated": "x"}, "subject": {"reference": "https://h/fhir/Patient/1"}}
    assert content_of(first) == content_of({"subject": {"reference": "Patient/1"}, "meta": {}})
    assert content_of(first) != content_of({"subject": {"reference": "Patient/2"}})


def observation_of(update: TwinUpdate) -> Resource:
    """That of the trunk's volume."""
    made = new_observations(update, SITE, {"reference": "Patient/1"}, "ImagingStudy/1", "Device/1")
    return next(iter(made.values()))


def test_a_corrected_measurement_keeps_what_others_say_of_it_and_nothing_of_the_earlier_pet() -> None:
    first = measured_update()
    theirs = observation_of(first)
    theirs["note"].append({"text": "seen by the radiologist"})
    theirs["identifier"].append({"system": "urn:oid:2.999.3", "value": "theirs"})
    theirs["interpretation"] = [{"text": "as expected"}]
    trunk = replace(first.districts[0], remark="", volume_ml=31000.0)
    again = replace(first, districts=(trunk,), replaces_series_uids=("2.25.1",))
    merged = merged_measurement(theirs, observation_of(again))
    assert [note["text"] for note in merged["note"]] == ["seen by the radiologist"]
    assert {"system": "urn:oid:2.999.3", "value": "theirs"} in merged["identifier"]
    assert (merged["valueQuantity"]["value"], merged["status"]) == (31000.0, "corrected")
    assert merged["interpretation"] == theirs["interpretation"]
