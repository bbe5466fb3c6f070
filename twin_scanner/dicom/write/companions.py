"""What stands beside a synthetic PET in its study: identity, equipment, numbers and UIDs of its companion objects."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage

from twin_scanner.dicom.equipment import derive_uid
from twin_scanner.dicom.read.ct_series import CtSeries
from twin_scanner.dicom.read.patient import CHARACTER_SET, patient_and_study, required_uid, text
from twin_scanner.dicom.write.pet_series import (
    Synthesis,
    WrittenSeries,
    add_equipment,
    decimal,
    dicom_date,
    dicom_time,
    file_meta,
    in_the_zone_of,
    series_number,
    series_reference,
)
from twin_scanner.errors import Transient
from twin_scanner.files.durable_file import write_durably

CompanionKind: TypeAlias = Literal["segmentation", "measurement-report", "key-image", "key-objects"]
KINDS: Final[tuple[CompanionKind, ...]] = get_args(CompanionKind)
StandingBeside: TypeAlias = Literal[CompanionKind, "rejection-note"]
"""What may stand beside a PET in its study, in the order of the digit that its SeriesNumber has more."""
LARGEST_NUMBER: Final = 2**31 - 1
"""An IS holds no larger number (PS3.5 6.2)."""
PET_CLASS: Final = str(PositronEmissionTomographyImageStorage)
CT_MODALITY, PET_MODALITY = "CT", "PT"
NOBODY: Final = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
"""What highdicom copies from its sources by its own character set: left empty, and put in by ``put_into_study``."""


@dataclass(frozen=True)
class WrittenObject:
    """A companion as a file: one series of one instance; ``synthetic`` repeats its SyntheticData."""

    kind: CompanionKind
    modality: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    description: str
    number: int
    synthetic: bool
    file: Path


def companion_series_uid(kind: StandingBeside, pet_series_uid: str) -> str:
    """The SeriesInstanceUID of a companion, known from the PET's alone: what decides the PET decides it."""
    return derive_uid(f"{kind}-series", pet_series_uid)


def companion_series_uids(pet_series_uid: str) -> tuple[str, ...]:
    """The series of every companion that a PET may have."""
    return tuple(companion_series_uid(kind, pet_series_uid) for kind in KINDS)


def companion_number(kind: CompanionKind, source: CtSeries, synthesis: Synthesis) -> int:
    """The SeriesNumber of a companion of the PET that is written with ``synthesis``."""
    return number_beside(kind, series_number(text(source.header, "SeriesNumber"), synthesis.revision))


def number_beside(name: StandingBeside, pet_number: int) -> int:
    """SeriesNumber: the PET's with one more digit, so that all are listed together; the PET's where too long."""
    number = pet_number * 10 + 1 + get_args(StandingBeside).index(name)
    return number if number <= LARGEST_NUMBER else pet_number


def nameless_ct(source: CtSeries) -> list[Dataset]:
    """The CT's images as highdicom wants its sources: identity and place without patient and without pixels.

    One data set a slice, in the order of the volume's D axis; of a multi-frame CT one, its frames in that order.
    """
    geometry = source.volume.geometry
    shared = _nameless_ct(source)
    shared.ImageOrientationPatient = [decimal(value) for axis in (2, 1) for value in geometry.direction[axis]]
    shared.PixelSpacing = [decimal(value) for value in geometry.spacing_mm[1:]]
    shared.SliceThickness = decimal(geometry.spacing_mm[0])
    images = each_instance(shared, _slice_uids(source))
    for index, image in enumerate(images):
        image.ImagePositionPatient = [decimal(value) for value in geometry.position_lps_mm((index, 0, 0))]
    return images if len(source.sop_instance_uids) == len(images) else [_as_frames(source, images)]


def _slice_uids(source: CtSeries) -> Sequence[str]:
    slices = source.volume.geometry.shape[0]
    uids = source.sop_instance_uids
    return uids if len(uids) == slices else uids[:1] * slices


def _nameless_ct(source: CtSeries) -> Dataset:
    """What every image of the CT has."""
    shared = _nameless(source, source.sop_class_uid, required_uid(source.header, "SeriesInstanceUID"), CT_MODALITY)
    shared.FrameOfReferenceUID = required_uid(source.header, "FrameOfReferenceUID")
    shared.Rows, shared.Columns = source.volume.geometry.shape[1:]
    return shared


