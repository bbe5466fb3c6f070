"""Single DICOM values as FHIR data types: text, person names, dates, times with a zone, sex, body parts."""

import re
from datetime import date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from pydicom.sr.coding import Code

from twin_record.resources.codes import DCM_SYSTEM
from twin_scanner.dicom.body_parts import BODY_PARTS

EN_REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
GROUP_CODES = ("ABC", "IDE", "SYL")
"""PN's component groups in order (PS3.5 section 6.2.1.2) in ISO 21090's codes: alphabetic, ideographic, syllabic."""

LARGEST_OFFSET = timedelta(hours=14)
SMALLEST_OFFSET = timedelta(hours=-12)
"""The range of TimezoneOffsetFromUTC, PS3.3 section C.12.1.1.8."""

CODE_SYSTEMS = {"DCM": DCM_SYSTEM, "LN": "http://loinc.org", "SCT": "http://snomed.info/sct"}
"""Coding scheme designators (PS3.16 section 8) by their URI in FHIR."""

GENDERS = {"M": "male", "F": "female", "O": "other"}


def clean_text(text: str) -> str:
    """The text as a FHIR string: no control characters, no lone surrogates, no padding; may be empty."""
    printable = "".join(" " if ord(character) < 32 or ord(character) == 127 else character for character in text)
    return printable.encode("utf-8", "replace").decode("utf-8").strip()


def human_names(person_name: str) -> list[dict[str, Any]]:
    """FHIR HumanNames of a DICOM PN, one for each component group that holds something.

    A PN is family^given^middle^prefix^suffix, up to three groups joined by "=". The middle name follows the given
    name in `given`. Where there is more than the alphabetic group, each carries the EN representation extension.
    """
    groups = [_human_name(group) for group in person_name.split("=")[:3]]
    plain = bool(groups[0]) and not any(groups[1:])
    names = []
    for code, name in zip(GROUP_CODES, groups, strict=False):
        if name:
            marked = {} if plain else {"extension": [{"url": EN_REPRESENTATION, "valueCode": code}]}
            names.append({**marked, "use": "official", **name})
    return names


def _human_name(group: str) -> dict[str, Any]:
    parts = [clean_text(part) for part in group.split("^")]
    family, given, middle, prefix, suffix = (*parts, "", "", "", "", "")[:5]
    name: dict[str, Any] = {"family": family, "given": [part for part in (given, middle) if part]}
    name |= {"prefix": [prefix] if prefix else [], "suffix": [suffix] if suffix else []}
    return {key: value for key, value in name.items() if value}


def fhir_gender(sex: str) -> str | None:
    """FHIR administrative gender of PatientSex; None where the CT does not say."""
    return GENDERS.get(sex.strip().upper())


def fhir_date(dicom_date: str) -> str | None:
    """YYYY-MM-DD of a DICOM DA (PS3.5 section 6.2), None where it is empty or no date."""
    if not re.fullmatch(r"[0-9]{8}", text := dicom_date.strip(" \0")):
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:])).isoformat()
    except ValueError:
        return None


def fhir_time(dicom_time: str) -> str | None:
    """HH:MM:SS[.ffffff] of a DICOM TM; None where it is empty, no time, or only an hour, which FHIR cannot say."""
    match = re.fullmatch(r"([01][0-9]|2[0-3])([0-5][0-9])([0-5][0-9](\.[0-9]{1,6})?)?", dicom_time.strip(" \0"))
    return f"{match[1]}:{match[2]}:{match[3] or '00'}" if match else None


def offset_of(timezone_offset: str | None) -> timezone | None:
    """The zone of a DICOM TimezoneOffsetFromUTC such as "+0100", None where it is missing or wrong."""
    match = re.fullmatch(r"([+-])([0-9]{2})([0-5][0-9])", (timezone_offset or "").strip(" \0"))
    if match is None:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3])) * (-1 if match[1] == "-" else 1)
    return timezone(offset) if SMALLEST_OFFSET <= offset <= LARGEST_OFFSET else None


def fhir_datetime(dicom_date: str, dicom_time: str, timezone_offset: str | None, site_zone: str | None) -> str | None:
    """A FHIR dateTime: with its time only where a zone is known (the offset, else the site's), else the date alone."""
    day, clock = fhir_date(dicom_date), fhir_time(dicom_time)
    zone = offset_of(timezone_offset) or (ZoneInfo(site_zone) if site_zone else None)
    if day is None or clock is None or zone is None:
        return day
    return datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=zone).isoformat()


def body_site(body_part_examined: str) -> dict[str, str] | None:
    """A Coding for BodyPartExamined; None where the series does not say."""
    part = clean_text(body_part_examined).upper()
    if not part:
        return None
    return coding_of(BODY_PARTS[part]) if part in BODY_PARTS else {"display": part}


def coding_of(code: Code) -> dict[str, str] | None:
    """A DICOM code as a FHIR Coding; None where its scheme has no URI in FHIR."""
    if code.scheme_designator not in CODE_SYSTEMS:
        return None
    return {"system": CODE_SYSTEMS[code.scheme_designator], "code": code.value, "display": code.meaning}


def concept_of(code: Code, text: str = "") -> dict[str, Any]:
    """A DICOM code as a FHIR CodeableConcept, with a text; of a scheme without URI in FHIR the text alone."""
    coding = coding_of(code)
    return {"coding": [coding] if coding else [], "text": clean_text(text or code.meaning)}
