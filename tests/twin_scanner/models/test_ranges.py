"""Ranges of the training data: ages and extents as headers say them, and what lies outside.

Oracle: ages and extents that were counted by hand.
"""

import pytest
from pydicom.dataset import Dataset

from twin_scanner.imaging.volume import Geometry
from twin_scanner.models.ranges import CtFacts, age_of, ct_facts, outside_of, ranges_of

pytestmark = pytest.mark.unit


def header(**attributes: str) -> Dataset:
    """A header of these attributes."""
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize(
    ("attributes", "years"),
    [
        ({"PatientAge": "045Y"}, 45),
        ({"PatientAge": "030M"}, 2),
        ({"PatientAge": "011M"}, 0),
        ({"PatientAge": "106W"}, 2),
        ({"PatientAge": "400D"}, 1),
        ({"PatientBirthDate": "19500302", "StudyDate": "20260301"}, 75),
        ({"PatientBirthDate": "19500301", "StudyDate": "20260302"}, 76),
        ({"PatientAge": "", "PatientBirthDate": "20260302", "StudyDate": "20260301"}, None),
        ({"PatientBirthDate": "19500302"}, None),
        ({}, None),
    ],
)
def test_an_age_is_the_stated_one_or_that_of_the_dates(attributes: dict[str, str], years: float | None) -> None:
    assert age_of(header(**attributes)) == years


def test_a_ct_outside_of_a_stated_range_is_named_and_its_age_is_not_repeated() -> None:
    geometry = Geometry((40, 100, 120), (5.0, 0.9, 1.1), (0.0, 0.0, 0.0))
    facts = ct_facts(header(PatientAge="007Y"), geometry)
    assert facts == CtFacts(7, pytest.approx(132.0), 200.0, 1.1, 5.0)
    ranges = ranges_of({"ranges": {"age_years": [18, 90], "coverage_mm": [800, 2000], "slice_spacing_mm": [2, 5]}})
    assert outside_of(ranges, facts) == (
        "the patient's age lies outside, and the training data have 18 to 90 years",
        "the coverage along the body is 200 mm, and the training data have 800 to 2000 mm",
    )


def test_an_unknown_age_is_outside_only_where_the_card_states_one() -> None:
    unknown = CtFacts(None, 500.0, 900.0, 1.0, 3.0)
    (clause,) = outside_of({"age_years": (18, 90)}, unknown)
    assert "the patient's age is not known" in clause
    assert outside_of({"coverage_mm": (800.0, 2000.0)}, unknown) == ()


def test_a_rounded_spacing_is_inside() -> None:
    ranges = {"slice_spacing_mm": (3.0, 5.0)}
    assert outside_of(ranges, CtFacts(None, slice_spacing_mm=2.98)) == ()
    assert outside_of(ranges, CtFacts(None, slice_spacing_mm=2.9)) != ()


@pytest.mark.parametrize("ranges", [{"height_mm": [1, 2]}, {"age_years": [9, 1]}, {"age_years": [1]}, [1, 2]])
def test_what_is_no_range_is_refused(ranges: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        ranges_of({"ranges": ranges})
