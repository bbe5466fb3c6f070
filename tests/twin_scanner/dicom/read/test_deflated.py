"""Deflated files: read as their plain twins, and bombs that end in a sentence. Memory is counted by tracemalloc."""

import re
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.samples.ct_files import save, stored_values, write_series
from twin_scanner.dicom.read.ct_series import read_ct_series
from twin_scanner.dicom.read.dicom_files import HEADER_BYTES, read_dataset, read_header
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.dicom.read.series_choice import choose_series
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.unit

MIB = 1 << 20
BOMB_MIB = 256
BOUND_MIB = 128
"""Of what reading may allocate in all: far below what the bombs unpack to."""
PIXELS = b"\xe0\x7f\x10\x00"
ITEM = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
TEXT = b"\x08\x00\x05\x10LT\xfe\xff" + b" " * 0xFFFE
"""(0008,1005), no attribute of the standard, of 64 KiB."""


def deflated(file: Path, before: Iterator[bytes] | None = None, after: Iterator[bytes] | None = None) -> Path:
    """Deflate a plain file in place, with pieces before its pixels, or in place of them."""
    raw = file.read_bytes()
    length = int.from_bytes(raw[140:144], "little")
    meta, body = raw[: 144 + length], raw[144 + length :]
    place = body.index(PIXELS)
    packer = zlib.compressobj(9, wbits=-15)
    packed = [packer.compress(body[:place]), *(packer.compress(piece) for piece in before or ())]
    packed += [packer.compress(piece) for piece in after] if after is not None else [packer.compress(body[place:])]
    plain, syntax = b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x16\x001.2.840.10008.1.2.1.99"
    assert meta.count(plain) == 1
    meta = meta[:140] + struct.pack("<L", length + 2) + meta[144:].replace(plain, syntax)
    file.write_bytes(meta + b"".join(packed) + packer.flush())
    return file


def zeros(mib: int) -> Iterator[bytes]:
    for _ in range(mib):
        yield bytes(MIB)


def endless_pixels() -> Iterator[bytes]:
    yield PIXELS + b"OW\0\0" + struct.pack("<L", BOMB_MIB * MIB)
    yield from zeros(BOMB_MIB)


def endless_header() -> Iterator[bytes]:
    for _ in range(BOMB_MIB * 16):
        yield TEXT


def endless_items() -> Iterator[bytes]:
    yield b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff"
    for _ in range(4):
        yield ITEM * (MIB // 8)
    yield b"\xfe\xff\xdd\xe0\0\0\0\0"


def peak_mib(work: Callable[[], Any]) -> float:
    """The most that was allocated at once while it worked."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


def sentence(work: Callable[[], Any]) -> str:
    with pytest.raises(Rejected) as caught:
        work()
    return str(caught.value)


def test_a_deflated_series_is_the_volume_of_its_plain_twin(tmp_path: Path) -> None:
    files = write_series(tmp_path / "plain")
    expected = read_ct_series(files).volume.array
    for file in files:
        deflated(file)
    np.testing.assert_array_equal(read_ct_series(files).volume.array, expected)


@pytest.mark.long
def test_a_deflated_multi_frame_with_a_long_header_is_read(tmp_path: Path) -> None:
    images = [pydicom.dcmread(file) for file in write_series(tmp_path / "single", 1000, step_mm=1.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = LegacyConvertedEnhancedCTImage(images, "2.25.400", 4, "2.25.500", 1)
    file = save(converted, tmp_path / "multi.dcm")
    assert file.read_bytes().index(PIXELS) > HEADER_BYTES[0]
    deflated(file)
    np.testing.assert_array_equal(read_ct_series([file]).volume.array[999], stored_values(999))


def test_the_header_before_endless_pixels_is_read_and_nothing_behind_it(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    deflated(files[3], after=endless_pixels())
    choices: list[Any] = []
    peak = peak_mib(lambda: choices.extend(choose_series(files, Preference(minimum_coverage_mm=0))))
    assert [choice.series_uid for choice in choices] == ["2.25.2"]
    assert peak < BOUND_MIB


@pytest.mark.parametrize(
    ("bomb", "expected"),
    [
        ({"after": endless_pixels}, r"slice-000\.dcm unpacks to more than [0-9]+ MiB, more than its header says"),
        ({"before": endless_header}, r"slice-000\.dcm unpacks to a header of more than [0-9]+ MiB"),
        ({"before": endless_items}, r"slice-000\.dcm unpacks to more than 200000 items of sequences"),
    ],
    ids=["pixels", "header", "items"],
)
def test_a_deflated_bomb_ends_in_a_sentence_and_little_memory(
    tmp_path: Path, bomb: dict[str, Callable[[], Iterator[bytes]]], expected: str
) -> None:
    (file,) = write_series(tmp_path, 1)
    deflated(file, **{where: pieces() for where, pieces in bomb.items()})
    assert len(file.read_bytes()) < 2 * MIB
    said: list[str] = []
    peak = peak_mib(lambda: said.append(sentence(lambda: read_dataset(file))))
    assert re.match(expected, said[0])
    assert peak < BOUND_MIB


@pytest.mark.parametrize("part", [0.3, 0.9, 0.99])
def test_a_deflated_file_that_is_cut_short_is_rejected(tmp_path: Path, part: float) -> None:
    (file,) = write_series(tmp_path, 1)
    content = deflated(file).read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    assert "slice-000.dcm" in sentence(lambda: read_dataset(file))


def test_the_header_of_a_deflated_file_without_pixels_says_that_it_is_cut(tmp_path: Path) -> None:
    (file,) = write_series(tmp_path, 1)
    deflated(file, after=iter(()))
    assert sentence(lambda: read_header(file)) == "slice-000.dcm has no pixel data, so it is cut short: send it again."


def test_a_value_longer_than_any_is_rejected_from_the_header(tmp_path: Path) -> None:
    """What a study's headers hold stays in memory until its series are chosen."""
    files = write_series(tmp_path, 16, RescaleType="H" * 20_000)
    assert sentence(lambda: choose_series(files, Preference())).startswith(
        "RescaleType of slice-000.dcm is longer than"
    )


def test_a_deflated_file_reads_as_explicit_vr_little_endian(tmp_path: Path) -> None:
    (file,) = write_series(tmp_path, 1)
    assert pydicom.dcmread(deflated(file)).file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    assert read_dataset(file) == pydicom.dcmread(file)
