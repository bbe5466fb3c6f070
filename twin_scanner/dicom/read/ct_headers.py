"""The header of one CT slice, a file's or a frame's, checked for what a volume needs; no pixels, no other slice."""

from functools import partial
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from twin_scanner.dicom.read.slice_headers import (
    REFORMATS,
    ImageSlice,
    check_faithful,
    checked_slice,
    image_type,
    shown,
    text,
)
from twin_scanner.errors import Rejected

CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT: Final = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
"""Enhanced CT and Legacy Converted Enhanced CT Image Storage: multi-frame."""

HEADER_KEYWORDS: Final = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "Modality",
    "ImageType",
    "SyntheticData",
    "BurnedInAnnotation",
    "SeriesNumber",
    "InstanceNumber",
    "AcquisitionNumber",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "TemporalPositionIdentifier",
    "GantryDetectorTilt",
    "SliceThickness",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PixelRepresentation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "RequestedProcedurePriority",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
"""All that reading and choosing look at: a header read with these alone is small enough to hold a whole study's."""

HOUNSFIELD_TYPES: Final = frozenset({"", "HU", "HOUNSFIELD"})
"""RescaleType of HU; absent means HU in a CT image (PS3.3 C.8.2.1). US is "unspecified": blood flow, in one sample."""


def is_ct(header: Dataset) -> bool:
    """Whether the object is a CT image: its SOP class and its modality say so, as a secondary capture's do not."""
    sop_class = text(header, "SOPClassUID")
    return (sop_class == CT_IMAGE or sop_class in ENHANCED_CT) and text(header, "Modality") in ("CT", "")


def ct_slice(header: Dataset, file: Path, frame: int | None = None, *, accept_synthetic: bool = False) -> ImageSlice:
    """Check one image's header (a frame's: its functional groups laid over the shared attributes).

    Raises Rejected, naming the slice and the attribute, for what is missing, impossible, or no HU of an axial slice.
    """
    return checked_slice(header, file, frame, partial(_check_content, accept_synthetic=accept_synthetic))


def _check_content(header: Dataset, name: str, *, accept_synthetic: bool) -> None:
    """Whether the image shows the patient's HU: real, unburnt, not reformatted, not a map."""
    if text(header, "SyntheticData").upper() == "YES" and not accept_synthetic:
        raise Rejected(
            f"SyntheticData of {name} is YES, so it is no patient's scan: send acquired CT, or set accept_synthetic_ct."
        )
    values = image_type(header)
    reformatted = any(term in REFORMATS for term in values[2:])
    if reformatted or (values[:2] == ("DERIVED", "SECONDARY") and values[2:3] != ("AXIAL",)):
        kind = shown("\\".join(text(header, "ImageType").split("\\")[:4]))
        raise Rejected(f"ImageType of {name} is {kind}, a derived image: send the original axial series.")
    check_faithful(header, name, "HU are")
    rescale_type = text(header, "RescaleType")
    if rescale_type.upper() not in HOUNSFIELD_TYPES:
        raise Rejected(f"RescaleType of {name} is {shown(rescale_type)}, not HU: send a series in Hounsfield units.")
