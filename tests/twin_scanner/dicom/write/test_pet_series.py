"""Oracles: dciodvfy, SimpleITK, highdicom, dcm2niix and Orthanc read what was written; the CT gives every position."""

import errno
import json
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path

import highdicom
import httpx
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from tests.fakes.full_disk import files_end_at
from tests.peers.check_dicom import errors_in
from twin_scanner.dicom.equipment import is_our_own
from twin_scanner.dicom.read.ct_series import CtSeries
from twin_scanner.dicom.write.pet_series import (
    Synthesis,
    WrittenSeries,
    pet_series_uid,
    series_description,
    source_slices,
    write_pet_series,
)
from twin_scanner.errors import Defect, Rejected, Transient
from twin_scanner.imaging.volume import Geometry, Volume, geometry_of

pytestmark = pytest.mark.unit

MADE_AT = datetime(2026, 11, 22, 23, 30, 15, 250000, tzinfo=UTC)
SYNTHESIS = Synthesis(
    model_name="demonstration",
    model_hash="a" * 64,
    plan_hash="b" * 64,
    segmenter="landmarks",
    segmenter_hash="c" * 64,
    precision="float32",
    software_version="0.1.0",
    device_serial_number="TS-1",
    made_at=MADE_AT,
)


def _oblique() -> tuple[tuple[float, float, float], ...]:
    """Unit vectors of D, H, W: turned by 20 and 10 degrees about x and z."""
    a, c = math.radians(20), math.radians(10)
    about_x = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    about_z = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    columns = about_z @ about_x
    return tuple(tuple(float(x) for x in columns[:, axis]) for axis in (2, 1, 0))  # type: ignore[return-value]


CT_GRID = Geometry((24, 20, 22), (2.0, 0.9, 1.1), (-12.3456, -30.5, 101.25))
OBLIQUE_GRID = Geometry((24, 20, 22), (2.0, 0.9, 1.1), (-12.3456, -30.5, 101.25), _oblique())  # type: ignore[arg-type]


def _header(**attributes: object) -> Dataset:
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.PatientName, header.PatientID, header.IssuerOfPatientID = "Müller^Anna", "4711", "Hospital A"
    header.PatientBirthDate, header.PatientSex, header.PatientWeight = "19600116", "F", "71.5"
    header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    header.StudyDate, header.StudyTime, header.StudyID, header.AccessionNumber = "20261120", "101500", "S7", "A99"
    header.AcquisitionDate, header.AcquisitionTime = "20261120", "102030"
    header.ReferringPhysicianName, header.SeriesNumber, header.PatientPosition = "Roe^Jo", "2", "HFS"
    header.Modality, header.Manufacturer, header.ManufacturerModelName = "CT", "Scanners Inc", "Scanner 5"
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    return header


def _ct(grid: Geometry = CT_GRID, *, instances: int | None = None, **attributes: object) -> CtSeries:
    count = grid.shape[0] if instances is None else instances
    return CtSeries(
        volume=Volume(np.zeros(grid.shape, np.float32), grid),
        header=_header(**attributes),
        sop_instance_uids=tuple(f"1.2.3.4.{i + 1}" for i in range(count)),
        sop_class_uid=CTImageStorage,
        set_aside=(),
    )


def _suv(grid: Geometry, maximum: float = 14.2) -> Volume:
    values = np.random.default_rng(7).random(grid.shape, np.float32) * np.float32(maximum)
    values[0] = 0
    return Volume(values.astype(np.float32), grid)


def _pet_grid(ct_grid: Geometry) -> Geometry:
    return ct_grid.with_spacing((3.0, 1.5, 2.04))


def _write(folder: Path, ct: CtSeries | None = None, synthesis: Synthesis = SYNTHESIS) -> tuple[WrittenSeries, Volume]:
    ct = ct or _ct()
    suv = _suv(_pet_grid(ct.volume.geometry))
    return write_pet_series(suv, ct, synthesis, folder), suv


def _first(folder: Path, synthesis: Synthesis = SYNTHESIS, **attributes: object) -> Dataset:
    """The first slice of the PET of a CT with these attributes."""
    series, _ = _write(folder, _ct(**attributes), synthesis)
    return pydicom.dcmread(series.files[0])


