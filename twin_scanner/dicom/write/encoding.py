"""Data sets of ours as bytes in Explicit VR Little Endian and UTF-8: pydicom's own bytes, in a third of its time.

pydicom looks through all that lies below for ambiguous VRs anew at every level of a sequence, and opens a buffer for
each element. Of what our objects hold a thousandfold (sequences, UIDs, codes, short texts, numbers) the bytes are put
together here; every other element is left to pydicom.
"""

import struct
from collections.abc import Callable, Iterable
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr_element, write_data_element, write_file_meta_info
from pydicom.multival import MultiValue

from twin_scanner.dicom.read.patient import CHARACTER_SET

_TEXTS: Final = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UI"})
_NUMBERS: Final = MappingProxyType({"US": "H", "UL": "L", "SL": "l", "FL": "f", "FD": "d"})
_SHORT_FORM: Final = struct.Struct("<HH2sH")
_LONG_FORM: Final = struct.Struct("<HH2sxxL")
_ITEM: Final = struct.Struct("<HHL")
"""What stands before a value, PS3.5 7.1.2, and before an item, PS3.5 7.5."""
_LONGEST_SHORT_FORM: Final = 0xFFFF
_SPECIFIC_CHARACTER_SET: Final = 0x00080005
_GROUP_LENGTH: Final = 0x00020000
_MEDIA_STORAGE_UID: Final = 0x00020003


def encoded_file(dataset: Dataset) -> bytes:
    """The whole file: preamble, prefix and File Meta Information (PS3.10 7.1), and the data set."""
    return file_start(dataset.file_meta) + encoded(dataset)


def file_start(meta: FileMetaDataset) -> bytes:
    """Preamble, prefix and File Meta Information: PS3.10 7.1."""
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return bytes(128) + b"DICM" + buffer.getvalue()


def file_starts(meta: FileMetaDataset) -> Callable[[str], bytes]:
    """What makes ``file_start`` of many files, whose ``meta`` differ in the SOP Instance UID alone."""
    file_start(meta)
    elements = encoded_elements(meta)

    def start(sop_instance_uid: str) -> bytes:
        own = elements | {_MEDIA_STORAGE_UID: encoded_uid(_MEDIA_STORAGE_UID, sop_instance_uid)}
        del own[_GROUP_LENGTH]
        content = b"".join(own.values())
        return bytes(128) + b"DICM" + _short(_GROUP_LENGTH, "UL", struct.pack("<L", len(content))) + content

    return start


def encoded(dataset: Dataset) -> bytes:
    """The data set in the order of its tags; its texts are in UTF-8."""
    return b"".join(encoded_elements(dataset).values())


def encoded_elements(dataset: Dataset) -> dict[int, bytes]:
    """Every data element by its tag, in the order of the tags."""
    return _elements(dataset, (dataset,))


def encoded_uid(tag: int, uid: str) -> bytes:
    """A UI of one value."""
    return _short(tag, "UI", _padded(uid, "UI"))


def encoded_sequence(tag: int, items: Iterable[bytes]) -> bytes:
    """An SQ of encoded items, PS3.5 7.5: sequence and items with their lengths."""
    content = b"".join(_ITEM.pack(0xFFFE, 0xE000, len(item)) + item for item in items)
    return _LONG_FORM.pack(tag >> 16, tag & 0xFFFF, b"SQ", len(content)) + content


def _elements(dataset: Dataset, around: tuple[Dataset, ...]) -> dict[int, bytes]:
    """``around`` are the data set and those that it lies in, the nearest first: what an ambiguous VR depends on."""
    found = {}
    for tag, held in sorted(dataset.items(), key=itemgetter(0)):
        if _is_group_length(tag):
            continue
        element = held if isinstance(held, DataElement) else dataset[tag]
        known = None if element.is_undefined_length else _known(int(tag), element, around)
        found[int(tag)] = _by_pydicom(element, around) if known is None else known
    return found


def _is_group_length(tag: int) -> bool:
    """A retired one (PS3.5 7.2), that of the File Meta Information aside: nobody writes it any more."""
    return tag & 0xFFFF == 0 and tag >> 16 > 2


def _known(tag: int, element: DataElement, around: tuple[Dataset, ...]) -> bytes | None:
    """The element, where its VR and value are ones that are put together here."""
    vr, value = str(element.VR), element.value
    if vr == "SQ":
        return _sequence(tag, value, around)
    content: bytes | None = None
    if vr in _TEXTS:
        content = _text(value, vr)
    elif vr in ("DS", "IS"):
        content = _padded("\\".join(map(_digits, _each(value))), vr)
    elif vr in _NUMBERS and value != "":
        numbers = _each(value)
        content = struct.pack(f"<{len(numbers)}{_NUMBERS[vr]}", *numbers)
    elif vr in ("OB", "OW") and isinstance(value, bytes):
        content = value + b"\0" * (len(value) % 2)
        return _LONG_FORM.pack(tag >> 16, tag & 0xFFFF, vr.encode("ascii"), len(content)) + content
    return None if content is None or len(content) > _LONGEST_SHORT_FORM else _short(tag, vr, content)


def _sequence(tag: int, items: Iterable[Dataset], around: tuple[Dataset, ...]) -> bytes | None:
    contents = []
    for item in items:
        if getattr(item, "is_undefined_length_sequence_item", False) or _SPECIFIC_CHARACTER_SET in dict(item.items()):
            return None
        contents.append(b"".join(_elements(item, (item, *around)).values()))
    return encoded_sequence(tag, contents)


def _text(value: Any, vr: str) -> bytes | None:
    """One value or several of ASCII; None for anything else."""
    values = _each(value)
    if not all(isinstance(one, str) for one in values):
        return None
    text = "\\".join(values)
    return _padded(text, vr) if text.isascii() else None


def _digits(value: Any) -> str:
    """As it was read or given, where the value knows that."""
    return str(getattr(value, "original_string", value))


def _each(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, MultiValue | list | tuple) else [value]


def _padded(text: str, vr: str) -> bytes:
    """To an even length: a UID with NUL, all else with a space (PS3.5 6.2)."""
    return (text + ("\0" if vr == "UI" else " ") * (len(text) % 2)).encode("ascii")


def _short(tag: int, vr: str, content: bytes) -> bytes:
    return _SHORT_FORM.pack(tag >> 16, tag & 0xFFFF, vr.encode("ascii"), len(content)) + content


def _by_pydicom(element: DataElement, around: tuple[Dataset, ...]) -> bytes:
    clear = correct_ambiguous_vr_element(element, around[0], True, list(around))
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, clear, CHARACTER_SET)
    return buffer.getvalue()
