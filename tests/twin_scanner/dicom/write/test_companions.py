"""What stands beside the PET. Oracles: dciodvfy, dsrdump, highdicom's readers and the arrays themselves."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from tests.fakes.full_disk import files_end_at
from tests.peers.check_dicom import errors_in
from tests.twin_scanner.dicom.write.test_pet_series import CT_GRID, OBLIQUE_GRID, SYNTHESIS, _ct, _write
from twin_scanner.dicom.equipment import is_our_own
from twin_scanner.dicom.read.ct_series import CtSeries
from twin_scanner.dicom.write.companions import KINDS, PET_CLASS, WrittenObject, companion_series_uids, write_object
from twin_scanner.dicom.write.key_image import write_key_image
from twin_scanner.dicom.write.key_objects import OF_INTEREST, SelectedSeries, write_key_objects
from twin_scanner.dicom.write.measurement_report import DistrictMeasurement, write_measurement_report
from twin_scanner.dicom.write.pet_series import Synthesis, WrittenSeries
from twin_scanner.dicom.write.segmentation import SegmentationKind, segment_numbers, write_segmentation
from twin_scanner.errors import Defect, Transient
from twin_scanner.imaging.district_labels import DISTRICT_NAMES
from twin_scanner.imaging.suv import PEAK_DEFINITION, region_suv
from twin_scanner.imaging.volume import Geometry, LabelArray, resample_labels

pytestmark = pytest.mark.unit


def districts(grid: Geometry) -> LabelArray:
    """Head above, legs below, trunk between, arms aside; empty slices at both ends, and asymmetric on every axis."""
    labels = np.zeros(grid.shape, np.uint8)
    labels[2:8, 3:15, 4:18] = 4
    labels[8:17, 3:17, 5:16] = 2
    labels[9:14, 6:10, 17:20] = 3
    labels[17:22, 4:12, 7:14] = 1
    return labels


def make_all(
    folder: Path,
    ct: CtSeries | None = None,
    synthesis: Synthesis = SYNTHESIS,
    kind: SegmentationKind = "binary",
    missing: tuple[str, ...] = (),
) -> tuple[WrittenSeries, list[WrittenObject]]:
    """The PET of a CT and all that goes with it."""
    ct = ct or _ct()
    pet, suv = _write(folder / "pet", ct, synthesis)
    labels, geometry = districts(ct.volume.geometry), ct.volume.geometry
    seg = write_segmentation(labels, geometry, DISTRICT_NAMES, ct, pet, synthesis, folder / "seg", kind)
    statistics = region_suv(suv, resample_labels(labels, geometry, suv.geometry))
    measured = [
        DistrictMeasurement(
            DISTRICT_NAMES[label],
            number,
            float((labels == label).sum() * geometry.voxel_ml),
            None if DISTRICT_NAMES[label] in missing else statistics[label],
            "head: whole, border found, confidence 0.9.",
        )
        for label, number in segment_numbers([1, 2, 3, 4]).items()
    ]
    report = write_measurement_report(measured, seg, ct, pet, synthesis, folder / "sr")
    pixels = np.random.default_rng(0).integers(0, 256, (101, 51, 3)).astype(np.uint8)
    key = write_key_image(pixels, ct, pet, synthesis, folder / "key")
    results = [
        SelectedSeries(pet.series_uid, PET_CLASS, pet.sop_instance_uids),
        *(SelectedSeries(one.series_uid, one.sop_class_uid, (one.sop_instance_uid,)) for one in (seg, report, key)),
    ]
    header = pydicom.dcmread(pet.files[0], stop_before_pixels=True)
    selection = write_key_objects(
        "key-objects",
        OF_INTEREST,
        results,
        header,
        synthesis.made_at,
        folder / "ko",
        series_description="SYNTHETIC FDG-PET, all results",
        explanation="All results of one synthesis",
    )
    return pet, [seg, report, key, selection]


def enhanced() -> CtSeries:
    """A CT that is one multi-frame object."""
    return replace(_ct(instances=1), sop_class_uid=EnhancedCTImageStorage)


def test_dciodvfy_finds_no_error(tmp_path: Path, peer: Callable[[str], str]) -> None:
    peer("dciodvfy")
    cts = [
        _ct(),
        _ct(OBLIQUE_GRID),
        enhanced(),
        _ct(SeriesNumber=None, PatientBirthDate="", AccessionNumber="", PatientSex=""),
        _ct(SyntheticData="YES", TimezoneOffsetFromUTC="-0330", PatientID="", StudyTime="101500.123"),
    ]
    all_made = [make_all(tmp_path / str(number), ct) for number, ct in enumerate(cts)]
    all_made.append(make_all(tmp_path / "phantoms", cts[0], replace(SYNTHESIS, phantom_only=True)))
    files = [file for pet, beside in all_made for file in (pet.files[0], *(one.file for one in beside))]
    assert errors_in(files, count=30) == []


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("ct", [_ct(), _ct(OBLIQUE_GRID), enhanced()], ids=["axial", "oblique", "multi-frame"])
def test_highdicom_reads_every_voxel_of_the_segmentation_where_it_was(
    ct: CtSeries, kind: SegmentationKind, tmp_path: Path
) -> None:
    """Through the affine: each labelled voxel's position in the patient, found in our own geometry."""
    _, (seg, *_) = make_all(tmp_path, ct, kind=kind)
    read = highdicom.seg.segread(seg.file)
    volume = read.get_volume(combine_segments=True, skip_overlap_checks=True)
    numbers = segment_numbers([1, 2, 3, 4])
    back = np.zeros(ct.volume.geometry.shape, np.uint8)
    index = np.argwhere(volume.array > 0)
    positions = np.c_[index, np.ones(len(index))] @ volume.affine.T
    ours = np.rint(positions @ np.linalg.inv(ct.volume.geometry.affine).T)[:, :3].astype(int)
    back[tuple(ours.T)] = volume.array[tuple(index.T)]
    wanted = districts(ct.volume.geometry)
    for label, number in numbers.items():
        assert np.array_equal(back == number, wanted == label)
    assert [str(one.SegmentLabel) for one in read.SegmentSequence if one.SegmentNumber] == [
        "head",
        "trunk",
        "arms",
        "legs",
    ]