def _read_by_simpleitk(series: WrittenSeries) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    folder = str(series.files[0].parent)
    assert reader.GetGDCMSeriesIDs(folder) == (series.series_uid,)
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder, series.series_uid))
    return reader.Execute()


# What other programs read


@pytest.mark.parametrize("grid", [CT_GRID, OBLIQUE_GRID], ids=["axial", "oblique"])
def test_dciodvfy_finds_no_error(grid: Geometry, tmp_path: Path, peer: Callable[[str], str]) -> None:
    peer("dciodvfy")
    _write(tmp_path, _ct(grid))
    assert errors_in([tmp_path], synthetic=True) == []


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientPosition": "FFDR", "BodyPartExamined": "CHEST", "TimezoneOffsetFromUTC": "+0100"},
        {"PatientPosition": "", "BodyPartExamined": "ARM", "SyntheticData": "YES", "SeriesNumber": None},
        {"LossyImageCompression": "01", "LossyImageCompressionRatio": "10", "PatientID": "", "PatientName": ""},
        {"BodyPartExamined": "HEADNECK", "PatientAge": "066Y", "StudyDescription": "CT Thorax", "AdmissionID": "9"},
    ],
    ids=["feet first", "phantom", "lossy and nameless", "more of the patient"],
)
def test_dciodvfy_finds_no_error_in_unusual_series(
    attributes: dict[str, object], tmp_path: Path, peer: Callable[[str], str]
) -> None:
    peer("dciodvfy")
    _write(tmp_path, _ct(**attributes), replace(SYNTHESIS, missing_districts=("legs",), revision=3, phantom_only=True))
    assert errors_in([tmp_path], synthetic=True) == []


def test_a_real_cts_identity_passes_dciodvfy_too(tmp_path: Path, shared_data: Path, peer: Callable[[str], str]) -> None:
    peer("dciodvfy")
    real = pydicom.dcmread(min((shared_data / "thorax_petct/ct").iterdir()), stop_before_pixels=True)
    series, _ = _write(tmp_path, replace(_ct(), header=real))
    assert errors_in([tmp_path], synthetic=True) == []
    written = pydicom.dcmread(series.files[0])
    for keyword in (
        "PatientName",
        "PatientID",
        "StudyInstanceUID",
        "StudyDate",
        "FrameOfReferenceUID",
        "PatientWeight",
    ):
        assert written[keyword].value == real[keyword].value


@pytest.mark.parametrize("grid", [CT_GRID, OBLIQUE_GRID], ids=["axial", "oblique"])
def test_simpleitk_reads_the_suv_within_half_a_slope_and_in_its_place(grid: Geometry, tmp_path: Path) -> None:
    series, suv = _write(tmp_path, _ct(grid))
    image = _read_by_simpleitk(series)
    read = sitk.GetArrayFromImage(image)
    assert np.abs(read - suv.array).max() <= series.rescale_slope / 2 * (1 + 1e-6)
    assert geometry_of(image).same_grid(suv.geometry)
    assert np.allclose(geometry_of(image).affine, suv.geometry.affine, rtol=0, atol=1e-6)


@pytest.mark.parametrize("grid", [CT_GRID, OBLIQUE_GRID], ids=["axial", "oblique"])
def test_highdicom_finds_every_voxel_where_the_volume_had_it(grid: Geometry, tmp_path: Path) -> None:
    series, suv = _write(tmp_path, _ct(grid))
    volume = highdicom.get_volume_from_series([pydicom.dcmread(file) for file in series.files])
    index = np.array([[1, 2, 3, 1], [5, 9, 4, 1], [14, 11, 11, 1]], float).T
    other = np.rint(np.linalg.solve(volume.affine, suv.geometry.affine @ index)).astype(int)
    assert np.allclose(volume.affine @ other, suv.geometry.affine @ index, rtol=0, atol=1e-6)
    found = [volume.array[tuple(o[:3])] for o in other.T]
    expected = [suv.array[tuple(i[:3].astype(int))] for i in index.T]
    assert np.allclose(found, expected, rtol=0, atol=series.rescale_slope)


