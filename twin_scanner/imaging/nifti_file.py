"""NIfTI files, read or written whole or not at all; read ones hold numbers, a person's size and one orientation."""

import errno
import gzip
import zlib
from pathlib import Path
from typing import BinaryIO, Final, Literal

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from twin_scanner.errors import Rejected
from twin_scanner.files.durable_file import put_in_place, writing
from twin_scanner.imaging.bounds import SPACING_MM, extent_fault, voxels_fault

IMAGE_IO: Final = "NiftiImageIO"
GZIP_MAGIC: Final = b"\x1f\x8b"
HEADER_SIZE: Final = 348
"""NIfTI-1, the only one that ITK reads, begins each file with this number; in the other byte order it is another."""
FLOATS: Final = {"16": "f4", "64": "f8"}
"""Datatype codes of the NIfTI standard whose values need not be numbers."""
CHUNK_BYTES: Final = 1 << 24
SAME_PLACE_MM: Final = 1.0
"""Two statements of where a corner voxel lies agree within it: rounding is far below, a flip, a scale or a shear far
above."""
MM_PER_UNIT: Final = {1: 1000.0, 3: 0.001}
"""By the spatial code of xyzt_units: metres and micrometres; everything else is taken as mm, as ITK does."""

_HEADER: Final = np.dtype(
    {
        "names": ("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern", "offset", "srow"),
        "formats": ("8f4", "u1", "i2", "i2", "3f4", "3f4", "(3,4)f4"),
        "offsets": (76, 123, 252, 254, 256, 268, 280),
        "itemsize": HEADER_SIZE,
    }
)
"""The orientation's part of nifti1.h."""


def read_image(path: Path) -> sitk.Image:
    """The image of a .nii or .nii.gz file; raises Rejected for one that is no single 3D image, or is not whole.

    ITK reads a file that ends early as far as it goes, makes NaN and infinity 0 (water, in a CT), and places an image
    that states no orientation as if left and right were known. Of two orientations that contradict each other (qform
    and sform) it takes one by a rule of its own, and the voxels' size always from pixdim. All of these are refused here
    instead.
    """
    if not path.is_file():
        raise Rejected(f"{path} does not exist: give a NIfTI file (.nii or .nii.gz).")
    try:
        header = _header(path)
        _check(path, header)
        image = sitk.ReadImage(str(path), imageIO=IMAGE_IO)
    except RuntimeError as error:
        raise Rejected(
            f"{path.name} cannot be read as NIfTI: give a .nii or .nii.gz file (NIfTI-1) of one 3D image with axes at "
            "right angles."
        ) from error
    return image


