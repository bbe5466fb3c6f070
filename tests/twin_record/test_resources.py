"""A twin update becomes R4 resources that two validators accept and that say what the CT said."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr.codedict import codes
from pydicom.valuerep import PersonName

from tests.conftest import missing
from tests.peers.fhir_server import r4_schema_path
from tests.peers.r4_schema import schema_faults
from tests.samples.twin_updates import SITE, a_series, an_update
from twin_record.dicom_values import (
    BODY_SITES,
    EN_REPRESENTATION,
    body_site,
    clean_text,
    fhir_date,
    fhir_datetime,
    fhir_time,
    human_names,
    offset_of,
)
from twin_record.merging import merged_study
from twin_record.resources import (
    AIAST,
    INLINE_LABEL_EXTENSION,
    Resource,
    new_device,
    new_patient,
    new_provenance,
    new_record,
    new_study,
    patient_key,
    provenance_id,
    record_value,
    remarks_on,
)
from twin_record.update import SeriesEntry, TwinSite, TwinUpdate
from twin_scanner.errors import Defect, Rejected

pytestmark = pytest.mark.unit


def all_resources(update: TwinUpdate, site: TwinSite = SITE) -> list[Resource]:
    """Every resource an update makes, referring to each other as in a first transaction."""
    placeholders = [f"urn:uuid:00000000-0000-0000-0000-00000000000{n}" for n in range(4)]
    patient, study, device, record = placeholders
    provenance = f"Provenance/{provenance_id(update.pet_series.series_uid)}"
    return [
        new_patient(update, site),
        new_device(update),
        new_study(update, site, patient, device),
        new_record(update, site, patient, study, provenance),
        new_provenance(update, study, record, device),
    ]


UPDATES = {
    "complete": an_update(),
    "almost empty": an_update(
        patient_name="",
        birth_date="",
        sex="",
        accession_number="",
        study_description="",
        study_date="",
        study_time="",
        timezone_offset=None,
        source_series=a_series("CT", description="", number=None, body_part_examined=""),
    ),
    "three scripts": an_update(patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう", issuer_of_patient_id="ELSEWHERE"),
    "enhanced CT": an_update(source_series=a_series("CT", instances=1, body_part_examined="EXTREMITY", number=-1)),
    "a replacement": an_update(missing_districts=("legs", "arms"), replaces_series_uids=("2.25.1", "2.25.2")),
}


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_every_resource_is_valid_in_the_model_and_in_r4s_own_schema(update: TwinUpdate) -> None:
    """Two independent validators: fhir.resources' R4B models and the JSON schema that HL7 publishes with R4."""
    if r4_schema_path() is None:
        missing("the R4 server with its schema (tests/peers/fhir-r4-server/node_modules)")
    for resource in all_resources(update):
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
        assert schema_faults(resource) == []


def test_the_schema_gate_sees_a_wrong_field_and_a_missing_one() -> None:
    if r4_schema_path() is None:
        missing("the R4 server with its schema (tests/peers/fhir-r4-server/node_modules)")
    study = all_resources(an_update())[2]
    assert schema_faults({**study, "endpointt": []})
    assert schema_faults({key: part for key, part in study.items() if key != "subject"})
    assert schema_faults({**study, "started": "2026-03-04T04:15:02"}), "a time needs a zone"


NAMES: dict[str, list[dict[str, Any]]] = {
    "": [],
    "^^^^": [],
    "==": [],
    "Müller^Jürgen": [{"use": "official", "family": "Müller", "given": ["Jürgen"]}],
    "Adams^John Robert Quincy^^Rev.^B.A. M.Div.": [
        {
            "use": "official",
            "family": "Adams",
            "given": ["John Robert Quincy"],
            "prefix": ["Rev."],
            "suffix": ["B.A. M.Div."],
        }
    ],
    "Morrison-Jones^Susan^Ann^^Ph.D.": [
        {"use": "official", "family": "Morrison-Jones", "given": ["Susan", "Ann"], "suffix": ["Ph.D."]}
    ],
    "^Tom": [{"use": "official", "given": ["Tom"]}],
    "Doe, John": [{"use": "official", "family": "Doe, John"}],
}


@pytest.mark.parametrize("person_name", NAMES)
def test_a_name_is_split_as_ps3_5_section_6_2_1_1_reads_it(person_name: str) -> None:
    assert human_names(person_name) == NAMES[person_name]


