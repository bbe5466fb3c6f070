"""Who we are in DICOM: our equipment's names, UIDs that follow from what they name, the test for our own objects."""

import hashlib
import json
import re
import uuid
from typing import Final

from pydicom.dataset import Dataset

MANUFACTURER: Final = "twin-scanner"
MODEL_NAME: Final = "twin-scanner virtual PET"
IMPLEMENTATION_VERSION_NAME: Final = "TWIN_SCANNER"
"""In every file's meta information; at most 16 characters (PS3.7 D.3.3.2.4)."""

_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_UID_LENGTH: Final = 64


def derive_uid(kind: str, *parts: str) -> str:
    """The UID that always follows from ``kind`` and ``parts``: 2.25 and a UUID as an integer (PS3.5 B.2).

    The UUID is of version 8 (RFC 9562 5.8), its other bits the first of the SHA-256 over a JSON list, so that no two
    lists of parts run together. At most 44 characters.
    """
    digest = hashlib.sha256(json.dumps([kind, *parts]).encode()).digest()[:16]
    number = int.from_bytes(digest, "big")
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    return f"2.25.{uuid.UUID(int=number).int}"


def valid_uid(text: str) -> bool:
    """Whether the text is a UID that may become a file's name: numbers joined by single dots, at most 64 characters.

    PS3.5 9.1, but for leading zeros: scanners that write them exist, and the UID is theirs, not ours to mend.
    """
    return len(text) <= _UID_LENGTH and _UID.fullmatch(text) is not None


def implementation_class_uid() -> str:
    """Ours, the same for every version (PS3.7 D.3.3.2.1)."""
    return derive_uid("implementation-class", MANUFACTURER)


def is_our_own(dataset: Dataset, device_serial_number: str) -> bool:
    """Whether this device made the object of a header and it is no CT: what the loop guard drops.

    Two twin scanners in one hospital differ in DeviceSerialNumber. A CT is never our result, though a phantom's CT
    bears our name.
    """
    return (
        _value(dataset, "Manufacturer") == MANUFACTURER
        and _value(dataset, "DeviceSerialNumber") == device_serial_number.strip()
        and _value(dataset, "Modality") != "CT"
    )


def _value(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip(" \x00")
