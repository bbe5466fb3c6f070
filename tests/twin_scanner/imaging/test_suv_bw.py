"""SUV by body weight: the oracle is the arithmetic of decay, by hand, and the rules of PS3.3 C.8.9.1 and QIBA."""

from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import Any

import pytest

from twin_scanner.errors import Rejected
from twin_scanner.imaging.suv import (
    LONGEST_UPTAKE_S,
    PetAttributes,
    PhilipsFactors,
    bqml_factor,
    decay_reference,
    dose_at_reference_bq,
    suv_factor,
    uptake_s,
)

pytestmark = pytest.mark.unit

START = datetime(2020, 3, 14, 10, 0, 0)
PET = PetAttributes(
    units="BQML",
    decay_correction="START",
    weight_kg=80.0,
    dose_bq=400e6,
    half_life_s=6000.0,
    injection_clock=time(8, 20),
    series_start=START,
    first_acquisition=START,
)
"""Injected 6000 s, one half-life, before the start: 200 MBq are left, so SUV 1 is 2500 Bq/ml."""


def rejection(pet: PetAttributes, philips: PhilipsFactors | None = None) -> str:
    with pytest.raises(Rejected) as caught:
        suv_factor(pet, philips or PhilipsFactors())
    return str(caught.value)


def test_a_dose_decayed_by_one_half_life_counts_half() -> None:
    assert dose_at_reference_bq(PET) == pytest.approx(200e6, rel=1e-12)
    assert suv_factor(PET) == pytest.approx(1 / 2500, rel=1e-12)
    assert bqml_factor(PET) == 1.0


def test_decay_correction_to_the_administration_takes_the_whole_dose_and_no_time() -> None:
    pet = replace(
        PET, decay_correction="ADMIN", half_life_s=None, injection_clock=None, series_start=None, first_acquisition=None
    )
    assert suv_factor(pet) == pytest.approx(1 / 5000, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "keyword"),
    [
        ({"weight_kg": None}, "PatientWeight of the PET is missing"),
        ({"dose_bq": None}, "RadionuclideTotalDose of the PET is missing"),
        ({"half_life_s": None}, "RadionuclideHalfLife of the PET is missing"),
        ({"injection_clock": None}, "RadiopharmaceuticalStartTime of the PET is missing"),
        ({"series_start": None}, "SeriesTime"),
        ({"first_acquisition": None}, "AcquisitionTime"),
        ({"dose_bq": 400.0}, "RadionuclideTotalDose of the PET is 400, below 1e+06 Bq"),
        ({"dose_bq": 999_999.0}, "RadionuclideTotalDose of the PET is 999999, below 1e+06 Bq"),
        ({"weight_kg": 80_000.0}, "PatientWeight of the PET lies outside"),
        ({"decay_correction": "NONE"}, "DecayCorrection of the PET is NONE"),
        ({"decay_correction": ""}, "DecayCorrection of the PET is missing"),
        ({"decay_correction": "OTHER"}, "DecayCorrection of the PET is OTHER"),
        ({"corrected_image": ("DECY", "SCAT")}, "CorrectedImage of the PET lacks ATTN"),
        ({"corrected_image": ("ATTN",)}, "CorrectedImage of the PET lacks DECY"),
        ({"units": "PROPCPS"}, "Units of the PET are PROPCPS"),
        ({"units": ""}, "Units of the PET are missing"),
    ],
)
def test_what_is_missing_or_wrong_is_rejected_by_its_attributes_name(change: dict[str, Any], keyword: str) -> None:
    sentence = rejection(replace(PET, **change))
    assert keyword in sentence
    assert sentence.endswith(".")


def test_a_dose_of_exactly_the_limit_is_a_dose() -> None:
    assert suv_factor(replace(PET, dose_bq=1e6)) == pytest.approx(80e3 / 0.5e6)


def test_the_full_date_and_time_of_injection_goes_before_the_time_of_day() -> None:
    pet = replace(PET, injected_at=START - timedelta(seconds=3000), injection_clock=time(1, 0))
    assert uptake_s(pet) == 3000.0


@pytest.mark.parametrize("clock", [time(23, 40), time(23, 59, 59)])
def test_an_injection_before_midnight_and_a_scan_after_it_are_one_night(clock: time) -> None:
    after = datetime(2020, 3, 15, 0, 30)
    pet = replace(PET, series_start=after, first_acquisition=after, injection_clock=clock)
    expected = (after - datetime.combine(datetime(2020, 3, 14), clock)).total_seconds()
    assert uptake_s(pet) == expected
    dated = replace(pet, injected_at=datetime.combine(datetime(2020, 3, 14), clock), injection_clock=None)
    assert uptake_s(dated) == expected


