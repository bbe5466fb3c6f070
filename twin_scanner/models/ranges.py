"""Of which patients and CTs the training data were: the ranges that a card may state, and what lies outside of them."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, TypeAlias

from pydicom.dataset import Dataset

from twin_scanner.dicom.read.patient import text
from twin_scanner.imaging.volume import Geometry

Range: TypeAlias = tuple[float, float]
TOLERANCE: Final = 0.01
"""Of a bound: headers round spacings, and a table moves in steps."""
DAYS_PER_YEAR: Final = 365.25
_YEARS_PER: Final = {"D": 1 / DAYS_PER_YEAR, "W": 7 / DAYS_PER_YEAR, "M": 1 / 12, "Y": 1.0}
_AGE: Final = re.compile(r"(\d{3})([DWMY])")
"""An age string (PS3.5 table 6.2-1)."""


@dataclass(frozen=True)
class CtFacts:
    """What ranges are compared with; None where it is not known.

    ``field_of_view_mm`` is the longer edge of a slice, ``coverage_mm`` the length along the body that the slices cover.
    """

    age_years: float | None
    field_of_view_mm: float | None = None
    coverage_mm: float | None = None
    pixel_spacing_mm: float | None = None
    slice_spacing_mm: float | None = None


UNKNOWN: Final = CtFacts(None)
_NAMES: Final = {
    "age_years": ("patient's age", "years"),
    "field_of_view_mm": ("field of view", "mm"),
    "coverage_mm": ("coverage along the body", "mm"),
    "pixel_spacing_mm": ("pixel spacing", "mm"),
    "slice_spacing_mm": ("slice spacing", "mm"),
}


def ct_facts(header: Dataset, geometry: Geometry) -> CtFacts:
    """The facts of a CT whose slices lie on this grid."""
    return CtFacts(age_of(header), *extent_facts(geometry))


def extent_facts(geometry: Geometry) -> tuple[float, float, float, float]:
    """Field of view, coverage, pixel spacing and slice spacing (mm) of a grid whose first axis runs along the body."""
    slice_mm, *pixel_mm = geometry.spacing_mm
    slices, *pixels = geometry.shape
    field_of_view_mm = max(spacing * count for spacing, count in zip(pixel_mm, pixels, strict=True))
    return field_of_view_mm, slice_mm * slices, max(pixel_mm), slice_mm


def age_of(header: Dataset) -> float | None:
    """The patient's age in completed years at the examination; None where PatientAge and the dates do not say it."""
    stated = _AGE.fullmatch(text(header, "PatientAge").strip(" \0"))
    if stated is not None:
        return math.floor(int(stated[1]) * _YEARS_PER[stated[2]])
    birth, study = _date(header, "PatientBirthDate"), _date(header, "StudyDate")
    if birth is None or study is None or study < birth:
        return None
    return math.floor((study - birth).days / DAYS_PER_YEAR)


def ranges_of(training_data: Mapping[str, Any]) -> dict[str, Range]:
    """The ranges that a card's training data state; raises ValueError where one is no range of a known fact."""
    stated = training_data.get("ranges") or {}
    known = {field.name for field in fields(CtFacts)}
    if not isinstance(stated, dict) or not set(stated) <= known:
        raise ValueError(f"ranges are of {', '.join(sorted(known))}")
    return {name: _range(name, bounds) for name, bounds in stated.items()}


def outside_of(ranges: Mapping[str, Range], facts: CtFacts) -> tuple[str, ...]:
    """A clause for each range that a CT is outside of, or is not known to be in; an age is not repeated."""
    clauses = []
    for name, (low, high) in ranges.items():
        what, unit = _NAMES[name]
        value, trained_on = getattr(facts, name), f"the training data have {low:g} to {high:g} {unit}"
        if value is None:
            clauses.append(f"the {what} is not known, and {trained_on}")
        elif not low * (1 - TOLERANCE) <= value <= high * (1 + TOLERANCE):
            shown = "lies outside" if name == "age_years" else f"is {value:.4g} {unit}"
            clauses.append(f"the {what} {shown}, and {trained_on}")
    return tuple(clauses)


def _range(name: str, bounds: Any) -> Range:
    low, high = (float(bound) for bound in bounds)
    if not 0 <= low <= high:
        raise ValueError(f"the range of {name} is no range")
    return low, high


def _date(header: Dataset, keyword: str) -> datetime | None:
    try:
        return datetime.strptime(text(header, keyword).strip(" \0"), "%Y%m%d")
    except ValueError:
        return None
