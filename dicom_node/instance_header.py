"""The few attributes of a received data set that the receiver decides by, and the file's meta information."""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from twin_scanner.errors import Rejected

IMPLEMENTATION_CLASS_UID: Final = "2.25.128302371166370497811303617276453419482"
"""Of the software that writes the spool's files (PS3.7 D.3.3.2.1); never changes, so the same bytes stay the same."""
IMPLEMENTATION_VERSION_NAME: Final = "TWIN_SCANNER"
DECIDING_TAGS: Final = (
    0x00080016,  # SOP Class UID
    0x00080018,  # SOP Instance UID
    0x0008001C,  # Synthetic Data
    0x00080060,  # Modality
    0x00080070,  # Manufacturer
    0x00181000,  # Device Serial Number
    0x0020000D,  # Study Instance UID
    0x0020000E,  # Series Instance UID
)
"""All that is read of a data set; no patient's data among them."""
_LAST_TAG: Final = 0x0020000E
_INFLATED_BYTES: Final = 1 << 22
"""As much of a deflated data set is inflated to find the attributes; more would invite a bomb."""
_PARSE_ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom and zlib raise on bytes that are no data set in the transfer syntax."""


@dataclass(frozen=True, eq=False)
class InstanceHeader:
    """Who an instance says it is; ``dataset`` has only ``DECIDING_TAGS``."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    dataset: Dataset


def read_header(data_set: BytesIO, transfer_syntax_uid: UID) -> InstanceHeader:
    """Read the deciding attributes of an encoded data set, without its pixels.

    Raises Rejected, in at most 64 characters and without any value, where it cannot be read or lacks a UID.
    """
    try:
        source = _inflated(data_set) if transfer_syntax_uid == DeflatedExplicitVRLittleEndian else data_set
        source.seek(0)
        elements = data_element_generator(
            source,
            transfer_syntax_uid.is_implicit_VR,
            transfer_syntax_uid.is_little_endian,
            stop_when=_is_beyond,
            specific_tags=list(DECIDING_TAGS),
        )
        dataset = Dataset({element.tag: element for element in elements if element.tag in DECIDING_TAGS})
        return InstanceHeader(
            _uid(dataset, 0x0020000D, "StudyInstanceUID"),
            _uid(dataset, 0x0020000E, "SeriesInstanceUID"),
            _uid(dataset, 0x00080018, "SOPInstanceUID"),
            _uid(dataset, 0x00080016, "SOPClassUID"),
            dataset,
        )
    except _PARSE_ERRORS as error:
        raise Rejected("The data set cannot be read in its transfer syntax.") from error


def _is_beyond(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag > _LAST_TAG


def _inflated(data_set: BytesIO) -> BytesIO:
    with data_set.getbuffer() as view:
        return BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(view, _INFLATED_BYTES))


def _uid(dataset: Dataset, tag: int, keyword: str) -> str:
    """From the bytes as they came: pydicom's conversion would warn about what we answer with a status."""
    element = dataset.get_item(tag)
    value = b"" if element is None else bytes(element.value or b"")
    text = value.decode("ascii").strip(" \0")
    if not text:
        raise Rejected(f"The data set has no {keyword}.")
    return text


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble and file meta information (PS3.10 7.1), explicit VR little endian; equal arguments give equal bytes."""
    elements = b"".join(
        (
            struct.pack("<HH2sHL2s", 0x0002, 0x0001, b"OB", 0, 2, b"\0\1"),
            _short_element(0x0002, b"UI", sop_class_uid, b"\0"),
            _short_element(0x0003, b"UI", sop_instance_uid, b"\0"),
            _short_element(0x0010, b"UI", transfer_syntax_uid, b"\0"),
            _short_element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"),
            _short_element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, b" "),
        )
    )
    group_length = struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(elements))
    return b"\0" * 128 + b"DICM" + group_length + elements


def _short_element(element: int, vr: bytes, text: str, padding: bytes) -> bytes:
    value = text.encode("ascii")
    value += padding * (len(value) % 2)
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value
