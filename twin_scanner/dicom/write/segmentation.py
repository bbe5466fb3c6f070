"""The districts as a DICOM Segmentation on the CT's own grid, beside the PET they were used for."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom._standard_utils import is_attribute_in_iod
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, SegmentationStorage

from twin_scanner.dicom.district_measurements import CATEGORY, code_of
from twin_scanner.dicom.equipment import MANUFACTURER, MODEL_NAME, derive_uid
from twin_scanner.dicom.read.ct_series import CtSeries
from twin_scanner.dicom.write.companions import (
    WrittenObject,
    companion_number,
    companion_series_uid,
    nameless_ct,
    pet_reference,
    put_into_study,
    write_object,
)
from twin_scanner.dicom.write.pet_series import Synthesis, WrittenSeries
from twin_scanner.errors import Defect
from twin_scanner.imaging.district_labels import DISTRICT_COLOURS, DISTRICT_LABELS, label_name
from twin_scanner.imaging.volume import Geometry, LabelArray, label_counts

SegmentationKind: TypeAlias = Literal["binary", "labelmap"]
TRANSFER_SYNTAXES: Final[Mapping[SegmentationKind, str]] = MappingProxyType(
    {"binary": ExplicitVRLittleEndian, "labelmap": RLELossless}
)
"""A label map has a byte a voxel, 180 MB for a whole body, of which RLE leaves a few; one bit a voxel needs none."""
_FAMILIES: Final = MappingProxyType(
    {"landmarks": Code("123104", "DCM", "Morphological Operations"), "labelmap": codes.cid7162.ManualProcessing}
)
"""PS3.16 CID 7162; every other backend is a network."""


def load_definitions() -> None:
    """Read highdicom's tables of modules and attributes now: else the first segmentation of a process waits for it."""
    is_attribute_in_iod("PixelData", SegmentationStorage)


def segment_numbers(present: Iterable[int]) -> dict[int, int]:
    """Segment number (1, 2, ...) of every label that is present, in the order of the labels."""
    return {label: number for number, label in enumerate(sorted(present), start=1)}


def write_segmentation(
    labels: LabelArray,
    geometry: Geometry,
    names: Mapping[int, str],
    source: CtSeries,
    pet: WrittenSeries,
    synthesis: Synthesis,
    folder: Path,
    kind: SegmentationKind = "binary",
    own_codes: Mapping[str, Code] = MappingProxyType({}),
) -> WrittenObject:
    """Write the labels (D, H, W) on the CT's grid as one Segmentation object, a segment for each label present.

    Its frames reference the CT's images, its series reference the PET too. It derives from the CT alone, so it is
    SyntheticData only where the CT is. The same arguments give the same bytes. Raises Defect where the labels do not
    lie on the CT's grid or are all 0, Transient where the disk fails.
    """
    if not geometry.same_grid(source.volume.geometry):
        raise Defect("The districts do not lie on the CT's grid: they cannot be written beside it.")
    numbers = segment_numbers(int(label) for label in np.flatnonzero(label_counts(labels)) if label)
    if not numbers:
        raise Defect("The district map is empty: there is nothing to write as a segmentation.")
    series_uid = companion_series_uid("segmentation", pet.series_uid)
    segments = [
        _segment(number, label, label_name(label, names), series_uid, synthesis, own_codes)
        for label, number in numbers.items()
    ]
    segmentation = Segmentation(
        source_images=nameless_ct(source),
        pixel_array=_numbered(labels, numbers),
        segmentation_type=SegmentationTypeValues[kind.upper()],
        segment_descriptions=segments,
        series_instance_uid=series_uid,
        series_number=companion_number("segmentation", source, synthesis),
        sop_instance_uid=derive_uid("segmentation-instance", series_uid, kind),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=synthesis.software_version,
        device_serial_number=synthesis.device_serial_number,
        transfer_syntax_uid=TRANSFER_SYNTAXES[kind],
        content_label="DISTRICTS",
        content_description=f"Body districts by {synthesis.segmenter}"[:64],
        content_qualification="RESEARCH",
    )
    _settle(segmentation, source, pet, series_uid)
    put_into_study(
        segmentation,
        "segmentation",
        source,
        synthesis,
        f"RESEARCH districts by {synthesis.segmenter}"[:64],
        synthetic=False,
    )
    return write_object(segmentation, "segmentation", folder)


def _numbered(labels: LabelArray, numbers: Mapping[int, int]) -> LabelArray:
    """Each voxel's segment number; where the labels are these, they themselves, which nobody may write to."""
    if all(label == number for label, number in numbers.items()):
        same = labels.view()
        same.flags.writeable = False
        return same
    lookup = np.zeros(256, np.uint8)
    lookup[list(numbers)] = list(numbers.values())
    return lookup[labels]


def _segment(
    number: int, label: int, name: str, series_uid: str, synthesis: Synthesis, own_codes: Mapping[str, Code]
) -> SegmentDescription:
    by_person = synthesis.segmenter == "labelmap"
    return SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=CATEGORY,
        segmented_property_type=code_of(name, own_codes),
        algorithm_type=SegmentAlgorithmTypeValues.SEMIAUTOMATIC if by_person else SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=synthesis.segmenter[:64],
            family=_FAMILIES.get(synthesis.segmenter, codes.cid7162.ArtificialIntelligence),
            version=synthesis.segmenter_hash[:64],
        ),
        tracking_uid=derive_uid("segment", series_uid, str(label)),
        tracking_id=name[:64],
        display_color=_colour(label),
    )


def _colour(label: int) -> CIELabColor:
    """The colour in which the preview shows the label; beyond the districts the palette begins anew."""
    red, green, blue = bytes.fromhex(DISTRICT_COLOURS[1 + (label - 1) % len(DISTRICT_LABELS)][1:])
    return CIELabColor.from_rgb(red, green, blue)


def _settle(segmentation: Dataset, source: CtSeries, pet: WrittenSeries, series_uid: str) -> None:
    """Put derived UIDs where highdicom draws random ones, reference the PET, and leave out unknown frame numbers."""
    organisation = derive_uid("segmentation-dimensions", series_uid)
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
    if "ReferencedSeriesSequence" in segmentation:
        segmentation.ReferencedSeriesSequence.append(pet_reference(pet))
    if len(source.sop_instance_uids) == 1:
        for frame in segmentation.PerFrameFunctionalGroupsSequence:
            for derivation in frame.get("DerivationImageSequence", ()):
                for image in derivation.SourceImageSequence:
                    if "ReferencedFrameNumber" in image:
                        del image.ReferencedFrameNumber
