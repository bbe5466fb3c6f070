"""The DiagnosticReport, where the site wants one: the measurements of one PET, summed up; no diagnosis."""

import uuid

from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from pydicom.sr.codedict import codes

from twin_record.resources.codes import AIAST, MEASUREMENT_SYSTEM, NAMESPACE
from twin_record.resources.content import Resource, valid
from twin_record.resources.dicom_values import concept_of, fhir_datetime
from twin_record.resources.observation import report_identifiers
from twin_record.update import TwinSite, TwinUpdate

CONCLUSION = "Computed from a synthetic PET, for research only. No person has read or verified it."


def report_value(update: TwinUpdate) -> str:
    """The identifier of the report, the same for every PET of the same CT."""
    return str(uuid.uuid5(NAMESPACE, f"diagnostic-report|{update.study_uid}|{update.frame_of_reference_uid}"))


def new_report(update: TwinUpdate, site: TwinSite, subject: Resource, study: str, results: list[str]) -> Resource:
    """The report that names the Observations `results` (literal references)."""
    return valid(
        DiagnosticReport,
        {
            "meta": {"security": [AIAST]},
            "identifier": [{"system": MEASUREMENT_SYSTEM, "value": report_value(update)}, *report_identifiers(update)],
            "status": "corrected" if update.replaces_series_uids else "final",
            "code": concept_of(codes.DCM.ImagingMeasurementReport),
            "subject": subject,
            "effectiveDateTime": fhir_datetime(update.study_date, update.study_time, update.timezone_offset, site.zone),
            "issued": update.made_at.isoformat(),
            "result": [{"reference": result} for result in results],
            "imagingStudy": [{"reference": study}],
            "conclusion": CONCLUSION,
        },
    )
