"""Whose record it is: unknown, contradicting, merged and logically named patients, on a server and in the store.

Oracle: R4 Patient.link and Reference.identifier; a record is under the right Patient, or nothing was written.
"""

import time
from dataclasses import replace
from typing import Any

import pytest

from tests.peers.twin_rig import Rig
from tests.samples.twin_updates import SITE, an_update, another_study
from twin_record.identity import check_identity
from twin_record.patient_record import read_record
from twin_record.resources.patient import patient_key
from twin_record.target import TwinReceipt
from twin_record.transaction import record_update
from twin_record.update import TwinSite, TwinUpdate
from twin_scanner.errors import Held, Rejected

pytestmark = pytest.mark.record

Json = dict[str, Any]
HOLD = replace(SITE, unknown_patient="hold")
REFERENCE = replace(SITE, unknown_patient="reference")
ALONE = replace(SITE, accept_identifier_alone=True)


@pytest.fixture
def store(embedded_rig: Rig) -> Rig:
    """What concerns values alone is asked of the embedded store."""
    return embedded_rig


def record(rig: Rig, update: TwinUpdate, site: TwinSite = SITE) -> TwinReceipt:
    return record_update(update, site, rig.target, 5, time.sleep)


def check(rig: Rig, update: TwinUpdate, site: TwinSite = SITE) -> tuple[str, ...]:
    return check_identity(update.identity, update.study_uid, site, rig.target)


def a_patient(update: TwinUpdate, **fields: Any) -> Json:
    """The hospital's Patient with the identifier of the update's."""
    key = patient_key(update.patient_id, update.issuer_of_patient_id, SITE)
    return {
        "resourceType": "Patient",
        "identifier": [{"system": key.system, "value": key.value}],
        "name": [{"family": "Müller", "given": ["Jürgen", "Karl"]}],
        "gender": "male",
        "birthDate": "1948-02-29",
        **fields,
    }


def a_study(update: TwinUpdate, subject: Json, **fields: Any) -> Json:
    """The update's study as the PACS has published it."""
    return {
        "resourceType": "ImagingStudy",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{update.study_uid}"}],
        "status": "available",
        "subject": subject,
        **fields,
    }


def merged_into(reference: str) -> list[Json]:
    return [{"other": {"reference": reference}, "type": "replaced-by"}]


def nothing_is_recorded(rig: Rig, update: TwinUpdate) -> bool:
    with pytest.raises(Rejected, match="no twin record"):
        rig.target.patient_record(update.patient_id, update.issuer_of_patient_id)
    return True


def logical(update: TwinUpdate) -> Json:
    key = patient_key(update.patient_id, update.issuer_of_patient_id, SITE)
    return {"type": "Patient", "identifier": {"use": "usual", "system": key.system, "value": key.value}}


def test_an_unknown_patient_is_held_where_the_site_says_so_and_nothing_is_written(rig: Rig) -> None:
    update = an_update()
    for look in (check, record):
        with pytest.raises(Held, match="knows no Patient with the CT's patient id"):
            look(rig, update, HOLD)
    assert nothing_is_recorded(rig, update)
    patient = rig.create(a_patient(update))
    assert check(rig, update, HOLD) == ()
    assert record(rig, update, HOLD).patient == patient, "once the server knows the Patient, the released job goes on"


def test_an_unknown_patient_may_be_named_by_identifier_alone(rig: Rig) -> None:
    update = an_update()
    receipt = record(rig, update, REFERENCE)
    assert receipt.patient == ""
    assert rig.current(receipt.imaging_study)["subject"] == logical(update)
    assert rig.current(receipt.record)["subject"] == logical(update)
    assert record(rig, update, REFERENCE).written == (), "the same update writes nothing a second time"
    bundle = read_record(patient_key(update.patient_id, None, SITE), rig.target)
    assert bundle["entry"][0]["resource"]["resourceType"] == "List"


def test_a_patient_who_becomes_known_later_gets_what_was_recorded_by_identifier(rig: Rig) -> None:
    update = an_update()
    before = record(rig, update, REFERENCE)
    patient = rig.create(a_patient(update))
    after = record(rig, update, REFERENCE)
    assert (after.patient, after.record, after.imaging_study) == (patient, before.record, before.imaging_study)
    for reference in (after.record, after.imaging_study):
        assert rig.current(reference)["subject"] == {**logical(update), "reference": patient}


