"""What is read of a data set before it is kept. Oracles: pydicom's own writer and reader, and random damage."""

import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable
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


FirstBytes = Callable[[int], bytes]


def first_of(content: bytes) -> FirstBytes:
    return lambda most: content[:most]


def encoded(folder: Path, transfer_syntax_uid: UID) -> bytes:
    file = instances.write(
        instances.instance(ReferencedStudySequence=[instances.instance()]), folder / "a.dcm", transfer_syntax_uid
    )
    return instances.data_set_bytes(file)


@pytest.mark.parametrize("transfer_syntax_uid", UNCOMPRESSED)
def test_the_deciding_attributes_are_those_that_pydicom_wrote(tmp_path: Path, transfer_syntax_uid: UID) -> None:
    header = read_header(first_of(encoded(tmp_path, transfer_syntax_uid)), transfer_syntax_uid)
    assert (header.study_uid, header.series_uid) == ("1.2.3", "1.2.3.1")
    assert (header.sop_instance_uid, header.sop_class_uid) == ("1.2.3.1.1", "1.2.840.10008.5.1.4.1.1.2")
    assert (header.dataset.Manufacturer, header.dataset.Modality) == ("ACME", "CT")


def test_no_patient_s_data_is_read(tmp_path: Path) -> None:
    header = read_header(first_of(encoded(tmp_path, ExplicitVRLittleEndian)), ExplicitVRLittleEndian)
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
        read_header(first_of(instances.data_set_bytes(file)), ExplicitVRLittleEndian)


@pytest.mark.parametrize("transfer_syntax_uid", UNCOMPRESSED)
@pytest.mark.parametrize("content", [b"", b"\0", b"\0" * 1000, b"\xff" * 1000, b"MZ" * 500, b"<html>" * 100])
def test_bytes_that_are_no_data_set_are_rejected_in_a_sentence(transfer_syntax_uid: UID, content: bytes) -> None:
    with pytest.raises(Rejected) as refusal:
        read_header(first_of(content), transfer_syntax_uid)
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
            read_header(first_of(bytes(damaged)), transfer_syntax_uid)
        except Rejected as refusal:
            assert len(str(refusal)) <= 64


def test_a_deflated_bomb_is_inflated_only_as_far_as_the_header() -> None:
    packer = zlib.compressobj(wbits=-15)
    bomb = b"".join([packer.compress(b"\x08\x00\x05\x00CS\x02\x00  " * 100_000) for _ in range(100)]) + packer.flush()
    with pytest.raises(Rejected):
        read_header(first_of(bomb), DeflatedExplicitVRLittleEndian)


ITEM = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"


def with_references(folder: Path, items: bytes, transfer_syntax_uid: UID) -> FirstBytes:
    """A data set with ReferencedSeriesSequence (0008,1115), of undefined length, before its study's UID."""
    plain = encoded(folder, ExplicitVRLittleEndian)
    place = plain.rindex(b"\x10\x00\x10\x00PN")
    sequence = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + items + b"\xfe\xff\xdd\xe0\0\0\0\0"
    whole = plain[:place] + sequence + plain[place:]
    if transfer_syntax_uid != DeflatedExplicitVRLittleEndian:
        return first_of(whole)
    packer = zlib.compressobj(wbits=-15)
    return first_of(packer.compress(whole) + packer.flush())


@pytest.mark.parametrize("transfer_syntax_uid", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_the_uids_behind_a_long_list_of_references_are_found(tmp_path: Path, transfer_syntax_uid: UID) -> None:
    reference = b"\x08\x00\x55\x11UI\x40\x00" + b"1.2.3".ljust(64, b"\0")
    item = b"\xfe\xff\x00\xe0" + struct.pack("<L", len(reference)) + reference
    header = read_header(with_references(tmp_path, item * 3000, transfer_syntax_uid), transfer_syntax_uid)
    assert (header.study_uid, header.series_uid) == ("1.2.3", "1.2.3.1")


@pytest.mark.parametrize("transfer_syntax_uid", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_millions_of_empty_items_are_rejected_in_little_memory(tmp_path: Path, transfer_syntax_uid: UID) -> None:
    """32 MiB of them, 32 KiB deflated: read as objects they took 8 GB."""
    data_set = with_references(tmp_path, ITEM * (1 << 22), transfer_syntax_uid)
    tracemalloc.start()
    try:
        with pytest.raises(Rejected, match="too many references"):
            read_header(data_set, transfer_syntax_uid)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("error")
def test_values_that_pydicom_would_remark_on_are_read_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its remarks hold the values; oracle: the bytes that were put in."""
    content = encoded(tmp_path, ExplicitVRLittleEndian)
    for old, new in ((b"LO\x04\x00ACME", b"LO\x04\x00A\xff\\E"), (b"1.2.3.1\0", b"Oberhub\0")):
        assert old in content
        content = content.replace(old, new)
    header = read_header(first_of(content), ExplicitVRLittleEndian)
    assert header.dataset.SeriesInstanceUID == "Oberhub"
    assert list(header.dataset.Manufacturer) == ["A\xff", "E"]
    assert caplog.records == []


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
