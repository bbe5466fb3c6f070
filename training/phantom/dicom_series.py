"""A phantom as DICOM: a CT and a PET series of one study and one frame of reference, both marked as synthetic data."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage
from pydicom.valuerep import format_number_as_ds

from training.phantom.options import PatientPosition
from training.phantom.phantom import Phantom, PhantomOptions
from twin_scanner.dicom.equipment import IMPLEMENTATION_VERSION_NAME, derive_uid, implementation_class_uid
from twin_scanner.errors import Transient
from twin_scanner.imaging.volume import FloatArray, Geometry, Volume
from twin_scanner.progress import Progress

PHANTOM_MANUFACTURER: Final = "twin-scanner phantom"
"""Not the product's own: the loop guard drops what that made, and a phantom's PET is an input."""
STORED_AIR_HU: Final = -1024
HIGHEST_STORED: Final = 4095
"""CT: 12 bits from -1024 to 3071 HU, as scanners store them."""
LARGEST_PET_VALUE: Final = 32767
ACTIVITY_MBQ_PER_KG: Final = 3.5
"""EANM guideline for FDG, 3D acquisition with less overlap (version 2.0, 2015)."""
FLUORINE_18_HALF_LIFE_S: Final = 6586.2
UPTAKE: Final = timedelta(minutes=60)
EXAMINATION_HOUR: Final = 10


@dataclass(frozen=True)
class Examination:
    """The names of one phantom's study: patient, UIDs, times and activity, all decided by seed and options."""

    seed: int
    options: PhantomOptions

    @property
    def patient_id(self) -> str:
        """PatientID and the name's second part."""
        return f"PHANTOM{self.seed:04d}"

    @property
    def start(self) -> datetime:
        """When the CT and, a minute later, the PET start."""
        return datetime.combine(self.options.study_date, datetime.min.time()) + timedelta(hours=EXAMINATION_HOUR)

    @property
    def pet_start(self) -> datetime:
        """Start of the PET; SUV and decay refer to it (DecayCorrection START)."""
        return self.start + timedelta(minutes=1)

    @property
    def dose_bq(self) -> float:
        """Injected activity at injection, UPTAKE before the PET."""
        return float(round(self.options.weight_kg * ACTIVITY_MBQ_PER_KG)) * 1e6

    @property
    def weight_kg(self) -> float:
        """PatientWeight as the header says it."""
        return round(self.options.weight_kg, 1)

    @property
    def bqml_per_suv(self) -> float:
        """Activity concentration of SUV 1 (g/ml): decayed dose over weight, QIBA's SUV-bw for DecayCorrection START."""
        decayed = self.dose_bq * 2.0 ** (-UPTAKE.total_seconds() / FLUORINE_18_HALF_LIFE_S)
        return decayed / (self.weight_kg * 1000.0)

    def uid(self, kind: str, *parts: str) -> str:
        """A UID of this phantom; another seed or other options have others."""
        options = hashlib.sha256(self.options.identity.encode()).hexdigest()
        return derive_uid(f"phantom-{kind}", str(self.seed), options, *parts)