@pytest.mark.parametrize(
    "theirs",
    [
        {"name": [{"family": "Schmidt", "given": ["Jürgen"]}]},
        {"name": [{"text": "Otto Schmidt"}], "birthDate": None},
        {"gender": "female", "birthDate": None, "name": None},
    ],
)
def test_one_value_that_contradicts_holds_and_names_no_value(store: Rig, theirs: Json) -> None:
    update = an_update()
    fields = {key: value for key, value in {**a_patient(update), **theirs}.items() if value is not None}
    store.create(fields)
    for look in (check, record):
        with pytest.raises(Held, match="may be the wrong patient") as error:
            look(store, update)
        assert not any(word in str(error.value) for word in (update.patient_id, "Schmidt", "Müller", "1948", "female"))
    assert nothing_is_recorded(store, update)


@pytest.mark.parametrize(
    "changes",
    [{"patient_name": "", "birth_date": "", "sex": ""}, {"patient_name": "Anonymous", "birth_date": "", "sex": "O"}],
)
def test_where_nothing_can_be_compared_the_job_is_held_or_the_site_takes_the_identifier(
    store: Rig, changes: dict[str, str]
) -> None:
    update = an_update(**changes)
    patient = store.create(a_patient(update, gender="unknown"))
    for look in (check, record):
        with pytest.raises(Held, match=r"set twin\.accept_identifier_alone"):
            look(store, update)
    assert nothing_is_recorded(store, update)
    receipt = record(store, update, ALONE)
    assert receipt.patient == patient
    assert receipt.remarks == (
        "The Patient was found by the identifier alone: there is nothing else to compare with the CT.",
    )


def test_a_merged_patient_is_followed_to_the_one_that_lives_on(rig: Rig) -> None:
    update = an_update()
    other = replace(update, patient_id=f"{update.patient_id}-2")
    survivor = rig.create(a_patient(other))
    middle = rig.create({"resourceType": "Patient", "active": False, "link": merged_into(survivor)})
    rig.create(a_patient(update, active=False, link=merged_into(f"http://elsewhere.example/fhir/{middle}")))
    assert check(rig, update) == ()
    receipt = record(rig, update)
    assert receipt.patient == survivor
    assert rig.current(receipt.record)["subject"]["reference"] == survivor
    bundle = read_record(patient_key(update.patient_id, None, SITE), rig.target)
    assert bundle["entry"][0]["resource"]["id"] == survivor.split("/")[1]


def test_a_survivor_that_keeps_the_old_identifier_is_the_same_patient(rig: Rig) -> None:
    """As HAPI's and Medplum's merges leave it: the old identifier is marked, and the old Patient may still have it."""
    update = an_update()
    key = patient_key(update.patient_id, None, SITE)
    mine, old = {"system": key.system, "value": f"{key.value}-2"}, {"system": key.system, "value": key.value}
    survivor = rig.create(a_patient(update, identifier=[mine, {**old, "use": "old"}]))
    assert record(rig, update).patient == survivor
    rig.create(a_patient(update, active=False, link=merged_into(survivor)))
    assert record(rig, another_study(update)).patient == survivor


def test_a_survivor_that_says_alone_whom_it_replaces_is_followed_too(store: Rig) -> None:
    update = an_update()
    old = store.create(a_patient(update))
    survivor = store.create(a_patient(update, link=[{"other": {"reference": old}, "type": "replaces"}]))
    assert record(store, update).patient == survivor


def test_a_merge_in_a_circle_too_long_or_into_nobody_is_held(store: Rig) -> None:
    circle, endless, gone = an_update(), an_update(), an_update()
    first = store.create(a_patient(circle))
    second = store.create({"resourceType": "Patient", "link": merged_into(first)})
    store.replace({**store.current(first), "link": merged_into(second)})
    for number in range(12, 1, -1):
        store.replace({"resourceType": "Patient", "id": str(number), "link": merged_into(f"Patient/{number - 1}")})
    store.replace({"resourceType": "Patient", "id": "1"})
    store.create(a_patient(endless, link=merged_into("Patient/12")))
    store.create(a_patient(gone, link=merged_into("Patient/nobody")))
    for update, why in ((circle, "in a circle"), (endless, "cannot be followed"), (gone, "one that is not there")):
        for look in (check, record):
            with pytest.raises(Held, match=why):
                look(store, update)
        with pytest.raises(Held, match=why):
            store.target.patient_record(update.patient_id, None)


