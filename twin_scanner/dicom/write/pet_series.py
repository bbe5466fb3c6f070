"""The synthetic PET as a DICOM series: PET Image Storage beside its CT, files that are durable and always the same."""

import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage
from pydicom.valuerep import format_number_as_ds

from twin_scanner.dicom.equipment import (
    IMPLEMENTATION_VERSION_NAME,
    MANUFACTURER,
    MODEL_NAME,
    derive_uid,
    implementation_class_uid,
)
from twin_scanner.dicom.read.ct_series import CtSeries
from twin_scanner.dicom.read.patient import CHARACTER_SET, patient_and_study, required_uid, text
from twin_scanner.errors import Defect, Transient
from twin_scanner.files.durable_file import sync_folder, write_all_whole
from twin_scanner.imaging.volume import Geometry, Volume

STORED_MAXIMUM: Final = 32767
"""The largest signed 16-bit pixel: PET Image Storage with PixelRepresentation 1 (PS3.3 C.8.9.4)."""
FINEST_SLOPE: Final = 1e-6
"""g/ml a step: nothing below it means anything, and an image of zeros needs a slope too."""
WINDOW_SUV: Final = (5.0, 10.0)
"""Centre and width for display: SUV 0 to 10, the usual range of an FDG-PET."""
OVERLAP_FRACTION: Final = 1e-3
"""Slabs that share less than this part of a CT slice's spacing only touch: decimal strings carry about 1e-3 mm."""
DERIVATION: Final = "Synthetic FDG-PET computed from CT by a neural network; no PET was acquired"
COMMENT: Final = "RESEARCH, SYNTHETIC, NOT FOR DIAGNOSIS"
PHANTOM_ONLY: Final = "model trained on phantoms only"
"""What every object of such a model says in words: it has seen no patient."""
PHANTOM_ONLY_TITLE: Final = ", PHANTOM-ONLY MODEL"
"""The same in a SeriesDescription, which has 64 characters."""
LONGEST_DESCRIPTION: Final = 64
"""An LO holds no more characters (PS3.5 6.2)."""
FLUORINE_18_HALF_LIFE_S: Final = "6586.2"
SOURCE_IMAGE_PURPOSE: Final = Code("121322", "DCM", "Source image for image processing operation")
FDG: Final = Code("35321007", "SCT", "Fluorodeoxyglucose F^18^")
FLUORINE_18: Final = Code("77004003", "SCT", "^18^Fluorine")
BODY_PARTS_WITHOUT_SIDE: Final = frozenset(
    {
        "WHOLEBODY",
        "HEAD",
        "HEADNECK",
        "NECK",
        "NECKCHEST",
        "NECKCHESTABDOMEN",
        "NECKCHESTABDPELV",
        "CHEST",
        "CHESTABDOMEN",
        "CHESTABDPELVIS",
        "ABDOMEN",
        "ABDOMENPELVIS",
        "PELVIS",
    }
)
"""BodyPartExamined values that need no Laterality (PS3.16 Annex L); another gives way to the CT's or to WHOLEBODY."""
_FIRST: Final = {"HF": codes.cid21.Headfirst, "FF": codes.cid21.FeetFirst}
_LYING: Final = {
    "S": codes.cid20.Supine,
    "P": codes.cid20.Prone,
    "DR": codes.cid20.RightLateralDecubitus,
    "DL": codes.cid20.LeftLateralDecubitus,
}
"""PatientPosition's two parts (PS3.3 C.7.3.1.1.2) as codes of PS3.16 CID 21 and CID 20."""
_FILE: Final = "pet-{:04d}.dcm"
_REFERENCED_UID: Final = 0x00081155
_REFERENCED_INSTANCES: Final = 0x0008114A
_REFERENCED_SERIES: Final = 0x00081115
_SOURCE_IMAGES: Final = 0x00082112
_SHORT_FORM: Final = struct.Struct("<HH2sH")
_LONG_FORM: Final = struct.Struct("<HH2sxxL")
_ITEM: Final = struct.Struct("<HHL")
"""Explicit VR Little Endian: what stands before a value, PS3.5 7.1.2, and before an item, PS3.5 7.5."""
_TIME: Final = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
"""A TM (PS3.5 6.2)."""
_OURS: Final = re.compile(r"pet-\d{4,}\.dcm(\.part)?")


