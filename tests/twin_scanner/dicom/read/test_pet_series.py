"""Reading a PET series: the oracles are the phantom's own SUV, a hand calculation, SimpleITK and the standard."""

import math
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from tests.samples import ct_files, pet_files
from tests.samples.pet_files import SUV_PER_BQML, activity_bqml, add_philips_factors, write_series
from training.phantom.dicom_series import write_ct_dicom, write_pet_dicom
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_scanner.dicom.equipment import MANUFACTURER
from twin_scanner.dicom.read.ct_series import read_ct_series
from twin_scanner.dicom.read.pet_series import read_pet_series
from twin_scanner.dicom.write.pet_series import Synthesis, write_pet_series
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Volume, geometry_of

pytestmark = pytest.mark.unit


def rejection(files: Path | list[Path], *, accept_synthetic: bool = False) -> str:
    """The one sentence that reading ends with."""
    with pytest.raises(Rejected) as caught:
        read_pet_series(files, accept_synthetic=accept_synthetic)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert ct_files.PATIENT_ID not in sentence
    assert "Oberhuber" not in sentence
    return sentence


# The real series


def test_suv_of_the_real_scan_is_the_hand_calculation(shared_data: Path) -> None:
    """Start 09:59:47, injected 07:21:00, 588.802304 MBq, half-life 6588 s, 91 kg: 9527 s of decay.

    588802304 x 2^(-9527/6588) = 216.11 MBq are left; 91000 g / 216.11e6 Bq = 4.2108e-4 SUV per Bq/ml. The hottest
    voxel is stored as 32767 in the slice of the largest slope, 3.70281: 121329.98 Bq/ml, so SUV 51.09.
    """
    series = read_pet_series(shared_data / "thorax_petct" / "pet_ac")
    by_hand = 32767 * 3.702810 * 91000 / (588802304 * math.exp(-math.log(2) * 9527 / 6588))
    assert series.suv.array.max() == pytest.approx(51.1, abs=0.05)
    assert series.suv.array.max() == pytest.approx(by_hand, rel=1e-4)
    assert series.activity().array.max() == pytest.approx(121329.98, rel=1e-6)
    assert series.attributes.injection_clock is not None
    assert series.set_aside == ()


def test_activity_and_geometry_of_the_real_scan_are_simpleitks(shared_data: Path) -> None:
    """SimpleITK applies one slope where slices differ, so each slice is read by itself."""
    folder = shared_data / "thorax_petct" / "pet_ac"
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    series = read_pet_series(folder)
    activity = series.activity().array
    expected = np.stack([sitk.GetArrayFromImage(sitk.ReadImage(name, sitk.sitkFloat64))[0] for name in names])
    np.testing.assert_allclose(activity, expected, rtol=3e-7, atol=0)
    theirs = geometry_of(sitk.ReadImage(names))
    np.testing.assert_allclose(series.suv.geometry.affine, theirs.affine, rtol=0, atol=1e-4)
    assert series.suv.geometry.shape == theirs.shape


# Phantoms and our own PET


PHANTOM_OPTIONS = PhantomOptions(
    spacing_mm=(12.0, 8.0, 9.0), field_of_view="skull-base-to-mid-thigh", position="FFP", axes="gantry"
)


@pytest.fixture(scope="module")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    phantom = make_phantom(7, PHANTOM_OPTIONS)
    write_ct_dicom(phantom.ct, folder / "CT", seed=7, options=PHANTOM_OPTIONS)
    write_pet_dicom(phantom, folder / "PT")
    return folder


def test_a_phantoms_pet_comes_back_as_the_suv_that_was_drawn(phantom_folder: Path) -> None:
    series = read_pet_series(phantom_folder / "PT", accept_synthetic=True)
    drawn = make_phantom(7, PHANTOM_OPTIONS).pet
    points = [(0, 0, 0), (5, 20, 11), (series.suv.geometry.shape[0] - 1, 3, 4)]
    for index in points:
        back = np.linalg.solve(drawn.geometry.affine, [*series.suv.geometry.position_lps_mm(index), 1.0])[:3]
        d, h, w = (round(float(value)) for value in back)
        np.testing.assert_allclose(back, (d, h, w), atol=1e-3)
        assert series.suv.array[index] == pytest.approx(drawn.array[d, h, w], abs=1e-3)
    assert series.suv.array.sum() == pytest.approx(drawn.array.sum(), rel=1e-4)