def test_each_frame_names_the_ct_image_that_it_lies_on(tmp_path: Path) -> None:
    ct = _ct()
    _, (seg, *_) = make_all(tmp_path, ct)
    read = pydicom.dcmread(seg.file)
    for frame in read.PerFrameFunctionalGroupsSequence:
        z = float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        slice_index = round((z - CT_GRID.origin_lps_mm[2]) / CT_GRID.spacing_mm[0])
        assert image.ReferencedSOPInstanceUID == ct.sop_instance_uids[slice_index]


def test_all_refer_to_the_ct_and_to_the_pet(tmp_path: Path) -> None:
    ct = _ct()
    pet, made = make_all(tmp_path, ct)
    for one in made[:3]:
        text = str(pydicom.dcmread(one.file))
        assert all(uid in text for uid in (*ct.sop_instance_uids, *pet.sop_instance_uids)), one.kind
    report = str(pydicom.dcmread(made[1].file))
    assert made[0].sop_instance_uid in report
    selection = str(pydicom.dcmread(made[3].file))
    assert all(uid in selection for uid in (*pet.sop_instance_uids, *(one.sop_instance_uid for one in made[:3])))


def test_what_derives_from_the_pet_says_synthetic_and_the_segmentation_of_a_real_ct_does_not(tmp_path: Path) -> None:
    _, made = make_all(tmp_path / "real")
    assert [pydicom.dcmread(one.file).get("SyntheticData") for one in made] == [None, "YES", "YES", "YES"]
    assert [one.synthetic for one in made] == [False, True, True, True]
    _, made = make_all(tmp_path / "phantom", _ct(SyntheticData="YES"))
    assert [pydicom.dcmread(one.file).get("SyntheticData") for one in made] == ["YES"] * 4


def test_the_key_image_warns_in_its_pixels_and_its_attributes_and_keeps_every_pixel(tmp_path: Path) -> None:
    _, (_, _, key, _) = make_all(tmp_path)
    read = pydicom.dcmread(key.file)
    assert (read.BurnedInAnnotation, read.ContentQualification, read.Modality) == ("YES", "RESEARCH", "OT")
    assert "SYNTHETIC" in read.SeriesDescription
    wanted = np.random.default_rng(0).integers(0, 256, (101, 51, 3)).astype(np.uint8)
    assert np.array_equal(read.pixel_array, wanted)


