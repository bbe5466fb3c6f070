"""`twin-scanner translate` on a real patient; the readers are other people's: dciodvfy, SimpleITK and dcm2niix."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from tests.peers.check_dicom import errors_in
from tests.samples.command_line import run
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_scanner.imaging.volume import geometry_of, read_nifti, write_nifti
from twin_scanner.models.networks import WINDOW

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def result(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What translating the real thorax CT wrote."""
    out = tmp_path_factory.mktemp("translated") / "X"
    done = run(out.parent, "translate", str(shared_data / "thorax_petct" / "ct"), "--out", str(out), timeout_s=500)
    assert done.returncode == 0, done.stderr
    assert str(out / "preview.png") in done.stdout
    return out


@pytest.fixture(scope="module")
def stack(result: Path) -> sitk.Image:
    """The PET series as SimpleITK reads it, in SUV."""
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(result / "pet"))
    return sitk.ReadImage(names)


def test_it_writes_what_the_design_promises(result: Path) -> None:
    assert {entry.name for entry in result.iterdir()} == {
        "pet",
        "seg",
        "sr",
        "key",
        "ko",
        "pet.nii.gz",
        "districts.nii.gz",
        "preview.png",
        "report.json",
    }
    report = json.loads((result / "report.json").read_text())
    assert len(report["pet_files"]) == len(list((result / "pet").iterdir()))
    assert set(report["districts"]) == {"head", "trunk", "arms"}
    assert [companion["modality"] for companion in report["companions"]] == ["SEG", "SR", "OT", "KO"]
    assert 1.0 < report["suv_max"] <= 20.0


def test_dciodvfy_finds_no_error(result: Path, peer: Callable[[str], str]) -> None:
    peer("dciodvfy")
    assert errors_in([result / "pet"], synthetic=True) == []


def test_dciodvfy_finds_no_error_in_what_stands_beside_the_pet(result: Path, peer: Callable[[str], str]) -> None:
    peer("dciodvfy")
    assert errors_in([result / name for name in ("seg", "sr", "key", "ko")], count=4) == []


def test_each_district_of_the_report_is_told_of_its_own_border(result: Path) -> None:
    """The thorax has a head, both arms and a trunk, and no legs; the trunk borders on all of them."""
    (file,) = (result / "sr").iterdir()
    groups = highdicom.sr.srread(file).content.get_volumetric_roi_measurement_groups()
    remarks = {
        group.tracking_identifier: " ".join(
            str(element.value) for item in group for element in item.iterall() if element.keyword == "TextValue"
        )
        for group in groups
    }
    assert "right arm: " in remarks["arms"] and "left arm: " in remarks["arms"] and "head: " not in remarks["arms"]
    assert "head: " in remarks["head"] and "arm: " not in remarks["head"]
    assert all(part in remarks["trunk"] for part in ("head: ", "left arm: ", "legs: "))


def test_simpleitks_suv_is_the_niftis_within_half_a_slope(result: Path, stack: sitk.Image) -> None:
    slope = float(pydicom.dcmread(next((result / "pet").iterdir()), stop_before_pixels=True).RescaleSlope)
    nifti = read_nifti(result / "pet.nii.gz")
    assert geometry_of(stack).same_grid(nifti.geometry)
    assert np.abs(sitk.GetArrayFromImage(stack) - nifti.array).max() <= slope / 2 * (1 + 1e-3)


def test_the_pet_lies_on_the_ct(result: Path, stack: sitk.Image, shared_data: Path) -> None:
    """The CT's body, found here by a threshold, is where the PET is above background."""
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(shared_data / "thorax_petct" / "ct"))
    ct = sitk.Resample(sitk.ReadImage(names), stack, sitk.Transform(), sitk.sitkLinear, -1024.0)
    soft = (sitk.GetArrayFromImage(ct) > -100) & (sitk.GetArrayFromImage(ct) < 200)
    glows = sitk.GetArrayFromImage(stack) > 0.1
    assert (soft & glows).sum() / soft.sum() > 0.9
    air = sitk.GetArrayFromImage(ct) < -950
    edge = np.zeros_like(air)
    edge[:, :8], edge[:, -8:] = True, True
    assert not (glows & air & edge).any()


