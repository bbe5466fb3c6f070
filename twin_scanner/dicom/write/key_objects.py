"""Key Object Selection: one document that names other objects of the study and says why, TID 2010 of PS3.16."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from twin_scanner.dicom.equipment import MANUFACTURER, derive_uid
from twin_scanner.dicom.read.patient import CHARACTER_SET, patient_and_study
from twin_scanner.dicom.write.companions import (
    NOBODY,
    WrittenObject,
    companion_series_uid,
    each_instance,
    number_beside,
    write_object,
)
from twin_scanner.dicom.write.measurement_report import device_observer
from twin_scanner.dicom.write.pet_series import dicom_date, dicom_time, in_the_zone_of
from twin_scanner.errors import Defect

SelectionName: TypeAlias = Literal["key-objects", "rejection-note"]
OF_INTEREST: Final[Code] = codes.cid7010.OfInterest
"""(113000, DCM): the title under which viewers list results worth looking at."""
REJECTED_FOR_QUALITY: Final[Code] = codes.cid7010.RejectedForQualityReasons
"""(113001, DCM): an image manager of IHE's IOCM hides what a document of this title names."""
EQUIPMENT: Final = (
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "ContributingEquipmentSequence",
    "SyntheticData",
)
"""What the document has from our PET besides patient and study."""
_DOCUMENTS: Final = "1.2.840.10008.5.1.4.1.1.88."
"""Where the SOP classes of structured documents begin: they are no images, so COMPOSITE and not IMAGE."""


@dataclass(frozen=True)
class SelectedSeries:
    """Instances of one series of the study, all of one SOP class."""

    series_uid: str
    sop_class_uid: str
    sop_instance_uids: tuple[str, ...]


def write_key_objects(
    name: SelectionName,
    title: Code,
    selected: Sequence[SelectedSeries],
    pet_header: Dataset,
    made_at: datetime,
    folder: Path,
    *,
    series_description: str,
    explanation: str,
    pet_series_uid: str = "",
) -> WrittenObject:
    """Write a document that names the instances of ``selected`` under ``title`` (a code of PS3.16 CID 7010).

    Patient, study, equipment and SyntheticData are those of ``pet_header``, the header of any PET of ours in that
    study. ``explanation`` is its Key Object Description. Series and instance UID follow from ``name``, the
    PET that it is about (``pet_series_uid``, else the header's own), title and instances, so a document that names
    others has another UID; with the same ``made_at`` (aware, from the ledger's row) it is the same bytes. Raises Defect
    where nothing is selected or ``made_at`` has no zone, Transient where the disk fails.
    """
    if made_at.tzinfo is None:
        raise Defect("The time of a key object selection has no time zone: pass an aware datetime.")
    if not any(series.sop_instance_uids for series in selected):
        raise Defect("A key object selection names no instance: leave it out.")
    evidence = _evidence(selected, str(pet_header.StudyInstanceUID))
    series_uid = companion_series_uid(name, pet_series_uid or str(pet_header.SeriesInstanceUID))
    document = KeyObjectSelectionDocument(
        evidence=evidence,
        content=KeyObjectSelection(
            document_title=title,
            referenced_objects=evidence,
            observer_device_context=device_observer(str(pet_header.DeviceSerialNumber)),
            description=explanation,
        ),
        series_instance_uid=series_uid,
        series_number=number_beside(name, int(pet_header.SeriesNumber)),
        sop_instance_uid=_instance_uid(series_uid, title, evidence),
        instance_number=1,
        manufacturer=MANUFACTURER,
    )
    _put_beside(document, pet_header, made_at)
    document.SeriesDescription = series_description
    return write_object(document, "key-objects", folder, f"{name}.dcm")


def _evidence(selected: Iterable[SelectedSeries], study_uid: str) -> list[Dataset]:
    """The instances as highdicom wants them: identity only, of nobody; it takes for an image what has rows."""
    instances = []
    for series in selected:
        shared = Dataset()
        shared.StudyInstanceUID, shared.SeriesInstanceUID = study_uid, series.series_uid
        shared.SOPClassUID = series.sop_class_uid
        if not series.sop_class_uid.startswith(_DOCUMENTS):
            shared.Rows = shared.Columns = 1
        for keyword in NOBODY:
            setattr(shared, keyword, "")
        instances += each_instance(shared, series.sop_instance_uids)
    return instances


def _instance_uid(series_uid: str, title: Code, evidence: Iterable[Dataset]) -> str:
    named = (str(instance.SOPInstanceUID) for instance in evidence)
    return derive_uid("key-objects-instance", series_uid, title.scheme_designator, title.value, *named)


def _put_beside(document: Dataset, pet_header: Dataset, made_at: datetime) -> None:
    """Patient and study of the PET in UTF-8, its equipment, and the document's own dates in the PET's zone."""
    identity = patient_and_study(pet_header)
    moment = in_the_zone_of(identity, made_at)
    for element in identity:
        document[element.tag] = element
    document.SpecificCharacterSet = CHARACTER_SET
    for keyword in EQUIPMENT:
        if keyword in pet_header:
            document[keyword] = pet_header[keyword]
    for kind in ("Series", "Content", "InstanceCreation"):
        setattr(document, f"{kind}Date", dicom_date(moment))
        setattr(document, f"{kind}Time", dicom_time(moment))
