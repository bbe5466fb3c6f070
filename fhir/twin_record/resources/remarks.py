"""What a person should know of a CT whose values the record cannot take."""

from twin_record.resources.dicom_values import fhir_date, fhir_gender, fhir_time, offset_of
from twin_record.resources.patient import patient_key
from twin_record.update import TwinSite, TwinUpdate


def remarks_on(update: TwinUpdate, site: TwinSite) -> tuple[str, ...]:
    """One sentence for each value of the CT that the record cannot take, without the value."""
    key = patient_key(update.patient_id, update.issuer_of_patient_id, site)
    unread = {
        "birth date": (update.birth_date, fhir_date(update.birth_date)),
        "study date": (update.study_date, fhir_date(update.study_date)),
        "study time": (update.study_time, fhir_time(update.study_time)),
        "sex": (update.sex, fhir_gender(update.sex)),
        "time zone offset": (update.timezone_offset or "", offset_of(update.timezone_offset)),
    }
    remarks = [
        f"The CT's {name} is not valid DICOM and was left out of the record."
        for name, (given, read) in unread.items()
        if given.strip(" \0") and read is None
    ]
    if not key.configured:
        remarks.append(
            "The CT's IssuerOfPatientID is not in the configuration, so its patient ids got a domain of their own; "
            "add it to the issuers to reach the hospital's Patient."
        )
    return tuple(remarks)