@dataclass(frozen=True)
class Synthesis:
    """How a PET was made, as far as the series tells it.

    ``made_at`` is aware and comes from the ledger's row, so that a second rendering is the same bytes; give it in the
    site's zone. ``revision`` counts deliberate repetitions of the same job. ``source_derivation`` is the sentence on
    how the CT was resampled before; empty where it was not. ``zero_dose`` states the dose that was given: none.
    ``body_part`` is what the CT shows, a term of PS3.16 Annex L; empty where that is not known. ``outside_training``
    says what of the CT lies outside of the model's training data.
    """

    model_name: str
    model_hash: str
    plan_hash: str
    segmenter: str
    segmenter_hash: str
    precision: str
    software_version: str
    device_serial_number: str
    made_at: datetime
    missing_districts: tuple[str, ...] = ()
    revision: int = 1
    phantom_only: bool = False
    source_derivation: str = ""
    stitching: str = "uniform"
    zero_dose: bool = False
    body_part: str = ""
    outside_training: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.made_at.tzinfo is None:
            raise Defect("The time of synthesis has no time zone: pass an aware datetime.")


@dataclass(frozen=True)
class WrittenSeries:
    """A written series: slice i is ``files[i]`` with ``sop_instance_uids[i]``, in the order of the volume's D axis."""

    study_uid: str
    series_uid: str
    sop_instance_uids: tuple[str, ...]
    files: tuple[Path, ...]
    rescale_slope: float


def write_pet_series(suv: Volume, source: CtSeries, synthesis: Synthesis, folder: Path) -> WrittenSeries:
    """Write SUV-bw (g/ml, any grid in the CT's frame of reference) as a PET series, one file per slice, in ``folder``.

    Same patient, study and frame of reference as the CT. Stored values are SUV / RescaleSlope rounded, one slope for
    the series, so no voxel is off by more than half a slope. Every file is fsynced and renamed into place and the
    folder fsynced; the same arguments give the same bytes. Raises Rejected for a CT whose identity cannot be copied,
    Defect for SUV that is negative or not finite, Transient where the disk fails.
    """
    stored, slope = _stored_values(suv)
    template = _template(suv.geometry, source, synthesis)
    _add_values(template, slope)
    series_uid = template.SeriesInstanceUID
    sources = source_slices(suv.geometry, source)
    slices = _slices(template, stored, suv.geometry, source, sources)
    files = _write_files(folder, slices, len(stored))
    return WrittenSeries(
        study_uid=template.StudyInstanceUID,
        series_uid=series_uid,
        sop_instance_uids=tuple(instance_uid(series_uid, index) for index in range(len(stored))),
        files=files,
        rescale_slope=float(slope),
    )


def pet_series_uid(source: CtSeries, synthesis: Synthesis) -> str:
    """The SeriesInstanceUID of this synthesis of this CT, whenever it is made; known before anything is written."""
    header = source.header
    return derive_uid(
        "pet-series",
        text(header, "PatientID"),
        text(header, "IssuerOfPatientID"),
        required_uid(header, "StudyInstanceUID"),
        "\\".join(source.sop_instance_uids),
        synthesis.model_hash,
        synthesis.plan_hash,
        synthesis.segmenter,
        synthesis.segmenter_hash,
        synthesis.precision,
        synthesis.software_version,
        "\\".join(synthesis.missing_districts),
        str(synthesis.revision),
        # The paper's average leaves no trace, so PETs from before there was a choice keep their UIDs.
        *([] if synthesis.stitching == "uniform" else [synthesis.stitching]),
        # What states a dose of 0 has other bytes, so it has other UIDs.
        *(["dose 0"] if synthesis.zero_dose else []),
    )


