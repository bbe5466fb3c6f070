"""Key Object Selections. Oracles: dciodvfy and dsrdump read them, highdicom finds what they name."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import highdicom
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from tests.peers.check_dicom import errors_in
from tests.twin_scanner.dicom.write.test_companions import enhanced
from tests.twin_scanner.dicom.write.test_pet_series import MADE_AT, SYNTHESIS, _ct, _write
from twin_scanner.dicom.equipment import is_our_own
from twin_scanner.dicom.read.ct_series import CtSeries
from twin_scanner.dicom.write.companions import (
    PET_CLASS,
    WrittenObject,
    companion_series_uid,
)
from twin_scanner.dicom.write.key_objects import (
    OF_INTEREST,
    REJECTED_FOR_QUALITY,
    SelectedSeries,
    SelectionName,
    write_key_objects,
)
from twin_scanner.dicom.write.pet_series import Synthesis
from twin_scanner.errors import Defect, Transient

pytestmark = pytest.mark.unit


def write(
    header: Dataset,
    series: list[SelectedSeries],
    folder: Path,
    name: SelectionName = "key-objects",
    title: Code = OF_INTEREST,
    made_at: datetime = MADE_AT,
    pet_series_uid: str = "",
) -> WrittenObject:
    return write_key_objects(
        name,
        title,
        series,
        header,
        made_at,
        folder,
        series_description="SYNTHETIC FDG-PET, all results",
        explanation="All results of one synthesis",
        pet_series_uid=pet_series_uid,
    )


def results(
    folder: Path, ct: CtSeries | None = None, synthesis: Synthesis = SYNTHESIS
) -> tuple[Dataset, list[SelectedSeries]]:
    """The header of a PET's first slice, and that PET with a segmentation and a report that stand beside it."""
    pet, _ = _write(folder / "pet", ct or _ct(), synthesis)
    return pydicom.dcmread(pet.files[0], stop_before_pixels=True), [
        SelectedSeries(pet.series_uid, PET_CLASS, pet.sop_instance_uids),
        SelectedSeries("1.2.840.1", str(SegmentationStorage), ("1.2.840.1.1",)),
        SelectedSeries("1.2.840.2", str(Comprehensive3DSRStorage), ("1.2.840.2.1",)),
    ]


@pytest.mark.parametrize(
    "ct",
    [
        _ct(),
        enhanced(),
        _ct(SeriesNumber=None, PatientBirthDate="", AccessionNumber="", PatientSex=""),
        _ct(TimezoneOffsetFromUTC="-0330", PatientID="", StudyTime="101500.123"),
    ],
    ids=["axial", "multi-frame", "poor header", "zone"],
)
@pytest.mark.parametrize(("name", "title"), [("key-objects", OF_INTEREST), ("rejection-note", REJECTED_FOR_QUALITY)])
def test_dciodvfy_finds_no_error(
    ct: CtSeries, name: SelectionName, title: Code, tmp_path: Path, peer: Callable[[str], str]
) -> None:
    peer("dciodvfy")
    header, series = results(tmp_path, ct)
    document = write(header, series, tmp_path / "ko", name, title)
    assert errors_in([document.file], synthetic=True) == []


def test_every_result_is_named_once_and_images_are_told_from_documents(tmp_path: Path) -> None:
    header, series = results(tmp_path)
    document = write(header, series, tmp_path / "ko")
    read = highdicom.ko.KeyObjectSelectionDocument.from_dataset(pydicom.dcmread(document.file))
    named = [item.referenced_sop_instance_uid for item in read.content.get_references()]
    assert named == [uid for one in series for uid in one.sop_instance_uids]
    kinds = {item.referenced_sop_instance_uid: item.value_type.value for item in read.content.get_references()}
    assert [uid for uid, kind in kinds.items() if kind == "COMPOSITE"] == ["1.2.840.2.1"]
    for one in series:
        for uid in one.sop_instance_uids:
            assert read.resolve_reference(uid) == (header.StudyInstanceUID, one.series_uid, uid)


def test_the_document_belongs_to_the_pets_patient_study_and_equipment(tmp_path: Path) -> None:
    ct = _ct(PatientName="Núñez^José", SpecificCharacterSet="ISO_IR 100", TimezoneOffsetFromUTC="+0100")
    header, series = results(tmp_path, ct)
    document = write(header, series, tmp_path / "ko")
    read = pydicom.dcmread(document.file)
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "AccessionNumber", "SyntheticData"):
        assert read[keyword].value == header[keyword].value, keyword
    assert read.ContributingEquipmentSequence == header.ContributingEquipmentSequence
    assert (read.ContentDate, read.ContentTime) == ("20261123", "003015.250000")
    assert (document.modality, document.synthetic, document.number) == ("KO", True, header.SeriesNumber * 10 + 4)
    assert is_our_own(read, "TS-1")


def test_a_rejection_note_bears_its_title_and_stands_beside_the_pet_that_it_rejects(
    tmp_path: Path, peer: Callable[[str], str]
) -> None:
    _, rejected = results(tmp_path / "old")
    header, _ = results(tmp_path / "new", synthesis=replace(SYNTHESIS, revision=2))
    old = rejected[0].series_uid
    note = write(header, rejected, tmp_path / "ko", "rejection-note", REJECTED_FOR_QUALITY, pet_series_uid=old)
    assert note.file.name == "rejection-note.dcm"
    assert note.series_uid == companion_series_uid("rejection-note", old)
    title = pydicom.dcmread(note.file).ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113001", "DCM")
    dump = subprocess.run([peer("dsrdump"), str(note.file)], capture_output=True, text=True)
    assert dump.returncode == 0, dump.stderr
    assert "Rejected for Quality Reasons" in dump.stdout


def test_the_same_selection_is_the_same_bytes_and_any_other_has_another_uid(tmp_path: Path) -> None:
    header, series = results(tmp_path)
    first, second = (write(header, series, tmp_path / name) for name in ("one", "two"))
    assert first.file.read_bytes() == second.file.read_bytes()
    others = [
        write(header, series[:-1], tmp_path / "fewer"),
        write(header, series, tmp_path / "other title", title=REJECTED_FOR_QUALITY),
        write(header, series, tmp_path / "note", "rejection-note", REJECTED_FOR_QUALITY),
        write(header, series, tmp_path / "other PET", pet_series_uid="1.2.3"),
    ]
    uids = {first.sop_instance_uid, *(other.sop_instance_uid for other in others)}
    assert len(uids) == 1 + len(others)


def test_a_selection_of_nothing_or_at_no_known_time_is_a_defect(tmp_path: Path) -> None:
    header, series = results(tmp_path)
    with pytest.raises(Defect, match="names no instance"):
        write(header, [], tmp_path / "ko")
    with pytest.raises(Defect, match="no time zone"):
        write(header, series, tmp_path / "ko", made_at=MADE_AT.replace(tzinfo=None))


def test_a_disk_that_refuses_is_transient(tmp_path: Path) -> None:
    header, series = results(tmp_path)
    (tmp_path / "ko").write_text("a file where the folder should be")
    with pytest.raises(Transient, match=r"key-objects\.dcm cannot be written"):
        write(header, series, tmp_path / "ko")