def test_dcm2niix_says_units_gml_and_keeps_the_values(tmp_path: Path, peer: Callable[[str], str]) -> None:
    series, suv = _write(tmp_path / "pet")
    (tmp_path / "nii").mkdir()
    command = [peer("dcm2niix"), "-f", "pet", "-o", tmp_path / "nii", tmp_path / "pet"]
    subprocess.run(command, check=True, capture_output=True)
    sidecar = json.loads((tmp_path / "nii/pet.json").read_text())
    assert sidecar["Units"] == "GML"
    assert sidecar["Modality"] == "PT"
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "nii/pet.nii")))
    assert values.max() == pytest.approx(suv.array.max(), abs=series.rescale_slope)
    assert values.sum() == pytest.approx(suv.array.sum(dtype=np.float64), rel=1e-4)


@pytest.fixture
def orthanc(tmp_path: Path, peer: Callable[[str], str], free_port: Callable[[], int]) -> Iterator[httpx.Client]:
    """An empty Orthanc on loopback."""
    port = free_port()
    settings = {
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(tmp_path / "orthanc"),
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    command = [peer("Orthanc"), str(tmp_path / "orthanc.json")]
    with (tmp_path / "orthanc.log").open("wb") as output:
        server = subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"}, stdout=output, stderr=output)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        try:
            _wait_until_it_answers(client)
            yield client
        finally:
            server.terminate()
            server.wait(30)


def _wait_until_it_answers(client: httpx.Client) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            client.get("/system").raise_for_status()
            return
        except httpx.HTTPError:
            assert time.monotonic() < deadline, "Orthanc did not start within 30 s"
            time.sleep(0.05)


@pytest.mark.system
def test_orthanc_files_the_pet_in_its_cts_study_under_the_patients_name(tmp_path: Path, orthanc: httpx.Client) -> None:
    series, _ = _write(tmp_path / "pet")
    for file in series.files:
        orthanc.post("/instances", content=file.read_bytes()).raise_for_status()
    (study,) = (orthanc.get(f"/studies/{name}").json() for name in orthanc.get("/studies").json())
    assert study["MainDicomTags"]["StudyInstanceUID"] == "1.2.3"
    assert study["MainDicomTags"]["AccessionNumber"] == "A99"
    assert study["PatientMainDicomTags"]["PatientName"] == "Müller^Anna"
    (stored,) = (orthanc.get(f"/series/{name}").json() for name in study["Series"])
    assert stored["MainDicomTags"]["SeriesInstanceUID"] == series.series_uid
    assert stored["MainDicomTags"]["Modality"] == "PT"
    assert len(stored["Instances"]) == len(series.files)


# Values


@pytest.mark.parametrize("maximum", [1e-9, 0.02, 1.0, 14.2, 100.0, 12345.678])
def test_no_voxel_is_off_by_more_than_half_a_slope_whatever_the_maximum(maximum: float, tmp_path: Path) -> None:
    suv = _suv(_pet_grid(CT_GRID), maximum)
    series = write_pet_series(suv, _ct(), SYNTHESIS, tmp_path)
    slices = [pydicom.dcmread(file) for file in series.files]
    read = np.stack([ds.pixel_array.astype(np.float64) * float(ds.RescaleSlope) for ds in slices])
    assert np.abs(read - suv.array).max() <= series.rescale_slope / 2 * (1 + 1e-9)
    assert {(float(ds.RescaleSlope), float(ds.RescaleIntercept)) for ds in slices} == {(series.rescale_slope, 0.0)}
    assert all(len(ds["RescaleSlope"].value.original_string) <= 16 for ds in slices)


def test_a_pet_without_any_uptake_is_all_zero(tmp_path: Path) -> None:
    suv = Volume(np.zeros(_pet_grid(CT_GRID).shape, np.float32), _pet_grid(CT_GRID))
    series = write_pet_series(suv, _ct(), SYNTHESIS, tmp_path)
    assert series.rescale_slope > 0
    assert not sitk.GetArrayFromImage(_read_by_simpleitk(series)).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e-3])