def test_a_phantoms_pet_is_refused_unless_synthetic_data_is_let_in(phantom_folder: Path) -> None:
    assert "SyntheticData of the slice" in rejection(phantom_folder / "PT")


@pytest.mark.parametrize("accept_synthetic", [False, True])
def test_our_own_pet_is_refused_whatever_is_let_in(
    phantom_folder: Path, tmp_path: Path, accept_synthetic: bool
) -> None:
    """The series that the product writes, rendered by its own code and fed back."""
    source = read_ct_series(phantom_folder / "CT", accept_synthetic=True)
    synthesis = Synthesis(
        model_name="m",
        model_hash="a" * 64,
        plan_hash="b" * 64,
        segmenter="landmarks",
        segmenter_hash="c" * 64,
        precision="float32",
        software_version="1",
        device_serial_number="D1",
        made_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    suv = Volume(np.ones(source.volume.array.shape, np.float32), source.volume.geometry)
    written = write_pet_series(suv, source, synthesis, tmp_path)
    sentence = rejection(list(written.files), accept_synthetic=accept_synthetic)
    assert f"is {MANUFACTURER}, so it is a synthetic PET" in sentence
    stripped = tmp_path / "stripped"
    for file in written.files:
        image = pydicom.dcmread(file)
        image.Manufacturer = "SIEMENS"
        del image.SyntheticData
        ct_files.save(image, stripped / file.name)
    assert "is a synthetic PET" in rejection(stripped, accept_synthetic=accept_synthetic)


# Values


def test_every_slice_is_rescaled_by_its_own_slope(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    series = read_pet_series(files[::-1])
    for index in range(16):
        np.testing.assert_allclose(series.suv.array[index], activity_bqml(index) * SUV_PER_BQML, rtol=1e-6)
        np.testing.assert_allclose(series.activity().array[index], activity_bqml(index), rtol=1e-6)
    assert series.suv.geometry.spacing_mm == pytest.approx((3.0, 1.1, 0.9), abs=1e-9)
    assert series.bqml_per_suv == pytest.approx(1 / SUV_PER_BQML)
    assert series.sop_instance_uids == tuple(f"{pet_files.SERIES_UID}.{index + 1}" for index in range(16))


def test_padding_becomes_no_activity(tmp_path: Path) -> None:
    write_series(tmp_path, PixelPaddingValue=int(ct_files.stored_values(3)[2, 5]))
    array = read_pet_series(tmp_path).suv.array
    assert array[3, 2, 5] == 0.0
    assert array[3, 2, 4] > 0.0


def test_an_administration_corrected_series_takes_the_whole_dose(tmp_path: Path) -> None:
    write_series(tmp_path, DecayCorrection="ADMIN", isotope={"RadiopharmaceuticalStartTime": None})
    assert read_pet_series(tmp_path).bqml_per_suv == pytest.approx(pet_files.DOSE_BQ / 70e3)


def test_the_injections_date_and_time_decide_over_its_time_of_day(tmp_path: Path) -> None:
    write_series(tmp_path, isotope={"RadiopharmaceuticalStartDateTime": "20200314093000.00"})
    decayed = pet_files.DOSE_BQ * 0.5 ** (1800 / pet_files.HALF_LIFE_S)
    assert read_pet_series(tmp_path).bqml_per_suv == pytest.approx(decayed / 70e3)


def test_an_offset_in_the_injections_time_is_brought_to_the_scanners_zone(tmp_path: Path) -> None:
    isotope = {"RadiopharmaceuticalStartDateTime": "20200314080000.00+0000"}
    write_series(tmp_path, isotope=isotope, TimezoneOffsetFromUTC="+0100")
    assert read_pet_series(tmp_path).bqml_per_suv == pytest.approx(1 / SUV_PER_BQML)


def test_an_injection_before_midnight_is_the_same_nights(tmp_path: Path) -> None:
    def after_midnight(image: Dataset, index: int) -> None:
        image.SeriesTime, image.AcquisitionTime = "003000", f"00{30 + index}00"

    write_series(tmp_path, change=after_midnight, isotope={"RadiopharmaceuticalStartTime": "233000"})
    assert read_pet_series(tmp_path).bqml_per_suv == pytest.approx(1 / SUV_PER_BQML)


def test_a_scan_over_midnight_whose_date_stayed_behind_is_refused(tmp_path: Path) -> None:
    """The slices after midnight would be the first by their times, and the dose decayed to their place in the night."""

    def over_midnight(image: Dataset, index: int) -> None:
        image.SeriesTime, image.AcquisitionTime = "235000", "235000" if index < 8 else "000500"

    write_series(tmp_path, change=over_midnight, isotope={"RadiopharmaceuticalStartTime": "225000"})
    assert "spans 23.8 hours" in rejection(tmp_path)


def test_a_series_made_afterwards_is_reckoned_from_its_first_acquisition_and_says_so(tmp_path: Path) -> None:
    write_series(tmp_path, SeriesTime="173000")
    series = read_pet_series(tmp_path)
    assert series.bqml_per_suv == pytest.approx(1 / SUV_PER_BQML)
    assert "SeriesTime of the PET is after its first AcquisitionTime" in series.set_aside[0]


def test_philips_counts_become_suv_by_the_suv_factor_of_each_slice(tmp_path: Path) -> None:
    write_series(tmp_path, Units="CNTS", change=lambda image, i: add_philips_factors(image, 1e-3 * (i + 1), None))
    series = read_pet_series(tmp_path)
    for index in (0, 7, 15):
        np.testing.assert_allclose(series.suv.array[index], activity_bqml(index) * 1e-3 * (index + 1), rtol=1e-6)
    with pytest.raises(Rejected, match="Units of the PET are CNTS"):
        series.activity()


def test_philips_counts_become_activity_by_the_activity_factor(tmp_path: Path) -> None:
    write_series(tmp_path, Units="CNTS", change=lambda image, _: add_philips_factors(image, 0.0, 1.5))
    series = read_pet_series(tmp_path)
    np.testing.assert_allclose(series.suv.array[4], activity_bqml(4) * 1.5 * SUV_PER_BQML, rtol=1e-6)
    np.testing.assert_allclose(series.activity().array[4], activity_bqml(4) * 1.5, rtol=1e-6)


def test_another_makers_private_attribute_at_philips_number_is_no_factor(tmp_path: Path) -> None:
    def change(image: Dataset, _: int) -> None:
        image.private_block(0x7053, "SOMEBODY ELSE", create=True).add_new(0x00, "DS", "0.5")

    write_series(tmp_path, Units="CNTS", change=change)
    assert "(7053,1000)" in rejection(tmp_path)


@pytest.mark.parametrize("suv_type", ["BW", None])
def test_a_series_in_g_per_ml_is_read_as_it_is(tmp_path: Path, suv_type: str | None) -> None:
    attributes = {} if suv_type is None else {"SUVType": suv_type}
    write_series(tmp_path, Units="GML", PatientWeight=None, **attributes)
    series = read_pet_series(tmp_path)
    np.testing.assert_allclose(series.suv.array[2], activity_bqml(2), rtol=1e-6)


# Faults: one sentence with the attribute's name


FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no weight": ({"PatientWeight": None}, {}, "PatientWeight of the PET is missing"),
    "weight 0": ({"PatientWeight": "0"}, {}, "PatientWeight of the PET is missing"),
    "no dose": ({}, {"RadionuclideTotalDose": None}, "RadionuclideTotalDose of the PET is missing"),
    "MBq": ({}, {"RadionuclideTotalDose": "350"}, "RadionuclideTotalDose of the PET is 350, below"),
    "no half-life": ({}, {"RadionuclideHalfLife": None}, "RadionuclideHalfLife of the PET is missing"),
    "no injection": ({}, {"RadiopharmaceuticalStartTime": None}, "RadiopharmaceuticalStartTime of the PET is missing"),
    "bad injection": ({}, {"RadiopharmaceuticalStartTime": "9 h"}, "RadiopharmaceuticalStartTime of the slice .* no"),
    "no isotope": ({"RadiopharmaceuticalInformationSequence": None}, {}, "RadionuclideTotalDose of the PET is missing"),
    "no series time": ({"SeriesTime": None}, {}, "SeriesTime .* is missing"),
    "no acquisition time": ({"AcquisitionTime": None}, {}, "AcquisitionTime .* is missing"),
    "decay NONE": ({"DecayCorrection": "NONE"}, {}, "DecayCorrection of the PET is NONE"),
    "no ATTN": ({"CorrectedImage": ["DECY", "SCAT"]}, {}, "CorrectedImage of the PET lacks ATTN"),
    "no DECY": ({"CorrectedImage": ["ATTN"]}, {}, "CorrectedImage of the PET lacks DECY"),
    "no corrections": ({"CorrectedImage": None}, {}, "CorrectedImage of the PET lacks ATTN"),
    "lean body mass": ({"Units": "GML", "SUVType": "LBM"}, {}, "SUVType of the PET is LBM"),
    "counts": ({"Units": "CNTS"}, {}, r"\(7053,1000\)"),
    "other units": ({"Units": "CM2ML"}, {}, "Units of the PET are CM2ML"),
    "derived": (
        {"ImageType": ["DERIVED", "PRIMARY"], "Manufacturer": "Smoother 9000"},
        {},
        r"ImageType of .* is DERIVED\\PRIMARY by a Manufacturer that is no known maker",
    ),
    "derived by nobody": ({"ImageType": ["DERIVED", "PRIMARY"], "Manufacturer": None}, {}, "ImageType of .* DERIVED"),
    "secondary": ({"ImageType": ["DERIVED", "SECONDARY"]}, {}, r"ImageType of .* is DERIVED\\SECONDARY"),
    "projection": ({"ImageType": ["ORIGINAL", "PRIMARY", "MIP"]}, {}, "ImageType of"),
    "no image type": ({"ImageType": None}, {}, "ImageType of .* is missing"),
    "synthetic": ({"SyntheticData": "YES"}, {}, "SyntheticData of .* is YES"),
    "ours": ({"Manufacturer": MANUFACTURER}, {}, "Manufacturer of .* is twin-scanner"),
    "gated": ({"SeriesType": ["GATED", "IMAGE"]}, {}, "SeriesType of .* is GATED"),
    "dynamic": ({"SeriesType": ["DYNAMIC", "IMAGE"]}, {}, "SeriesType of .* is DYNAMIC"),
    "transmission": ({"CountsSource": "TRANSMISSION"}, {}, "CountsSource of .* is TRANSMISSION"),
    "no frame": ({"FrameOfReferenceUID": None}, {}, "FrameOfReferenceUID of .* is missing"),
    "a CT": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"}, {}, "holds no PET images but CT Image"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_rejected_by_its_attributes_name(tmp_path: Path, fault: str) -> None:
    attributes, isotope, expected = FAULTS[fault]
    write_series(tmp_path, isotope=isotope, **attributes)
    assert re.search(expected, rejection(tmp_path))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"RescaleSlope": "1e38"}, r"RescaleSlope of .*InstanceNumber 4 is 1e\+38, outside"),
        ({"RescaleIntercept": "1e38"}, r"RescaleIntercept of .*InstanceNumber 4 is 1e\+38, outside"),
        (
            {"RescaleSlope": "1e8"},
            r"InstanceNumber 4 or the dose is wrong, for they give SUV [0-9.e+]+, outside -1e\+06 to 1e\+06",
        ),
    ],
)
def test_suv_that_no_dose_can_give_is_rejected_and_the_slice_is_named(
    tmp_path: Path, attributes: dict[str, Any], expected: str
) -> None:
    """All of the dose in one voxel of 0.07 ml of a person of 70 kg is SUV 1e6."""

    def change(image: Dataset, index: int) -> None:
        if index == 3:
            image.update(attributes)

    write_series(tmp_path, change=change)
    assert re.search(expected, rejection(tmp_path))


def test_a_rejection_names_the_series_by_number_and_uid(tmp_path: Path) -> None:
    write_series(tmp_path, SeriesNumber=7, Units="CPS")
    assert rejection(tmp_path).startswith(f"Series 7 ({pet_files.SERIES_UID}): Units of the PET are CPS")


def test_slices_a_metre_apart_are_rejected(tmp_path: Path) -> None:
    def change(image: Dataset, index: int) -> None:
        x, y, _ = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y, index * 1000.0]

    write_series(tmp_path, change=change)
    assert re.search("slices lie 1000 mm apart, outside", rejection(tmp_path))


def test_a_known_scanners_derived_image_is_read(tmp_path: Path) -> None:
    """Recompression alone makes an image DERIVED (PS3.3 C.7.6.1.1.2)."""
    write_series(tmp_path, ImageType=["DERIVED", "PRIMARY"], Manufacturer="GE MEDICAL SYSTEMS")
    assert read_pet_series(tmp_path).suv.array.shape == (16, 12, 10)


def shifted_by(millimetres: float) -> ct_files.Change:
    def change(image: Dataset, index: int) -> None:
        if index == 9:
            x, y, z = (float(value) for value in image.ImagePositionPatient)
            image.ImagePositionPatient = [x, y, z + millimetres]

    return change


