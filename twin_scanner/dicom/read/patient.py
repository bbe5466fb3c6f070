"""Whose image it is: patient and study of a CT's header, decoded by its own character set and re-encoded as UTF-8."""

import copy
import logging
from collections.abc import Sequence
from typing import Final

import pydicom.config
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from twin_scanner.dicom.equipment import valid_uid
from twin_scanner.dicom.read.character_set import NAME_DELIMITERS, TEXT_DELIMITERS, decode, defines_more_than_ascii
from twin_scanner.errors import Rejected

log = logging.getLogger(__name__)

CHARACTER_SET: Final = "ISO_IR 192"
"""What we write: UTF-8, every set of a CT fits into it."""
NEVER_ABSENT: Final = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
)
"""Type 2 of Patient and General Study (PS3.3 C.7.1.1, C.7.2.1): empty where the CT has nothing, never invented."""
COPIED_WHERE_PRESENT: Final = (
    "TimezoneOffsetFromUTC",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "PatientBirthTime",
    "OtherPatientIDs",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsibleOrganization",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
    "QualityControlSubject",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
)
"""What a PACS files by or shows beside the study (types 1C and 3); a CT's empty one is left out."""

_TEXT_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_ASCII_VRS: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
_REPLACEMENT: Final = "\ufffd"


def patient_and_study(header: Dataset) -> Dataset:
    """A new data set with the patient and the study of ``header``, its texts in Unicode (written as ISO_IR 192).

    Best given a header as read from the file: pydicom decodes an attribute when it is first looked at, and then only
    its own reading of the bytes is left. A CT without PatientID gives an empty one: the PACS files both alike.
    Raises Rejected, naming the attribute and never its value, for a text that the declared character set does not
    define and for a StudyInstanceUID that is none.
    """
    terms = character_set_terms(header)
    result = Dataset()
    result.SpecificCharacterSet = CHARACTER_SET
    for keyword in (*NEVER_ABSENT, *COPIED_WHERE_PRESENT):
        _copy(header, Tag(_tag(keyword)), result, terms)
    for keyword in COPIED_WHERE_PRESENT:
        if keyword in result and result[keyword].is_empty:
            del result[keyword]
    for keyword in NEVER_ABSENT:
        if keyword not in result:
            result.add(DataElement(_tag(keyword), dictionary_VR(keyword), ""))
    result.StudyInstanceUID = required_uid(header, "StudyInstanceUID")
    return result


def text(header: Dataset, keyword: str) -> str:
    """One attribute's text in Unicode, several values joined by a backslash, empty where it is absent.

    Raises Rejected as ``patient_and_study`` does.
    """
    return _string(header, Tag(_tag(keyword)), character_set_terms(header))


def required_uid(header: Dataset, keyword: str) -> str:
    """A UID of the CT; raises Rejected where it is absent or no UID."""
    uid = text(header, keyword)
    if not valid_uid(uid):
        raise Rejected(f"{keyword} of the CT is missing or is no UID: correct the sender.")
    return uid


def character_set_terms(dataset: Dataset, inherited: Sequence[str] = ()) -> tuple[str, ...]:
    """The values of SpecificCharacterSet; an item of a sequence without it takes its parent's (PS3.5 7.5.3)."""
    if "SpecificCharacterSet" not in dataset:
        return tuple(inherited)
    value = dataset.SpecificCharacterSet
    return tuple(str(term) for term in value) if isinstance(value, (list, tuple, MultiValue)) else (str(value or ""),)


def reencoded_item(item: Dataset, inherited: Sequence[str] = ()) -> Dataset:
    """A copy of a sequence's item in Unicode, without private attributes and without a character set of its own."""
    terms = character_set_terms(item, inherited)
    result = Dataset()
    for tag in sorted(item.keys()):
        if not tag.is_private and tag.element != 0 and tag != _tag("SpecificCharacterSet"):
            _copy(item, tag, result, terms)
    return result


def _copy(source: Dataset, tag: BaseTag, target: Dataset, terms: Sequence[str]) -> None:
    if tag not in source:
        return
    vr = _vr(source.get_item(tag))
    if vr == "SQ":
        items = [reencoded_item(item, terms) for item in source[tag].value or []]
        target.add(DataElement(tag, "SQ", items))
    elif vr in _TEXT_VRS or vr in _ASCII_VRS:
        try:
            target.add(DataElement(tag, vr, _string(source, tag, terms), validation_mode=pydicom.config.IGNORE))
        except (ValueError, TypeError, OverflowError):
            log.warning("%s of the CT is no number: the PET leaves it out.", keyword_for_tag(tag))
    else:
        target.add(copy.deepcopy(source[tag]))


def _string(dataset: Dataset, tag: BaseTag, terms: Sequence[str]) -> str:
    if tag not in dataset:
        return ""
    element = dataset.get_item(tag)
    if element.value is None:
        return ""
    vr = _vr(element)
    allowed = terms if vr in _TEXT_VRS else ()
    try:
        if isinstance(element.value, bytes):
            delimiters = NAME_DELIMITERS if vr == "PN" else TEXT_DELIMITERS
            result = decode(element.value.rstrip(b" \x00"), allowed, delimiters)
        else:
            result = _checked(element.value, allowed)
    except UnicodeError as error:
        declared = "\\".join(terms) or "absent, so ASCII"
        raise Rejected(
            f"{keyword_for_tag(tag)} holds characters that the CT's SpecificCharacterSet ({declared}) does not define: "
            "correct the character set at the sender."
        ) from error
    return result if vr in _TEXT_VRS else result.strip()


def _checked(value: object, terms: Sequence[str]) -> str:
    """The text of a value that pydicom has decoded, unless it was decoded by guessing."""
    parts = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    result = "\\".join(str(part) for part in parts)
    if _REPLACEMENT in result or not (result.isascii() or defines_more_than_ascii(terms)):
        raise UnicodeError("decoded with replacement characters")
    return result.rstrip(" \x00")


def _vr(element: DataElement | RawDataElement) -> str:
    if element.VR in (None, "UN"):
        try:
            return dictionary_VR(element.tag)
        except KeyError:
            return "UN"
    return str(element.VR)


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag
