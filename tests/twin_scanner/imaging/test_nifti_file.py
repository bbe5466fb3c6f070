"""What a NIfTI file may not lack: its end, numbers, one orientation; written byte by byte where no library would."""

import gzip
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from tests.fakes.full_disk import files_end_at
from twin_scanner.errors import Rejected, Transient
from twin_scanner.imaging.volume import (
    Geometry,
    Shape,
    Triple,
    read_nifti,
    read_nifti_ct,
    read_nifti_labels,
    write_nifti,
)

pytestmark = pytest.mark.unit

GRID = Geometry((61, 67, 71), (3.0, 2.0, 2.5), (10.0, -20.0, 30.0))
"""An odd number of voxels."""
QFORM, SFORM = 252, 254
"""Byte offsets of the two codes in a NIfTI-1 header."""
DIM, PIXDIM, UNITS, SROW = 42, 76, 123, 280
"""Byte offsets of the numbers of voxels, of the voxel size, of its unit, and of the sform's rows."""


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


def changed(tmp_path: Path, sform: npt.NDArray[np.float64], codes: tuple[int, int], grid: Geometry = GRID) -> Path:
    """A file whose sform, four columns of x, y and z in RAS, was multiplied, its qform left as it was."""
    write_nifti(tmp_path / "x.nii", noise(), grid)
    content = bytearray((tmp_path / "x.nii").read_bytes())
    rows = np.frombuffer(content, "<f4", 12, SROW).reshape(3, 4) @ np.vstack([sform, [0, 0, 0, 1]])
    content[SROW : SROW + 48] = rows.astype("<f4").tobytes()
    for place, code in zip((QFORM, SFORM), codes, strict=True):
        content[place : place + 2] = code.to_bytes(2, "little")
    (tmp_path / "y.nii").write_bytes(content)
    return tmp_path / "y.nii"


SAME = np.eye(3, 4)
CONTRADICTIONS = {
    "left is right": (SAME * [[-1], [1], [1]], (1, 1)),
    "left is right, sform aligned": (SAME * [[-1], [1], [1]], (1, 2)),
    "turned": (SAME[[1, 0, 2]], (1, 1)),
    "sheared": (SAME + np.eye(3, 4, 1) * 0.2, (1, 1)),
    "twice as large": (SAME * 2, (1, 1)),
    "twice as large, sform alone": (SAME * 2, (0, 1)),
    "elsewhere": (SAME + np.array([[0, 0, 0, 4.0]]), (1, 4)),
}
"""What the columns of the sform are multiplied by from the right, and the two codes."""


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_two_orientations_that_contradict_each_other_are_rejected(tmp_path: Path, case: str) -> None:
    """ITK takes one of them by its codes, other programs the other one; the voxels' size it takes from pixdim."""
    assert "states two orientations or voxel sizes that contradict" in rejected(
        changed(tmp_path, *CONTRADICTIONS[case])
    )


OBLIQUE = ((0.0, 0.6, 0.8), (0.6, 0.64, -0.48), (-0.8, 0.48, -0.36))
TURNS = [GRID.direction, ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)), OBLIQUE, (OBLIQUE[1], *OBLIQUE[::2])]


@pytest.mark.parametrize("direction", TURNS)
@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 1), (1, 0), (0, 1)])
def test_orientations_that_agree_are_read_whichever_stands_in_the_file(
    tmp_path: Path, direction: tuple[Triple, Triple, Triple], codes: tuple[int, int]
) -> None:
    """Left- and right-handed grids, upright and oblique: what was written comes back."""
    grid = replace(GRID, direction=direction)
    read = read_nifti(changed(tmp_path, SAME, codes, grid)).geometry
    assert np.allclose(read.affine, grid.affine, atol=1e-4)


@pytest.mark.parametrize(("unit", "factor"), [(1, 1e-3), (3, 1e3)])
def test_voxels_in_metres_or_micrometres_are_read_in_millimetres(tmp_path: Path, unit: int, factor: float) -> None:
    content = bytearray(written(tmp_path / "x.nii").read_bytes())
    for place, count in ((PIXDIM + 4, 3), (SROW, 12), (SROW - 12, 3)):
        scaled = np.frombuffer(content, "<f4", count, place) * factor
        content[place : place + 4 * count] = scaled.astype("<f4").tobytes()
    content[UNITS] = unit
    (tmp_path / "x.nii").write_bytes(content)
    assert np.allclose(read_nifti(tmp_path / "x.nii").geometry.affine, GRID.affine, rtol=1e-4)


