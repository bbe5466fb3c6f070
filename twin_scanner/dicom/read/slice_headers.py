"""The header of one image slice, CT or PET: its values, plane and pixel description, checked; no pixels."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID

from twin_scanner.dicom.equipment import valid_uid
from twin_scanner.dicom.read.dicom_files import UNREADABLE
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Triple

REFORMATS: Final = frozenset(
    {
        "MPR",
        "REFORMATTED",
        "CURVED",
        "MIP",
        "MAXIP",
        "MAXIMUM",
        "MINIP",
        "MINIMUM",
        "PROJECTION IMAGE",
        "SSD",
        "VR",
        "VRT",
        "VOLUME RENDERED",
        "SCREEN SAVE",
        "PERFUSION",
        "RCBF",
        "RCBV",
        "MTT",
        "TTP",
        "SUBTRACTION",
        "MASKED",
        "DIVISION",
        "MULTIPLICATION",
        "STD_DEVIATION",
        "T_TEST",
        "Z_SCORE",
    }
)
"""Terms of ImageType from value 3 on that say that a pixel is no longer the value of one slice of the patient.

PS3.3 C.8.16.1.3 and C.8.16.1.4, and what Siemens, GE and Philips workstations write. DERIVED in value 1 says less: it
stands on every image that was ever recompressed (odd_files CT1_*), so it rejects only beside SECONDARY, without AXIAL.
"""
MAXIMUM_LOSSY_RATIO: Final = 15.0
"""Archives compress CT with loss by national guidelines, 8:1 in Germany (DRG consensus) to 15:1 in Canada (CAR 2008);
beyond it HU are no measurement any more: 42 HU off on average in odd_files' 693_J2KI (339:1), 22 in CT1_J2KI (69:1)."""

AXIAL_COSINE: Final = math.cos(math.radians(45.0))
"""A plane nearer to axial than to coronal or sagittal; a gantry tilts by 30 degrees at most, a head is angled by 20."""
COSINE_TOLERANCE: Final = 1e-3
"""Direction cosines are written with 4 to 6 digits; vectors further from unit length or a right angle are a mistake."""
PIXEL_SPACING_MM: Final = (0.05, 10.0)
"""In-plane spacing of any CT or PET of a patient: 0.1 mm for the inner ear to about 5.5 mm in PET."""
FARTHEST_MM: Final = 1e5
"""No slice is farther from the origin of its frame of reference along an axis: a hundred metres, where decimal strings
still carry a thousandth of a millimetre. A table moves by two metres."""
SLOPE: Final = (1e-10, 1e10)
INTERCEPT: Final = (-1e10, 1e10)
"""Any CT or PET lies within: SUV in steps of 1e-6 to activity in steps of 1e5 Bq/ml. Beyond it a float32 overflows."""
LONGEST_SHOWN: Final = 64
_TERM: Final = re.compile(r"[A-Z0-9 _\\]*")
"""One or several values of a CS have these characters (PS3.5 6.2)."""
MAXIMUM_MATRIX: Final = 4096
"""Rows and columns of any CT or PET: the largest in use have 2048; a damaged header has more."""


class SliceKind(Enum):
    """What an image is to a stack of axial slices."""

    SLICE = "slice"
    SCOUT = "scout"
    NOT_AXIAL = "not axial"


@dataclass(frozen=True)
class Plane:
    """Where a slice lies in the patient (LPS, mm; PS3.3 C.7.6.2): centre of the first pixel, axes, pixel spacing.

    ``row_direction`` runs along a row (to the next column), ``column_direction`` down a column (to the next row), both
    of unit length; ``pixel_spacing_mm`` is (between rows, between columns).
    """

    position_lps_mm: Triple
    row_direction: Triple
    column_direction: Triple
    pixel_spacing_mm: tuple[float, float]
    shape: tuple[int, int]

    @property
    def normal(self) -> Triple:
        """Row x column: the direction in which slices are stacked."""
        x, y, z = np.cross(self.row_direction, self.column_direction)
        return float(x), float(y), float(z)


