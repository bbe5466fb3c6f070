"""PET series as files for the tests of reading: activity, dose and times known, one fault at a time."""

import warnings
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from tests.samples import ct_files
from twin_scanner.dicom.read.pet_headers import PET_IMAGE, PHILIPS_CREATOR

SERIES_UID: Final = "2.25.40"
START: Final = datetime(2020, 3, 14, 10, 0, 0)
DOSE_BQ: Final = 350e6
WEIGHT_KG: Final = 70.0
HALF_LIFE_S: Final = 6586.2
UPTAKE_S: Final = 3600.0
SUV_PER_BQML: Final = WEIGHT_KG * 1000 / (DOSE_BQ * 0.5 ** (UPTAKE_S / HALF_LIFE_S))
"""By hand: dose decayed for an hour."""
ISOTOPE: Final = {
    "Radiopharmaceutical": "FDG",
    "RadiopharmaceuticalStartTime": "090000.00",
    "RadionuclideTotalDose": str(DOSE_BQ),
    "RadionuclideHalfLife": str(HALF_LIFE_S),
}


def slope(index: int) -> float:
    """Of a slice: each has its own."""
    return 2.0 + 0.5 * index


def activity_bqml(index: int) -> npt.NDArray[np.float64]:
    """What a slice of ``pet_image`` shows."""
    return ct_files.stored_values(index) * slope(index)


def pet_image(index: int, isotope: dict[str, Any] | None = None, **attributes: Any) -> Dataset:
    """Slice ``index`` of a whole-body PET in Bq/ml; an attribute given as None is left out, of the isotope too."""
    image = ct_files.ct_image(index, SeriesInstanceUID=SERIES_UID, ConvolutionKernel=None, RescaleType=None)
    image.SOPClassUID, image.Modality, image.ImageType = PET_IMAGE, "PT", ["ORIGINAL", "PRIMARY"]
    image.Manufacturer = "SIEMENS"
    image.Units, image.CountsSource, image.SeriesType = "BQML", "EMISSION", ["WHOLE BODY", "IMAGE"]
    image.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "DECY"]
    image.DecayCorrection = "START"
    image.PatientWeight = str(WEIGHT_KG)
    image.SeriesDate, image.SeriesTime = f"{START:%Y%m%d}", f"{START:%H%M%S}.00"
    image.AcquisitionDate, image.AcquisitionTime = f"{START:%Y%m%d}", f"10{index % 60:02d}00.00"
    image.RescaleSlope, image.RescaleIntercept = str(slope(index)), "0"
    item = Dataset()
    for keyword, value in {**ISOTOPE, **(isotope or {})}.items():
        if value is not None:
            setattr(item, keyword, value)
    image.RadiopharmaceuticalInformationSequence = [item]
    for keyword, value in attributes.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    image.SOPInstanceUID = f"{image.SeriesInstanceUID}.{index + 1}"
    return image


def add_philips_factors(image: Dataset, suv: float | None, activity: float | None) -> None:
    """Philips' private scale factors."""
    block = image.private_block(0x7053, PHILIPS_CREATOR, create=True)
    for offset, value in ((0x00, suv), (0x09, activity)):
        if value is not None:
            block.add_new(offset, "DS", f"{value:.8g}")


def write_series(
    folder: Path,
    count: int = 16,
    change: ct_files.Change | None = None,
    *,
    isotope: dict[str, Any] | None = None,
    **attributes: Any,
) -> list[Path]:
    """Write ``count`` slices; ``change`` may alter each data set (given its index) before it is written."""
    files = []
    for index in range(count):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = pet_image(index, isotope, **attributes)
            if change is not None:
                change(image, index)
        files.append(ct_files.save(image, folder / f"{image.SeriesInstanceUID}-{index:03d}.dcm"))
    return files
