"""Sources of training pairs: the oracles are the phantoms that were written, and the rules of what may be learnt."""

import csv
import gzip
import pickle
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.samples import ct_files, pet_files
from tests.samples.cases import quick_and_long
from training.data.studies import autopet_studies, dicom_studies, find_studies, phantom_studies
from training.data.study import StudyReference
from training.phantom.files import COLLECTION, METADATA_FILE, write_studies
from training.phantom.phantom import make_phantom, sample_options
from twin_scanner.dicom.read.ct_series import read_ct_series
from twin_scanner.dicom.write.pet_series import Synthesis, write_pet_series
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Volume, read_nifti, write_nifti

pytestmark = pytest.mark.unit

SPACING_MM = (12.0, 9.0, 8.0)
CT_UID = ct_files.SERIES_UID


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms as NIfTI and as DICOM."""
    out = tmp_path_factory.mktemp("phantoms")
    write_studies(out, 3, 1, spacing_mm=SPACING_MM, dicom=True)
    return out


@pytest.fixture
def autopet(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(written / COLLECTION, tmp_path / COLLECTION)
    shutil.copy(written / METADATA_FILE, tmp_path / METADATA_FILE)
    return tmp_path


def ct_pet(folder: Path, *, ct: dict[str, Any] | None = None, pet: dict[str, Any] | None = None) -> Path:
    """A study: 40 slices of CT (its default coverage is chosen by the service too) and of PET."""
    ct_files.write_series(folder / "CT", 40, **(ct or {}))
    pet_files.write_series(folder / "PT", 40, **(pet or {}))
    return folder


def only(studies: list[StudyReference]) -> StudyReference:
    assert len(studies) == 1
    return studies[0]


def reason(study: StudyReference) -> str:
    with pytest.raises(Rejected) as caught:
        study.load()
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert ct_files.PATIENT_ID not in sentence
    return sentence


# autoPET's layout


def test_each_folder_of_autopets_layout_is_a_study_with_its_patient_and_diagnosis(written: Path) -> None:
    studies = autopet_studies(written)
    expected = {sample_options(10_000 + number, spacing_mm=SPACING_MM).diagnosis for number in range(3)}
    assert {study.diagnosis for study in studies} == expected
    assert {study.patient for study in studies} == {path.name for path in (written / COLLECTION).iterdir()}
    assert len({study.name for study in studies}) == 3
    for study in studies:
        assert study.name.startswith(f"{study.patient}_")
        assert study.name == Path(study.name).name


def test_a_study_loads_the_volumes_that_were_written(written: Path) -> None:
    reference = autopet_studies(written)[0]
    folder = next((written / COLLECTION / reference.patient).iterdir())
    study = reference.load()
    np.testing.assert_array_equal(study.ct.array, read_nifti(folder / "CT.nii.gz").array)
    np.testing.assert_array_equal(study.pet.array, read_nifti(folder / "SUV.nii.gz").array)
    assert (study.ct_origin, study.is_phantom) == ("CT", True)
    assert study.lesions is not None
    assert study.lesions.dtype == np.uint8
    np.testing.assert_array_equal(study.lesions, read_nifti(folder / "SEG.nii.gz").array)
    np.testing.assert_array_equal(study.organs, read_nifti(folder / "ORGANS.nii.gz").array)


def test_phantoms_of_an_earlier_version_have_no_organs_and_those_on_another_grid_are_refused(autopet: Path) -> None:
    reference = autopet_studies(autopet)[0]
    folder = next((autopet / COLLECTION / reference.patient).iterdir())
    organs = read_nifti(folder / "ORGANS.nii.gz")
    write_nifti(folder / "ORGANS.nii.gz", organs.array[1:].astype(np.uint8), organs.geometry)
    assert "does not lie on the grid of its CT: write the phantoms again" in reason(reference)
    (folder / "ORGANS.nii.gz").unlink()
    assert reference.load().organs is None


def test_the_publishers_resampled_ct_is_used_only_where_the_ct_is_missing_and_says_so(autopet: Path) -> None:
    first = next(autopet.rglob("SUV.nii.gz")).parent
    resampled = read_nifti(first / "CTres.nii.gz")
    write_nifti(first / "CTres.nii.gz", resampled.array + np.float32(1), resampled.geometry)
    patient = first.parent.name
    reference = next(study for study in autopet_studies(autopet) if study.patient == patient)
    assert reference.load().ct_origin == "CT"
    (first / "CT.nii.gz").unlink()
    study = reference.load()
    assert study.ct_origin == "CTres"
    called = first.rename(first.with_name("03-02-2005-NA-PET-CT whole body-12345"))
    assert [study.load().is_phantom for study in autopet_studies(autopet) if study.patient == patient] == [False]
    called.rename(first)
    np.testing.assert_array_equal(study.ct.array, resampled.array + np.float32(1))
    (first / "CTres.nii.gz").unlink()
    assert "neither CT.nii.gz nor CTres.nii.gz" in reason(reference)


def test_a_study_without_annotation_has_no_lesions_and_a_foreign_grid_is_refused(autopet: Path) -> None:
    reference = autopet_studies(autopet)[0]
    seg = next((autopet / COLLECTION / reference.patient).rglob("SEG.nii.gz"))
    labels = read_nifti(seg)
    write_nifti(
        seg,
        labels.array[1:].astype(np.uint8),
        labels.cropped(
            (slice(1, labels.geometry.shape[0]), slice(0, labels.geometry.shape[1]), slice(0, labels.geometry.shape[2]))
        ).geometry,
    )
    assert "does not lie on the grid of SUV.nii.gz" in reason(reference)
    seg.unlink()
    assert reference.load().lesions is None


def test_a_ct_that_is_no_hu_is_refused(autopet: Path) -> None:
    reference = autopet_studies(autopet)[0]
    folder = next((autopet / COLLECTION / reference.patient).iterdir())
    ct = read_nifti(folder / "CT.nii.gz")
    write_nifti(folder / "CT.nii.gz", (ct.array + 1024) / 4096, ct.geometry)
    assert "give a CT in HU" in reason(reference)


def test_two_studies_of_one_patient_keep_their_own_diagnoses(autopet: Path) -> None:
    first = next(autopet.rglob("SUV.nii.gz")).parent
    shutil.copytree(first, first.with_name("05-05-2005-NA-PET-CT second-99999"))
    with (autopet / METADATA_FILE).open("a", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        cells = [""] * 20
        cells[4], cells[5], cells[17] = first.parent.name, "1.2.3.99999", "LUNG_CANCER"
        cells[15] = f".\\{COLLECTION}\\{first.parent.name}\\05-05-2005-NA-PET-CT second-99999\\PT"
        rows.writerow(cells)
    both = [study for study in autopet_studies(autopet) if study.patient == first.parent.name]
    assert [study.name[-5:] for study in both if study.diagnosis == "LUNG_CANCER"][-1] == "99999"
    assert len({study.name for study in both}) == 2


def test_without_the_table_the_diagnosis_is_unknown_and_a_foreign_folders_name_is_hashed(autopet: Path) -> None:
    (autopet / METADATA_FILE).unlink()
    first = next(autopet.rglob("SUV.nii.gz")).parent
    first.parent.rename(first.parent.with_name("Oberhuber_Kreszentia"))
    studies = autopet_studies(autopet)
    assert {study.diagnosis for study in studies} == {""}
    assert not any("Oberhuber" in study.patient + study.name for study in studies)


def test_a_damaged_table_is_refused_by_its_name(autopet: Path) -> None:
    (autopet / METADATA_FILE).write_bytes(b"Subject ID,diagnosis\nPETCT_1,x\n")
    with pytest.raises(Rejected, match=f"{METADATA_FILE} has no column 'Study UID'"):
        autopet_studies(autopet)
    (autopet / METADATA_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Rejected, match="no table in UTF-8"):
        autopet_studies(autopet)


def test_a_table_that_fits_none_of_the_studies_beside_it_is_refused(autopet: Path) -> None:
    """Silently, no study would have a diagnosis, and no split its strata."""
    table = (autopet / METADATA_FILE).read_text("utf-8")
    (autopet / METADATA_FILE).write_text(table.replace("PETCT_", "petct-"), "utf-8")
    with pytest.raises(Rejected, match="a row for none of the 3 studies beside it"):
        autopet_studies(autopet)
    (autopet / METADATA_FILE).write_text(table.splitlines()[0], "utf-8")
    assert {study.diagnosis for study in autopet_studies(autopet)} == {""}


def test_a_part_of_a_collection_has_the_same_studies_wherever_the_command_stands(
    autopet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = autopet_studies(autopet)[0]
    assert whole.diagnosis
    patient = autopet / COLLECTION / whole.patient
    (study,) = patient.iterdir()
    for place, given in ((patient, "."), (study, "."), (study, ".."), (autopet, f"{COLLECTION}/{whole.patient}")):
        monkeypatch.chdir(place)
        assert only(autopet_studies(Path(given))) == whole


def test_unpacked_files_are_read_and_two_of_one_image_are_not(autopet: Path) -> None:
    reference = autopet_studies(autopet)[0]
    expected = reference.load()
    folder = next((autopet / COLLECTION / reference.patient).iterdir())
    for packed in folder.glob("*.nii.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    assert "has SUV.nii.gz and SUV.nii: remove one of them" in reason(reference)
    for packed in folder.glob("*.nii.gz"):
        packed.unlink()
    assert find_studies(autopet)[0] == reference
    study = reference.load()
    assert study.ct_origin == "CT"
    assert study.lesions is not None and expected.lesions is not None
    np.testing.assert_array_equal(study.lesions, expected.lesions)
    np.testing.assert_array_equal(study.pet.array, expected.pet.array)


def test_a_study_that_lacks_its_pet_is_told_not_passed_over(autopet: Path) -> None:
    first = autopet_studies(autopet)[0]
    next((autopet / COLLECTION / first.patient).rglob("SUV.nii.gz")).unlink()
    studies = find_studies(autopet)
    assert len(studies) == 3
    assert reason(studies[0]) == f"{first.name} has a CT but no SUV.nii.gz: complete the study."


def test_a_ct_that_is_linked_but_not_here_is_no_reason_to_take_another(autopet: Path) -> None:
    """Nor does its place, which may bear a name, reach the sentence."""
    reference = autopet_studies(autopet)[0]
    ct = next((autopet / COLLECTION / reference.patient).rglob("CT.nii.gz"))
    ct.unlink()
    ct.symlink_to(autopet / "annex" / "CT.nii.gz")
    assert reason(reference).startswith(f"CT.nii.gz of {reference.name} is no file, or a link to one that is not there")
    assert str(autopet) not in reason(reference)


def test_nifti_files_of_another_layout_are_told_how_to_lie(autopet: Path) -> None:
    """The challenge's own layout, as nnU-Net reads it."""
    images = autopet / "nnunet" / "imagesTr"
    images.mkdir(parents=True)
    shutil.copy(next(autopet.rglob("SUV.nii.gz")), images / "fdg_1_0001.nii.gz")
    with pytest.raises(Rejected, match=r"NIfTI files, but none is called SUV\.nii\.gz: give each study a folder"):
        find_studies(images)