def test_a_series_that_runs_over_midnight_is_reckoned_from_its_start() -> None:
    pet = replace(
        PET,
        series_start=datetime(2020, 3, 14, 23, 55),
        first_acquisition=datetime(2020, 3, 15, 0, 1),
        injection_clock=time(22, 55),
    )
    assert uptake_s(pet) == 3600.0


def test_a_scan_that_seems_to_take_a_day_is_refused() -> None:
    """Midnight passed during the scan, but not the date: its earliest slices bear the time of its end."""
    late, early = datetime(2020, 3, 14, 23, 50), datetime(2020, 3, 14, 0, 5)
    pet = replace(PET, series_start=late, first_acquisition=early, last_acquisition=late, injection_clock=time(22, 50))
    assert "spans 23.8 hours, so nobody knows when it began" in rejection(pet)
    whole = replace(pet, first_acquisition=late, last_acquisition=early + timedelta(days=1))
    assert uptake_s(whole) == 3600.0


@pytest.mark.parametrize(
    ("change", "keyword"),
    [
        ({"injected_at": START + timedelta(minutes=5)}, "RadiopharmaceuticalStartDateTime"),
        ({"injected_at": START - timedelta(days=1)}, "RadiopharmaceuticalStartDateTime"),
        ({"injection_clock": time(10, 5)}, "RadiopharmaceuticalStartTime"),
    ],
)
def test_an_injection_after_the_scan_or_a_day_before_it_is_rejected(change: dict[str, Any], keyword: str) -> None:
    assert f"{keyword} of the PET is" in rejection(replace(PET, **change))


def test_the_longest_uptake_is_still_one() -> None:
    assert uptake_s(replace(PET, injected_at=START - timedelta(seconds=LONGEST_UPTAKE_S))) == LONGEST_UPTAKE_S


def test_a_series_time_after_an_acquisition_gives_way_to_the_earliest_acquisition() -> None:
    """A series made afterwards bears the time of its making; START is the acquisition's (PS3.3 C.8.9.1, QIBA)."""
    pet = replace(PET, series_start=START + timedelta(hours=5))
    assert decay_reference(pet) == START
    assert suv_factor(pet) == suv_factor(PET)


def test_a_series_time_shortly_before_the_first_acquisition_is_the_reference() -> None:
    pet = replace(PET, first_acquisition=START + timedelta(minutes=3))
    assert decay_reference(pet) == START


def test_a_series_time_long_before_the_first_acquisition_is_rejected() -> None:
    pet = replace(PET, first_acquisition=START + timedelta(minutes=61))
    assert "SeriesTime of the PET is 61 minutes before its first AcquisitionTime" in rejection(pet)


@pytest.mark.parametrize("suv_type", ["", "BW"])
def test_g_per_ml_by_body_weight_or_unsaid_is_suv_already(suv_type: str) -> None:
    pet = PetAttributes(units="GML", decay_correction="START", suv_type=suv_type)
    assert suv_factor(pet) == 1.0
    assert bqml_factor(pet) is None


@pytest.mark.parametrize("suv_type", ["LBM", "BSA", "IBW", "LBMJAMES128"])
def test_g_per_ml_of_another_kind_is_rejected(suv_type: str) -> None:
    assert f"SUVType of the PET is {suv_type}" in rejection(replace(PET, units="GML", suv_type=suv_type))


def test_philips_counts_take_the_suv_factor_first_and_the_activity_factor_else() -> None:
    counts = replace(PET, units="CNTS")
    assert suv_factor(counts, PhilipsFactors(suv=0.00042, activity=1.7)) == 0.00042
    assert suv_factor(counts, PhilipsFactors(activity=1.7)) == pytest.approx(1.7 / 2500, rel=1e-12)
    assert suv_factor(counts, PhilipsFactors(suv=0.0, activity=1.7)) == pytest.approx(1.7 / 2500, rel=1e-12)
    assert bqml_factor(counts, PhilipsFactors(activity=1.7)) == 1.7
    assert bqml_factor(counts, PhilipsFactors(suv=0.00042)) is None


def test_counts_without_a_factor_are_rejected_by_the_attributes_numbers() -> None:
    sentence = rejection(replace(PET, units="CNTS"))
    assert "(7053,1000)" in sentence
    assert "(7053,1009)" in sentence
    assert "(7053,1009) of the PET is -2" in rejection(replace(PET, units="CNTS"), PhilipsFactors(activity=-2.0))


def test_counts_with_a_suv_factor_need_neither_dose_nor_weight() -> None:
    pet = PetAttributes(units="CNTS", decay_correction="START")
    assert suv_factor(pet, PhilipsFactors(suv=0.5)) == 0.5
