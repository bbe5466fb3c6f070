"""CT series as files for the tests of reading: known geometry, known HU, one fault at a time."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

STUDY_UID: Final = "2.25.1"
SERIES_UID: Final = "2.25.2"
FRAME_OF_REFERENCE_UID: Final = "2.25.3"
PATIENT_ID: Final = "PAT-4711"
ROWS, COLUMNS = 12, 10
SPACING_MM: Final = (3.0, 1.1, 0.9)
"""Along (slices, rows, columns): no two alike."""
AXES: Final = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
ORIGIN_MM: Final = (-100.0, -120.0, 50.0)

Change = Callable[[Dataset, int], None]


def stored_values(index: int, rows: int = ROWS, columns: int = COLUMNS) -> npt.NDArray[np.int16]:
    """Pixels in which every slice, row and column tells its own number."""
    row, column = np.mgrid[:rows, :columns]
    return (index * 7 + row * 20 + column).astype(np.int16)


def ct_image(
    index: int, *, axes: Sequence[Sequence[float]] = AXES, step_mm: float = SPACING_MM[0], **attributes: Any
) -> Dataset:
    """Slice ``index`` of a series: an attribute given as None is left out."""
    row, column = (np.asarray(axis, dtype=float) for axis in axes)
    position = np.asarray(ORIGIN_MM) + index * step_mm * np.cross(row, column)
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.SpecificCharacterSet = "ISO_IR 100"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SOPClassUID = CTImageStorage
    image.Modality = "CT"
    image.PatientName = "Oberhuber^Kreszentia"
    image.PatientID = PATIENT_ID
    image.PatientPosition = "HFS"
    image.StudyInstanceUID = STUDY_UID
    image.SeriesInstanceUID = attributes.get("SeriesInstanceUID", SERIES_UID)
    image.SOPInstanceUID = f"{image.SeriesInstanceUID}.{index + 1}"
    image.FrameOfReferenceUID = FRAME_OF_REFERENCE_UID
    image.InstanceNumber = index + 1
    image.AcquisitionNumber = 1
    image.SliceThickness = "3.0"
    image.ConvolutionKernel = "STANDARD"
    image.ImagePositionPatient = [f"{value:.6f}" for value in position]
    image.ImageOrientationPatient = [f"{value:.8f}" for value in (*row, *column)]
    image.PixelSpacing = [SPACING_MM[1], SPACING_MM[2]]
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = ROWS, COLUMNS
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, 0, "HU"
    image.add_new("PixelData", "OW", stored_values(index).tobytes())
    for keyword, value in attributes.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    return image


def save(image: Dataset, file: Path, transfer_syntax_uid: UID = ExplicitVRLittleEndian) -> Path:
    """Write an image as a DICOM file, whatever nonsense it holds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image.file_meta.TransferSyntaxUID = transfer_syntax_uid
    image.file_meta.MediaStorageSOPClassUID = image.get("SOPClassUID", CTImageStorage)
    image.file_meta.MediaStorageSOPInstanceUID = image.get("SOPInstanceUID", "2.25.9")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.save_as(file, enforce_file_format=True)
    return file


def write_series(
    folder: Path, count: int = 16, change: Change | None = None, *, name: str = "slice", **attributes: Any
) -> list[Path]:
    """Write ``count`` slices; ``change`` may alter each data set (given its index) before it is written."""
    files = []
    for index in range(count):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = ct_image(index, **attributes)
            if change is not None:
                change(image, index)
        files.append(save(image, folder / f"{name}-{index:03d}.dcm"))
    return files


def overwrite(file: Path, old: bytes, new: bytes) -> None:
    """Put other bytes of the same length into a file: what no library would write."""
    content = file.read_bytes()
    assert len(old) == len(new)
    assert content.count(old) == 1
    file.write_bytes(content.replace(old, new))
