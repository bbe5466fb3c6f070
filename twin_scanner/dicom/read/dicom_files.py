"""Which files are DICOM, and reading them: the edge where pydicom's exceptions become Rejected or Transient."""

import errno
import logging
import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from twin_scanner.dicom.read.deflated import inflated, is_deflated
from twin_scanner.errors import Rejected, Transient

MALFORMED: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom and the codecs raise on bytes that are not what they claim to be (seen by cutting and overwriting)."""
UNREADABLE: Final = (OSError, *MALFORMED)
"""The same where the bytes are in memory already, so that no disk can be at fault."""
DICOM_SUFFIXES: Final = frozenset({"", ".dcm", ".dicom", ".dic", ".ima", ".img", ".ct"})
"""A damaged file of such a name, or with a number for a suffix as in a UID, may be a lost slice: never passed over."""
DIRECTORY_CLASS: Final = "1.2.840.10008.1.3.10"
"""Media Storage Directory Storage: a DICOMDIR, an index and no image."""

_SYNTAX_BY_ENCODING: Final[dict[tuple[bool | None, bool | None], UID]] = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
"""For files without meta information: (implicit VR, little endian) as found, so the pixels are not compressed."""
_INDICES: Final = frozenset({"DICOMDIR", "DIRFILE"})
"""Names of indices; DIRFILE is Philips'."""
_MEDIA_CLASS: Final = b"\x02\x00\x02\x00UI"
"""Media Storage SOP Class UID among the first _HEAD bytes of a file."""
_HEAD: Final = 512
_META_CLASS: Final = "MediaStorageSOPClassUID"
_IMAGES: Final = ("CT Image Storage", "Positron Emission Tomography Image Storage")
"""In the names of the CT classes, single-frame and both multi-frame, and of the PET class (PS3.4 B.5)."""
PIXEL_KEYWORDS: Final = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated")
HEADER_BYTES: Final = (1 << 18, 1 << 25)
"""As much of a deflated data set is inflated to find its pixels: first this, and if they do not come, that. The
functional groups of 8800 frames, the most that were seen, take 20 MB."""
PIXEL_BYTES: Final = 1 << 30
"""The most that the pixels of a deflated file are inflated to, whatever its header promises."""
VALUE_BYTES: Final = 10_240
"""An attribute that choosing or reading looks at is no longer, but for sequences: the standard's longest text (LT)."""
MAXIMUM_ITEMS: Final = 200_000
"""All sequences of a deflated data set have no more: 8800 frames with their functional groups have 100,000."""
_ITEM: Final = b"\xfe\xff\x00\xe0"
_PREAMBLE: Final = 128
_MAGIC: Final = b"DICM"
_NAMED_AT_MOST: Final = 5
_DISK_IS_AT_FAULT: Final = frozenset({errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
_LOG: Final = logging.getLogger("pydicom")


@dataclass(frozen=True)
class FoundFiles:
    """The files of a folder or list: those that should be DICOM, in name order, and a sentence on the others."""

    dicom: tuple[Path, ...]
    set_aside: tuple[str, ...]


def find_dicom_files(source: Path | Sequence[Path]) -> FoundFiles:
    """Look through a folder and all below it, or take a list in which every file must be DICOM.

    Beside the images a folder may hold other files (README, DICOMDIR, hidden ones); they are named. Raises Rejected for
    what does not exist, and for a file that should be DICOM by its name and is not: it could be a lost slice.
    """
    if not isinstance(source, Path):
        files = tuple(dict.fromkeys(Path(file) for file in source))
        for file in files:
            _reject_unless_dicom(file)
        return FoundFiles(tuple(sorted(files)), ())
    if source.is_file():
        return find_dicom_files([source])
    if not source.is_dir():
        raise Rejected(f"{source} does not exist: give the folder of a CT series.")
    images, others = [], []
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        if _is_beside_the_images(file):
            others.append(file.name)
        else:
            images.append(file)
    return FoundFiles(tuple(images), _named(others))


def should_be_dicom(file: Path) -> bool:
    """Whether a file of a folder is DICOM or ought to be; DICOMDIR and hidden files are not.

    Raises Rejected, naming it, for one that ought to be by its name and is not.
    """
    return not _is_beside_the_images(file)


def read_header(file: Path, keywords: Sequence[str] | None = None) -> Dataset:
    """The data set of a DICOM file without its pixels; ``keywords`` limits it to these attributes.

    Nothing in it is decoded yet. Raises Rejected, naming the file, for what cannot be read as DICOM, and Transient
    where the disk fails.
    """
    tags = None if keywords is None else [*keywords, "SOPClassUID", "Modality"]
    with _translated(file), file.open("rb") as stream:
        if is_deflated(stream):
            dataset, reached_pixels = _deflated_header(stream, file, tags)
        else:
            dataset = pydicom.dcmread(stream, force=not _has_magic(stream), stop_before_pixels=True, specific_tags=tags)
            reached_pixels = stream.tell() < os.fstat(stream.fileno()).st_size
        has_class = bool(dataset.get("SOPClassUID"))
        is_cut = has_class and not reached_pixels and _should_have_pixels(dataset)
    if not has_class:
        raise Rejected(f"SOPClassUID of {file.name} is missing, so it is damaged or no image: send it again.")
    if is_cut:
        raise Rejected(f"{file.name} has no pixel data, so it is cut short: send it again.")
    if keywords is not None:
        _check_lengths(dataset, file)
    return dataset


def read_dataset(file: Path) -> Dataset:
    """The whole data set of a DICOM file, pixels still encoded; raises as ``read_header`` does."""
    with _translated(file), file.open("rb") as stream:
        if is_deflated(stream):
            dataset = _deflated_dataset(stream, file)
        else:
            dataset = pydicom.dcmread(stream, force=not _has_magic(stream))
    if "PixelData" not in dataset:
        raise Rejected(f"{file.name} has no pixel data, so it is cut short: send it again.")
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _SYNTAX_BY_ENCODING[dataset.original_encoding]
    return dataset


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom's remarks on what is not to the letter out of the log: what matters here is checked here.

    Changes the process's warning filters for its duration, so it stands around a whole read, never inside a thread.
    """
    level = _LOG.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _LOG.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            _LOG.setLevel(level)


def _check_lengths(header: Dataset, file: Path) -> None:
    """Raise Rejected for a value longer than any of its kind: the headers of a whole study are held at once."""
    for tag in header.keys():  # noqa: SIM118
        value = header.get_item(tag).value
        is_sequence = dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"
        if isinstance(value, bytes) and len(value) > VALUE_BYTES and not is_sequence:
            name = keyword_for_tag(tag) or str(tag)
            raise Rejected(f"{name} of {file.name} is longer than any such value: send it again.")


def _should_have_pixels(header: Dataset) -> bool:
    """Whether a header that ends without pixels was cut: pydicom takes a short value for a whole one."""
    meta = getattr(header, "file_meta", Dataset())
    if header.SOPClassUID == DIRECTORY_CLASS:
        return False
    names = [UID(str(part.get(keyword, ""))).name for part, keyword in ((meta, _META_CLASS), (header, "SOPClassUID"))]
    return any(image in name for name in names for image in _IMAGES) or not header.get("Modality")


def _deflated_header(stream: BinaryIO, file: Path, tags: list[str] | None) -> tuple[Dataset, bool]:
    """The header of a deflated data set, and whether pixels follow it; only as much is inflated as it takes."""
    for most in HEADER_BYTES:
        content, is_whole = inflated(stream, most)
        _check_items(content, file)
        part = BytesIO(content)
        try:
            dataset = pydicom.dcmread(part, stop_before_pixels=True, specific_tags=tags)
        except UNREADABLE:
            if is_whole or most == HEADER_BYTES[-1]:
                raise
            continue
        if part.tell() < len(content) or is_whole:
            return dataset, part.tell() < len(content)
    raise Rejected(f"{file.name} unpacks to a header of more than {most >> 20} MiB: send it without Deflate.")


def _deflated_dataset(stream: BinaryIO, file: Path) -> Dataset:
    """A deflated data set, of which no more is inflated than its header promises."""
    header, _ = _deflated_header(stream, file, list(PIXEL_KEYWORDS))
    bits = math.prod(max(1, int(header.get(keyword) or 1)) for keyword in PIXEL_KEYWORDS)
    most = min(bits // 8, PIXEL_BYTES) + HEADER_BYTES[-1]
    content, is_whole = inflated(stream, most)
    _check_items(content, file)
    if not is_whole:
        raise Rejected(f"{file.name} unpacks to more than {most >> 20} MiB, more than its header says: send it again.")
    return pydicom.dcmread(BytesIO(content))


def _check_items(content: bytes, file: Path) -> None:
    """Raise Rejected for more items of sequences than any image has: a thousand times their bytes as objects."""
    if content.count(_ITEM) > MAXIMUM_ITEMS:
        raise Rejected(f"{file.name} unpacks to more than {MAXIMUM_ITEMS} items of sequences: send it without Deflate.")


def _is_beside_the_images(file: Path) -> bool:
    if file.name.startswith(".") or file.name.upper() in _INDICES:
        return True
    with _translated(file), file.open("rb") as stream:
        if _has_magic(stream):
            return _is_no_object(stream)
        first = stream.read(1)
    should_be_dicom = file.suffix.lower() in DICOM_SUFFIXES or file.suffix[1:].isdigit()
    if not first and should_be_dicom:
        raise Rejected(f"{file.name} is empty: send it again.")
    if first and _is_dicom_without_preamble(file):
        return False
    if should_be_dicom and file.suffix:
        raise Rejected(f"{file.name} is not a DICOM file: send it again, or remove it from the folder.")
    return True


def _is_no_object(stream: BinaryIO) -> bool:
    """Whether a DICOM file is a DICOMDIR by any name, or names no SOP class anywhere and has no pixels.

    One whose meta information names another class, or ends there, was an object and was damaged.
    """
    head = stream.read(_HEAD)
    stream.seek(0)
    if _MEDIA_CLASS in head and DIRECTORY_CLASS.encode("ascii") not in head:
        return False
    dataset = pydicom.dcmread(stream, stop_before_pixels=True)
    has_pixels = stream.tell() < os.fstat(stream.fileno()).st_size
    return len(dataset) > 0 and "SOPClassUID" not in dataset and not has_pixels


def _reject_unless_dicom(file: Path) -> None:
    with _translated(file), file.open("rb") as stream:
        if _has_magic(stream):
            return
        if not stream.read(1):
            raise Rejected(f"{file.name} is empty: send it again.")
    if not _is_dicom_without_preamble(file):
        raise Rejected(f"{file.name} is not a DICOM file: give DICOM images of one CT series.")


def _has_magic(stream: BinaryIO) -> bool:
    head = stream.read(_PREAMBLE + len(_MAGIC))
    stream.seek(0)
    return head[_PREAMBLE:] == _MAGIC


def _is_dicom_without_preamble(file: Path) -> bool:
    """Whether the file starts at once with a data set, as writers before 1995 and some programs leave it."""
    try:
        return "SOPClassUID" in read_header(file, ("SOPClassUID",))
    except Rejected:
        return False


def _named(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    shown = ", ".join(sorted(set(names))[:_NAMED_AT_MOST])
    more = ", ..." if len(set(names)) > _NAMED_AT_MOST else ""
    verb = "file that is no DICOM image was" if len(names) == 1 else "files that are no DICOM images were"
    return (f"{len(names)} {verb} passed over: {shown}{more}.",)


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise Rejected(f"{file} does not exist or is no file: give DICOM files.") from error
    except PermissionError as error:
        raise Rejected(f"{file} may not be read: give the scanner's account the right to read it.") from error
    except OSError as error:
        if error.errno in _DISK_IS_AT_FAULT:
            raise Transient(f"{file.name} cannot be read ({error.strerror}): check the disk.") from error
        raise Rejected(f"{file.name} is damaged and cannot be read as DICOM: send it again.") from error
    except MALFORMED as error:
        raise Rejected(f"{file.name} is damaged and cannot be read as DICOM: send it again.") from error
