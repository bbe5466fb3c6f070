"""What one job adds to the twin record, as plain data: no FHIR, no DICOM library, no SQL."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import TypeAdapter, ValidationError

from twin_record.patient_identity import PatientIdentity
from twin_scanner.errors import Defect, Misconfigured, Rejected

UnknownPatient: TypeAlias = Literal["create", "hold", "reference"]
InstanceLists: TypeAlias = Literal["auto", "list", "series"]
MOST_LISTED_INSTANCES: Final = 500
"""A longer series is listed with the number of its instances alone, unless the site wants all of them."""


@dataclass(frozen=True)
class SeriesEntry:
    """One DICOM series as the twin lists it; `sop_instance_uids` in stack order.

    `asserted_by_ai` says that a network made it or what it was measured on. `instance_numbers` are the InstanceNumber
    (0020,0013) of each instance, None where it has none; empty where nothing is known of them.
    """

    series_uid: str
    modality: str
    sop_class_uid: str
    sop_instance_uids: tuple[str, ...]
    description: str = ""
    number: int | None = None
    body_part_examined: str = ""
    asserted_by_ai: bool = False
    instance_numbers: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class DistrictValues:
    """What was measured in one district: its volume on the CT's grid, and SUV-bw (g/ml) of the synthetic PET.

    `site` is the district's concept in the measurement report: code value, coding scheme, meaning. `remark` is what the
    segmenter says of it. `suv_deviation` is the mean over the district of the standard deviation per voxel: of the
    model's error where `calibrated`, else of how far the model disagrees with itself; None where it was not computed.
    `withdrawn` names the fields that an earlier PET of the same CT had a value for and this one has not.
    """

    district: str
    site: tuple[str, str, str]
    volume_ml: float | None = None
    suv_mean: float | None = None
    suv_max: float | None = None
    suv_peak: float | None = None
    remark: str = ""
    suv_deviation: float | None = None
    calibrated: bool = False
    withdrawn: tuple[str, ...] = ()


@dataclass(frozen=True)
class TwinUpdate:
    """One synthetic PET, the CT it was made from and how: everything the record learns from one job.

    `companion_series` are what was made beside the PET and stands in the PACS too: districts, measurements, key image,
    key objects.
    `replaces_series_uids` are earlier PETs of the same CT, `replaces_companion_uids` the companions of those;
    `superseded_series` are those of them that the PACS still holds, because it has not confirmed their rejection.

    Text is Unicode, already decoded by the CT's character set. Dates and times are DICOM's own (DA, TM, PN, CS);
    what cannot be read there is left out of the record and said in the receipt. `made_at` is aware and comes from
    the ledger's row, so a repeated job says the same.
    """

    patient_id: str
    issuer_of_patient_id: str | None
    patient_name: str
    birth_date: str
    sex: str
    study_uid: str
    accession_number: str
    study_description: str
    study_date: str
    study_time: str
    timezone_offset: str | None
    source_series: SeriesEntry
    pet_series: SeriesEntry
    model_name: str
    model_hash: str
    plan_hash: str
    segmenter: str
    segmenter_hash: str
    software_version: str
    device_serial_number: str
    made_at: datetime
    missing_districts: tuple[str, ...] = ()
    replaces_series_uids: tuple[str, ...] = ()
    companion_series: tuple[SeriesEntry, ...] = ()
    replaces_companion_uids: tuple[str, ...] = ()
    phantom_only: bool = False
    """Whether the model was trained on phantoms only, no patient among them."""
    source_derivation: str = ""
    """A sentence on how the CT was resampled before anything else; empty where it was not."""
    outside_training: tuple[str, ...] = ()
    """What of the CT lies outside of the model's training data, a clause each."""
    superseded_series: tuple[SeriesEntry, ...] = ()
    frame_of_reference_uid: str = ""
    districts: tuple[DistrictValues, ...] = ()

    @property
    def made_series(self) -> tuple[SeriesEntry, ...]:
        """Everything that this job put into the study, the PET first."""
        return (self.pet_series, *self.companion_series)

    @property
    def identity(self) -> PatientIdentity:
        """Who the study is of."""
        issuer = self.issuer_of_patient_id
        return PatientIdentity(self.patient_id, issuer, self.patient_name, self.birth_date, self.sex)

    def as_json(self) -> dict[str, Any]:
        """All fields as a JSON document, from which ``from_json`` makes the same update again."""
        document: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "TwinUpdate":
        """The update that a document was made of; a field that an earlier version did not write has its default.

        Raises Defect where the document is no such update.
        """
        try:
            return _adapter().validate_python(document)
        except ValidationError as error:
            faults = error.errors(include_input=False)
            places = ", ".join(sorted({".".join(str(step) for step in fault["loc"]) for fault in faults}))
            raise Defect(f"A kept twin update cannot be read, see its {places}: report this.") from None

    def __post_init__(self) -> None:
        """Raise Rejected where the CT names no patient or study, Defect where the caller is wrong."""
        if not self.patient_id.strip():
            raise Rejected("The CT has no PatientID (0010,0020), so its PET belongs to no twin; complete the CT.")
        if not self.study_uid.strip():
            raise Rejected("The CT has no StudyInstanceUID (0020,000D), so its PET belongs to no study.")
        if self.made_at.tzinfo is None:
            raise Defect("made_at has no time zone; take it from the ledger's row.")
        replaced = {*self.replaces_series_uids, *self.replaces_companion_uids}
        if any(series.series_uid not in replaced for series in self.superseded_series):
            raise Defect("A twin update names a superseded series that it does not replace; correct superseded_series.")
        if replaced & {series.series_uid for series in (self.source_series, *self.made_series)}:
            raise Defect("A twin update cannot replace its own series; correct replaces_series_uids.")


@cache
def _adapter() -> TypeAdapter[TwinUpdate]:
    return TypeAdapter(TwinUpdate)


@dataclass(frozen=True)
class TwinSite:
    """What the hospital configures for its record.

    `patient_identifier_system` is the URI of the domain of patient ids that come without an issuer;
    `systems_by_issuer` gives the URI for each IssuerOfPatientID. `zone` is the IANA zone of times without an offset.
    `unknown_patient`: a patient whom the record does not know is created, holds the job, or is referred to by the
    identifier alone. `accept_identifier_alone`: the identifier is enough where nothing else can be compared.
    `instances` says whether an ImagingStudy lists the instances of its series; "auto" does so up to
    `MOST_LISTED_INSTANCES` in a series. `accession_system` is the URI of the domain of accession numbers; with
    `based_on` the study names its order by them. `endpoint` is the literal reference of the Endpoint where the PACS
    serves the study. `diagnostic_report` sums up a job's measurements in a DiagnosticReport.
    """

    patient_identifier_system: str
    zone: str | None = None
    systems_by_issuer: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    unknown_patient: UnknownPatient = "create"
    accept_identifier_alone: bool = False
    instances: InstanceLists = "auto"
    accession_system: str | None = None
    based_on: bool = False
    endpoint: str | None = None
    diagnostic_report: bool = False

    def __post_init__(self) -> None:
        """Raise Misconfigured for a zone or a system that cannot be used."""
        systems = [self.patient_identifier_system, *self.systems_by_issuer.values()]
        for system in systems:
            if ":" not in system or any(c.isspace() or c == "|" for c in system):
                raise Misconfigured(
                    f"The patient identifier system {system!r} is no URI; write it in [twin] as urn:oid:<OID>."
                )
        if self.zone is not None:
            try:
                ZoneInfo(self.zone)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise Misconfigured(
                    f"The site's zone {self.zone!r} is no IANA time zone such as Europe/Rome."
                ) from error
