"""Where the twin is recorded, as app and service see it: one call per update, and what it answers."""

from dataclasses import dataclass
from typing import Protocol

from twin_record.patient_identity import PatientIdentity
from twin_record.resources.content import Resource
from twin_record.update import TwinUpdate


@dataclass(frozen=True)
class TwinReceipt:
    """What the record holds for one update: literal references, what this call wrote, and what a person should know."""

    patient: str
    imaging_study: str
    device: str
    provenance: str
    record: str
    written: tuple[str, ...]
    remarks: tuple[str, ...]


class TwinTarget(Protocol):
    """A FHIR server, or the embedded store."""

    def record(self, update: TwinUpdate) -> TwinReceipt:
        """Record one update; a second time it writes nothing.

        Raises Unavailable where nothing can be recorded at the moment, Transient where this update may be later, Held
        where a person must look, Rejected where the CT itself does not make a record.
        """
        ...

    def check_identity(self, identity: PatientIdentity, study_uid: str) -> tuple[str, ...]:
        """Whether the study may be recorded as this patient's, before any work; remarks for a person. Writes nothing.

        Raises as ``record`` does: Held where the record knows another patient, or none and none may be created.
        """
        ...

    def patient_record(self, patient_id: str, issuer: str | None) -> Resource:
        """The patient's whole record as a Bundle of type collection; Rejected where there is none."""
        ...

    def close(self) -> None:
        """Give back connections and files."""
        ...