def source_slices(pet: Geometry, source: CtSeries) -> list[tuple[int, ...]]:
    """For every PET slice the indices of ``source.sop_instance_uids`` whose slabs it overlaps, at least one.

    A slab reaches half a spacing to both sides of its plane. The PET slice's eight corners are projected on the CT's
    stack axis, so that an oblique PET finds every CT slice it crosses. An enhanced CT is one instance.
    """
    ct, instances = source.volume.geometry, len(source.sop_instance_uids)
    if instances == 1:
        return [(0,)] * pet.shape[0]
    if instances != ct.shape[0]:
        raise Defect(f"The CT has {ct.shape[0]} slices and {instances} instances: the reader lost count.")
    axis, spacing = np.asarray(ct.direction[0]), ct.spacing_mm[0]
    half = 0.5 - OVERLAP_FRACTION
    corners = [[d, h, w] for d in (-half, half) for h in (0, pet.shape[1] - 1) for w in (0, pet.shape[2] - 1)]
    overlaps = []
    for index in range(pet.shape[0]):
        points = [pet.position_lps_mm((index + d, h, w)) for d, h, w in corners]
        along = (np.asarray(points) - np.asarray(ct.origin_lps_mm)) @ axis / spacing
        first = math.ceil(along.min() - 0.5 + OVERLAP_FRACTION)
        last = math.floor(along.max() + 0.5 - OVERLAP_FRACTION)
        first, last = (min(max(edge, 0), ct.shape[0] - 1) for edge in (first, max(first, last)))
        overlaps.append(tuple(range(first, last + 1)))
    return overlaps


def _stored_values(suv: Volume) -> tuple[npt.NDArray[np.int16], str]:
    """Pixels (D,H,W) and the RescaleSlope as the decimal string they were divided by."""
    if not np.isfinite(suv.array).all():
        raise Defect("The synthetic PET holds values that are not finite: the network or the stitching is broken.")
    if suv.array.min() < 0:
        raise Defect("The synthetic PET holds negative SUV: the network or the stitching is broken.")
    slope = format_number_as_ds(max(float(suv.array.max()) / STORED_MAXIMUM, FINEST_SLOPE))
    stored = np.empty(suv.array.shape, np.int16)
    for plane, values in zip(stored, suv.array, strict=True):
        np.rint(values / np.float64(slope), out=plane, casting="unsafe")
    return stored, slope


def _template(geometry: Geometry, source: CtSeries, synthesis: Synthesis) -> Dataset:
    """All attributes that every slice shares."""
    header = source.header
    pet = patient_and_study(header)
    made_at = in_the_zone_of(pet, synthesis.made_at)
    _add_series(pet, header, source, synthesis, made_at)
    _add_pet(pet, header, synthesis)
    add_equipment(pet, header, synthesis, made_at)
    _add_image(pet, header, synthesis, made_at)
    _add_plane(pet, geometry)
    return pet


def _add_series(pet: Dataset, header: Dataset, source: CtSeries, synthesis: Synthesis, made_at: datetime) -> None:
    """General Series, PET Series and Frame of Reference: PS3.3 C.7.3.1, C.8.9.1, C.7.4.1."""
    pet.SOPClassUID = PositronEmissionTomographyImageStorage
    pet.Modality = "PT"
    pet.SeriesInstanceUID = pet_series_uid(source, synthesis)
    pet.SeriesNumber = series_number(text(header, "SeriesNumber"), synthesis.revision)
    pet.SeriesDescription = series_description(synthesis)
    candidates = (synthesis.body_part, text(header, "BodyPartExamined"))
    pet.BodyPartExamined = next((part for part in candidates if part in BODY_PARTS_WITHOUT_SIDE), "WHOLEBODY")
    pet.SeriesDate, pet.SeriesTime = dicom_date(made_at), dicom_time(made_at)
    pet.FrameOfReferenceUID = required_uid(header, "FrameOfReferenceUID")
    pet.PositionReferenceIndicator = text(header, "PositionReferenceIndicator")
    pet.Units = "GML"
    pet.SUVType = "BW"
    pet.CountsSource = "EMISSION"
    pet.SeriesType = ["WHOLE BODY", "IMAGE"]
    pet.CorrectedImage = ["ATTN", "DECY"]
    pet.DecayCorrection = "START"
    pet.CollimatorType = ""