def write_ct_dicom(
    ct: Volume, folder: Path, *, seed: int, options: PhantomOptions | None = None, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Write a phantom's CT (HU) as a CT series, one file per slice; returns the files in the order of the D axis.

    ``options`` are those it was made with (default: PhantomOptions()). HU are rounded, and clipped to -1024 to 3071.
    Raises Transient where the disk fails.
    """
    examination = Examination(seed, PhantomOptions() if options is None else options)
    stored = np.clip(np.rint(ct.array) - STORED_AIR_HU, 0, HIGHEST_STORED).astype("<u2")
    template = _template(examination, ct.geometry, "CT")
    _add_ct(template, examination.options)
    slices = _slices(template, ct.geometry, (image.tobytes() for image in stored))
    return _write(folder, slices, len(stored), progress)


def write_pet_dicom(phantom: Phantom, folder: Path, *, progress: Progress | None = None) -> tuple[Path, ...]:
    """Write a phantom's PET as a series in Bq/ml with dose, weight and times, so that its SUV-bw is the phantom's SUV.

    Every slice has a RescaleSlope of its own, as PET scanners write it; no voxel is off by more than half of it.
    """
    examination = Examination(phantom.seed, phantom.options)
    template = _template(examination, phantom.geometry, "PT")
    _add_pet(template, examination, phantom.geometry)
    activity = phantom.pet.array * np.float32(examination.bqml_per_suv)
    slices = _pet_slices(template, phantom.geometry, activity)
    return _write(folder, slices, len(activity), progress)


def _template(examination: Examination, geometry: Geometry, modality: str) -> Dataset:
    """What every slice of a series shares, but for the modality's own modules."""
    options, start = examination.options, examination.start if modality == "CT" else examination.pet_start
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.SyntheticData = "YES"
    header.PatientName = f"PHANTOM^{examination.seed}"
    header.PatientID = examination.patient_id
    header.PatientBirthDate = ""
    header.PatientSex = options.sex
    header.PatientAge = f"{options.age:03d}Y"
    header.PatientSize = f"{options.height_mm / 1000.0:.2f}"
    header.PatientWeight = f"{examination.weight_kg:.1f}"
    header.StudyInstanceUID = examination.uid("study")
    header.StudyID = str(examination.seed)
    header.StudyDescription = "PET-CT of a phantom"
    header.AccessionNumber = ""
    header.ReferringPhysicianName = ""
    header.StudyDate, header.StudyTime = f"{examination.start:%Y%m%d}", f"{examination.start:%H%M%S}"
    for kind in ("Series", "Acquisition", "Content"):
        setattr(header, f"{kind}Date", f"{start:%Y%m%d}")
        setattr(header, f"{kind}Time", f"{start:%H%M%S}")
    header.Modality = modality
    header.SeriesInstanceUID = examination.uid("series", modality)
    header.FrameOfReferenceUID = examination.uid("frame-of-reference")
    header.PositionReferenceIndicator = ""
    header.Manufacturer = PHANTOM_MANUFACTURER
    header.ManufacturerModelName = f"phantom of the {options.world} world"
    header.BodyPartExamined = "WHOLEBODY"
    header.BurnedInAnnotation = "NO"
    header.AcquisitionNumber = 1
    _add_plane(header, geometry)
    return header


def _add_plane(header: Dataset, geometry: Geometry) -> None:
    """Image Plane and Image Pixel but for the position and the sign: PS3.3 C.7.6.2, C.7.6.3."""
    thickness, row_spacing, column_spacing = geometry.spacing_mm
    header.SliceThickness = _decimal(thickness)
    header.PixelSpacing = [_decimal(row_spacing), _decimal(column_spacing)]
    header.ImageOrientationPatient = [_decimal(v) for axis in (2, 1) for v in geometry.direction[axis]]
    header.Rows, header.Columns = geometry.shape[1:]
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated = 16


def _add_ct(header: Dataset, options: PhantomOptions) -> None:
    """CT Image module, PS3.3 C.8.2.1, and the patient's position, C.7.3.1.1.2."""
    header.SOPClassUID = CTImageStorage
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.SeriesNumber = 2
    header.SeriesDescription = "CT phantom"
    header.PatientPosition = options.position
    header.KVP = "120"
    header.ConvolutionKernel = "STANDARD"
    header.BitsStored, header.HighBit, header.PixelRepresentation = 12, 11, 0
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = str(STORED_AIR_HU), "1", "HU"
    header.WindowCenter, header.WindowWidth = "40", "400"


def _add_pet(header: Dataset, examination: Examination, geometry: Geometry) -> None:
    """PET Series, Isotope, Orientation and Image modules: PS3.3 C.8.9.1, C.8.9.2, C.8.4.6, C.8.9.4."""
    header.SOPClassUID = PositronEmissionTomographyImageStorage
    header.ImageType = ["ORIGINAL", "PRIMARY"]
    header.SeriesNumber = 3
    header.SeriesDescription = "PET phantom"
    header.Units = "BQML"
    header.CountsSource = "EMISSION"
    header.SeriesType = ["WHOLE BODY", "IMAGE"]
    header.NumberOfSlices = geometry.shape[0]
    header.CorrectedImage = ["ATTN", "DECY"]
    header.DecayCorrection = "START"
    header.CollimatorType = ""
    injection = examination.pet_start - UPTAKE
    isotope = Dataset()
    isotope.Radiopharmaceutical = "FDG"
    isotope.RadiopharmaceuticalStartTime = f"{injection:%H%M%S}.00"
    isotope.RadiopharmaceuticalStartDateTime = f"{injection:%Y%m%d%H%M%S}"
    isotope.RadionuclideTotalDose = _decimal(examination.dose_bq)
    isotope.RadionuclideHalfLife = _decimal(FLUORINE_18_HALF_LIFE_S)
    isotope.RadionuclideCodeSequence = [_code(Code("77004003", "SCT", "^18^Fluorine"))]
    isotope.RadiopharmaceuticalCodeSequence = [_code(Code("35321007", "SCT", "Fluorodeoxyglucose F^18^"))]
    header.RadiopharmaceuticalInformationSequence = [isotope]
    _add_orientation(header, examination.options.position)
    header.LossyImageCompression = "00"
    header.FrameReferenceTime = "0"
    header.ActualFrameDuration = "120000"
    header.DecayFactor = "1"
    header.DoseCalibrationFactor = "1"
    header.RescaleIntercept = "0"
    header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 15, 1


def _add_orientation(header: Dataset, position: PatientPosition) -> None:
    """On which side the patient lies and which end goes first, PS3.3 C.8.4.6."""
    sides = {
        "S": codes.cid20.Supine, "P": codes.cid20.Prone, "DL": codes.cid20.LeftLateralDecubitus,
        "DR": codes.cid20.RightLateralDecubitus,
    }  # fmt: skip
    lying = _code(codes.cid19.Recumbent)
    lying.PatientOrientationModifierCodeSequence = [_code(sides[position[2:]])]
    header.PatientOrientationCodeSequence = [lying]
    first = codes.cid21.Headfirst if position.startswith("HF") else codes.cid21.FeetFirst
    header.PatientGantryRelationshipCodeSequence = [_code(first)]


def _pet_slices(template: Dataset, geometry: Geometry, activity: FloatArray) -> Iterator[Dataset]:
    """Bq/ml as signed 16-bit values with one slope per slice, the slope as the header's decimal string says it."""
    slopes = [_decimal(max(float(image.max()), 1.0) / LARGEST_PET_VALUE) for image in activity]
    stored = (
        np.minimum(np.rint(image / np.float64(slope)), LARGEST_PET_VALUE).astype("<i2").tobytes()
        for image, slope in zip(activity, slopes, strict=True)
    )
    for index, image in enumerate(_slices(template, geometry, stored)):
        image.RescaleSlope = slopes[index]
        image.ImageIndex = index + 1
        yield image


def _slices(template: Dataset, geometry: Geometry, pixels: Iterator[bytes]) -> Iterator[Dataset]:
    """The data sets of a series, one after the other in the same object."""
    series_uid = str(template.SeriesInstanceUID)
    for index, data in enumerate(pixels):
        position = geometry.position_lps_mm((index, 0, 0))
        template.SOPInstanceUID = derive_uid("phantom-instance", series_uid, str(index))
        template.InstanceNumber = index + 1
        template.ImagePositionPatient = [_decimal(value) for value in position]
        template.SliceLocation = _decimal(position[2])
        template.PixelData = data
        template["PixelData"].VR = "OW"
        yield template


def _write(folder: Path, slices: Iterator[Dataset], count: int, progress: Progress | None) -> tuple[Path, ...]:
    files = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(slices, start=1):
            path = folder / f"{index:04d}.dcm"
            image.file_meta = _file_meta(image)
            image.save_as(path, enforce_file_format=True)
            files.append(path)
            if progress is not None:
                progress(index, count)
    except OSError as error:
        raise Transient(f"The phantom cannot be written to {folder}: check its free space and rights.") from error
    return tuple(files)


def _file_meta(image: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = image.SOPClassUID
    meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(implementation_class_uid())
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _decimal(value: float) -> str:
    return str(format_number_as_ds(float(value)))