def test_values_that_are_no_suv_stop_the_job_as_our_own_fault(value: float, tmp_path: Path) -> None:
    suv = _suv(_pet_grid(CT_GRID))
    suv.array[3, 2, 1] = value
    with pytest.raises(Defect, match=r"negative SUV|not finite"):
        write_pet_series(suv, _ct(), SYNTHESIS, tmp_path / "pet")
    assert not (tmp_path / "pet").exists()


def test_decimal_strings_carry_the_geometry_to_a_millionth_of_a_millimetre(tmp_path: Path) -> None:
    series, suv = _write(tmp_path, _ct(OBLIQUE_GRID))
    for index, file in enumerate(series.files):
        ds = pydicom.dcmread(file)
        assert np.allclose(ds.ImagePositionPatient, suv.geometry.position_lps_mm((index, 0, 0)), rtol=0, atol=1e-6)
        assert np.allclose(ds.ImageOrientationPatient[:3], suv.geometry.direction[2], rtol=0, atol=1e-9)
        assert np.allclose(ds.ImageOrientationPatient[3:], suv.geometry.direction[1], rtol=0, atol=1e-9)
        assert [float(value) for value in ds.PixelSpacing] == list(suv.geometry.spacing_mm[1:])
        assert float(ds.SliceThickness) == float(ds.SpacingBetweenSlices) == suv.geometry.spacing_mm[0]
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
            assert all(len(value.original_string) <= 16 for value in ds[keyword].value)
    locations = [float(pydicom.dcmread(file).SliceLocation) for file in series.files]
    assert np.allclose(np.diff(locations), suv.geometry.spacing_mm[0], rtol=0, atol=1e-6)


# Attributes