def _add_pet(pet: Dataset, header: Dataset, synthesis: Synthesis) -> None:
    """PET Isotope and NM/PET Patient Orientation: PS3.3 C.8.9.2, C.8.4.6. Nobody got a dose: none is stated, or 0."""
    isotope = Dataset()
    isotope.Radiopharmaceutical = "FDG"
    isotope.RadionuclideHalfLife = FLUORINE_18_HALF_LIFE_S
    isotope.RadionuclideCodeSequence = [coded(FLUORINE_18)]
    isotope.RadiopharmaceuticalCodeSequence = [coded(FDG)]
    if synthesis.zero_dose:
        isotope.RadionuclideTotalDose = "0"
        if acquired := acquisition_moment(header):
            isotope.RadiopharmaceuticalStartDateTime = acquired
    pet.RadiopharmaceuticalInformationSequence = [isotope]
    position = text(header, "PatientPosition")
    lying, first = _LYING.get(position[2:]), _FIRST.get(position[:2])
    pet.PatientOrientationCodeSequence = []
    if lying is not None:
        orientation = coded(codes.cid19.Recumbent)
        orientation.PatientOrientationModifierCodeSequence = [coded(lying)]
        pet.PatientOrientationCodeSequence = [orientation]
    pet.PatientGantryRelationshipCodeSequence = [coded(first)] if first is not None else []


def acquisition_moment(header: Dataset) -> str:
    """AcquisitionDate and AcquisitionTime of the CT as one DT in its zone; empty where either is missing or is none."""
    day, clock = text(header, "AcquisitionDate"), text(header, "AcquisitionTime")
    return day + clock if re.fullmatch(r"\d{8}", day) and _TIME.fullmatch(clock) else ""


def add_equipment(pet: Dataset, header: Dataset, synthesis: Synthesis, made_at: datetime) -> None:
    """General Equipment is ours, not the CT scanner's; Contributing Equipment names both: PS3.3 C.7.5.1, C.12.1.1.5."""
    pet.SyntheticData = "YES"
    pet.Manufacturer = MANUFACTURER
    pet.ManufacturerModelName = MODEL_NAME
    pet.DeviceSerialNumber = synthesis.device_serial_number
    pet.SoftwareVersions = synthesis.software_version
    ours = Dataset()
    ours.PurposeOfReferenceCodeSequence = [coded(codes.DCM.SynthesizingEquipment)]
    for keyword in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions"):
        setattr(ours, keyword, pet[keyword].value)
    ours.ContributionDateTime = made_at.strftime("%Y%m%d%H%M%S.%f%z")
    ours.ContributionDescription = _description_of(synthesis)
    pet.ContributingEquipmentSequence = [ours]
    if text(header, "Manufacturer") and text(header, "SyntheticData") != "YES":
        scanner = Dataset()
        scanner.PurposeOfReferenceCodeSequence = [coded(codes.DCM.AcquisitionEquipment)]
        for keyword in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions"):
            if value := text(header, keyword):
                setattr(scanner, keyword, value.split("\\") if "\\" in value else value)
        pet.ContributingEquipmentSequence.append(scanner)


def _add_image(pet: Dataset, header: Dataset, synthesis: Synthesis, made_at: datetime) -> None:
    """General Image and the parts of PET Image that hold no values: PS3.3 C.7.6.1, C.8.9.4."""
    pet.ImageType = ["DERIVED", "PRIMARY"]
    pet.InstanceCreationDate, pet.InstanceCreationTime = dicom_date(made_at), dicom_time(made_at)
    pet.ContentDate, pet.ContentTime = dicom_date(made_at), dicom_time(made_at)
    pet.AcquisitionDate, pet.AcquisitionTime = text(header, "AcquisitionDate"), text(header, "AcquisitionTime")
    pet.ImageComments = comment(synthesis)
    pet.BurnedInAnnotation = "NO"
    pet.ContentQualification = "RESEARCH"
    pet.DerivationDescription = DERIVATION + (f". {synthesis.source_derivation}" if synthesis.source_derivation else "")
    add_compression(pet, header, lossy=text(header, "LossyImageCompression") == "01")
    pet.FrameReferenceTime = "0"
    pet.ActualFrameDuration = None
    pet.DecayFactor = "1"
    pet.DoseCalibrationFactor = None
    pet.WindowCenter, pet.WindowWidth = (str(value) for value in WINDOW_SUV)


