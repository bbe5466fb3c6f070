"""What one job adds to the twin record, as plain data: no FHIR, no DICOM library, no SQL."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from twin_scanner.errors import Defect, Misconfigured, Rejected


@dataclass(frozen=True)
class SeriesEntry:
    """One DICOM series as the twin lists it; `sop_instance_uids` in stack order.

    `asserted_by_ai` says that a network made it or what it was measured on.
    """

    series_uid: str
    modality: str
    sop_class_uid: str
    sop_instance_uids: tuple[str, ...]
    description: str = ""
    number: int | None = None
    body_part_examined: str = ""
    asserted_by_ai: bool = False


@dataclass(frozen=True)
class TwinUpdate:
    """One synthetic PET, the CT it was made from and how: everything the record learns from one job.

    `companion_series` are what was made beside the PET and stands in the PACS too: districts, measurements, key image,
    key objects.
    `replaces_series_uids` are earlier PETs of the same CT, `replaces_companion_uids` the companions of those.

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

    @property
    def made_series(self) -> tuple[SeriesEntry, ...]:
        """Everything that this job put into the study, the PET first."""
        return (self.pet_series, *self.companion_series)

    def __post_init__(self) -> None:
        """Raise Rejected where the CT names no patient or study, Defect where the caller is wrong."""
        if not self.patient_id.strip():
            raise Rejected("The CT has no PatientID (0010,0020), so its PET belongs to no twin; complete the CT.")
        if not self.study_uid.strip():
            raise Rejected("The CT has no StudyInstanceUID (0020,000D), so its PET belongs to no study.")
        if self.made_at.tzinfo is None:
            raise Defect("made_at has no time zone; take it from the ledger's row.")
        replaced = {*self.replaces_series_uids, *self.replaces_companion_uids}
        if replaced & {series.series_uid for series in (self.source_series, *self.made_series)}:
            raise Defect("A twin update cannot replace its own series; correct replaces_series_uids.")


@dataclass(frozen=True)
class TwinSite:
    """What the hospital configures for its record.

    `patient_identifier_system` is the URI of the domain of patient ids that come without an issuer;
    `systems_by_issuer` gives the URI for each IssuerOfPatientID. `zone` is the IANA zone of times without an offset.
    """

    patient_identifier_system: str
    zone: str | None = None
    systems_by_issuer: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

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
