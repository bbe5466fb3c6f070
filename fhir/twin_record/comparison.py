"""What two DICOM headers, or a header and a PACS's answer, say differently of whose study it is."""

from twin_record.names import names_agree
from twin_record.patient_identity import PatientIdentity
from twin_record.resources.dicom_values import clean_text, fhir_date, fhir_gender, human_names


def contradictions(ours: PatientIdentity, theirs: PatientIdentity) -> tuple[str, ...]:
    """The names of the values in which they contradict each other; what one of them does not say contradicts nothing.

    Issuers are compared where both name one, dates and sexes where both are valid, names as ``names_agree`` does.
    """
    names = (human_names(ours.patient_name), human_names(theirs.patient_name))
    compared = {
        "patient id": _equal(clean_text(ours.patient_id), clean_text(theirs.patient_id)),
        "issuer of patient id": _equal(
            clean_text(ours.issuer_of_patient_id or ""), clean_text(theirs.issuer_of_patient_id or "")
        ),
        "birth date": _equal(fhir_date(ours.birth_date), fhir_date(theirs.birth_date)),
        "sex": _equal(fhir_gender(ours.sex), fhir_gender(theirs.sex)),
        "name": names_agree(*names, (ours.patient_id, theirs.patient_id)),
    }
    return tuple(name for name, agrees in compared.items() if agrees is False)


def _equal(first: str | None, second: str | None) -> bool | None:
    return first == second if first and second else None
