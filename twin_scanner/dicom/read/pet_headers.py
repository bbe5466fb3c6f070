"""The header of a PET slice: that it was acquired and shows activity, and the attributes its SUV follows from."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime, time
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from pydicom.dataset import Dataset
from pydicom.valuerep import DT, TM

from twin_scanner.dicom.equipment import MANUFACTURER
from twin_scanner.dicom.read.ct_headers import HEADER_KEYWORDS
from twin_scanner.dicom.read.dicom_files import UNREADABLE
from twin_scanner.dicom.read.slice_headers import (
    REFORMATS,
    ImageSlice,
    check_faithful,
    checked_slice,
    image_type,
    is_given,
    name_of,
    numbers,
    required,
    sequence_items,
    shown,
    text,
)
from twin_scanner.errors import Rejected
from twin_scanner.imaging.suv import NO_FACTORS, PetAttributes, PhilipsFactors

_Value = TypeVar("_Value")

PET_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.128"
"""Positron Emission Tomography Image Storage, single-frame; no scanner in clinical use sends enhanced PET."""
ENHANCED_PET: Final = frozenset({"1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.128.1"})
"""Multi-frame PET, acquired so or converted: their attributes lie in functional groups, and none of them is read."""
PHILIPS_CREATOR: Final = "Philips PET Private Group"
PHILIPS_GROUP: Final = 0x7053
_SUV_SCALE_FACTOR: Final = 0x00
_ACTIVITY_SCALE_FACTOR: Final = 0x09
PET_KEYWORDS: Final = (
    *HEADER_KEYWORDS,
    "Manufacturer",
    "ContributingEquipmentSequence",
    "SeriesType",
    "CountsSource",
    "Units",
    "SUVType",
    "CorrectedImage",
    "DecayCorrection",
    "SeriesDate",
    "SeriesTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "TimezoneOffsetFromUTC",
    "PatientWeight",
    "RadiopharmaceuticalInformationSequence",
    "70530010",
    "70531000",
    "70531009",
)
"""All that choosing and reading a PET look at, CT included: a study's headers are read with these."""
SCANNER_MAKERS: Final = (
    "SIEMENS",
    "CPS",
    "CTI",
    "GE MEDICAL",
    "GE HEALTHCARE",
    "PHILIPS",
    "CANON",
    "TOSHIBA",
    "UIH",
    "UNITED IMAGING",
    "HITACHI",
    "SHIMADZU",
    "MEDISO",
    "NEUSOFT",
    "MINFOUND",
)
"""How Manufacturer begins on PET scanners. Their own DERIVED images are reconstructions or were recompressed; what any
other software derived may be filtered, fused or synthetic."""
NOT_STATIC: Final = frozenset({"DYNAMIC", "GATED"})
"""SeriesType, value 1 (PS3.3 C.8.9.1.1.1): several images of one place."""


def is_pet(header: Dataset) -> bool:
    """Whether the object is a single-frame PET image."""
    return text(header, "SOPClassUID") == PET_IMAGE and text(header, "Modality") in ("PT", "")


def pet_slice(header: Dataset, file: Path, *, accept_synthetic: bool = False) -> ImageSlice:
    """Check one PET image's header (read with PET_KEYWORDS).

    Raises Rejected, naming the slice and the attribute, for what is missing or impossible, and for what no scanner
    measured: SyntheticData YES (unless ``accept_synthetic``, for phantoms), our own product (always), or DERIVED by
    unknown software.
    """
    return checked_slice(header, file, None, partial(_check_content, accept_synthetic=accept_synthetic))


def attributes_of(slices: Sequence[ImageSlice]) -> PetAttributes:
    """What the slices of one series say together; raises Rejected where they disagree or a value is unreadable."""
    first = slices[0]
    shared = _shared_attributes(first.header)
    for image in slices[1:]:
        own = _shared_attributes(image.header)
        if own != shared:
            raise Rejected(
                f"{_difference(own, shared)} of {image.name} is not that of {first.name}: send each series by itself."
            )
    started = [_moment(image.header, "Acquisition", image.name) for image in slices]
    known = [moment for moment in started if moment is not None]
    if len(known) < len(started):
        return shared
    return replace(shared, first_acquisition=min(known), last_acquisition=max(known))


