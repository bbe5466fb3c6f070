"""Small DICOM instances for the node's tests: a CT header with a patient's name, and pixels of any size."""

from pathlib import Path
from typing import Any, Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

PATIENT_NAME: Final = "Oberhuber^Kreszentia"
PATIENT_ID: Final = "PAT-4711"
BIRTH_DATE: Final = "19410923"


def instance(
    number: int = 1,
    *,
    study_uid: str = "1.2.3",
    series_uid: str = "1.2.3.1",
    sop_class_uid: str = CTImageStorage,
    pixels: bytes = bytes(range(64)) * 2,
    **attributes: Any,
) -> Dataset:
    """An instance 8 x 8 (the pixels may be any bytes); an attribute that is None is left out."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = f"{series_uid}.{number}"
    dataset.Modality = "CT"
    dataset.Manufacturer = "ACME"
    dataset.PatientName = PATIENT_NAME
    dataset.PatientID = PATIENT_ID
    dataset.PatientBirthDate = BIRTH_DATE
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = series_uid
    dataset.InstanceNumber = number
    dataset.Rows = dataset.Columns = 8
    dataset.BitsAllocated = 16
    dataset.PixelRepresentation = 1
    dataset.PixelData = pixels
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def write(
    dataset: Dataset,
    file: Path,
    transfer_syntax_uid: UID = ExplicitVRLittleEndian,
    *,
    requested_class_uid: str | None = None,
    requested_instance_uid: str | None = None,
) -> Path:
    """Write a DICOM file; the sender's request takes its UIDs from the meta information, which may differ here."""
    dataset.preamble = bytes(128)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.FileMetaInformationGroupLength = 0
    dataset.file_meta.FileMetaInformationVersion = b"\0\1"
    dataset.file_meta.MediaStorageSOPClassUID = requested_class_uid or dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = requested_instance_uid or dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = transfer_syntax_uid
    dataset["PixelData"].VR = "OW"
    if transfer_syntax_uid.is_encapsulated:
        dataset.PixelData = encapsulate([dataset.PixelData])
        dataset["PixelData"].VR = "OB"
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(file, enforce_file_format=False)
    return file


def series(folder: Path, count: int, *, first: int = 1, **options: Any) -> list[Path]:
    """Files of a series, instances ``first`` and following."""
    return [write(instance(number, **options), folder / f"{number:04}.dcm") for number in range(first, first + count)]


def data_set_bytes(file: Path | bytes) -> bytes:
    """What follows the meta information: 128 + 4 bytes, then group 0002, whose length its first element says."""
    content = file if isinstance(file, bytes) else file.read_bytes()
    assert content[128:140] == b"DICM\x02\x00\x00\x00UL\x04\x00"
    return content[144 + int.from_bytes(content[140:144], "little") :]


def meta(file: Path) -> Dataset:
    """The file meta information, as pydicom reads it."""
    return read_file_meta_info(file)