def test_dcm2niix_reads_the_same_suv(result: Path, tmp_path: Path, peer: Callable[[str], str]) -> None:
    subprocess.run(
        [peer("dcm2niix"), "-z", "n", "-f", "pet", "-o", str(tmp_path), str(result / "pet")],
        check=True,
        capture_output=True,
        timeout=200,
    )
    assert json.loads((tmp_path / "pet.json").read_text())["Units"] == "GML"
    theirs, ours = read_nifti(tmp_path / "pet.nii"), read_nifti(result / "pet.nii.gz")
    assert theirs.array.max() == pytest.approx(ours.array.max(), abs=1e-3)
    assert theirs.array.sum() == pytest.approx(ours.array.sum(), rel=1e-3)


def test_the_same_identity_as_the_ct_and_nothing_of_it_in_the_report(result: Path, shared_data: Path) -> None:
    ct = pydicom.dcmread(next((shared_data / "thorax_petct" / "ct").iterdir()), stop_before_pixels=True)
    pet = pydicom.dcmread(next((result / "pet").iterdir()), stop_before_pixels=True)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert pet[keyword].value == ct[keyword].value
    assert str(ct.PatientID) not in (result / "report.json").read_text()


@pytest.mark.long
def test_phantom_segment_and_translate_work_one_after_the_other(tmp_path: Path) -> None:
    studies = tmp_path / "PHANTOMS"
    assert run(tmp_path, "phantom", "--out", str(studies), "--count", "1", "--seed", "1").returncode == 0
    (ct,) = studies.rglob("CT.nii.gz")
    labels = tmp_path / "districts.nii.gz"
    assert run(tmp_path, "segment", str(ct), "--out", str(labels)).stdout.strip() == str(labels)
    out = tmp_path / "out"
    done = run(
        tmp_path,
        "translate",
        str(ct),
        "--out",
        str(out),
        "--segmenter",
        "labelmap",
        "--labelmap",
        str(labels),
        "--json",
    )
    assert done.returncode == 2
    assert "was trained on districts by 'landmarks', not by 'labelmap'" in done.stderr
    done = run(tmp_path, "translate", str(ct), "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["pet_files"] == []
    assert (out / "pet.nii.gz").is_file()
    assert "names no patient" in done.stderr
    assert report["uncertainty"] == {} and report["explanation"] == {}


@pytest.mark.long
def test_how_sure_it_is_and_why_it_is_hot_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    """A head: the brain's uptake is explained by evidence inside the windows that hold its hottest voxel."""
    phantom = make_phantom(3, PhantomOptions((4.0, 3.0, 3.0), field_of_view=(1430.0, 1780.0)))
    hottest = np.unravel_index(
        int(np.argmax(np.where(phantom.districts == 1, phantom.pet.array, 0.0))), phantom.ct.array.shape
    )
    x, y, z = phantom.ct.geometry.position_lps_mm((float(hottest[0]), float(hottest[1]), float(hottest[2])))
    ct, beside = tmp_path / "ct.nii.gz", tmp_path / "beside"
    write_nifti(ct, phantom.ct.array, phantom.ct.geometry)
    refused = run(tmp_path, "translate", str(ct), "--out", str(beside), "--explain", "voxel:0,0,0")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    target = f"mm:{x:.1f},{y:.1f},{z:.1f}"
    done = run(tmp_path, "translate", str(ct), "--out", str(beside), "--uncertainty", "--explain", target, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["uncertainty"]["calibrated"] is False and "not-calibrated" in "".join(names(beside))
    assert "raw deviation of mirrored translations" in done.stderr
    assert {"explanation.nii.gz", "explanation.png"} <= names(beside) and "uncertainty.nii.gz" not in names(beside)
    pet, attribution = read_nifti(beside / "pet.nii.gz"), read_nifti(beside / "explanation.nii.gz")
    at = np.rint(np.linalg.inv(pet.geometry.affine) @ (x, y, z, 1.0))[:3].astype(int)
    strongest = np.unravel_index(int(np.argmax(np.abs(attribution.array))), attribution.array.shape)
    assert np.abs(np.subtract(strongest, at)).max() < WINDOW
    if report["explanation"]["complete"]:
        explained = float(attribution.array.sum(dtype=np.float64))
        assert explained == pytest.approx(float(pet.array[tuple(at)]), rel=0.1, abs=0.3)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}
