"""Single DICOM values become FHIR values, or are left out."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr.codedict import codes
from pydicom.valuerep import PersonName

from twin_record.resources.dicom_values import (
    EN_REPRESENTATION,
    body_site,
    clean_text,
    fhir_date,
    fhir_datetime,
    fhir_time,
    human_names,
    offset_of,
)

pytestmark = pytest.mark.unit


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


def test_a_body_part_without_a_code_is_named_and_an_empty_one_is_not() -> None:
    assert body_site("head") == {
        "system": "http://snomed.info/sct",
        "code": codes.SCT.Head.value,
        "display": codes.SCT.Head.meaning,
    }
    assert body_site("HIPJOINT") == {"display": "HIPJOINT"}
    assert body_site(" ") is None