def philips_factors(header: Dataset) -> PhilipsFactors:
    """Philips' private scale factors of a slice, from the block that their creator reserved (PS3.5 7.8.1), if any."""
    try:
        block = header.private_block(PHILIPS_GROUP, PHILIPS_CREATOR)
    except UNREADABLE:
        return NO_FACTORS
    return PhilipsFactors(
        *(
            _private_number(header, block.get_tag(offset), name_of(header))
            for offset in (_SUV_SCALE_FACTOR, _ACTIVITY_SCALE_FACTOR)
        )
    )


def _private_number(header: Dataset, tag: int, name: str) -> float | None:
    if tag not in header:
        return None
    try:
        value = header[tag].value
        return float(value.decode("ascii").strip(" \x00") if isinstance(value, bytes) else value)
    except UNREADABLE as error:
        element = f"({PHILIPS_GROUP:04x},{tag & 0xFFFF:04x})"
        raise Rejected(f"{element} of {name} is not a number: correct the sender.") from error


def _check_content(header: Dataset, name: str, *, accept_synthetic: bool) -> None:
    _check_measured(header, name, accept_synthetic)
    required(header, "ImageType", name)
    kinds = image_type(header)
    kind = shown("\\".join(text(header, "ImageType").split("\\")[:4]))
    if "SECONDARY" in kinds[1:2] or any(term in REFORMATS for term in kinds[2:]):
        raise Rejected(f"ImageType of {name} is {kind}, no slice as it was reconstructed: send the original series.")
    if kinds[0] == "DERIVED" and not text(header, "Manufacturer").upper().startswith(SCANNER_MAKERS):
        raise Rejected(
            f"ImageType of {name} is {kind} by a Manufacturer that is no known maker of PET scanners: send the "
            "original series."
        )
    series_type = text(header, "SeriesType").upper().split("\\")[0]
    if series_type in NOT_STATIC:
        raise Rejected(f"SeriesType of {name} is {series_type}: send the static or whole-body series.")
    if text(header, "CountsSource").upper() == "TRANSMISSION":
        raise Rejected(f"CountsSource of {name} is TRANSMISSION: send the emission series.")
    check_faithful(header, name, "activities are")


def _check_measured(header: Dataset, name: str, accept_synthetic: bool) -> None:
    makers = [text(header, "Manufacturer")]
    makers += [text(item, "Manufacturer") for item in sequence_items(header, "ContributingEquipmentSequence", name)]
    if MANUFACTURER in makers:
        raise Rejected(f"Manufacturer of {name} is {MANUFACTURER}, so it is a synthetic PET: send acquired PET.")
    if text(header, "SyntheticData").upper() == "YES" and not accept_synthetic:
        raise Rejected(f"SyntheticData of {name} is YES, so it is no patient's scan: send acquired PET.")


def _shared_attributes(header: Dataset) -> PetAttributes:
    """All that is one for the series; the acquisition's time is each slice's own."""
    name = name_of(header)
    isotope = _isotope(header, name)
    return PetAttributes(
        units=text(header, "Units").upper(),
        decay_correction=text(header, "DecayCorrection").upper(),
        corrected_image=tuple(part.strip() for part in text(header, "CorrectedImage").upper().split("\\")),
        suv_type=text(header, "SUVType").upper(),
        weight_kg=_number(header, "PatientWeight"),
        dose_bq=_number(isotope, "RadionuclideTotalDose"),
        half_life_s=_number(isotope, "RadionuclideHalfLife"),
        injected_at=_injected_at(header, isotope, name),
        injection_clock=_parsed(isotope, "RadiopharmaceuticalStartTime", _clock, name),
        series_start=_moment(header, "Series", name),
    )


