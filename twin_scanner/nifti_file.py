"""NIfTI files as they are read: whole, of finite numbers, with a stated orientation, or not at all."""

import gzip
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import SimpleITK as sitk

from twin_scanner.errors import Rejected

IMAGE_IO: Final = "NiftiImageIO"
GZIP_MAGIC: Final = b"\x1f\x8b"
HEADER_SIZES: Final = (348, 540)
"""Of NIfTI-1 and NIfTI-2, the first number of each file; in the other byte order it is something else."""
FLOATS: Final = {"16": "f4", "64": "f8"}
"""Datatype codes of the NIfTI standard whose values need not be numbers."""
CHUNK_BYTES: Final = 1 << 24


def read_image(path: Path) -> sitk.Image:
    """The image of a .nii or .nii.gz file; raises Rejected for one that is no single 3D image, or is not whole.

    ITK reads a file that ends early as far as it goes, makes NaN and infinity 0 (water, in a CT), and places an image
    that states no orientation as if left and right were known. All three are refused here instead.
    """
    if not path.is_file():
        raise Rejected(f"{path} does not exist: give a NIfTI file (.nii or .nii.gz).")
    try:
        header = _header(path)
        _check(path, header)
        image = sitk.ReadImage(str(path), imageIO=IMAGE_IO)
    except RuntimeError as error:
        raise Rejected(f"{path.name} cannot be read as NIfTI: give a .nii or .nii.gz file of one 3D image.") from error
    return image


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
        _check_values(path, header)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Rejected(f"{path.name} is cut short or damaged: copy it again.") from error
    except OSError as error:
        raise Rejected(f"{path.name} cannot be read ({error.strerror}): check the disk and its rights.") from error


def _check_values(path: Path, header: sitk.ImageFileReader) -> None:
    """Read all that the header promises, checksum included; raises EOFError where it is not there."""
    start, bits = (int(float(header.GetMetaData(key))) for key in ("vox_offset", "bitpix"))
    missing = int(np.prod(header.GetSize(), dtype=np.int64)) * bits // 8
    with path.open("rb") as raw:
        zipped = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    with gzip.open(path) if zipped else path.open("rb") as stream:
        order = "<" if int.from_bytes(stream.read(4), "little") in HEADER_SIZES else ">"
        number = FLOATS.get(header.GetMetaData("datatype"))
        stream.seek(start)
        while chunk := stream.read(CHUNK_BYTES):
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
    """Of the whole numbers among the bytes; what a file that ends early leaves over is found by its length."""
    return bool(np.isfinite(np.frombuffer(values, number, len(values) // number.itemsize)).all())
