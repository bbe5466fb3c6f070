"""The few attributes of a received data set that the receiver decides by, and the file's meta information."""

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dicom_node.elements import texts_of
from twin_scanner.errors import Rejected

IMPLEMENTATION_CLASS_UID: Final = "2.25.128302371166370497811303617276453419482"
"""It names the software that writes the spool's files (PS3.7 D.3.3.2.1) and never changes: equal bytes stay equal."""
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
_TRANSFER_SYNTAX: Final = 0x00020010
_PREFIXES: Final = (1 << 16, 1 << 22)
"""As much of a data set is looked at, inflated where it is deflated: first this, and if the attributes go on, that."""
_MAXIMUM_ITEMS: Final = 50_000
"""Sequences before the UIDs have no more: references to a series' images. Each takes time to step over."""
_ITEM: Final = {True: b"\xfe\xff\x00\xe0", False: b"\xff\xfe\xe0\x00"}
"""The item's tag (PS3.5 7.5) by whether it is little-endian."""
PARSE_ERRORS: Final = (
    ArithmeticError,
    AssertionError,
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
"""What pydicom, pynetdicom and zlib raise on bytes that are not what they should be."""


@dataclass(frozen=True, eq=False)
class InstanceHeader:
    """Who an instance says it is; ``texts`` are its ``DECIDING_TAGS`` as they came."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    texts: Mapping[int, str]

    @property
    def dataset(self) -> Dataset:
        """The same as a data set, made without pydicom's remarks on values, which would bring them into a log."""
        dataset = Dataset()
        for tag, text in self.texts.items():
            dataset[tag] = DataElement(tag, dictionary_VR(tag), text, validation_mode=IGNORE)
        return dataset


def read_header(first_bytes: Callable[[int], bytes], transfer_syntax_uid: UID) -> InstanceHeader:
    """Read the deciding attributes of an encoded data set, of which ``first_bytes`` gives as many as it is asked for.

    Raises Rejected, in at most 64 characters and without any value, where it cannot be read or lacks a UID.
    """
    try:
        for most in _PREFIXES:
            start = _start(first_bytes, most, transfer_syntax_uid)
            if start.count(_ITEM[transfer_syntax_uid.is_little_endian]) > _MAXIMUM_ITEMS:
                raise Rejected("The data set has too many references before its UIDs.")
            texts, is_beyond = texts_of(start, transfer_syntax_uid, DECIDING_TAGS)
            if is_beyond or len(start) < most:
                break
        return InstanceHeader(
            _uid(texts, 0x0020000D, "StudyInstanceUID"),
            _uid(texts, 0x0020000E, "SeriesInstanceUID"),
            _uid(texts, 0x00080018, "SOPInstanceUID"),
            _uid(texts, 0x00080016, "SOPClassUID"),
            texts,
        )
    except PARSE_ERRORS as error:
        raise Rejected("The data set cannot be read in its transfer syntax.") from error


def file_texts(file: Path, tags: Sequence[int]) -> dict[int, str]:
    """Those of these sorted attributes that a file of the spool has; raises Rejected where it is damaged."""
    try:
        with file.open("rb") as stream:
            start = stream.read(_PREFIXES[0])
        end_of_meta = 144 + int.from_bytes(start[140:144], "little")
        meta = texts_of(start[132:end_of_meta], ExplicitVRLittleEndian, (_TRANSFER_SYNTAX,))[0]
        transfer_syntax_uid = UID(meta[_TRANSFER_SYNTAX], IGNORE)
        prefix = _start(lambda most: start[end_of_meta:][:most], _PREFIXES[0], transfer_syntax_uid)
        if prefix.count(_ITEM[transfer_syntax_uid.is_little_endian]) > _MAXIMUM_ITEMS:
            raise Rejected("The data set has too many references before its geometry.")
        return texts_of(prefix, transfer_syntax_uid, tags)[0]
    except (*PARSE_ERRORS, OSError) as error:
        raise Rejected("The file cannot be read in its transfer syntax.") from error


def _start(first_bytes: Callable[[int], bytes], most: int, transfer_syntax_uid: UID) -> bytes:
    start = first_bytes(most)
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(start, most)
    return start


def _uid(texts: Mapping[int, str], tag: int, keyword: str) -> str:
    text = texts.get(tag, "")
    if not text:
        raise Rejected(f"The data set has no {keyword}.")
    if not text.isascii():
        raise Rejected(f"The {keyword} of the data set is none.")
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
