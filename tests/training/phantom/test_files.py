"""Phantoms on disk against autoPET's layout and against DICOM: other readers find the arrays that were drawn."""

import csv
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from tests.peers.check_dicom import errors_in
from training.phantom.files import (
    COLLECTION,
    METADATA_COLUMNS,
    write_ct_dicom,
    write_pet_dicom,
    write_studies,
    write_study,
)
from training.phantom.options import PatientPosition
from training.phantom.organ_labels import organ_labels
from training.phantom.phantom import Phantom, PhantomOptions, make_phantom, sample_options
from twin_scanner.dicom.read.ct_series import read_ct_series
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import read_nifti, read_nifti_labels

pytestmark = pytest.mark.unit

OPTIONS = PhantomOptions(
    spacing_mm=(10.0, 6.0, 5.0), field_of_view="skull-base-to-mid-thigh", diagnosis="LYMPHOMA", arms="up",
    study_date=date(2014, 3, 9),
)  # fmt: skip
SEED = 12
FILES = {"CT.nii.gz", "CTres.nii.gz", "PET.nii.gz", "SUV.nii.gz", "SEG.nii.gz", "DISTRICTS.nii.gz", "ORGANS.nii.gz"}


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(SEED, OPTIONS)


@pytest.fixture(scope="module")
def study(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One study, DICOM included; the folder above all."""
    out = tmp_path_factory.mktemp("studies")
    write_study(out, phantom, dicom=True)
    return out


def coarse(seed: int) -> PhantomOptions:
    return sample_options(seed, spacing_mm=(12.0, 8.0, 8.0))


def series(study: Path, modality: str) -> list[pydicom.Dataset]:
    """The slices of a series, from the feet up."""
    files = [pydicom.dcmread(path) for path in (study / "dicom").rglob(f"{modality}/*.dcm")]
    return sorted(files, key=lambda image: float(image.ImagePositionPatient[2]))


def test_a_study_has_autopets_folders_and_files(study: Path) -> None:
    folder = next((study / COLLECTION).glob("PETCT_*/*"))
    assert {path.name for path in folder.iterdir()} == FILES
    subject = folder.parent.name
    assert len(subject) == 16 and int(subject[6:], 16) >= 0
    datetime.strptime(folder.name[:10], "%m-%d-%Y")
    assert folder.name.startswith("03-09-2014-NA-PET-CT") and folder.name[-5:].isdigit()


def test_the_images_hold_what_was_drawn_on_one_grid(study: Path, phantom: Phantom) -> None:
    folder = next((study / COLLECTION).glob("PETCT_*/*"))
    ct, suv, pet = (read_nifti(folder / name) for name in ("CTres.nii.gz", "SUV.nii.gz", "PET.nii.gz"))
    for volume in (ct, suv, pet):
        assert volume.geometry.same_grid(phantom.geometry)
    assert np.array_equal(ct.array, np.rint(phantom.ct.array))
    assert np.array_equal(suv.array, phantom.pet.array)
    assert (folder / "CT.nii.gz").read_bytes() == (folder / "CTres.nii.gz").read_bytes()
    inside = suv.array > 0.1
    ratio = pet.array[inside] / suv.array[inside]
    assert ratio.max() / ratio.min() == pytest.approx(1.0, abs=1e-5) and 1500 < ratio.mean() < 4000
    labelled = {"SEG": phantom.lesions, "DISTRICTS": phantom.districts, "ORGANS": organ_labels(phantom.tissues)}
    for name, expected in labelled.items():
        labels, geometry = read_nifti_labels(folder / f"{name}.nii.gz")
        assert np.array_equal(labels, expected) and geometry.same_grid(phantom.geometry)
    assert phantom.lesions.any()


def test_the_table_has_the_collections_columns_and_a_row_a_series(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folders = write_studies(
        tmp_path / "out", 3, 4, options_of=coarse, progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with (tmp_path / "out" / "fdg_metadata.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == METADATA_COLUMNS
    assert [row["Modality"] for row in rows] == ["CT", "PT"] * 3
    for number, folder in enumerate(folders):
        options = coarse(4 * 10_000 + number)
        for row in rows[2 * number : 2 * number + 2]:
            assert row["Subject ID"] == folder.parent.name
            parts = row["File Location"].split("/")
            assert tmp_path / "out" / parts[1] / parts[2] / parts[3] == folder
            assert (row["diagnosis"], row["sex"], row["age"]) == (options.diagnosis, options.sex, f"{options.age:03d}Y")
        labels, _ = read_nifti_labels(folder / "SEG.nii.gz")
        assert labels.any() == (options.diagnosis != "NEGATIVE")
    assert len({row["Series UID"] for row in rows}) == 6 and len({row["Study UID"] for row in rows}) == 3


def test_two_runs_with_one_seed_write_the_same_bytes_and_another_seed_other_patients(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_studies(tmp_path / name, 1, seed, options_of=coarse, dicom=True)
    contents = {
        name: {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in "abc"
    }
    assert contents["a"] == contents["b"] and len(contents["a"]) > 50
    assert not {p.parts[1] for p in contents["a"] if len(p.parts) > 2} & {
        p.parts[1] for p in contents["c"] if len(p.parts) > 2
    }


def test_an_earlier_run_is_never_overwritten(tmp_path: Path) -> None:
    write_studies(tmp_path / "out", 1, 0, options_of=coarse)
    with pytest.raises(Rejected, match="already holds studies"):
        write_studies(tmp_path / "out", 1, 1, options_of=coarse)
    with pytest.raises(Rejected, match="Between 1 and 10000 phantoms"):
        write_studies(tmp_path / "none", 0, 1, options_of=coarse)
    assert not (tmp_path / "none").exists()


def test_dciodvfy_finds_no_error_in_either_series(study: Path, peer: Callable[[str], str]) -> None:
    peer("dciodvfy")
    assert errors_in([study / "dicom"], synthetic=True) == []


def test_simpleitk_reads_the_ct_with_the_same_hu_on_the_same_grid(study: Path, phantom: Phantom) -> None:
    folder = next((study / "dicom").rglob("CT"))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(image), np.rint(phantom.ct.array).astype(np.int32))
    d, h, w = phantom.geometry.spacing_mm
    assert image.GetSpacing() == pytest.approx((w, h, d))
    assert image.GetOrigin() == pytest.approx(phantom.geometry.origin_lps_mm, abs=1e-3)


def test_suv_computed_from_the_pets_header_is_the_phantoms_suv(study: Path, phantom: Phantom) -> None:
    """Oracle: QIBA's SUV-bw for DecayCorrection START: activity x weight / dose decayed since injection."""
    for image, suv in zip(series(study, "PT"), phantom.pet.array, strict=True):
        isotope = image.RadiopharmaceuticalInformationSequence[0]
        injected = datetime.strptime(isotope.RadiopharmaceuticalStartTime, "%H%M%S.%f")
        elapsed_s = (datetime.strptime(image.SeriesTime, "%H%M%S") - injected).total_seconds()
        decayed_bq = float(isotope.RadionuclideTotalDose) * 2.0 ** (-elapsed_s / float(isotope.RadionuclideHalfLife))
        factor = float(image.PatientWeight) * 1000.0 / decayed_bq
        activity = image.pixel_array * np.float64(image.RescaleSlope) + float(image.RescaleIntercept)
        assert (image.Units, image.DecayCorrection, elapsed_s) == ("BQML", "START", 3600.0)
        assert np.abs(activity * factor - suv).max() <= 0.5001 * float(image.RescaleSlope) * factor + 1e-5


def test_both_series_are_one_patient_study_and_frame_of_reference_and_say_synthetic(study: Path) -> None:
    ct, pet = series(study, "CT"), series(study, "PT")
    shared = ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate", "PatientWeight")
    for keyword in shared:
        assert len({str(image[keyword].value) for image in (*ct, *pet)}) == 1
    assert {image.SyntheticData for image in (*ct, *pet)} == {"YES"}
    assert str(ct[0].PatientName) == f"PHANTOM^{SEED}" and ct[0].PatientID == f"PHANTOM{SEED:04d}"
    assert ct[0].StudyDate == "20140309"
    uids = [image.SOPInstanceUID for image in (*ct, *pet)]
    assert len(set(uids)) == len(uids) and all(is_legal(uid) for uid in uids)
    assert ct[0].SeriesInstanceUID != pet[0].SeriesInstanceUID
    assert {image.Manufacturer for image in (*ct, *pet)} == {"twin-scanner phantom"}


def is_legal(uid: str) -> bool:
    return len(uid) <= 64 and pydicom.uid.UID(uid).is_valid


def test_other_options_give_other_uids_so_no_two_images_share_one(tmp_path: Path, phantom: Phantom) -> None:
    first = write_ct_dicom(phantom.ct, tmp_path / "a", seed=SEED, options=OPTIONS)
    again = write_ct_dicom(phantom.ct, tmp_path / "b", seed=SEED, options=OPTIONS)
    other = write_ct_dicom(phantom.ct, tmp_path / "c", seed=SEED, options=replace(OPTIONS, contrast=True))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    headers = [pydicom.dcmread(files[0], stop_before_pixels=True) for files in (first, other)]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        assert headers[0][keyword].value != headers[1][keyword].value


def test_files_are_returned_from_the_feet_up_and_progress_is_told(tmp_path: Path, phantom: Phantom) -> None:
    seen: list[tuple[int, int]] = []
    files = write_ct_dicom(phantom.ct, tmp_path, seed=SEED, progress=lambda done, of: seen.append((done, of)))
    heights = [float(pydicom.dcmread(p, stop_before_pixels=True).ImagePositionPatient[2]) for p in files]
    assert heights == sorted(heights) and len(files) == phantom.geometry.shape[0]
    assert seen[-1] == (len(files), len(files)) and len(seen) == len(files)


@pytest.mark.parametrize(
    ("position", "posture", "entry"),
    [("FFP", "Prone", "feet-first"), ("HFDL", "left lateral decubitus", "headfirst"), ("FFS", "Supine", "feet-first")],
)
def test_a_series_says_how_the_patient_lies_and_is_read_back_on_its_own_axes(
    tmp_path: Path, position: PatientPosition, posture: str, entry: str
) -> None:
    drawn = make_phantom(SEED, PhantomOptions((12.0, 8.0, 8.0), field_of_view=(900.0, 1200.0), position=position))
    write_study(tmp_path, drawn, dicom=True)
    found = read_ct_series(next((tmp_path / "dicom").rglob("CT")), accept_synthetic=True)
    assert found.header.PatientPosition == position
    assert found.volume.geometry.same_grid(drawn.geometry)
    assert np.abs(found.volume.array - drawn.ct.array).max() <= 0.5
    pet = series(tmp_path, "PT")[0]
    lying = pet.PatientOrientationCodeSequence[0].PatientOrientationModifierCodeSequence[0]
    assert lying.CodeMeaning.lower() == posture.lower()
    assert pet.PatientGantryRelationshipCodeSequence[0].CodeMeaning.lower() == entry


def test_a_pet_without_any_uptake_is_written_all_the_same(tmp_path: Path, phantom: Phantom) -> None:
    empty = replace(phantom, pet=type(phantom.pet)(np.zeros_like(phantom.pet.array), phantom.geometry))
    image = pydicom.dcmread(write_pet_dicom(empty, tmp_path)[0])
    assert not image.pixel_array.any() and float(image.RescaleSlope) > 0