def test_component_groups_become_names_marked_with_their_representation() -> None:
    """The example of PS3.5 section H.3.1."""
    names = human_names("Yamada^Tarou=山田^太郎=やまだ^たろう")
    assert [name["extension"] for name in names] == [
        [{"url": EN_REPRESENTATION, "valueCode": code}] for code in ("ABC", "IDE", "SYL")
    ]
    assert [name["family"] for name in names] == ["Yamada", "山田", "やまだ"]
    assert [name["given"] for name in names] == [["Tarou"], ["太郎"], ["たろう"]]
    assert [name["extension"][0]["valueCode"] for name in human_names("=洪^吉洞")] == ["IDE"]


PN_PART = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="^=\\"), max_size=8)


@given(st.lists(st.lists(PN_PART, min_size=5, max_size=5), min_size=1, max_size=3))
def test_a_name_survives_the_way_into_fhir_and_back(groups: list[list[str]]) -> None:
    """Oracle: pydicom's own reading of the PN. A middle name without a given name is the one thing that moves."""
    person_name = "=".join("^".join(parts) for parts in groups)
    by_code = {"ABC": "", "IDE": "", "SYL": ""}
    for name in human_names(person_name):
        given = name.get("given", [])
        parts = [name.get("family", ""), *[*given, "", ""][:2]]
        parts += [name.get(key, [""])[0] for key in ("prefix", "suffix")]
        code = name["extension"][0]["valueCode"] if "extension" in name else "ABC"
        by_code[code] = "^".join(parts)
    back, original = PersonName("=".join(by_code.values())), PersonName(person_name)
    assert (back.family_name, back.name_prefix, back.name_suffix) == (
        original.family_name,
        original.name_prefix,
        original.name_suffix,
    )
    given = [part for part in (original.given_name, original.middle_name) if part]
    assert [part for part in (back.given_name, back.middle_name) if part] == given
    for component in ("ideographic", "phonetic"):
        assert [p for p in getattr(back, component).split("^") if p] == [
            p for p in getattr(original, component).split("^") if p
        ]


@given(st.text())
def test_any_text_becomes_a_fhir_string(text: str) -> None:
    """FHIR R4 string: no control characters, no leading or trailing space; JSON in UTF-8 must take it."""
    cleaned = clean_text(text)
    assert cleaned == cleaned.strip()
    assert not any(ord(character) < 32 for character in cleaned)
    cleaned.encode("utf-8")


@pytest.mark.parametrize(
    ("dicom", "expected"),
    [
        ("19480229", "1948-02-29"),
        ("19490229", None),
        ("1948.02.29", None),
        ("194802", None),
        ("", None),
        ("00000000", None),
        ("19480229 ", "1948-02-29"),
        ("１９４８０２２９", None),
    ],
)
def test_a_date_is_valid_or_left_out(dicom: str, expected: str | None) -> None:
    assert fhir_date(dicom) == expected


@pytest.mark.parametrize(
    ("dicom", "expected"),
    [
        ("041502.25", "04:15:02.25"),
        ("0415", "04:15:00"),
        ("04", None),
        ("2400", None),
        ("235960", None),
        ("04:15:02", None),
        ("", None),
    ],
)
def test_a_time_is_valid_or_left_out(dicom: str, expected: str | None) -> None:
    """An hour alone is a DICOM TM, but FHIR cannot say it without inventing minutes."""
    assert fhir_time(dicom) == expected


@pytest.mark.parametrize(
    ("offset", "zone", "time", "expected"),
    [
        ("+0530", "Europe/Rome", "041502", "2026-07-04T04:15:02+05:30"),
        ("-0330", None, "041502", "2026-07-04T04:15:02-03:30"),
        (None, "Europe/Rome", "041502", "2026-07-04T04:15:02+02:00"),
        ("+9900", "Europe/Rome", "041502", "2026-07-04T04:15:02+02:00"),
        (None, None, "041502", "2026-07-04"),
        (None, "Europe/Rome", "", "2026-07-04"),
    ],
)
def test_a_time_is_said_only_with_a_zone(offset: str | None, zone: str | None, time: str, expected: str) -> None:
    """FHIR R4 datatypes: where hours are given a zone shall be given; summer time in Rome is +02:00."""
    assert fhir_datetime("20260704", time, offset, zone) == expected