def test_a_study_of_the_patient_before_the_merge_goes_to_the_survivor(rig: Rig) -> None:
    update = an_update()
    old = rig.create(a_patient(update))
    before = record(rig, update)
    survivor = rig.create(a_patient(replace(update, patient_id=f"{update.patient_id}-2")))
    rig.replace({**rig.current(old), "active": False, "link": merged_into(survivor)})
    rig.replace({**rig.current(survivor), "link": [{"other": {"reference": old}, "type": "replaces"}]})
    corrected = replace(another_study(update), study_uid=update.study_uid, patient_id=f"{update.patient_id}-2")
    assert check(rig, corrected) == ()
    after = record(rig, corrected)
    assert (after.patient, after.record, after.imaging_study) == (survivor, before.record, before.imaging_study)
    for reference in (after.record, after.imaging_study):
        assert rig.current(reference)["subject"]["reference"] == survivor


def test_two_records_of_one_person_are_joined_after_the_merge(rig: Rig) -> None:
    """Each of two registrations of a person had studies of its own before the hospital merged them."""
    update = an_update()
    other = replace(another_study(update), patient_id=f"{update.patient_id}-2")
    old, survivor = rig.create(a_patient(update)), rig.create(a_patient(other))
    first, second = record(rig, update), record(rig, other)
    rig.replace({**rig.current(old), "active": False, "link": merged_into(survivor)})
    rig.replace({**rig.current(survivor), "link": [{"other": {"reference": old}, "type": "replaces"}]})
    third = record(rig, another_study(other))
    lists = [rig.current(first.record), rig.current(second.record)]
    assert sorted(one["status"] for one in lists) == ["current", "entered-in-error"]
    (current,) = (one for one in lists if one["status"] == "current")
    listed = {entry["item"]["reference"] for entry in current["entry"]}
    assert {receipt.imaging_study for receipt in (first, second, third)} <= listed
    assert current["subject"]["reference"] == survivor
    bundle = read_record(patient_key(update.patient_id, None, SITE), rig.target)
    kinds = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    assert (kinds.count("List"), kinds.count("ImagingStudy")) == (1, 3)


def test_a_study_that_names_its_patient_by_identifier_is_compared(rig: Rig) -> None:
    """As dcm4chee and HL7's DICOM SR guide write the subject."""
    update = an_update()
    rig.create(a_patient(update))
    study = rig.create(a_study(update, logical(update)))
    assert record(rig, update).imaging_study == study
    foreign = an_update()
    rig.create(a_patient(foreign))
    rig.create(a_study(foreign, logical(update)))
    for look in (check, record):
        with pytest.raises(Held, match="belongs to another Patient"):
            look(rig, foreign)
    assert nothing_is_recorded(rig, foreign)


def test_a_logical_subject_in_another_system_leads_to_its_patient(store: Rig) -> None:
    update, foreign = an_update(), an_update()
    social = {"system": "urn:oid:2.999.77", "value": "SSN-1"}
    key = {"system": SITE.patient_identifier_system, "value": update.patient_id}
    store.create(a_patient(update, identifier=[key, social]))
    store.create(a_study(update, {"identifier": social}))
    assert check(store, update) == ()
    store.create(a_patient(foreign))
    store.create(a_study(foreign, {"identifier": social}))
    with pytest.raises(Held, match="belongs to another Patient"):
        check(store, foreign)


@pytest.mark.parametrize(
    "subject",
    [{"display": "Müller"}, {"identifier": {"system": "urn:oid:2.999.88", "value": "1"}}, {"reference": "#p"}, {}],
)
def test_a_study_whose_patient_cannot_be_compared_is_held_or_taken_by_the_site(store: Rig, subject: Json) -> None:
    update = an_update()
    store.create(a_patient(update))
    store.create(a_study(update, subject))
    for look in (check, record):
        with pytest.raises(Held, match="cannot be compared"):
            look(store, update)
    assert nothing_is_recorded(store, update)
    assert record(store, update, ALONE).written


def test_a_study_of_a_known_patient_is_not_given_to_an_unknown_one(rig: Rig) -> None:
    """A CT that is sent again under a wrong Patient ID that nobody has."""
    update = an_update()
    rig.create(a_study(update, {"reference": rig.create(a_patient(update))}))
    wrong = replace(update, patient_id=f"{update.patient_id}-wrong")
    for look in (check, record):
        with pytest.raises(Held, match="belongs to another Patient"):
            look(rig, wrong)
    assert nothing_is_recorded(rig, wrong)


def test_the_look_before_the_work_writes_nothing(rig: Rig) -> None:
    update = an_update()
    assert check(rig, update) == ()
    assert nothing_is_recorded(rig, update)
    receipt = record(rig, update)
    assert check(rig, update) == ()
    assert [len(rig.versions(reference)) for reference in (receipt.patient, receipt.record)] == [1, 1]
