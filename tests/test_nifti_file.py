"""What a NIfTI file may not lack: its end, numbers, an orientation; written byte by byte where no library would."""

import gzip
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from twin_scanner.errors import Rejected
from twin_scanner.volume import Geometry, read_nifti, read_nifti_labels, write_nifti

pytestmark = pytest.mark.unit

GRID = Geometry((61, 67, 71), (3.0, 2.0, 2.5), (10.0, -20.0, 30.0))
"""An odd number of voxels."""
QFORM, SFORM = 252, 254
"""Byte offsets of the two codes in a NIfTI-1 header."""


def noise(dtype: npt.DTypeLike = np.float32) -> npt.NDArray[np.generic]:
    return (np.random.default_rng(0).normal(0.0, 300.0, GRID.shape)).astype(dtype)


def written(path: Path, dtype: npt.DTypeLike = np.float32) -> Path:
    write_nifti(path, noise(dtype), GRID)
    return path


def plain(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def rejected(path: Path) -> str:
    with pytest.raises(Rejected) as raised:
        read_nifti(path)
    return str(raised.value)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8])
def test_a_whole_file_is_read_as_it_was_written(tmp_path: Path, name: str, dtype: npt.DTypeLike) -> None:
    path = written(tmp_path / name, dtype)
    np.testing.assert_array_equal(read_nifti(path).array, noise(dtype).astype(np.float32))


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize("lost", [1, 1000, 100_000])
def test_a_file_that_ends_early_is_rejected(tmp_path: Path, name: str, dtype: npt.DTypeLike, lost: int) -> None:
    """ITK reads such a file, with zeros or whatever was in memory at its end."""
    path = written(tmp_path / name, dtype)
    path.write_bytes(path.read_bytes()[:-lost])
    assert rejected(path) == f"{name} is cut short or damaged: copy it again."
    if dtype == np.int16:
        with pytest.raises(Rejected, match="cut short"):
            read_nifti_labels(path)


def test_a_flipped_bit_in_a_compressed_file_is_found(tmp_path: Path) -> None:
    path = written(tmp_path / "x.nii.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    assert "cut short or damaged" in rejected(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", [0, -1])
def test_values_that_are_no_numbers_are_not_made_water(
    tmp_path: Path, value: float, dtype: npt.DTypeLike, place: int
) -> None:
    """ITK makes them 0, which is water in a CT."""
    values = noise(dtype)
    values.reshape(-1)[place] = value
    write_nifti(tmp_path / "x.nii.gz", values, GRID)
    assert "x.nii.gz holds values that are no numbers" in rejected(tmp_path / "x.nii.gz")


def test_values_in_the_other_byte_order_are_told_from_nonsense(tmp_path: Path) -> None:
    """Big-endian, header and all; the bytes of these numbers are NaN in the wrong order."""
    path = written(tmp_path / "x.nii")
    content = path.read_bytes()
    numbers = np.full(GRID.shape, np.frombuffer(b"\x00\x00\xc0\x7f", ">f4")[0], ">f4")
    assert np.isnan(numbers.view("<f4")).all()
    swapped = bytearray(content[:352])
    for kind, places in {
        "i4": [0, 32], "i2": [36, *range(40, 56, 2), *range(68, 76, 2), 120, QFORM, SFORM],
        "f4": [56, 60, 64, *range(76, 120, 4), *range(124, 148, 4), *range(256, 328, 4)],
    }.items():  # fmt: skip
        for place in places:
            size = int(kind[1])
            swapped[place : place + size] = swapped[place : place + size][::-1]
    path.write_bytes(bytes(swapped) + numbers.tobytes())
    np.testing.assert_array_equal(read_nifti(path).array, numbers.astype(np.float32))


@pytest.mark.parametrize(("codes", "known"), [((0, 0), False), ((1, 0), True), ((0, 2), True)])
def test_an_image_without_an_orientation_is_rejected(tmp_path: Path, codes: tuple[int, int], known: bool) -> None:
    content = bytearray(plain(written(tmp_path / "x.nii.gz")))
    for place, code in zip((QFORM, SFORM), codes, strict=True):
        content[place : place + 2] = code.to_bytes(2, "little")
    (tmp_path / "y.nii").write_bytes(content)
    if known:
        assert read_nifti(tmp_path / "y.nii").geometry.same_grid(GRID)
    else:
        assert re.match(r"y\.nii states no orientation .* left and right are unknown", rejected(tmp_path / "y.nii"))


def test_header_and_image_in_two_files_are_rejected(tmp_path: Path) -> None:
    """Analyze has no orientation; NIfTI's pairs lose theirs as soon as one of the files is moved."""
    sitk.WriteImage(sitk.GetImageFromArray(noise()), str(tmp_path / "x.hdr"), imageIO="NiftiImageIO")
    assert "no NIfTI in one file" in rejected(tmp_path / "x.hdr")


def test_a_long_file_is_checked_to_its_end(tmp_path: Path) -> None:
    """More than one piece of 16 MiB, the last one odd."""
    values = np.zeros((101, 211, 203), np.float32)
    values[-1, -1, -1] = np.nan
    grid = Geometry(values.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    write_nifti(tmp_path / "x.nii.gz", values, grid)
    assert "no numbers" in rejected(tmp_path / "x.nii.gz")
    values[-1, -1, -1] = 7
    write_nifti(tmp_path / "x.nii.gz", values, grid)
    assert read_nifti(tmp_path / "x.nii.gz").array[-1, -1, -1] == 7