def test_the_files_are_what_pydicom_would_write_of_their_data_sets(tmp_path: Path) -> None:
    """Elements that the slices share, and references that differ in a UID, are encoded once and put together."""
    ct = _ct()
    ct = replace(ct, sop_instance_uids=tuple(f"1.2.3.{10**i}" for i in range(CT_GRID.shape[0])))
    series, _ = _write(tmp_path / "ours", ct)
    for file in series.files:
        read = pydicom.dcmread(file)
        assert len(read.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == len(read.SourceImageSequence)
        for element in read.iterall():
            assert element.VR != "UN"
        anew = pydicom.dcmread(file)
        _ = [element.value for element in anew.iterall()]
        anew.save_as(tmp_path / "anew.dcm", enforce_file_format=True)
        assert (tmp_path / "anew.dcm").read_bytes() == file.read_bytes()


def test_the_fixed_attributes_are_those_of_the_conformance_statement(tmp_path: Path) -> None:
    ds = _first(tmp_path)
    expected: dict[str, object] = {
        "Modality": "PT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128", "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["DERIVED", "PRIMARY"], "SyntheticData": "YES", "Units": "GML", "SUVType": "BW",
        "CountsSource": "EMISSION", "SeriesType": ["WHOLE BODY", "IMAGE"], "CorrectedImage": ["ATTN", "DECY"],
        "DecayCorrection": "START", "DecayFactor": 1, "FrameReferenceTime": 0, "RescaleIntercept": 0,
        "ContentQualification": "RESEARCH", "BurnedInAnnotation": "NO", "LossyImageCompression": "00",
        "ImageComments": "RESEARCH, SYNTHETIC, NOT FOR DIAGNOSIS", "Manufacturer": "twin-scanner",
        "SoftwareVersions": "0.1.0", "DeviceSerialNumber": "TS-1", "NumberOfSlices": 16, "ImageIndex": 1,
        "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1, "BodyPartExamined": "WHOLEBODY",
        "PhotometricInterpretation": "MONOCHROME2", "SeriesDescription": "SYNTHETIC FDG-PET", "SeriesNumber": 201,
    }  # fmt: skip
    assert {keyword: ds[keyword].value for keyword in expected} == expected
    assert all(ds[keyword].is_empty for keyword in ("CollimatorType", "ActualFrameDuration", "DoseCalibrationFactor"))
    assert "PatientPosition" not in ds
    assert "RescaleType" not in ds
    assert is_our_own(ds, "TS-1")


def test_no_dose_and_no_injection_is_invented(tmp_path: Path) -> None:
    (isotope,) = _first(tmp_path).RadiopharmaceuticalInformationSequence
    assert {element.keyword for element in isotope} == {
        *("Radiopharmaceutical", "RadionuclideHalfLife", "RadionuclideCodeSequence", "RadiopharmaceuticalCodeSequence")
    }
    assert isotope.RadionuclideCodeSequence[0].CodeValue == "77004003"
    assert isotope.RadiopharmaceuticalCodeSequence[0].CodeValue == "35321007"


def test_patient_study_and_frame_of_reference_are_the_cts(tmp_path: Path) -> None:
    ds, ct = _first(tmp_path), _header()
    for keyword in ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientWeight",
                    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "FrameOfReferenceUID",
                    "ReferringPhysicianName", "AcquisitionDate", "AcquisitionTime"):  # fmt: skip
        assert ds[keyword].value == ct[keyword].value, keyword
    assert ds.SeriesInstanceUID != ct.SeriesInstanceUID


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"])
def test_a_ct_without_a_uid_that_the_pet_needs_is_rejected(keyword: str, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=keyword):
        _write(tmp_path, _ct(**{keyword: ""}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("position", "lying", "first"),
    [
        ("HFS", "40199007", "102540008"),
        ("HFP", "1240000", "102540008"),
        ("HFDR", "102535000", "102540008"),
        ("HFDL", "102536004", "102540008"),
        ("FFS", "40199007", "102541007"),
        ("FFP", "1240000", "102541007"),
        ("FFDR", "102535000", "102541007"),
        ("FFDL", "102536004", "102541007"),
        ("LFS", "40199007", None),
        ("", None, None),
        ("ODD", None, None),
    ],
)
def test_the_cts_patient_position_becomes_codes(
    position: str, lying: str | None, first: str | None, tmp_path: Path
) -> None:
    """SNOMED CT codes of PS3.16 CID 20 and CID 21; recumbent is 102538003 of CID 19."""
    ds = _first(tmp_path, PatientPosition=position)
    assert [item.CodeValue for item in ds.PatientGantryRelationshipCodeSequence] == ([first] if first else [])
    orientation = ds.PatientOrientationCodeSequence
    assert [item.CodeValue for item in orientation] == (["102538003"] if lying else [])
    modifiers = [modifier.CodeValue for item in orientation for modifier in item.PatientOrientationModifierCodeSequence]
    assert modifiers == ([lying] if lying else [])


def test_times_are_told_in_the_zone_that_the_ct_declares(tmp_path: Path) -> None:
    """23:30:15 UTC on the 22nd is 01:00:15 on the 23rd at +01:30."""
    ds = _first(tmp_path, TimezoneOffsetFromUTC="+0130")
    assert (ds.SeriesDate, ds.SeriesTime) == ("20261123", "010015.250000")
    assert (ds.ContentDate, ds.InstanceCreationDate) == ("20261123", "20261123")
    assert ds.TimezoneOffsetFromUTC == "+0130"
    assert ds.StudyTime == "101500"
    assert ds.ContributingEquipmentSequence[0].ContributionDateTime == "20261123010015.250000+0130"
    west = _first(tmp_path / "west", TimezoneOffsetFromUTC="-0400")
    assert (west.SeriesDate, west.SeriesTime) == ("20261122", "193015.250000")


@pytest.mark.parametrize("declared", [None, "", "CET", "+9900"])
def test_a_ct_without_a_zone_gets_none_and_the_times_of_the_site(declared: str | None, tmp_path: Path) -> None:
    site = replace(SYNTHESIS, made_at=MADE_AT.astimezone(timezone(timedelta(hours=2))))
    attributes = {} if declared is None else {"TimezoneOffsetFromUTC": declared}
    ds = _first(tmp_path, site, **attributes)
    assert "TimezoneOffsetFromUTC" not in ds
    assert (ds.SeriesDate, ds.SeriesTime) == ("20261123", "013015.250000")
    assert ds.ContributingEquipmentSequence[0].ContributionDateTime == "20261123013015.250000+0200"


def test_a_time_without_a_zone_is_our_own_fault() -> None:
    with pytest.raises(Defect, match="time zone"):
        replace(SYNTHESIS, made_at=datetime(2026, 11, 22, 10))


def test_the_description_says_synthetic_and_names_what_was_not_synthesised(tmp_path: Path) -> None:
    ds = _first(tmp_path, replace(SYNTHESIS, missing_districts=("arms", "legs"), revision=2))
    assert ds.SeriesDescription == "SYNTHETIC FDG-PET, revision 2, without arms, legs"
    assert ds.ImageComments == "RESEARCH, SYNTHETIC, NOT FOR DIAGNOSIS; not synthesised: arms, legs"
    assert "not synthesised: arms, legs" in ds.ContributingEquipmentSequence[0].ContributionDescription


def test_a_description_never_exceeds_64_characters() -> None:
    many = replace(SYNTHESIS, missing_districts=tuple(f"district-{i}" for i in range(12)), revision=10**6)
    assert series_description(many) == "SYNTHETIC FDG-PET, revision 1000000, without 12 districts"
    assert len(series_description(replace(many, missing_districts=("x" * 50,)))) <= 64
    of_phantoms = replace(many, phantom_only=True)
    assert series_description(replace(of_phantoms, revision=2)).endswith("PHANTOM-ONLY MODEL, revision 2, INCOMPLETE")
    for revision in (1, 2, 99, 10**6):
        described = series_description(replace(of_phantoms, revision=revision))
        assert described.startswith("SYNTHETIC FDG-PET, PHANTOM-ONLY MODEL") and len(described) <= 64


def test_the_equipment_is_ours_and_the_cts_scanner_is_named_as_the_acquiring_one(tmp_path: Path) -> None:
    ours, scanner = _first(tmp_path).ContributingEquipmentSequence
    assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109100"
    assert (ours.Manufacturer, ours.DeviceSerialNumber, ours.SoftwareVersions) == ("twin-scanner", "TS-1", "0.1.0")
    for fact in ("demonstration " + "a" * 64, "plan " + "b" * 64, "landmarks " + "c" * 64, "float32"):
        assert fact in ours.ContributionDescription
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert (scanner.Manufacturer, scanner.ManufacturerModelName) == ("Scanners Inc", "Scanner 5")


def test_the_pet_of_a_phantom_names_no_scanner_because_there_was_none(tmp_path: Path) -> None:
    ds = _first(tmp_path, SyntheticData="YES")
    assert ds.SyntheticData == "YES"
    assert len(ds.ContributingEquipmentSequence) == 1


def test_a_ct_that_was_compressed_with_loss_makes_a_pet_that_says_so(tmp_path: Path) -> None:
    """PS3.3 C.7.6.1.1.5: once 01, it stays 01 in everything derived."""
    ds = _first(tmp_path, LossyImageCompression="01", LossyImageCompressionRatio=["8.5", "10"])
    assert ds.LossyImageCompression == "01"
    assert [float(ratio) for ratio in ds.LossyImageCompressionRatio] == [8.5, 10.0]


@pytest.mark.parametrize(
    ("number", "expected"), [("2", 201), (" 2", 201), ("0", 1), ("9999999", 999999901), ("", 9001), ("-5", 9001)]
)
def test_the_series_number_follows_the_cts_within_an_integer_string(number: str, expected: int, tmp_path: Path) -> None:
    assert _first(tmp_path, SeriesNumber=number).SeriesNumber == expected


@pytest.mark.parametrize(("part", "expected"), [("CHEST", "CHEST"), ("ARM", "WHOLEBODY"), ("", "WHOLEBODY")])
def test_a_body_part_that_would_need_a_side_gives_way(part: str, expected: str, tmp_path: Path) -> None:
    assert _first(tmp_path, BodyPartExamined=part).BodyPartExamined == expected


@pytest.mark.parametrize(
    ("shown", "expected"),
    [("NECKCHESTABDPELV", "NECKCHESTABDPELV"), ("WHOLEBODY", "WHOLEBODY"), ("EXTREMITY", "CHEST"), ("", "CHEST")],
)
def test_the_body_part_is_what_the_ct_shows_where_that_is_known_and_has_no_side(
    shown: str, expected: str, tmp_path: Path
) -> None:
    first = _first(tmp_path, replace(SYNTHESIS, body_part=shown), BodyPartExamined="CHEST")
    assert first.BodyPartExamined == expected


# Sources


def test_each_slice_refers_to_the_ct_slices_it_overlaps(tmp_path: Path) -> None:
    """CT slabs of 2 mm, PET slabs of 3 mm over the same 48 mm: slice 0 covers CT 0 and half of 1, slice 1 the rest."""
    series, _ = _write(tmp_path)
    expected = {0: [1, 2], 1: [2, 3], 2: [4, 5], 15: [23, 24]}
    for index, sources in expected.items():
        ds = pydicom.dcmread(series.files[index])
        uids = [f"1.2.3.4.{i}" for i in sources]
        assert [item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence] == uids
        for item in ds.SourceImageSequence:
            assert item.ReferencedSOPClassUID == CTImageStorage
            assert item.SpatialLocationsPreserved == "YES"
            assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        (referenced,) = ds.ReferencedSeriesSequence
        assert referenced.SeriesInstanceUID == "1.2.3.4"
        assert [item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence] == uids


def test_every_ct_slice_is_a_source_of_some_pet_slice_on_oblique_axes_too() -> None:
    overlaps = source_slices(_pet_grid(OBLIQUE_GRID), _ct(OBLIQUE_GRID))
    assert sorted({index for sources in overlaps for index in sources}) == list(range(24))
    assert all(2 <= len(sources) <= 3 for sources in overlaps)


def test_an_axial_pet_of_an_oblique_ct_refers_to_all_it_crosses() -> None:
    """The CT planes are tilted by 20 degrees: over 60 mm of rows they climb through 60 sin 20 = 20.5 mm."""
    axial = Geometry((8, 21, 21), (3.0, 3.0, 3.0), OBLIQUE_GRID.origin_lps_mm)
    counts = [len(sources) for sources in source_slices(axial, _ct(OBLIQUE_GRID))]
    assert max(counts) >= 10


def test_a_ct_that_was_flipped_to_canonical_axes_keeps_its_instances_in_place() -> None:
    """A stack from head to feet: instance 1 is at the top, so the lowest PET slice comes from the last two."""
    feetward = Geometry((24, 20, 22), (2.0, 0.9, 1.1), (0, 0, 200.0), ((0, 0, -1), (0, -1, 0), (1, 0, 0)))
    ct = _ct(feetward)
    overlaps = source_slices(_pet_grid(ct.volume.canonical().geometry), ct)
    assert overlaps[0] == (22, 23)
    assert overlaps[-1] == (0, 1)


def test_a_pet_slice_beyond_the_ct_refers_to_the_nearest() -> None:
    beyond = replace(CT_GRID, origin_lps_mm=(0.0, 0.0, 500.0))
    assert set(source_slices(beyond, _ct())) == {(23,)}


def test_an_enhanced_ct_is_one_source_of_every_slice(tmp_path: Path) -> None:
    enhanced = replace(_ct(instances=1), sop_class_uid=EnhancedCTImageStorage)
    series, _ = _write(tmp_path, enhanced)
    for file in series.files:
        (item,) = pydicom.dcmread(file).SourceImageSequence
        assert item.ReferencedSOPInstanceUID == "1.2.3.4.1"
        assert item.ReferencedSOPClassUID == EnhancedCTImageStorage


def test_a_count_of_instances_that_fits_no_ct_is_our_own_fault() -> None:
    with pytest.raises(Defect, match="24 slices and 23 instances"):
        source_slices(_pet_grid(CT_GRID), _ct(instances=23))


# UIDs and files


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    first, _ = _write(tmp_path / "a")
    second, _ = _write(tmp_path / "b")
    assert [file.read_bytes() for file in first.files] == [file.read_bytes() for file in second.files]
    again, _ = _write(tmp_path / "a")
    assert again == first


def test_what_is_needed_to_repeat_a_synthesis_names_a_stitching_other_than_the_papers(tmp_path: Path) -> None:
    described = [
        str(_first(tmp_path / stitching, replace(SYNTHESIS, stitching=stitching)).ContributingEquipmentSequence)
        for stitching in ("uniform", "gaussian")
    ]
    assert "stitching" not in described[0] and "; stitching gaussian; revision" in described[1]


def test_the_uids_are_known_before_anything_is_written(tmp_path: Path) -> None:
    series, _ = _write(tmp_path)
    assert series.series_uid == pet_series_uid(_ct(), SYNTHESIS)
    written = [pydicom.dcmread(file) for file in series.files]
    assert tuple(ds.SOPInstanceUID for ds in written) == series.sop_instance_uids
    assert len(set(series.sop_instance_uids)) == len(series.files)
    assert {ds.SeriesInstanceUID for ds in written} == {series.series_uid}
    assert all(ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID for ds in written)


@pytest.mark.parametrize(
    "change",
    [{"model_hash": "d"}, {"plan_hash": "d"}, {"segmenter": "moose"}, {"segmenter_hash": "d"}, {"precision": "float16"},
     {"software_version": "0.2.0"}, {"missing_districts": ("legs",)}, {"revision": 2}, {"stitching": "gaussian"}],
)  # fmt: skip
def test_another_synthesis_is_another_series(change: dict[str, object]) -> None:
    assert pet_series_uid(_ct(), replace(SYNTHESIS, **change)) != pet_series_uid(_ct(), SYNTHESIS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "attributes", [{"PatientID": "4712"}, {"IssuerOfPatientID": "Hospital B"}, {"StudyInstanceUID": "1.2.9"}]
)
def test_another_patient_or_study_is_another_series(attributes: dict[str, object]) -> None:
    assert pet_series_uid(_ct(**attributes), SYNTHESIS) != pet_series_uid(_ct(), SYNTHESIS)


def test_other_source_instances_are_another_series_and_the_date_is_not() -> None:
    ct = _ct()
    turned = replace(ct, sop_instance_uids=ct.sop_instance_uids[::-1])
    assert pet_series_uid(turned, SYNTHESIS) != pet_series_uid(ct, SYNTHESIS)
    later = replace(SYNTHESIS, made_at=MADE_AT + timedelta(days=1))
    assert pet_series_uid(ct, later) == pet_series_uid(ct, SYNTHESIS)


def test_the_files_are_what_pydicom_itself_would_write(tmp_path: Path) -> None:
    series, _ = _write(tmp_path)
    for file in series.files:
        buffer = BytesIO()
        pydicom.dcmread(file).save_as(buffer, enforce_file_format=True)
        assert buffer.getvalue() == file.read_bytes()


def test_a_full_disk_is_transient_leaves_no_half_file_and_the_next_call_repairs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = _write(tmp_path / "whole")
    fsync, calls = os.fsync, iter(range(1000))

    def fail_at_the_fifth(descriptor: int) -> None:
        if next(calls) == 4:
            raise OSError(errno.ENOSPC, "no space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_at_the_fifth)
    with pytest.raises(Transient, match="free space"):
        _write(tmp_path / "pet")
    monkeypatch.undo()
    assert list((tmp_path / "pet").iterdir()) == [], "all slices, or none"
    _write(tmp_path / "pet")
    assert sorted(file.name for file in (tmp_path / "pet").iterdir()) == [file.name for file in whole.files]


@pytest.mark.parametrize("most_bytes", [0, 1000])
def test_a_disk_that_is_really_full_is_transient_and_leaves_nothing(tmp_path: Path, most_bytes: int) -> None:
    with files_end_at(most_bytes), pytest.raises(Transient, match="free space"):
        _write(tmp_path / "pet")
    assert list((tmp_path / "pet").iterdir()) == []


def test_what_a_longer_series_left_in_the_folder_is_removed_and_other_files_stay(tmp_path: Path) -> None:
    for name in ("pet-0099.dcm", "pet-0002.dcm.part", "notes.txt", "other.dcm"):
        (tmp_path / name).write_bytes(b"old")
    series, _ = _write(tmp_path)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {file.name for file in series.files} | {"notes.txt", "other.dcm"}