def test_offsets_reach_from_minus_twelve_to_plus_fourteen_hours() -> None:
    """PS3.3 section C.12.1.1.8."""
    for text, hours in (("-1200", -12), ("+1400", 14), ("+0000", 0)):
        zone = offset_of(text)
        assert zone is not None
        assert zone.utcoffset(None) == timedelta(hours=hours)
    assert [offset_of(text) for text in ("-1201", "+1401", "0100", "+01:00", "", None)] == [None] * 6


def test_body_parts_have_the_codes_of_the_standards_table() -> None:
    """Oracle: pydicom's copy of the SNOMED CT codes that PS3.16 uses."""
    names = {
        "ABDOMEN": codes.SCT.Abdomen,
        "CHEST": codes.SCT.Chest,
        "HEAD": codes.SCT.Head,
        "HEADNECK": codes.SCT.HeadAndNeck,
        "NECK": codes.SCT.Neck,
        "PELVIS": codes.SCT.Pelvis,
        "WHOLEBODY": codes.SCT.EntireBody,
    }
    assert {part: code for part, (code, _) in BODY_SITES.items()} == {part: code.value for part, code in names.items()}
    assert body_site("EXTREMITY") == {"display": "EXTREMITY"}
    assert body_site(" ") is None


def test_equal_ids_of_two_issuers_are_two_patients() -> None:
    keys = [patient_key("4711", issuer, SITE) for issuer in (None, "HOSPITAL", "ELSEWHERE", "A THIRD")]
    assert len({key.system for key in keys}) == 4
    assert len({record_value(key) for key in keys}) == 4
    assert [key.system for key in keys[:2]] == ["urn:oid:2.999.1", "urn:oid:2.999.2"]
    assert keys[2].identifier()["assigner"] == {"display": "ELSEWHERE"}
    assert patient_key(" 4711 ", "", SITE) == keys[0], "padding and an empty issuer mean nothing in DICOM"


def test_the_records_identifier_does_not_show_the_patient_id() -> None:
    assert "4711" not in record_value(patient_key("4711", None, SITE)).split("-")


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


def test_the_device_says_only_what_belongs_to_the_model() -> None:
    """One Device a model version: another node, segmenter or release must not change it."""
    update = an_update()
    other = an_update(model_name=update.model_name, model_hash=update.model_hash, plan_hash=update.plan_hash)
    assert new_device(update) == new_device(other)


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
    patient = new_patient(update, SITE)
    assert "birthDate" not in patient
    assert "gender" not in patient
    assert "started" not in new_study(update, SITE, "Patient/1", "Device/2")
    assert remarks_on(an_update(birth_date="", sex="", study_time="", timezone_offset=None), SITE) == ()


def test_a_uid_that_fhir_cannot_take_is_rejected_without_its_value() -> None:
    update = an_update(source_series=a_series("CT", series_uid="1.2.3_4711"))
    with pytest.raises(Rejected, match=r"valid FHIR ImagingStudy: correct its .*series") as error:
        new_study(update, SITE, "Patient/1", "Device/2")
    assert "4711" not in str(error.value)


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


@pytest.mark.parametrize("system", ["hospital", "", "urn:oid:1 2", "urn:x|y"])
def test_a_site_with_a_system_that_is_no_uri_is_rejected(system: str) -> None:
    with pytest.raises(Rejected, match="is no URI"):
        TwinSite(patient_identifier_system=system)


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "../etc/passwd", ""])
def test_a_site_with_an_unknown_zone_is_rejected(zone: str) -> None:
    with pytest.raises(Rejected, match="no IANA time zone"):
        TwinSite(patient_identifier_system="urn:oid:2.999.1", zone=zone)


def companions() -> tuple[SeriesEntry, ...]:
    """Districts of a rule-based segmenter, and what was measured on the synthetic PET."""
    return (
        a_series("SEG", instances=1, description="RESEARCH districts"),
        a_series("SR", instances=1, description="SYNTHETIC FDG-PET, SUV by district", asserted_by_ai=True),
    )


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


def test_a_companion_cannot_replace_itself() -> None:
    (seg, report) = companions()
    with pytest.raises(Defect, match="its own series"):
        an_update(companion_series=(seg, report), replaces_companion_uids=(seg.series_uid,))
