"""What is read of a data set before it is kept. Oracles: pydicom's own writer and reader, and random damage."""

import random
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_node.instance_header import DECIDING_TAGS, file_meta, read_header
from tests.samples import instances
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.unit

UNCOMPRESSED = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def encoded(folder: Path, transfer_syntax_uid: UID) -> bytes:
    file = instances.write(
        instances.instance(ReferencedStudySequence=[instances.instance()]), folder / "a.dcm", transfer_syntax_uid
    )
    return instances.data_set_bytes(file)


@pytest.mark.parametrize("transfer_syntax_uid", UNCOMPRESSED)
def test_the_deciding_attributes_are_those_that_pydicom_wrote(tmp_path: Path, transfer_syntax_uid: UID) -> None:
    header = read_header(BytesIO(encoded(tmp_path, transfer_syntax_uid)), transfer_syntax_uid)
    assert (header.study_uid, header.series_uid) == ("1.2.3", "1.2.3.1")
    assert (header.sop_instance_uid, header.sop_class_uid) == ("1.2.3.1.1", "1.2.840.10008.5.1.4.1.1.2")
    assert (header.dataset.Manufacturer, header.dataset.Modality) == ("ACME", "CT")


def test_no_patient_s_data_is_read(tmp_path: Path) -> None:
    header = read_header(BytesIO(encoded(tmp_path, ExplicitVRLittleEndian)), ExplicitVRLittleEndian)
    assert {int(element.tag) for element in header.dataset} <= set(DECIDING_TAGS)
    assert instances.PATIENT_NAME not in str(header.dataset)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_or_empty_uid_is_named(tmp_path: Path, keyword: str, value: str | None) -> None:
    file = instances.write(
        instances.instance(**{keyword: value}),
        tmp_path / "a.dcm",
        requested_class_uid="1.2.840.10008.5.1.4.1.1.2",
        requested_instance_uid="1.2.3",
    )
    with pytest.raises(Rejected, match=f"has no {keyword}"):
        read_header(BytesIO(instances.data_set_bytes(file)), ExplicitVRLittleEndian)


@pytest.mark.parametrize("transfer_syntax_uid", UNCOMPRESSED)
@pytest.mark.parametrize("content", [b"", b"\0", b"\0" * 1000, b"\xff" * 1000, b"MZ" * 500, b"<html>" * 100])
def test_bytes_that_are_no_data_set_are_rejected_in_a_sentence(transfer_syntax_uid: UID, content: bytes) -> None:
    with pytest.raises(Rejected) as refusal:
        read_header(BytesIO(content), transfer_syntax_uid)
    assert len(str(refusal.value)) <= 64


@pytest.mark.parametrize("transfer_syntax_uid", UNCOMPRESSED)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_damaged_header_is_read_or_rejected_but_never_anything_else(tmp_path: Path, transfer_syntax_uid: UID) -> None:
    whole = encoded(tmp_path, transfer_syntax_uid)
    draw = random.Random(1)
    for _ in range(1500):
        damaged = bytearray(whole[: draw.choice((len(whole), draw.randrange(len(whole))))])
        for _ in range(draw.randrange(1, 6)):
            if damaged:
                damaged[draw.randrange(min(len(damaged), 700))] = draw.choice((0, 255, draw.randrange(256)))
        try:
            read_header(BytesIO(bytes(damaged)), transfer_syntax_uid)
        except Rejected as refusal:
            assert len(str(refusal)) <= 64


def test_a_deflated_bomb_is_inflated_only_as_far_as_the_header() -> None:
    import zlib

    packer = zlib.compressobj(wbits=-15)
    bomb = b"".join([packer.compress(b"\x08\x00\x05\x00CS\x02\x00  " * 100_000) for _ in range(100)]) + packer.flush()
    with pytest.raises(Rejected):
        read_header(BytesIO(bomb), DeflatedExplicitVRLittleEndian)


@pytest.mark.parametrize("sop_instance_uid", ["1.2.3", "1.2.34"])
def test_the_file_meta_information_is_what_pydicom_reads(tmp_path: Path, sop_instance_uid: str) -> None:
    file = tmp_path / "a.dcm"
    content = file_meta("1.2.840.10008.5.1.4.1.1.2", sop_instance_uid, ExplicitVRLittleEndian)
    file.write_bytes(content + encoded(tmp_path, ExplicitVRLittleEndian))
    dataset = dcmread(file)
    assert dataset.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert dataset.file_meta.MediaStorageSOPInstanceUID == sop_instance_uid
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert dataset.file_meta.FileMetaInformationGroupLength == len(content) - 144
    assert dataset.file_meta.ImplementationClassUID.is_valid
    assert dataset.PatientName == instances.PATIENT_NAME
