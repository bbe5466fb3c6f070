"""JPEG streams that GDCM may be given, and those on which it would end the process."""

from pathlib import Path

import pydicom
import pytest
from pydicom.encaps import generate_frames

from twin_scanner.dicom.read.jpeg_stream import UnsoundJpeg, check_jpeg, check_jpeg2000

pytestmark = pytest.mark.unit

FILES = [
    "CT1_JPLL.dcm",
    "CT2_JPLL.dcm",
    "bad_sequence.dcm",
    "CTImage.dcm_JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57.dcm",
]


def stream_of(shared_data: Path, name: str) -> bytes:
    """The JPEG stream of a file's only frame, 512 x 512."""
    return next(generate_frames(pydicom.dcmread(shared_data / "odd_files" / name).PixelData, number_of_frames=1))


@pytest.mark.parametrize("name", FILES)
def test_the_streams_of_real_scanners_are_sound(shared_data: Path, name: str) -> None:
    check_jpeg(stream_of(shared_data, name), 512, 512)


@pytest.mark.parametrize("name", FILES)
def test_a_stream_of_another_size_is_not(shared_data: Path, name: str) -> None:
    with pytest.raises(UnsoundJpeg, match="another picture"):
        check_jpeg(stream_of(shared_data, name), 512, 511)


@pytest.mark.parametrize("name", FILES)
def test_a_stream_cut_anywhere_is_not_sound(shared_data: Path, name: str) -> None:
    stream = stream_of(shared_data, name).rstrip(b"\x00\xff")
    for length in [*range(120), len(stream) // 2, len(stream) - 1]:
        with pytest.raises(UnsoundJpeg):
            check_jpeg(stream[:length], 512, 512)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 0), (13, 9), (11, 0x93), (24, 17), (29, 2), (31, 0x22), (39, 200), (38, 255), (70, 3), (74, 9)],
)
def test_an_impossible_byte_in_the_tables_is_found(shared_data: Path, place: int, value: int) -> None:
    """Offsets in the Process 14 sample: JFIF version 11 and unit 13, precision 24, ..., Huffman counts from 38."""
    stream = bytearray(stream_of(shared_data, FILES[3]))
    stream[place] = value
    with pytest.raises(UnsoundJpeg):
        check_jpeg(bytes(stream), 512, 512)


def test_a_marker_in_the_coded_pixels_is_found(shared_data: Path) -> None:
    stream = bytearray(stream_of(shared_data, "CT1_JPLL.dcm"))
    stream[5000:5002] = b"\xff\xc4"
    with pytest.raises(UnsoundJpeg, match="a marker in the coded pixels"):
        check_jpeg(bytes(stream), 512, 512)


@pytest.mark.parametrize("place", [8, 12, 24, 40])
def test_a_jpeg_2000_stream_of_another_size_never_reaches_its_codec(shared_data: Path, place: int) -> None:
    """OpenJPEG takes the memory that a damaged SIZ asks for; the offsets are ISO/IEC 15444-1 table A.9."""
    image = pydicom.dcmread(shared_data / "odd_files" / "CT1_J2KR.dcm")
    (stream,) = generate_frames(image.PixelData, number_of_frames=1)
    check_jpeg2000(stream, image.Rows, image.Columns)
    damaged = bytearray(stream)
    damaged[place : place + 2] = b"\x00\x00" if place == 24 else b"\x7f\xff"
    damaged[place + 2 : place + 4] = b"\x00\x00" if place == 24 else damaged[place + 2 : place + 4]
    with pytest.raises(UnsoundJpeg):
        check_jpeg2000(bytes(damaged), image.Rows, image.Columns)