@dataclass(frozen=True)
class ImageSlice:
    """One slice as its header tells it; ``frame`` is its index in a multi-frame file, ``name`` its name in sentences.

    ``plane`` is None for a scout. ``patient`` never reaches a log.
    """

    file: Path
    frame: int | None
    name: str
    kind: SliceKind
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    patient: tuple[str, str] = field(repr=False)
    plane: Plane | None
    header: Dataset = field(repr=False, compare=False)


def checked_slice(
    header: Dataset, file: Path, frame: int | None, check_content: Callable[[Dataset, str], None]
) -> ImageSlice:
    """One image's header (a frame's: its functional groups laid over the shared attributes) as a slice.

    ``check_content`` receives the header and the slice's name, and raises Rejected where the pixels of anything but a
    scout do not show what they should. Raises Rejected, naming slice and attribute, for what is missing or impossible.
    """
    name = name_of(header, file)
    required(header, "Modality", name)
    kind = SliceKind.SCOUT if "LOCALIZER" in image_type(header) else SliceKind.SLICE
    if kind is SliceKind.SLICE:
        check_content(header, name)
    plane = plane_of(header, name) if kind is SliceKind.SLICE else None
    if plane is not None and abs(plane.normal[2]) < AXIAL_COSINE:
        kind = SliceKind.NOT_AXIAL
    if kind is SliceKind.SLICE:
        check_pixels(header, name)
    return ImageSlice(
        file=file,
        frame=frame,
        name=name,
        kind=kind,
        sop_class_uid=uid_of(header, "SOPClassUID", name),
        sop_instance_uid=uid_of(header, "SOPInstanceUID", name),
        series_uid=uid_of(header, "SeriesInstanceUID", name),
        study_uid=uid_of(header, "StudyInstanceUID", name),
        frame_of_reference_uid=uid_of(header, "FrameOfReferenceUID", name) if "FrameOfReferenceUID" in header else "",
        patient=(text(header, "PatientID"), text(header, "IssuerOfPatientID")),
        plane=plane,
        header=header,
    )


def check_faithful(header: Dataset, name: str, values_are: str) -> None:
    """Raises Rejected where text stands in the pixels or loss has changed them; ``values_are`` is as "HU are"."""
    if text(header, "BurnedInAnnotation").upper() == "YES":
        raise Rejected(f"BurnedInAnnotation of {name} is YES, so text stands in its pixels: send the original images.")
    if is_lossy(header) and lossy_ratio(header) > MAXIMUM_LOSSY_RATIO:
        raise Rejected(
            f"LossyImageCompressionRatio of {name} is {lossy_ratio(header):.0f}, above {MAXIMUM_LOSSY_RATIO:g}, so its "
            f"{values_are} no measurement any more: send the images without loss."
        )


def name_of(header: Dataset, file: Path | None = None) -> str:
    """How a sentence names a slice: by its frame or its InstanceNumber, else by its file."""
    frame, number = text(header, "ReferencedFrameNumber"), text(header, "InstanceNumber")
    if frame:
        return f"frame {frame}"
    if number.lstrip("-").isdecimal():
        return f"the slice with InstanceNumber {shown(number.lstrip('-'))}"
    return "a slice without InstanceNumber" if file is None else f"the slice in {file.name}"


@contextmanager
def naming_series(header: Dataset) -> Iterator[None]:
    """Whatever is Rejected inside says which series: its number and UID; its description may hold a name."""
    number, series_uid = text(header, "SeriesNumber"), text(header, "SeriesInstanceUID")
    named = f"Series {number} " if number.isdecimal() else "Series "
    try:
        yield
    except Rejected as error:
        raise Rejected(f"{named}({shown_uid(series_uid)}): {error}") from error


def shown(value: str) -> str:
    """A coded word of a header as a sentence may show it; what is no such word could be a name, and is not repeated."""
    if not _TERM.fullmatch(value):
        return "no term of the standard"
    return value if len(value) <= LONGEST_SHOWN else value[:LONGEST_SHOWN] + "..."


def shown_uid(value: str) -> str:
    """A UID as a sentence may show it."""
    return value if valid_uid(value) else "without a valid UID"