def _nameless(source: CtSeries, sop_class_uid: str, series_uid: str, modality: str) -> Dataset:
    """What every object of one series in the CT's study has; it belongs to nobody."""
    shared = Dataset()
    shared.SOPClassUID = sop_class_uid
    shared.StudyInstanceUID = required_uid(source.header, "StudyInstanceUID")
    shared.SeriesInstanceUID, shared.Modality = series_uid, modality
    for keyword in NOBODY:
        setattr(shared, keyword, "")
    return shared


def each_instance(shared: Dataset, sop_instance_uids: Iterable[str]) -> list[Dataset]:
    """One data set each, with the very elements that all share: none of those is changed later."""
    made = []
    for uid in sop_instance_uids:
        instance = Dataset(dict(shared.items()))
        instance.SOPInstanceUID = uid
        made.append(instance)
    return made


def _as_frames(source: CtSeries, images: Sequence[Dataset]) -> Dataset:
    """The slices of one multi-frame object as functional groups, PS3.3 C.7.6.16."""
    (whole,) = each_instance(_nameless_ct(source), source.sop_instance_uids[:1])
    whole.NumberOfFrames = len(images)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = images[0].PixelSpacing, images[0].SliceThickness
    orientation.ImageOrientationPatient = images[0].ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    whole.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for image in images:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = image.ImagePositionPatient
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    whole.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    return whole


def nameless_evidence(source: CtSeries, pet: WrittenSeries, segmentation: WrittenObject) -> list[Dataset]:
    """CT, PET and segmentation as a report's evidence: identity only."""
    series = (
        (_nameless_ct(source), source.sop_instance_uids),
        (_nameless(source, PET_CLASS, pet.series_uid, PET_MODALITY), pet.sop_instance_uids),
        (
            _nameless(source, segmentation.sop_class_uid, segmentation.series_uid, segmentation.modality),
            (segmentation.sop_instance_uid,),
        ),
    )
    return [instance for shared, uids in series for instance in each_instance(shared, uids)]


def pet_reference(pet: WrittenSeries) -> Dataset:
    """An item of ReferencedSeriesSequence: the whole PET."""
    return series_reference(pet.series_uid, PET_CLASS, pet.sop_instance_uids)


def put_into_study(
    companion: Dataset,
    kind: CompanionKind,
    source: CtSeries,
    synthesis: Synthesis,
    description: str,
    *,
    synthetic: bool,
) -> None:
    """Give an object the CT's patient and study in UTF-8, our equipment and the dates of the synthesis, in place.

    ``synthetic``: whether it derives from the PET; what derives from a CT that is synthetic itself is so too.
    """
    identity = patient_and_study(source.header)
    made_at = in_the_zone_of(identity, synthesis.made_at)
    add_equipment(companion, source.header, synthesis, made_at)
    if not synthetic and text(source.header, "SyntheticData") != "YES":
        del companion.SyntheticData
    for element in identity:
        companion[element.tag] = element
    companion.SpecificCharacterSet = CHARACTER_SET
    companion.SeriesDescription = description
    companion.SeriesNumber = companion_number(kind, source, synthesis)
    for moment in ("Series", "Content", "InstanceCreation"):
        setattr(companion, f"{moment}Date", dicom_date(made_at))
        setattr(companion, f"{moment}Time", dicom_time(made_at))


def write_object(companion: Dataset, kind: CompanionKind, folder: Path, file_name: str = "") -> WrittenObject:
    """Write the object into ``folder``, by its kind's name where none is given; durable at return. Raises Transient."""
    theirs = getattr(companion, "file_meta", None)
    syntax = ExplicitVRLittleEndian if theirs is None else theirs.TransferSyntaxUID
    companion.file_meta = file_meta(companion.SOPClassUID, companion.SOPInstanceUID, syntax)
    buffer = DicomBytesIO()
    dcmwrite(buffer, companion, enforce_file_format=True)
    file = folder / (file_name or f"{kind}.dcm")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(file, buffer.getvalue())
    except OSError as error:
        raise Transient(f"{file.name} cannot be written to {folder}: check its free space and rights.") from error
    return WrittenObject(
        kind=kind,
        modality=str(companion.Modality),
        series_uid=str(companion.SeriesInstanceUID),
        sop_class_uid=str(companion.SOPClassUID),
        sop_instance_uid=str(companion.SOPInstanceUID),
        description=str(companion.SeriesDescription),
        number=int(companion.SeriesNumber),
        synthetic=companion.get("SyntheticData") == "YES",
        file=file,
    )