_KEYWORDS: Final = {
    "units": "Units",
    "decay_correction": "DecayCorrection",
    "corrected_image": "CorrectedImage",
    "suv_type": "SUVType",
    "weight_kg": "PatientWeight",
    "dose_bq": "RadionuclideTotalDose",
    "half_life_s": "RadionuclideHalfLife",
    "injected_at": "RadiopharmaceuticalStartDateTime",
    "injection_clock": "RadiopharmaceuticalStartTime",
    "series_start": "SeriesTime (with SeriesDate)",
}


def _difference(one: PetAttributes, other: PetAttributes) -> str:
    return next(keyword for field, keyword in _KEYWORDS.items() if getattr(one, field) != getattr(other, field))


def _isotope(header: Dataset, name: str) -> Dataset:
    items = sequence_items(header, "RadiopharmaceuticalInformationSequence", name)
    if len(items) > 1:
        raise Rejected(
            f"RadiopharmaceuticalInformationSequence of {name} names {len(items)} radiopharmaceuticals: send a PET of "
            "one."
        )
    return items[0] if items else Dataset()


def _number(header: Dataset, keyword: str) -> float | None:
    """A positive number; None where it is absent, empty or 0, which stands for unknown."""
    if not is_given(header, keyword) or not text(header, keyword):
        return None
    (value,) = numbers(header, keyword, 1)
    if value < 0:
        raise Rejected(f"{keyword} of {name_of(header)} is negative: correct the sender.")
    return value or None


def _injected_at(header: Dataset, isotope: Dataset, name: str) -> datetime | None:
    """RadiopharmaceuticalStartDateTime in the scanner's local time, in which dates and times of series are written."""
    moment = _parsed(isotope, "RadiopharmaceuticalStartDateTime", _date_time, name)
    if moment is None or moment.tzinfo is None:
        return moment
    local = _parsed(header, "TimezoneOffsetFromUTC", lambda offset: datetime.strptime(offset, "%z"), name)
    return (moment if local is None else moment.astimezone(local.tzinfo)).replace(tzinfo=None)


def _moment(header: Dataset, event: str, name: str) -> datetime | None:
    """The date and time of an event ("Series", "Acquisition"), None where one of them is missing."""
    day, clock = text(header, f"{event}Date"), text(header, f"{event}Time")
    if day and clock:
        keyword = f"{event}Time (with {event}Date)"
        return datetime.combine(_parsed_text(day, keyword, _day, name), _parsed_text(clock, keyword, _clock, name))
    moment = _parsed(header, f"{event}DateTime", _date_time, name) if event == "Acquisition" else None
    return None if moment is None else moment.replace(tzinfo=None)


def _parsed(header: Dataset, keyword: str, parse: Callable[[str], _Value], name: str) -> _Value | None:
    written = text(header, keyword)
    return _parsed_text(written, keyword, parse, name) if written else None


def _parsed_text(written: str, keyword: str, parse: Callable[[str], _Value], name: str) -> _Value:
    try:
        return parse(written)
    except UNREADABLE as error:
        raise Rejected(f"{keyword} of {name} is no date and time: correct the sender.") from error


def _day(written: str) -> date:
    """DA, also with the dots of ACR-NEMA (PS3.5 6.2)."""
    return datetime.strptime(written.replace(".", ""), "%Y%m%d").date()


def _clock(written: str) -> time:
    """TM, also with the colons of ACR-NEMA (PS3.5 6.2)."""
    parsed = TM(written.replace(":", ""))
    return time(parsed.hour, parsed.minute, parsed.second, parsed.microsecond)


def _date_time(written: str) -> datetime:
    """DT; one without a time of day is none, for hours count here."""
    parsed = DT(written)
    if len(written) < len("YYYYMMDDHHMM"):
        raise ValueError("no time of day")
    return datetime.combine(parsed.date(), parsed.timetz())