def optional_integer(header: Dataset, keyword: str) -> int | None:
    """An IS (PS3.5 6.2) of an attribute that no image depends on; None where it is absent or none."""
    value = text(header, keyword)
    return int(value) if re.fullmatch(r"[+-]?[0-9]{1,11}", value) else None


def text(header: Dataset, keyword: str) -> str:
    """An attribute's text without padding, several values joined by a backslash; empty where absent or unreadable."""
    try:
        value = header.get(keyword)
    except UNREADABLE:
        return ""
    if value is None or isinstance(value, (bytes, DicomSequence)):
        return ""
    if isinstance(value, (MultiValue, list, tuple)):
        return "\\".join(str(part).strip(" \x00") for part in value)
    return str(value).strip(" \x00")


def sequence_items(header: Dataset, keyword: str, name: str) -> list[Dataset]:
    """The items of a sequence, none where it is absent; raises Rejected where ``name`` has it damaged."""
    try:
        items = list(header.get(keyword) or [])
    except UNREADABLE as error:
        raise Rejected(f"{keyword} of {name} is damaged and cannot be read: send it again.") from error
    if not all(isinstance(item, Dataset) for item in items):
        raise Rejected(f"{keyword} of {name} is no sequence: send it again.")
    return items


def is_given(header: Dataset, keyword: str) -> bool:
    """Whether an attribute is there and not empty, readable or not."""
    try:
        return keyword in header and header[keyword].VM > 0
    except UNREADABLE:
        return True