def test_folders_that_are_links_are_searched_once(autopet: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    for patient in list((autopet / COLLECTION).iterdir())[:2]:
        (chosen / patient.name).symlink_to(patient)
        (patient / "up").symlink_to(chosen)
    assert {study.patient for study in find_studies(chosen)} == {path.name for path in chosen.iterdir()}
    assert len(find_studies(chosen)) == 2


# Phantoms


def test_a_phantom_study_is_the_phantom_of_its_seed() -> None:
    studies = phantom_studies(2, 40, "appearance-only", SPACING_MM)
    assert [study.patient for study in studies] == ["phantom-40", "phantom-41"]
    drawn = make_phantom(41, sample_options(41, world="appearance-only", spacing_mm=SPACING_MM))
    study = studies[1].load()
    np.testing.assert_array_equal(study.pet.array, drawn.pet.array)
    np.testing.assert_array_equal(study.ct.array, drawn.ct.array)
    assert study.truth is not None
    np.testing.assert_array_equal(study.truth, drawn.districts)
    assert study.ct_origin == "phantom"
    assert studies[1].diagnosis == drawn.diagnosis


# DICOM


def test_ct_and_pet_of_a_study_are_paired(tmp_path: Path) -> None:
    study = only(dicom_studies(ct_pet(tmp_path)))
    loaded = study.load()
    assert (loaded.ct_origin, loaded.is_phantom) == ("DICOM", False)
    assert loaded.lesions is None
    np.testing.assert_array_equal(loaded.ct.array[7], ct_files.stored_values(7))
    np.testing.assert_allclose(loaded.pet.array[7], pet_files.activity_bqml(7) * pet_files.SUV_PER_BQML, rtol=1e-6)
    for text in (study.name, study.patient):
        assert ct_files.PATIENT_ID not in text
        assert text == Path(text).name


def test_the_real_study_is_paired_from_its_files_whatever_lies_beside_them(shared_data: Path) -> None:
    study = only(dicom_studies(shared_data / "thorax_petct")).load()
    assert study.ct.array.shape == (135, 512, 512)
    assert study.pet.array.shape == (135, 128, 128)
    assert study.pet.array.max() == pytest.approx(51.1, abs=0.05)


@pytest.mark.long
def test_phantoms_come_in_by_an_explicit_word_and_give_back_their_suv(written: Path) -> None:
    folder = written / "dicom"
    for study in dicom_studies(folder):
        assert "SyntheticData" in reason(study)
    counted: list[tuple[int, int]] = []
    studies = dicom_studies(folder, accept_synthetic=True, progress=lambda done, total: counted.append((done, total)))
    assert len(studies) == 3
    assert counted[-1][0] == counted[-1][1] == len(counted)
    totals = sorted(float(study.load().pet.array.sum()) for study in studies)
    drawn = [read_nifti(path) for path in written.rglob("SUV.nii.gz")]
    np.testing.assert_allclose(totals, sorted(float(volume.array.sum()) for volume in drawn), rtol=1e-4)


def test_our_own_pet_is_never_a_training_pair(written: Path, tmp_path: Path) -> None:
    """The CT of a phantom, and beside it, instead of its PET, the one that the product synthesises of it."""
    ct_folder = next((written / "dicom").iterdir()) / "CT"
    source = read_ct_series(ct_folder, accept_synthetic=True)
    synthesis = Synthesis(
        model_name="m", model_hash="a" * 64, plan_hash="b" * 64, segmenter="landmarks", segmenter_hash="c" * 64,
        precision="float32", software_version="1", device_serial_number="D1", made_at=datetime(2026, 1, 2, tzinfo=UTC),
    )  # fmt: skip
    suv = Volume(np.ones(source.volume.array.shape, np.float32), source.volume.geometry)
    write_pet_series(suv, source, synthesis, tmp_path / "PT")
    shutil.copytree(ct_folder, tmp_path / "CT")
    assert "so it is a synthetic PET" in reason(only(dicom_studies(tmp_path, accept_synthetic=True)))
    shutil.copytree(ct_folder.parent / "PT", tmp_path / "real")
    loaded = only(dicom_studies(tmp_path, accept_synthetic=True)).load()
    assert loaded.pet.array.max() > 1.5


def test_the_corrected_pet_is_chosen_among_several(tmp_path: Path) -> None:
    ct_pet(tmp_path)
    uncorrected = {"SeriesInstanceUID": "2.25.39", "CorrectedImage": ["DECY"], "PatientWeight": "50"}
    pet_files.write_series(tmp_path / "NAC", 45, **uncorrected)
    short = {"SeriesInstanceUID": "2.25.38", "PatientWeight": "60"}
    pet_files.write_series(tmp_path / "short", 20, **short)
    less = {"SeriesInstanceUID": "2.25.37", "CorrectedImage": ["ATTN", "DECY"], "PatientWeight": "65"}
    pet_files.write_series(tmp_path / "less", 40, **less)
    loaded = only(dicom_studies(tmp_path)).load()
    np.testing.assert_allclose(loaded.pet.array[7], pet_files.activity_bqml(7) * pet_files.SUV_PER_BQML, rtol=1e-6)
    shutil.rmtree(tmp_path / "PT")
    shutil.rmtree(tmp_path / "less")
    shutil.rmtree(tmp_path / "short")
    assert "CorrectedImage of the PET lacks ATTN" in reason(only(dicom_studies(tmp_path)))


def test_the_ct_is_chosen_as_in_service(tmp_path: Path) -> None:
    ct_pet(tmp_path)
    lung = {"SeriesInstanceUID": "2.25.1999", "ConvolutionKernel": "LUNG"}
    ct_files.write_series(tmp_path / "lung", 40, change=other_pixels, **lung)
    np.testing.assert_array_equal(only(dicom_studies(tmp_path)).load().ct.array[7], ct_files.stored_values(7))


def other_pixels(image: Dataset, index: int) -> None:
    image.PixelData = (ct_files.stored_values(index) + 1).tobytes()


def test_a_frame_of_reference_each_makes_a_pair_each(tmp_path: Path) -> None:
    ct_pet(tmp_path / "body")
    head: dict[str, Any] = {"FrameOfReferenceUID": "2.25.33"}
    ct_pet(
        tmp_path / "head",
        ct={**head, "SeriesInstanceUID": "2.25.70"},
        pet={**head, "SeriesInstanceUID": "2.25.71"},
    )
    studies = dicom_studies(tmp_path)
    assert len({study.name for study in studies}) == 2
    assert len({study.patient for study in studies}) == 1
    for study in studies:
        assert study.load().pet.array.shape[0] == 40


NO_PAIR: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "frames": ({}, {"FrameOfReferenceUID": "2.25.99"}, "FrameOfReferenceUID of the study's CT is not that of its PET"),
    "no frame": ({"FrameOfReferenceUID": None}, {"FrameOfReferenceUID": None}, "FrameOfReferenceUID of CT and PET"),
    "patients": (
        {},
        {"PatientID": "PAT-1"},
        "PatientID (with IssuerOfPatientID) of the study's CT is not that of its PET",
    ),
    "nobody": ({"PatientID": None}, {"PatientID": None}, "PatientID of the study is missing"),
    "gap": ({}, {"isotope": {"RadionuclideTotalDose": None}}, "RadionuclideTotalDose of the PET is missing"),
    "tracer": ({}, {"isotope": {"Radiopharmaceutical": "68Ga-PSMA-11"}}, "is '68Ga-PSMA-11', not FDG"),
    "isotope": ({}, {"isotope": {"RadionuclideHalfLife": "4062.6"}}, "RadionuclideHalfLife of the PET is 4062.6 s"),
    "enhanced PET": ({}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.130"}, "The study's PET is a multi-frame object"),
    "short CT": ({"step_mm": 1.0}, {}, "covers 40 mm, less than the minimum"),
}


@pytest.mark.parametrize("case", NO_PAIR)
def test_a_study_without_a_pair_says_why(tmp_path: Path, case: str) -> None:
    ct, pet, expected = NO_PAIR[case]
    assert expected in reason(only(dicom_studies(ct_pet(tmp_path, ct=ct, pet=pet))))


TRACERS = [
    "Fluorodeoxyglucose F^18^", "FDG -- fluorodeoxyglucose", "2-[18F]-fluoro-2-deoxy-D-glucose",
    "2-deoxy-2-[18F]fluoro-D-glucose", "Fluordesoxyglukose (F-18)", "Solution", "", "F-18", "Fluor-18",
]  # fmt: skip
"""Of both orders of its chemical name, and as it is spelt in German."""


@pytest.mark.parametrize("tracer", quick_and_long(TRACERS[::4], [name for name in TRACERS if name not in TRACERS[::4]]))
def test_fdg_and_what_nobody_named_are_let_in(tmp_path: Path, tracer: str) -> None:
    ct_pet(tmp_path, pet={"isotope": {"Radiopharmaceutical": tracer}})
    assert only(dicom_studies(tmp_path)).load().pet.array.any()


def test_fdg_is_known_by_its_code_in_whatever_words(tmp_path: Path) -> None:
    """SNOMED's code for it, as PS3.16 CID 4021 has it; another code in the same words is another tracer."""
    for value, known in (("C-B1031", True), ("C-B1043", False)):
        code = Dataset()
        code.CodingSchemeDesignator, code.CodeValue, code.CodeMeaning = "SRT", value, "traceur"
        isotope = {"Radiopharmaceutical": "traceur", "RadiopharmaceuticalCodeSequence": [code]}
        study = only(dicom_studies(ct_pet(tmp_path / value, pet={"isotope": isotope})))
        if known:
            assert study.load().pet.array.any()
        else:
            assert "Radiopharmaceutical of the PET is 'traceur', not FDG" in reason(study)


def test_the_pet_of_fdg_is_chosen_beside_that_of_another_tracer(tmp_path: Path) -> None:
    ct_pet(tmp_path)
    other = {"SeriesInstanceUID": "2.25.39", "isotope": {"Radiopharmaceutical": "NaF"}}
    pet_files.write_series(tmp_path / "bone", 45, **other)
    assert only(dicom_studies(tmp_path)).load().pet.array.shape[0] == 40


def test_of_several_series_that_fail_each_ones_reason_is_told(tmp_path: Path) -> None:
    """The one to be mended is not the one that was never corrected."""
    ct_pet(tmp_path, pet={"PatientWeight": None})
    pet_files.write_series(tmp_path / "NAC", 40, SeriesInstanceUID="2.25.39", CorrectedImage=["DECY"])
    told = reason(only(dicom_studies(tmp_path)))
    assert told.startswith("The study's PET cannot be used: none of its 2 series is fit; ")
    assert "CorrectedImage of the PET lacks ATTN" in told
    assert "PatientWeight of the PET is missing" in told


@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_a_slice_that_is_missing_is_missing_in_the_ct_or_in_the_pet(tmp_path: Path, modality: str) -> None:
    ct_pet(tmp_path)
    sorted((tmp_path / modality).iterdir())[20].unlink()
    shown = {"CT": "CT", "PT": "PET"}[modality]
    refusal = reason(only(dicom_studies(tmp_path)))
    assert refusal.startswith(f"The study's {shown} cannot be used: Series (") and "The stack has a gap" in refusal


def test_images_behind_a_link_to_a_folder_are_found_and_one_to_nothing_is_a_lost_slice(tmp_path: Path) -> None:
    ct_pet(tmp_path / "archive")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study").symlink_to(tmp_path / "archive")
    study = only(find_studies(tmp_path / "mine"))
    assert study.load().pet.array.any()
    lost = sorted((tmp_path / "archive" / "PT").iterdir())[-1]
    lost.rename(tmp_path / "gone.dcm")
    lost.symlink_to(tmp_path / "nowhere.dcm")
    told = reason(only(find_studies(tmp_path / "mine")))
    assert told.startswith(f"{lost.name} beside the study's images is damaged")


def test_ct_alone_and_pet_alone_are_refused_with_the_reason(tmp_path: Path) -> None:
    ct_files.write_series(tmp_path / "CT", 40, StudyInstanceUID="2.25.500")
    pet_files.write_series(tmp_path / "PT", 40, StudyInstanceUID="2.25.501")
    reasons = sorted(reason(study) for study in dicom_studies(tmp_path))
    assert reasons == [
        "The study has CT but no PET image: send its PET series too.",
        "The study has PET but no CT image: send its CT series too.",
    ]


def test_a_multi_frame_copy_of_the_pet_does_not_stand_in_its_way(tmp_path: Path) -> None:
    ct_pet(tmp_path)
    copy = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.128.1", "SeriesInstanceUID": "2.25.40", "PatientWeight": "1"}
    pet_files.write_series(tmp_path / "copy", 1, **copy)
    (study,) = dicom_studies(tmp_path)
    assert study.load().pet.array[7].max() == pytest.approx(pet_files.activity_bqml(7).max() * pet_files.SUV_PER_BQML)


def test_what_is_no_dicom_is_passed_over_and_a_damaged_image_refuses_its_neighbours(tmp_path: Path) -> None:
    ct_pet(tmp_path)
    (tmp_path / "CT" / "README.txt").write_text("hello")
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.4")
    assert only(dicom_studies(tmp_path)).load().pet.array.any()
    whole = next((tmp_path / "PT").iterdir()).read_bytes()
    (tmp_path / "PT" / "lost.dcm").write_bytes(whole[:200])
    assert "lost.dcm beside the study's images is damaged" in reason(only(dicom_studies(tmp_path)))


def test_a_patient_is_the_same_in_all_studies_and_another_of_another_hospital(tmp_path: Path) -> None:
    for number, issuer in enumerate(("A", "A", "B")):
        uids = {"StudyInstanceUID": f"2.25.60{number}", "IssuerOfPatientID": issuer}
        ct_pet(tmp_path / str(number), ct=uids, pet=uids)
    patients = [study.patient for study in dicom_studies(tmp_path)]
    assert len(set(patients)) == 2
    assert patients[0] == patients[1]


# All of them


def test_the_layout_of_a_folder_is_found(written: Path, tmp_path: Path) -> None:
    assert len(find_studies(written)) == 3
    assert find_studies(written)[0].load().ct_origin == "CT"
    in_dicom = find_studies(written / "dicom", accept_synthetic=True)
    assert len(in_dicom) == 3 and in_dicom[0].load().is_phantom
    for folder, expected in ((tmp_path / "absent", "does not exist"), (tmp_path, "no DICOM image of CT or PET")):
        with pytest.raises(Rejected, match=expected):
            find_studies(folder)


def test_whoever_owns_the_files_learns_where_a_study_lies(written: Path, tmp_path: Path) -> None:
    """Whole, refused or not to be read at all."""
    in_autopet = autopet_studies(written)
    assert {study.place for study in in_autopet} == {path.parent for path in written.rglob("SUV.nii.gz")}
    in_dicom = dicom_studies(written / "dicom")
    assert {study.place for study in in_dicom} == set((written / "dicom").iterdir())
    pet_files.write_series(tmp_path / "multi", 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.130")
    assert only(dicom_studies(tmp_path)).place == tmp_path / "multi"


def test_references_survive_pickling_and_stay_small(written: Path) -> None:
    references = [
        *autopet_studies(written),
        *phantom_studies(2, 5),
        *dicom_studies(written / "dicom", accept_synthetic=True),
    ]
    for reference in references:
        packed = pickle.dumps(reference)
        assert len(packed) < 100_000
        assert pickle.loads(packed) == reference


def test_a_file_without_the_patient_never_names_one(tmp_path: Path) -> None:
    """The reference's text, as it may stand in a log, holds no number of the patient."""
    study = only(dicom_studies(ct_pet(tmp_path)))
    assert ct_files.PATIENT_ID not in repr(study)
    assert pydicom.dcmread(next((tmp_path / "CT").iterdir())).PatientID == ct_files.PATIENT_ID