def add_compression(image: Dataset, header: Dataset, *, lossy: bool) -> None:
    """An image derived from one that was compressed with loss says so for ever: PS3.3 C.7.6.1.1.5."""
    image.LossyImageCompression = "01" if lossy else "00"
    if lossy:
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if value := text(header, keyword):
                setattr(image, keyword, value.split("\\"))


def _add_plane(pet: Dataset, geometry: Geometry) -> None:
    """Image Plane and Image Pixel but for the position: PS3.3 C.7.6.2, C.7.6.3. Rows lie along H, columns along W."""
    slices, pet.Rows, pet.Columns = geometry.shape
    pet.NumberOfSlices = slices
    thickness, row_spacing, column_spacing = (decimal(value) for value in geometry.spacing_mm)
    pet.PixelSpacing = [row_spacing, column_spacing]
    pet.SliceThickness = pet.SpacingBetweenSlices = thickness
    pet.ImageOrientationPatient = [decimal(value) for axis in (2, 1) for value in geometry.direction[axis]]
    pet.SamplesPerPixel = 1
    pet.PhotometricInterpretation = "MONOCHROME2"
    pet.BitsAllocated, pet.BitsStored, pet.HighBit = 16, 16, 15
    pet.PixelRepresentation = 1


def _add_values(pet: Dataset, slope: str) -> None:
    pet.RescaleIntercept = "0"
    pet.RescaleSlope = slope


def _slices(
    template: Dataset,
    stored: npt.NDArray[np.int16],
    geometry: Geometry,
    source: CtSeries,
    sources: Sequence[tuple[int, ...]],
) -> Iterator[bytes]:
    """The files' contents, slice by slice; what the slices share is encoded once."""
    shared = _encoded_elements(template)
    meta = file_meta(PositronEmissionTomographyImageStorage, instance_uid(template.SeriesInstanceUID, 0))
    encoded_references = _references_encoder(source)
    for index, pixels in enumerate(stored):
        own = Dataset()
        position = geometry.position_lps_mm((index, 0, 0))
        own.SOPInstanceUID = instance_uid(template.SeriesInstanceUID, index)
        own.InstanceNumber = own.ImageIndex = index + 1
        own.ImagePositionPatient = [decimal(value) for value in position]
        own.SliceLocation = decimal(float(np.dot(position, geometry.direction[0])))
        uids = [source.sop_instance_uids[i] for i in sources[index]]
        own.PixelData = pixels.astype("<i2").tobytes()
        own["PixelData"].VR = "OW"
        elements = shared | _encoded_elements(own) | encoded_references(uids)
        meta.MediaStorageSOPInstanceUID = own.SOPInstanceUID
        yield _file_start(meta) + b"".join(elements[tag] for tag in sorted(elements))


def _encoded_elements(dataset: Dataset) -> dict[int, bytes]:
    """Every data element by its tag, in Explicit VR Little Endian and UTF-8."""
    encoded = {}
    for element in dataset:
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_data_element(buffer, element, CHARACTER_SET)
        encoded[int(element.tag)] = buffer.getvalue()
    return encoded