def numbers(header: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    """An attribute's ``count`` finite numbers; raises Rejected, naming it and the slice, where it has none such."""
    written = text(header, keyword)
    if not written:
        raise Rejected(f"{keyword} of {name_of(header)} is missing: the sender must send it.")
    try:
        values = tuple(float(part) for part in written.split("\\"))
    except ValueError:
        values = ()
    if len(values) != count or not all(math.isfinite(value) for value in values):
        wanted = "a number" if count == 1 else f"{count} numbers"
        raise Rejected(f"{keyword} of {name_of(header)} is not {wanted}: correct the sender.")
    return values


def integer(header: Dataset, keyword: str) -> int:
    """An attribute's whole number; raises Rejected as ``numbers`` does."""
    (value,) = numbers(header, keyword, 1)
    if value != int(value):
        raise Rejected(f"{keyword} of {name_of(header)} is not a whole number: correct the sender.")
    return int(value)


def rescale(header: Dataset) -> tuple[float, float]:
    """RescaleSlope and RescaleIntercept; raises Rejected where one is missing or no scanner's."""
    (slope,), (intercept,) = numbers(header, "RescaleSlope", 1), numbers(header, "RescaleIntercept", 1)
    if slope <= 0:
        raise Rejected(f"RescaleSlope of {name_of(header)} is {slope:g} and must be positive: correct the sender.")
    for keyword, value, (low, high) in (("RescaleSlope", slope, SLOPE), ("RescaleIntercept", intercept, INTERCEPT)):
        if not low <= value <= high:
            raise Rejected(
                f"{keyword} of {name_of(header)} is {value:g}, outside {low:g} to {high:g}: correct the sender."
            )
    return slope, intercept


def is_lossy(header: Dataset) -> bool:
    """Whether the pixels were ever compressed with loss (PS3.3 C.7.6.1.1.5)."""
    return text(header, "LossyImageCompression") == "01"


def lossy_ratio(header: Dataset) -> float:
    """The highest ratio of any compression with loss that the image went through; 1 where it is not given."""
    if not text(header, "LossyImageCompressionRatio"):
        return 1.0
    count = len(text(header, "LossyImageCompressionRatio").split("\\"))
    return max(numbers(header, "LossyImageCompressionRatio", count))


def lossy_remark(slices: Sequence[ImageSlice], values: str) -> tuple[str, ...]:
    """A sentence where any slice was ever compressed with loss: allowed up to a ratio, as archives do it, but said.

    ``values`` names what may be off, as "HU".
    """
    lossy = [image for image in slices if is_lossy(image.header)]
    if not lossy:
        return ()
    ratio = max(lossy_ratio(image.header) for image in lossy)
    return (
        f"{len(lossy)} of {len(slices)} slices were compressed with loss (LossyImageCompressionRatio up to "
        f"{ratio:.0f}): they were read, and their {values} may be off.",
    )


def image_type(header: Dataset) -> tuple[str, ...]:
    """The values of ImageType in capitals."""
    return tuple(part.strip().upper() for part in text(header, "ImageType").split("\\"))


def plane_of(header: Dataset, name: str) -> Plane:
    """Where the slice lies; raises Rejected, naming slice and attribute, where that is missing or impossible."""
    x, y, z = numbers(header, "ImagePositionPatient", 3)
    if max(abs(x), abs(y), abs(z)) > FARTHEST_MM:
        raise Rejected(
            f"ImagePositionPatient of {name} lies more than {FARTHEST_MM:g} mm from the origin of its frame of "
            "reference: correct the sender."
        )
    cosines = np.array(numbers(header, "ImageOrientationPatient", 6)).reshape(2, 3)
    lengths = np.linalg.norm(cosines, axis=1)
    if np.abs(lengths - 1.0).max() > COSINE_TOLERANCE or abs(cosines[0] @ cosines[1]) > COSINE_TOLERANCE:
        raise Rejected(
            f"ImageOrientationPatient of {name} is not two unit vectors at a right angle: correct the sender."
        )
    row = cosines[0] / lengths[0]
    column = cosines[1] - (cosines[1] @ row) * row
    column /= np.linalg.norm(column)
    between_rows, between_columns = numbers(header, "PixelSpacing", 2)
    low, high = PIXEL_SPACING_MM
    if not (low <= between_rows <= high and low <= between_columns <= high):
        raise Rejected(
            f"PixelSpacing of {name} is {between_rows:g}\\{between_columns:g} mm, outside {low:g} to {high:g}: "
            "correct the sender."
        )
    shape = (_within_matrix(header, "Rows", name), _within_matrix(header, "Columns", name))
    return Plane((x, y, z), _triple(row), _triple(column), (between_rows, between_columns), shape)


def _triple(vector: np.ndarray) -> Triple:
    x, y, z = (float(part) for part in vector)
    return x, y, z


def _within_matrix(header: Dataset, keyword: str, name: str) -> int:
    value = integer(header, keyword)
    if not 1 <= value <= MAXIMUM_MATRIX:
        raise Rejected(f"{keyword} of {name} is {value}, outside 1 to {MAXIMUM_MATRIX}: correct the sender.")
    return value


def check_pixels(header: Dataset, name: str) -> None:
    """What decoding and rescaling need, so that a series is refused before any pixel is read."""
    samples = integer(header, "SamplesPerPixel")
    photometric = required(header, "PhotometricInterpretation", name)
    if samples != 1 or not photometric.startswith("MONOCHROME"):
        raise Rejected(
            f"PhotometricInterpretation of {name} is {shown(photometric)}, a colour image: send measured values."
        )
    allocated, stored = integer(header, "BitsAllocated"), integer(header, "BitsStored")
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise Rejected(f"BitsStored {stored} and BitsAllocated {allocated} of {name} do not fit: correct the sender.")
    if integer(header, "PixelRepresentation") not in (0, 1):
        raise Rejected(f"PixelRepresentation of {name} is neither 0 nor 1: correct the sender.")
    rescale(header)


def required(header: Dataset, keyword: str, name: str) -> str:
    """An attribute's text; raises Rejected, naming it and the slice, where it is missing or empty."""
    value = text(header, keyword)
    if not value:
        raise Rejected(f"{keyword} of {name} is missing: the sender must send it.")
    return value


def uid_of(header: Dataset, keyword: str, name: str) -> str:
    """A UID; raises Rejected, naming the attribute and the slice, where it is missing or none."""
    value = required(header, keyword, name)
    if not valid_uid(value):
        raise Rejected(f"{keyword} of {name} is no UID: correct the sender.")
    return value


def sop_class_name(header: Dataset) -> str:
    """The SOP class in words, for a sentence."""
    sop_class = text(header, "SOPClassUID")
    return UID(sop_class).name if valid_uid(sop_class) else sop_class and "an unknown SOP class"
