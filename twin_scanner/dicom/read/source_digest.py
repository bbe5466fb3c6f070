"""What a PET copies or is computed from, as one number: whether a CT that came again is another one."""

import hashlib
from collections.abc import Iterable
from typing import Final

from pydicom.dataset import Dataset

from twin_scanner.dicom.read.dicom_files import UNREADABLE, quiet_pydicom

IDENTITY_KEYWORDS: Final = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "PatientWeight",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "FrameOfReferenceUID",
    "PatientPosition",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
)
"""What the PET copies or is computed from. The pixels are left out: under one SOP Instance UID they may only change
their transfer syntax, and a CT that is sent again with another compression is not a new CT."""


def source_digest(headers: Iterable[Dataset]) -> str:
    """SHA-256 over the headers of a series, read with IDENTITY_KEYWORDS or more, in whatever order and transfer syntax.

    A value that is none (a letter in a number) counts as its bytes.
    """
    with quiet_pydicom():
        lines = [
            "\x1f".join(f"{keyword}={_value(header, keyword)}" for keyword in IDENTITY_KEYWORDS) for header in headers
        ]
    return hashlib.sha256("\x1e".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()


def _value(header: Dataset, keyword: str) -> object:
    try:
        return header.get(keyword, "")
    except UNREADABLE:
        return header.get_item(keyword).value
