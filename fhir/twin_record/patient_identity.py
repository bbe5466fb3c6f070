"""Who a study is of, as its DICOM header says: plain data, no FHIR."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PatientIdentity:
    """Texts are Unicode; `birth_date`, `sex` and `patient_name` are DICOM's own (DA, CS, PN), empty where unknown."""

    patient_id: str
    issuer_of_patient_id: str | None
    patient_name: str = ""
    birth_date: str = ""
    sex: str = ""