def _references_encoder(source: CtSeries) -> Callable[[Sequence[str]], dict[int, bytes]]:
    """What encodes SourceImageSequence and ReferencedSeriesSequence of a slice from the UIDs of its CT images.

    All items differ in their UIDs alone; pydicom would take half of the time of a series to encode each of them anew.
    """
    (image,) = source_images(source.sop_class_uid, [""])
    series = series_reference(required_uid(source.header, "SeriesInstanceUID"), source.sop_class_uid, [""])
    (instance,) = series.ReferencedInstanceSequence
    as_source, as_instance, around = (_encoded_elements(item) for item in (image, instance, series))

    def encoded(uids: Sequence[str]) -> dict[int, bytes]:
        references = [{_REFERENCED_UID: _encoded_uid(_REFERENCED_UID, uid)} for uid in uids]
        instances = _encoded_sequence(_REFERENCED_INSTANCES, [as_instance | one for one in references])
        return {
            _SOURCE_IMAGES: _encoded_sequence(_SOURCE_IMAGES, [as_source | one for one in references]),
            _REFERENCED_SERIES: _encoded_sequence(_REFERENCED_SERIES, [around | {_REFERENCED_INSTANCES: instances}]),
        }

    return encoded


def _encoded_uid(tag: int, uid: str) -> bytes:
    """A UI of one value, PS3.5 7.1.2: short form, padded by NUL to an even length."""
    value = uid.encode("ascii") + b"\0" * (len(uid) % 2)
    return _SHORT_FORM.pack(tag >> 16, tag & 0xFFFF, b"UI", len(value)) + value


def _encoded_sequence(tag: int, items: Iterable[dict[int, bytes]]) -> bytes:
    """An SQ of encoded items, PS3.5 7.5: sequence and items with their lengths."""
    content = b""
    for item in items:
        elements = b"".join(item[tag] for tag in sorted(item))
        content += _ITEM.pack(0xFFFE, 0xE000, len(elements)) + elements
    return _LONG_FORM.pack(tag >> 16, tag & 0xFFFF, b"SQ", len(content)) + content


def _file_start(meta: FileMetaDataset) -> bytes:
    """Preamble, prefix and File Meta Information: PS3.10 7.1."""
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return bytes(128) + b"DICM" + buffer.getvalue()


def _write_files(folder: Path, contents: Iterator[bytes], count: int) -> tuple[Path, ...]:
    """The contents under their final names once all are whole and on disk; what an earlier run left is removed."""
    files = tuple(folder / _FILE.format(index + 1) for index in range(count))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if _OURS.fullmatch(path.name) and path not in files:
                path.unlink()
        write_all_whole(zip(files, contents, strict=True))
        for directory in (folder, folder.parent):
            sync_folder(directory)
    except OSError as error:
        raise Transient(f"The PET series cannot be written to {folder}: check its free space and rights.") from error
    return files


def series_description(synthesis: Synthesis) -> str:
    """SYNTHETIC first, then what the model has seen, the revision and what is missing, within LO's 64 characters."""
    revision = f", revision {synthesis.revision}" if synthesis.revision > 1 else ""
    start = titled("SYNTHETIC FDG-PET", synthesis) + revision
    named, counted = naming_missing(synthesis, ", without "), f", without {len(synthesis.missing_districts)} districts"
    candidates = [start + ending for ending in (named, counted) if len(start + ending) <= LONGEST_DESCRIPTION]
    return candidates[0] if candidates else f"{start}, INCOMPLETE"[:LONGEST_DESCRIPTION]


def titled(description: str, synthesis: Synthesis) -> str:
    """A SeriesDescription that says where the model has seen no patient."""
    return description + (PHANTOM_ONLY_TITLE if synthesis.phantom_only else "")


def comment(synthesis: Synthesis) -> str:
    """What an image is, what its model has seen and what is missing in it: ImageComments (LT)."""
    seen = f"; {PHANTOM_ONLY}" if synthesis.phantom_only else ""
    return COMMENT + seen + naming_missing(synthesis, "; not synthesised: ")


def naming_missing(synthesis: Synthesis, introduction: str) -> str:
    """The districts that were not synthesised, after the introduction; nothing where there are none."""
    return introduction + ", ".join(synthesis.missing_districts) if synthesis.missing_districts else ""