def test_the_numbers_of_the_report_are_those_that_were_measured(tmp_path: Path, peer: Callable[[str], str]) -> None:
    ct = _ct()
    pet, (_, report, *_) = make_all(tmp_path, ct, missing=("legs",))
    _, suv = _write(tmp_path / "again", ct)
    labels = resample_labels(districts(CT_GRID), CT_GRID, suv.geometry)
    wanted = region_suv(suv, labels)
    tree = highdicom.sr.srread(report.file)
    assert tree.CompletionFlag == "COMPLETE"
    assert tree.VerificationFlag == "UNVERIFIED"
    groups = tree.content.get_volumetric_roi_measurement_groups()
    found = {group.tracking_identifier: [m.value for m in group.get_measurements()] for group in groups}
    assert set(found) == {"head", "trunk", "arms", "legs (not synthesised)"}
    assert len(found["legs (not synthesised)"]) == 1
    for label in (1, 2, 3):
        expected = [wanted[label].mean, wanted[label].maximum, wanted[label].peak]
        assert found[DISTRICT_NAMES[label]][1:] == pytest.approx(
            [value for value in expected if value is not None], abs=1e-4
        )
    for group in groups:
        derivations = [m.derivation.value for m in group.get_measurements() if m.derivation is not None]
        said = [str(e.value) for item in group for e in item.iterall() if e.keyword == "TextValue"]
        assert derivations == ["373098007", "56851009", "126031"][: len(derivations)]
        assert (PEAK_DEFINITION in said) is ("126031" in derivations) is (len(derivations) == 3)
    assert any(len(values) == 4 for values in found.values())
    dump = subprocess.run([peer("dsrdump"), str(report.file)], capture_output=True, text=True)
    assert dump.returncode == 0
    assert '"SUVbw"' in dump.stdout
    assert pet.series_uid


def test_the_maximum_names_the_slice_of_the_pet_where_it_lies(tmp_path: Path) -> None:
    ct = _ct()
    pet, (_, report, *_) = make_all(tmp_path, ct)
    _, suv = _write(tmp_path / "again", ct)
    wanted = region_suv(suv, resample_labels(districts(CT_GRID), CT_GRID, suv.geometry))
    group = highdicom.sr.srread(report.file).content.get_volumetric_roi_measurement_groups()[0]
    maximum = group.get_measurements()[2]
    (image,) = (
        [i for i in maximum.ContentSequence if i.ValueType == "IMAGE"]
        if hasattr(maximum, "ContentSequence")
        else [i for i in maximum[0].ContentSequence if i.ValueType == "IMAGE"]
    )
    uid = image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert uid == pet.sop_instance_uids[wanted[1].maximum_at[0]]


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_the_same_arguments_give_the_same_bytes(tmp_path: Path, kind: SegmentationKind) -> None:
    (_, first), (_, second) = (make_all(tmp_path / name, kind=kind) for name in ("one", "two"))
    for one, other in zip(first, second, strict=True):
        assert one.file.read_bytes() == other.file.read_bytes()
        assert one.sop_instance_uid == other.sop_instance_uid


def test_what_has_other_bytes_because_of_other_outputs_has_another_uid(tmp_path: Path) -> None:
    """The same CT translated once more with a label map instead of a binary segmentation, which the report names."""
    (_, first), (_, second) = (make_all(tmp_path / kind, kind=kind) for kind in get_args(SegmentationKind))
    for one, other in zip(first, second, strict=True):
        same_bytes = one.file.read_bytes() == other.file.read_bytes()
        assert (one.sop_instance_uid == other.sop_instance_uid) == same_bytes, one.kind


def test_a_revision_has_series_of_its_own_which_the_pets_uid_tells(tmp_path: Path) -> None:
    pet, made = make_all(tmp_path / "one")
    again, remade = make_all(tmp_path / "two", synthesis=replace(SYNTHESIS, revision=2))
    assert tuple(one.series_uid for one in made) == companion_series_uids(pet.series_uid)
    assert tuple(one.series_uid for one in remade) == companion_series_uids(again.series_uid)
    assert not {one.series_uid for one in made} & {one.series_uid for one in remade}


