"""Small axial CT series on disk for the tests of intake and render: a body-like ellipse, any number of slices."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SIZE: Final = 48
SPACING_MM: Final = 8.0


def write_series(
    folder: Path, *, slices: int = 24, first: int = 0, step_mm: float = 5.0, **attributes: Any
) -> list[Path]:
    """Slices ``first`` to ``first + slices - 1`` of a series along z; ``attributes`` replace what a slice says."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    body = (rows / 12) ** 2 + (columns / 18) ** 2 < 1
    pixels = np.where(body, 40, -1000).astype(np.int16)
    files = []
    for index in range(first, first + slices):
        files.append(folder / f"{index:04}.dcm")
        one_slice(index, step_mm, pixels, attributes).save_as(files[-1], enforce_file_format=True)
    return files


def one_slice(index: int, step_mm: float, pixels: npt.NDArray[np.int16], attributes: dict[str, Any]) -> Dataset:
    """One CT image."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = CTImageStorage
    image.Modality = "CT"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.PatientID, image.PatientName, image.PatientBirthDate, image.PatientSex = "P1", "DOE^JANE", "19500101", "F"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.9"
    image.StudyDate, image.StudyTime, image.AccessionNumber, image.StudyID = "20260301", "120000", "A1", "1"
    image.ReferringPhysicianName = ""
    image.SeriesNumber, image.InstanceNumber = 2, index + 1
    image.PatientPosition = "HFS"
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    image.SOPInstanceUID = f"{image.SeriesInstanceUID}.{index + 1}"
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    edge = -SPACING_MM * (SIZE - 1) / 2
    image.ImagePositionPatient = [edge, edge, index * step_mm]
    image.PixelSpacing, image.SliceThickness = [SPACING_MM, SPACING_MM], step_mm
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, 0, "HU"
    image.PixelData = pixels.tobytes()
    return image