def _description_of(synthesis: Synthesis) -> str:
    """ContributionDescription (ST, at most 1024 characters): enough to repeat the synthesis."""
    seen = f"; {PHANTOM_ONLY}" if synthesis.phantom_only else ""
    stitched = "" if synthesis.stitching == "uniform" else f"; stitching {synthesis.stitching}"
    dose = "; dose 0 stated: no tracer was given" if synthesis.zero_dose else ""
    return (
        f"Synthetic FDG-PET from CT; model {synthesis.model_name} {synthesis.model_hash}{seen}; "
        f"plan {synthesis.plan_hash}; districts by {synthesis.segmenter} {synthesis.segmenter_hash}; "
        f"precision {synthesis.precision}{stitched}{dose}; revision {synthesis.revision}"
        + (f"; {synthesis.source_derivation}" if synthesis.source_derivation else "")
        + naming_missing(synthesis, "; not synthesised: ")
    )[:1024]


def series_number(ct_series_number: str, revision: int) -> int:
    """The CT's number and two digits for the revision, so that the PET is listed behind its CT; IS has 32 bits."""
    number = int(ct_series_number) if re.fullmatch(r"\d{1,7}", ct_series_number) else 90
    return number * 100 + min(revision, 99)


def in_the_zone_of(pet: Dataset, made_at: datetime) -> datetime:
    """The same instant in the zone the object declares for all its times, else as it came (the site's zone).

    Without the CT's TimezoneOffsetFromUTC none is written: it would claim a zone for the copied StudyTime as well.
    """
    offset = re.fullmatch(r"([+-])([01]\d|2[0-3])([0-5]\d)", str(pet.get("TimezoneOffsetFromUTC", "")))
    if offset is None:
        if "TimezoneOffsetFromUTC" in pet:
            del pet.TimezoneOffsetFromUTC
        return made_at
    minutes = int(offset[2]) * 60 + int(offset[3])
    return made_at.astimezone(timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes)))


def dicom_date(moment: datetime) -> str:
    """A DA."""
    return moment.strftime("%Y%m%d")


def dicom_time(moment: datetime) -> str:
    """A TM with microseconds."""
    return moment.strftime("%H%M%S.%f")


def decimal(value: float) -> str:
    """A decimal string of at most 16 characters; below 1e-10 mm is rounding noise of the axes."""
    return format_number_as_ds(round(float(value), 10) + 0.0)


def instance_uid(series_uid: str, index: int) -> str:
    """The SOPInstanceUID of a slice of a series of ours, by its place in it."""
    return derive_uid("pet-instance", series_uid, str(index))


def coded(code: Code) -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def reference_to(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """An item that references one instance (PS3.3 Table 10-11)."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


def series_reference(series_uid: str, sop_class_uid: str, sop_instance_uids: Iterable[str]) -> Dataset:
    """An item of ReferencedSeriesSequence (PS3.3 C.12.2)."""
    item = Dataset()
    item.SeriesInstanceUID = series_uid
    item.ReferencedInstanceSequence = [reference_to(sop_class_uid, uid) for uid in sop_instance_uids]
    return item


def file_meta(sop_class_uid: str, sop_instance_uid: str, syntax: str = ExplicitVRLittleEndian) -> FileMetaDataset:
    """File Meta Information of an object of ours."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class_uid), UID(sop_instance_uid)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(implementation_class_uid())
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def source_images(sop_class_uid: str, sop_instance_uids: Iterable[str], preserved: str = "YES") -> list[Dataset]:
    """The items of SourceImageSequence: what an image was computed from, and whether a place in it is the same there.

    They share all elements but the UID: none of those is changed later.
    """
    shared = Dataset()
    shared.ReferencedSOPClassUID = sop_class_uid
    shared.PurposeOfReferenceCodeSequence = [coded(SOURCE_IMAGE_PURPOSE)]
    shared.SpatialLocationsPreserved = preserved
    items = []
    for uid in sop_instance_uids:
        item = Dataset(dict(shared.items()))
        item.ReferencedSOPInstanceUID = uid
        items.append(item)
    return items