def other(keyword: str, value: object) -> ct_files.Change:
    def change(image: Dataset, index: int) -> None:
        if index == 9:
            setattr(image, keyword, value)

    return change


GEOMETRY_FAULTS: dict[str, tuple[ct_files.Change, str]] = {
    "uneven": (shifted_by(1.0), "unevenly spaced"),
    "twice": (shifted_by(-3.0), "is the same"),
    "another weight": (
        other("PatientWeight", "71"),
        "PatientWeight of the slice with InstanceNumber 10 is not",
    ),
    "another series time": (other("SeriesTime", "101500"), "SeriesTime .* InstanceNumber 10 is not that of"),
    "another patient": (other("PatientID", "PAT-1"), "PatientID of the slice with InstanceNumber 10"),
    "another matrix": (other("Columns", 9), "Rows or Columns of the slice with InstanceNumber 10"),
    "negative slope": (other("RescaleSlope", "-1"), "RescaleSlope of the slice with InstanceNumber 10"),
}


@pytest.mark.parametrize("fault", GEOMETRY_FAULTS)
def test_a_stack_that_is_not_one_is_rejected_by_the_slice(tmp_path: Path, fault: str) -> None:
    change, expected = GEOMETRY_FAULTS[fault]
    write_series(tmp_path, change=change)
    assert re.search(expected, rejection(tmp_path))