@pytest.mark.parametrize("unit", [1, 3])
def test_voxels_of_no_persons_size_are_rejected(tmp_path: Path, unit: int) -> None:
    """Metres or micrometres by the header, millimetres by its numbers: resampled, they would fill any memory."""
    content = bytearray(written(tmp_path / "x.nii").read_bytes())
    content[UNITS] = unit
    (tmp_path / "x.nii").write_bytes(content)
    assert re.match(r"x\.nii has voxels of \S+ x \S+ x \S+ mm, which is no size", rejected(tmp_path / "x.nii"))


@pytest.mark.parametrize(
    ("shape", "spacing"), [((4, 300, 310), (3.0, 4.0, 4.0)), ((300, 4, 310), (4.0, 1.0, 4.0)), ((3, 3, 3), (3, 60, 3))]
)
def test_a_field_of_view_that_no_scanner_has_is_rejected(tmp_path: Path, shape: Shape, spacing: Triple) -> None:
    """One axis may be as long as a person, none of the others wider than a gantry."""
    grid = Geometry(shape, spacing, (0.0, 0.0, 0.0))
    write_nifti(tmp_path / "x.nii", np.zeros(shape, np.uint8), grid)
    assert re.match(r"x\.nii has .* mm", rejected(tmp_path / "x.nii"))


def test_more_voxels_than_can_be_read_are_rejected_before_any_is_looked_for(tmp_path: Path) -> None:
    """2100 x 2100 x 2100 promised by the header, 27 in the file: a copy of it would take 37 GB."""
    write_nifti(tmp_path / "x.nii", np.zeros((3, 3, 3), np.float32), Geometry((3, 3, 3), (0.4, 0.4, 0.4), (0, 0, 0)))
    content = bytearray((tmp_path / "x.nii").read_bytes())
    content[DIM : DIM + 6] = np.array([2100] * 3, "<i2").tobytes()
    (tmp_path / "x.nii").write_bytes(content)
    assert re.match(r"x\.nii has .*2100.* voxels", rejected(tmp_path / "x.nii"))


def test_a_packed_file_that_goes_on_for_ever_is_left_where_its_image_ends(tmp_path: Path) -> None:
    """Zeros behind the image, a thousand times its size, packed to a thousandth."""
    content = plain(written(tmp_path / "x.nii.gz"))
    (tmp_path / "y.nii.gz").write_bytes(gzip.compress(content + bytes(1 << 28)))
    assert "holds more than its header says" in rejected(tmp_path / "y.nii.gz")


@pytest.mark.parametrize("value", [-32769.0, 65536.0, 1e38])
def test_hu_that_no_scanner_stores_are_rejected(tmp_path: Path, value: float) -> None:
    values = noise(np.float32)
    values[1, 1, 1] = value
    write_nifti(tmp_path / "x.nii.gz", values, GRID)
    with pytest.raises(Rejected, match=r"x\.nii\.gz holds .* HU, outside -32768 to 65535: give a CT in HU"):
        read_nifti_ct(tmp_path / "x.nii.gz")


def test_padding_below_air_becomes_air_before_anything_mixes_it_with_tissue(tmp_path: Path) -> None:
    """As of DICOM, where it is declared; -3024 beside soft tissue would leave half of it at -1500 HU."""
    values = noise(np.float32)
    values[0], values[1, 1, 1] = -3024.0, -1024.5
    write_nifti(tmp_path / "x.nii.gz", values, GRID)
    np.testing.assert_array_equal(read_nifti_ct(tmp_path / "x.nii.gz").array, np.maximum(values, -1024.0))


def test_axes_that_are_not_at_right_angles_are_named(tmp_path: Path) -> None:
    assert "axes at right angles" in rejected(changed(tmp_path, SAME + np.eye(3, 4, 1) * 0.2, (0, 1)))


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


@pytest.mark.parametrize("name", ["image.nii.gz", "image.nii"])
@pytest.mark.parametrize("limit_bytes", [0, 100, 4096, 100_000])
def test_a_full_disk_is_an_error_and_leaves_neither_half_an_image_nor_the_old_one_damaged(
    tmp_path: Path, name: str, limit_bytes: int
) -> None:
    """ITK reports no error of a write. Oracle: the limit on file sizes, which every write of this process meets."""
    path = written(tmp_path / name)
    before = path.read_bytes()
    with files_end_at(limit_bytes), pytest.raises(Transient, match=rf"{name} cannot be written to") as fault:
        write_nifti(path, noise() + np.float32(1), GRID)
    assert "\n" not in str(fault.value)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [name]


def test_a_folder_that_cannot_hold_an_image_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Transient, match=r"image\.nii cannot be written to"):
        written(tmp_path / "file" / "image.nii")
