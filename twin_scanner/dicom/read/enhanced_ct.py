"""Enhanced multi-frame CT: each frame's header in the shape of a single-frame one (PS3.3 C.7.6.16, C.8.15.3)."""

from collections.abc import Iterator
from typing import Final

from pydicom.config import IGNORE
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from twin_scanner.dicom.read.ct_headers import ENHANCED_CT
from twin_scanner.dicom.read.dicom_files import UNREADABLE
from twin_scanner.dicom.read.slice_headers import integer, sequence_items, text
from twin_scanner.errors import Rejected

MACROS: Final = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
    "CTReconstructionSequence",
    "PixelMeasuresSequence",
    "PlaneOrientationSequence",
    "PlanePositionSequence",
    "PixelValueTransformationSequence",
)
"""The functional groups whose attributes a single-frame CT has at its top level, under the same keywords.

The first two hold what a legacy converter found no place for; the proper macros, coming later, win over them.
"""
MAXIMUM_FRAMES: Final = 20_000
"""More than any CT has (8800 were seen in one perfusion object); a damaged NumberOfFrames is larger."""

_IDENTITY: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_GROUPS: Final = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def is_enhanced(header: Dataset) -> bool:
    """Whether the object is a multi-frame CT with functional groups."""
    return text(header, "SOPClassUID") in ENHANCED_CT


def frame_headers(header: Dataset) -> Iterator[Dataset]:
    """Each frame's header: the top level, the shared functional groups and the frame's own laid over one another.

    ReferencedFrameNumber (from 1) is added, so that sentences can name the frame. Raises Rejected where the functional
    groups are missing, damaged, or not as many as NumberOfFrames.
    """
    count = integer(header, "NumberOfFrames")
    shared, per_frame = (sequence_items(header, keyword, "the image") for keyword in _GROUPS)
    if len(per_frame) != count or not 1 <= count <= MAXIMUM_FRAMES or len(shared) > 1:
        raise Rejected(
            f"PerFrameFunctionalGroupsSequence has {len(per_frame)} items for {count} frames: correct the sender."
        )
    common = Dataset()
    _take(common, header, _GROUPS)
    for groups in shared:
        _lay_over(common, groups)
    for number, groups in enumerate(per_frame, start=1):
        frame = Dataset()
        _take(frame, common, ())
        _lay_over(frame, groups)
        frame.add(DataElement("ReferencedFrameNumber", "IS", number))
        yield frame


def _lay_over(frame: Dataset, groups: Dataset) -> None:
    for keyword in MACROS:
        for item in sequence_items(groups, keyword, "the image")[:1]:
            _take(frame, item, _IDENTITY)
    for item in sequence_items(groups, "CTImageFrameTypeSequence", "the image")[:1]:
        frame.add(DataElement("ImageType", "CS", text(item, "FrameType").split("\\"), validation_mode=IGNORE))


def _take(frame: Dataset, item: Dataset, but: tuple[str, ...]) -> None:
    """Lay an item's attributes over a frame's as they are, undecoded: what nobody looks at may be damaged."""
    left = {tag_for_keyword(keyword) for keyword in but}
    for tag in item.keys():  # noqa: SIM118
        if tag not in left:
            try:
                frame[tag] = item.get_item(tag)
            except UNREADABLE as error:
                raise Rejected(
                    f"{keyword_for_tag(tag)} is damaged and cannot be read: send the image again."
                ) from error
