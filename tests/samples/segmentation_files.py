"""DICOM Segmentations as highdicom writes them, for the tests of reading; faults are added to what it wrote."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import highdicom
import numpy as np
import numpy.typing as npt
import pydicom
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage

from twin_scanner.imaging.volume import Geometry

FRAME_OF_REFERENCE_UID: Final = "1.2.3.9"
SERIES_UID: Final = "1.2.3.4"


def source_images(grid: Geometry) -> list[Dataset]:
    """The slices of a CT on that grid, without pixels."""
    images = []
    for index in range(grid.shape[0]):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, f"{SERIES_UID}.{index + 1}"
        image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3", SERIES_UID
        image.FrameOfReferenceUID, image.Modality = FRAME_OF_REFERENCE_UID, "CT"
        image.Rows, image.Columns = grid.shape[1:]
        image.ImagePositionPatient = [f"{c:.10g}" for c in grid.position_lps_mm((index, 0, 0))]
        image.ImageOrientationPatient = [f"{c:.10g}" for axis in (2, 1) for c in grid.direction[axis]]
        image.PixelSpacing, image.SliceThickness = list(grid.spacing_mm[1:]), grid.spacing_mm[0]
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
            setattr(image, keyword, "")
        image.StudyDate = image.StudyTime = image.ReferringPhysicianName = image.PositionReferenceIndicator = ""
        images.append(image)
    return images


def write_seg(
    path: Path,
    pixels: npt.NDArray[np.generic],
    grid: Geometry,
    names: Mapping[int, str],
    kind: str = "BINARY",
    change: Callable[[Dataset], None] | None = None,
    **options: Any,
) -> Path:
    """A Segmentation of segment numbers (D, H, W), or of masks (D, H, W, segments); ``change`` spoils it."""
    made = Segmentation(
        source_images=source_images(grid),
        pixel_array=pixels,
        segmentation_type=SegmentationTypeValues[kind],
        segment_descriptions=[_segment(number, name) for number, name in names.items()],
        series_instance_uid=highdicom.UID(),
        series_number=9,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Somebody",
        manufacturer_model_name="Contours",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    made.save_as(path)
    if change is not None:
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path)
    return path


def _segment(number: int, name: str) -> SegmentDescription:
    return SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=codes.SCT.Liver,
        algorithm_type="MANUAL",
    )


def reordered(order: Sequence[int]) -> Callable[[Dataset], None]:
    """Put the frames of a BINARY segmentation into another order, pixels and functional groups alike."""

    def change(dataset: Dataset) -> None:
        size = dataset.Rows * dataset.Columns
        bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
        frames = bits[: size * dataset.NumberOfFrames].reshape(-1, size)
        groups = list(dataset.PerFrameFunctionalGroupsSequence)
        dataset.PerFrameFunctionalGroupsSequence = [groups[index] for index in order]
        packed = np.packbits(frames[list(order)].ravel(), bitorder="little").tobytes()
        dataset.PixelData = packed + b"\x00" * (len(packed) % 2)

    return change