def test_series_numbers_follow_the_pets_and_differ(tmp_path: Path) -> None:
    _, made = make_all(tmp_path)
    assert [one.number for one in made] == [2011, 2012, 2013, 2014]
    assert [one.kind for one in made] == list(KINDS)
    _, made = make_all(tmp_path / "long", _ct(SeriesNumber="9999999"))
    assert all(0 < one.number < 2**31 for one in made)


def test_the_loop_guard_knows_them_as_our_own(tmp_path: Path) -> None:
    _, made = make_all(tmp_path)
    for one in made:
        assert is_our_own(pydicom.dcmread(one.file, stop_before_pixels=True), "TS-1")


@pytest.mark.long
def test_the_patients_name_survives_every_character_set(tmp_path: Path, shared_data: Path) -> None:
    every = sorted((shared_data / "odd_files" / "charset").glob("*.dcm"))
    charset_files = [file for file in every if "PatientName" in pydicom.dcmread(file, stop_before_pixels=True)]
    assert len(charset_files) >= 10
    for index, file in enumerate(charset_files):
        header: Dataset = pydicom.dcmread(file, stop_before_pixels=True)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(header, keyword, f"1.2.3.{index}")
        pet, made = make_all(tmp_path / str(index), replace(_ct(), header=header))
        wanted = str(pydicom.dcmread(pet.files[0], stop_before_pixels=True).PatientName)
        assert wanted.strip("^= ")
        for one in made:
            read = pydicom.dcmread(one.file, stop_before_pixels=True)
            assert read.SpecificCharacterSet == "ISO_IR 192"
            assert str(read.PatientName) == wanted


def test_a_map_of_another_grid_or_without_labels_is_a_defect(tmp_path: Path) -> None:
    ct = _ct()
    pet, _ = _write(tmp_path / "pet", ct)
    arguments = (DISTRICT_NAMES, ct, pet, SYNTHESIS, tmp_path / "seg")
    with pytest.raises(Defect, match="do not lie on the CT's grid"):
        write_segmentation(districts(OBLIQUE_GRID), OBLIQUE_GRID, *arguments)
    with pytest.raises(Defect, match="is empty"):
        write_segmentation(np.zeros(CT_GRID.shape, np.uint8), CT_GRID, *arguments)


def test_a_finer_partition_has_its_own_names(tmp_path: Path) -> None:
    ct = _ct()
    pet, _ = _write(tmp_path / "pet", ct)
    labels = districts(CT_GRID)
    labels[labels == 2] = 200
    names = {1: "brain", 3: "left lung", 4: "liver", 200: "other"}
    seg = write_segmentation(labels, CT_GRID, names, ct, pet, SYNTHESIS, tmp_path / "seg")
    read = pydicom.dcmread(seg.file)
    assert [one.SegmentLabel for one in read.SegmentSequence] == ["brain", "left lung", "liver", "other"]


def test_a_disk_that_refuses_is_transient(tmp_path: Path) -> None:
    ct = _ct()
    pet, _ = _write(tmp_path / "pet", ct)
    (tmp_path / "key").write_text("a file where the folder should be")
    with pytest.raises(Transient, match="cannot be written"):
        write_key_image(np.zeros((4, 4, 3), np.uint8), ct, pet, SYNTHESIS, tmp_path / "key")


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_transient_for_every_object_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    made, folder = Dataset(), tmp_path / "out"
    made.update({"SOPClassUID": "1.2.3", "SOPInstanceUID": "1.2.4", "PatientComments": "x" * 5000})
    with files_end_at(1000), pytest.raises(Transient, match=f"{kind}.dcm cannot be written .*free space"):
        write_object(made, kind, folder)  # type: ignore[arg-type]
    assert list(folder.iterdir()) == []


def test_other_pixels_than_rgb_are_a_defect(tmp_path: Path) -> None:
    ct = _ct()
    pet, _ = _write(tmp_path / "pet", ct)
    with pytest.raises(Defect, match="RGB"):
        write_key_image(np.zeros((4, 4), np.uint8), ct, pet, SYNTHESIS, tmp_path / "key")
    assert CTImageStorage
