"""What the PET says of a dose: nothing, or 0. Oracle: @cornerstonejs/calculate-suv, by which OHIF scales a PET."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from tests.conftest import missing
from tests.peers.calculate_suv import is_installed, suv_factors
from tests.peers.check_dicom import errors_in
from tests.twin_scanner.dicom.write.test_pet_series import SYNTHESIS, _ct, _write
from twin_scanner.dicom.write.pet_series import WrittenSeries, acquisition_moment

pytestmark = pytest.mark.unit

ZERO_DOSE = replace(SYNTHESIS, zero_dose=True)
ACQUIRED: dict[str, object] = {"AcquisitionDate": "20261122", "AcquisitionTime": "101500.250", "PatientWeight": "71.5"}


@pytest.fixture
def ohif() -> Callable[[WrittenSeries], dict[str, Any]]:
    """What OHIF's package answers of a series; skips without it."""
    if not is_installed():
        missing("@cornerstonejs/calculate-suv (npm install in tests/peers/calculate-suv)")
    return lambda series: suv_factors(series.files)


def test_the_page_on_viewers_names_the_version_that_is_asked(project: Path) -> None:
    asked = json.loads((project / "tests/peers/calculate-suv/package.json").read_text("utf-8"))["dependencies"]
    page = (project / "docs" / "viewers.md").read_text("utf-8")
    assert f"calculate-suv {asked['@cornerstonejs/calculate-suv']}" in page


def written(folder: Path, *, zero_dose: bool = True, **attributes: object) -> WrittenSeries:
    series, _ = _write(folder, _ct(**(ACQUIRED | attributes)), ZERO_DOSE if zero_dose else SYNTHESIS)
    return series


def test_by_default_no_dose_is_stated_and_ohifs_package_gives_no_suv(
    tmp_path: Path, ohif: Callable[[WrittenSeries], dict[str, Any]]
) -> None:
    answer = ohif(written(tmp_path, zero_dose=False))
    assert answer == {"refused": "calculateDecayCorrection : RadionuclideTotalDose value not found."}


def test_with_a_dose_of_zero_ohifs_package_takes_every_pixel_as_suv(
    tmp_path: Path, ohif: Callable[[WrittenSeries], dict[str, Any]]
) -> None:
    series = written(tmp_path)
    assert ohif(series) == {"factors": [{"suvbw": 1}] * len(series.files)}


def test_with_the_patients_size_other_suv_than_by_weight_is_infinite_and_so_never_a_wrong_number(
    tmp_path: Path, ohif: Callable[[WrittenSeries], dict[str, Any]]
) -> None:
    (first, *_) = ohif(written(tmp_path, PatientSize="1.75", PatientSex="F"))["factors"]
    assert first == {"suvbw": 1, "suvbsa": "Infinity", "suvlbm": "Infinity", "suvlbmJanma": "Infinity"}


@pytest.mark.parametrize(
    ("attributes", "why"),
    [({"PatientWeight": None}, "PatientWeight"), ({"AcquisitionTime": ""}, "")],
    ids=["no weight", "no time"],
)
def test_what_the_ct_lacks_is_not_invented_and_ohifs_package_gives_no_suv(
    attributes: dict[str, object], why: str, tmp_path: Path, ohif: Callable[[WrittenSeries], dict[str, Any]]
) -> None:
    series = written(tmp_path, **attributes)
    header = pydicom.dcmread(series.files[0], stop_before_pixels=True)
    (isotope,) = header.RadiopharmaceuticalInformationSequence
    assert ("PatientWeight" in header) is ("PatientWeight" not in attributes)
    assert ("RadiopharmaceuticalStartDateTime" in isotope) is ("AcquisitionTime" not in attributes)
    assert why in ohif(series)["refused"]


def test_the_dose_is_zero_from_the_acquisition_of_the_ct_on(tmp_path: Path) -> None:
    header = pydicom.dcmread(written(tmp_path).files[0], stop_before_pixels=True)
    (isotope,) = header.RadiopharmaceuticalInformationSequence
    assert isotope.RadionuclideTotalDose == 0
    assert isotope.RadiopharmaceuticalStartDateTime == "20261122101500.250"
    assert isotope.RadiopharmaceuticalStartDateTime == header.AcquisitionDate + header.AcquisitionTime
    assert "dose 0 stated" in header.ContributingEquipmentSequence[0].ContributionDescription
    assert "RealWorldValueMappingSequence" not in header


@pytest.mark.parametrize(
    ("clock", "moment"),
    [
        ("101500", "20261122101500"),
        ("1015", "202611221015"),
        ("10:15:00", ""),
        ("250000", ""),
        ("1015.5", ""),
        ("", ""),
    ],
)
def test_only_a_date_and_a_time_make_a_start(clock: str, moment: str) -> None:
    header = Dataset()
    header.AcquisitionDate = "20261122"
    header.add(DataElement("AcquisitionTime", "TM", clock, validation_mode=pydicom.config.IGNORE))
    assert acquisition_moment(header) == moment
    del header.AcquisitionDate
    assert acquisition_moment(header) == ""


def test_without_a_dose_nothing_of_one_is_there(tmp_path: Path) -> None:
    header = pydicom.dcmread(written(tmp_path, zero_dose=False).files[0], stop_before_pixels=True)
    (isotope,) = header.RadiopharmaceuticalInformationSequence
    stated = {element.keyword for element in isotope}
    assert stated == {
        "Radiopharmaceutical",
        "RadionuclideHalfLife",
        "RadionuclideCodeSequence",
        "RadiopharmaceuticalCodeSequence",
    }


def test_the_two_forms_never_share_a_uid(tmp_path: Path) -> None:
    one, other = (written(tmp_path / str(zero), zero_dose=zero) for zero in (False, True))
    assert one.series_uid != other.series_uid
    assert not set(one.sop_instance_uids) & set(other.sop_instance_uids)


def test_dciodvfy_finds_no_error(tmp_path: Path, peer: Callable[[str], str]) -> None:
    peer("dciodvfy")
    series = written(tmp_path)
    assert errors_in([series.files[0]], synthetic=True) == []