def test_a_missing_slice_is_a_gap(tmp_path: Path) -> None:
    write_series(tmp_path, 20)[7].unlink()
    assert "gap, 1 slice missing" in rejection(tmp_path)


def test_a_sheared_stack_is_a_tilted_gantry(tmp_path: Path) -> None:
    def change(image: Dataset, index: int) -> None:
        x, y, z = (float(value) for value in image.ImagePositionPatient)
        image.ImagePositionPatient = [x, y + 0.5 * index, z]

    write_series(tmp_path, change=change)
    assert "tilted gantry" in rejection(tmp_path)


def test_an_image_that_came_twice_is_read_once(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    again = pydicom.dcmread(files[3])
    again.compress(RLELossless, generate_instance_uid=False)
    again.save_as(tmp_path / "z-again.dcm")
    series = read_pet_series(tmp_path)
    assert series.suv.array.shape[0] == 16
    assert "1 of the images came twice" in series.set_aside[0]
    other_pixels = pydicom.dcmread(files[4])
    other_pixels.PixelData = bytes(len(other_pixels.PixelData))
    other_pixels.save_as(tmp_path / "z-other.dcm")
    assert "two files with different pixels" in rejection(tmp_path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_slice_that_is_cut_short_rejects_the_series(tmp_path: Path, part: float) -> None:
    files = write_series(tmp_path)
    content = files[15].read_bytes()
    files[15].write_bytes(content[: int(len(content) * part)])
    assert rejection(tmp_path)


def test_damaged_bytes_in_a_header_end_in_a_sentence_or_a_volume(tmp_path: Path) -> None:
    """Oracle: nothing but Rejected may come of any byte; the places and values are the same each time."""
    files = write_series(tmp_path)
    content = files[5].read_bytes()
    rng = np.random.default_rng(4)
    for place in rng.integers(140, len(content) - 240, 100):
        damaged = bytearray(content)
        damaged[place : place + 3] = rng.bytes(3)
        files[5].write_bytes(bytes(damaged))
        try:
            series = read_pet_series(tmp_path)
        except Rejected as error:
            assert str(error).endswith(".")
        else:
            assert np.isfinite(series.suv.array).all()


def test_other_objects_in_the_series_are_set_aside_and_named(tmp_path: Path) -> None:
    write_series(tmp_path)
    capture = pet_files.pet_image(40, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    ct_files.save(capture, tmp_path / "capture.dcm")
    assert read_pet_series(tmp_path).set_aside == (
        "1 object in the series set aside, as no PET image: Secondary Capture Image Storage.",
    )


def test_no_bit_depends_on_names_or_order(tmp_path: Path) -> None:
    files = write_series(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for index, file in enumerate(reversed(files)):
        shutil.copy(file, tmp_path / "b" / f"{index}.dcm")
    first, second = read_pet_series(tmp_path / "a"), read_pet_series(tmp_path / "b")
    np.testing.assert_array_equal(first.suv.array, second.suv.array)
    assert first.attributes == second.attributes