def write_image(path: Path, image: sitk.Image) -> None:
    """Write a .nii or .nii.gz file, whole and durable or not at all; raises Transient where the disk fails.

    ITK reports no error of a write. So what it wrote is read again, its checksum included, before it takes its name.
    """
    part = path.with_name(f"part-{path.name}")
    with writing(path.name, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            sitk.WriteImage(image, str(part), useCompression=True, compressionLevel=1)
            _check_whole(part, image.GetNumberOfPixels() * image.GetSizeOfPixelComponent())
            put_in_place(part, path)
        except (RuntimeError, EOFError, zlib.error) as error:
            raise OSError(errno.EIO, "the file did not become whole") from error
        finally:
            part.unlink(missing_ok=True)


def _check_whole(path: Path, voxel_bytes: int) -> None:
    """Raise EOFError, or an error of its format, where a file does not hold the voxels that its header promises."""
    start = int(float(_header(path).GetMetaData("vox_offset")))
    with _opened(path) as stream:
        stream.seek(start)
        while chunk := stream.read(CHUNK_BYTES):
            voxel_bytes -= len(chunk)
    if voxel_bytes:
        raise EOFError(f"{voxel_bytes} bytes are missing")


def _header(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(IMAGE_IO)
    reader.ReadImageInformation()
    return reader


def _check(path: Path, header: sitk.ImageFileReader) -> None:
    """Raise Rejected with the first fault of a file."""
    if header.GetDimension() != 3 or header.GetNumberOfComponents() != 1:
        raise Rejected(
            f"{path.name} is not a single 3D image: give a NIfTI file with three axes and one value a voxel."
        )
    if header.GetMetaData("nifti_type") != "1":
        raise Rejected(f"{path.name} is no NIfTI in one file: give a .nii or .nii.gz file.")
    if (header.GetMetaData("qform_code"), header.GetMetaData("sform_code")) == ("0", "0"):
        raise Rejected(
            f"{path.name} states no orientation (qform_code and sform_code are 0), so its left and right are unknown: "
            "export it again with its orientation."
        )
    try:
        _check_geometry(path, header)
        _check_values(path, header)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Rejected(f"{path.name} is cut short or damaged: copy it again.") from error
    except OSError as error:
        raise Rejected(f"{path.name} cannot be read ({error.strerror}): check the disk and its rights.") from error


def _check_geometry(path: Path, header: sitk.ImageFileReader) -> None:
    """Raise Rejected where a stated orientation is not what ITK reads, or the voxels are of no person's size."""
    size, spacing = np.array(header.GetSize()), np.array(header.GetSpacing())
    low, high = SPACING_MM
    if spacing.min() < low or spacing.max() > high:
        shown = " x ".join(f"{mm:g}" for mm in spacing)
        raise Rejected(
            f"{path.name} has voxels of {shown} mm, which is no size of an image of a person: check pixdim and "
            "xyzt_units of its header."
        )
    if fault := extent_fault(size.tolist(), spacing.tolist()):
        raise Rejected(
            f"{path.name} has an extent of {fault}, which is no size of a person: check pixdim of its header."
        )
    if fault := voxels_fault(size.tolist()):
        raise Rejected(f"{path.name} has {fault}, more than can be read: resample or crop it.")
    read = np.eye(4)
    read[:3, :3] = np.array(header.GetDirection()).reshape(3, 3) * spacing
    read[:3, 3] = header.GetOrigin()
    corners = np.array([[i, j, k, 1.0] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * [*(size - 1), 1]
    for stated in _stated_affines(path):
        if not np.allclose(corners @ stated.T, corners @ read.T, rtol=0, atol=SAME_PLACE_MM):
            raise Rejected(
                f"{path.name} states two orientations or voxel sizes that contradict each other (qform, sform and "
                "pixdim): export it again with the one that is right."
            )


def _stated_affines(path: Path) -> list[npt.NDArray[np.float64]]:
    """4x4 matrices from the index (i, j, k, 1) to (x, y, z, 1) in LPS mm: qform, sform or both, as the file has them.

    The quaternion and its offsets are method 2 of nifti1.h, the rows method 3; both give RAS.
    """
    with _opened(path) as stream:
        raw = stream.read(HEADER_SIZE)
    header = np.frombuffer(raw, _HEADER.newbyteorder(_byte_order(raw)))[0]
    found = []
    if header["qform_code"] > 0:
        b, c, d = header["quatern"].astype(float)
        a = np.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
        turn = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        scale = header["pixdim"][1:4].astype(float) * [1, 1, -1 if header["pixdim"][0] < 0 else 1]
        found.append(np.column_stack([turn * scale, header["offset"]]))
    if header["sform_code"] > 0:
        found.append(header["srow"].astype(float))
    to_lps_mm = np.diag([-1.0, -1.0, 1.0]) * MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    return [np.vstack([to_lps_mm @ rows, [0, 0, 0, 1]]) for rows in found]


def _byte_order(raw: bytes) -> Literal["<", ">"]:
    return "<" if int.from_bytes(raw[:4], "little") == HEADER_SIZE else ">"


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    """The file's content, unpacked where it is packed."""
    with path.open("rb") as raw:
        zipped = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    return gzip.open(path) if zipped else path.open("rb")


def _check_values(path: Path, header: sitk.ImageFileReader) -> None:
    """Read all that the header promises, checksum included; raises EOFError where it is not there."""
    start, bits = (int(float(header.GetMetaData(key))) for key in ("vox_offset", "bitpix"))
    missing = int(np.prod(header.GetSize(), dtype=np.int64)) * bits // 8
    with _opened(path) as stream:
        order = _byte_order(stream.read(4))
        number = FLOATS.get(header.GetMetaData("datatype"))
        stream.seek(start)
        while chunk := stream.read(CHUNK_BYTES):
            if missing == 0 and len(chunk) == CHUNK_BYTES:
                raise Rejected(f"{path.name} holds more than its header says: export it again.")
            values = chunk[:missing]
            missing -= len(values)
            if number is not None and not _finite(values, np.dtype(order + number)):
                raise Rejected(
                    f"{path.name} holds values that are no numbers (NaN or infinity): write what was meant, such as "
                    "-1024 HU for air, and export it again."
                )
    if missing:
        raise EOFError(f"{missing} bytes are missing")


def _finite(values: bytes, number: np.dtype[np.floating]) -> bool:
    """Whether the whole numbers among the bytes are; what a file that ends early leaves over is found by its length."""
    return bool(np.isfinite(np.frombuffer(values, number, len(values) // number.itemsize)).all())
