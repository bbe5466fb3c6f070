"""The Observations: what was measured in each district, with the codes of the measurement report."""

import uuid
from collections.abc import Iterator

from fhir.resources.R4B.observation import Observation
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from twin_record.resources.codes import AIAST, DICOM_UID_SYSTEM, MEASUREMENT_SYSTEM, NAMESPACE, PRODUCT, UCUM_SYSTEM
from twin_record.resources.content import Resource, checked, without_empty
from twin_record.resources.dicom_values import clean_text, concept_of, fhir_datetime
from twin_record.update import DistrictValues, TwinSite, TwinUpdate
from twin_scanner.dicom.district_measurements import QUANTITIES, SUV_MEAN, SUV_UNIT, VOLUME, Quantity

IMAGING = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"}
NOT_PERFORMED = {"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "not-performed"}
DEVIATION = {
    True: "Mean over the district of the standard deviation of the model's error",
    False: "Mean over the district of the model's deviation from itself; not calibrated, it promises no interval",
}
"""By whether it was calibrated; no code system has a code for it."""


def measurement_value(update: TwinUpdate, district: str, quantity: Quantity) -> str:
    """The identifier of one measurement, the same for every PET of the same CT: a late slice corrects it."""
    code = [f"{one.scheme_designator}|{one.value}" for one in (quantity.concept, quantity.derivation) if one]
    parts = (update.study_uid, update.frame_of_reference_uid, district, *code)
    return str(uuid.uuid5(NAMESPACE, "|".join(("measurement", *parts))))


def measured(update: TwinUpdate) -> Iterator[tuple[DistrictValues, Quantity]]:
    """Each district with each quantity that it has a value of, or that an earlier PET of the CT had one of."""
    for district in update.districts:
        for quantity in QUANTITIES:
            if getattr(district, quantity.key) is not None or quantity.key in district.withdrawn:
                yield district, quantity


def new_observations(
    update: TwinUpdate, site: TwinSite, subject: Resource, study: str, device: str
) -> dict[str, Resource]:
    """One for each district and quantity, by its identifier.

    One that was measured before and is not any more is corrected to no value. Volumes carry AIAST too: they come from
    the same report as the SUV, and a network may have found the districts.
    """
    return {
        measurement_value(update, district.district, quantity): _observation(
            update, site, district, quantity, {"subject": subject, "device": {"reference": device}}, study
        )
        for district, quantity in measured(update)
    }


def _observation(
    update: TwinUpdate,
    site: TwinSite,
    district: DistrictValues,
    quantity: Quantity,
    whose: Resource,
    study: str,
) -> Resource:
    """One measurement; of a district the model sees the volume: the others differ in numbers and our codes alone."""
    value = getattr(district, quantity.key)
    given = {"dataAbsentReason": {"coding": [NOT_PERFORMED]}} if value is None else _measured_value(value, quantity)
    remarks = [
        district.remark,
        *(["The model has no network for this district."] if _is_missing(update, district) else []),
    ]
    content = {
        "meta": {"security": [AIAST]},
        "identifier": [
            {"system": MEASUREMENT_SYSTEM, "value": measurement_value(update, district.district, quantity)},
            *report_identifiers(update),
        ],
        "partOf": [{"reference": study}],
        "status": "corrected" if update.replaces_series_uids else "final",
        "category": [{"coding": [IMAGING]}, concept_of(codes.DCM.ImagingMeasurements)],
        "code": concept_of(quantity.concept, quantity.label),
        **whose,
        "effectiveDateTime": fhir_datetime(update.study_date, update.study_time, update.timezone_offset, site.zone),
        "issued": update.made_at.isoformat(),
        **given,
        "bodySite": concept_of(Code(*district.site), district.district),
        "note": [{"authorString": PRODUCT, "text": clean_text(remark)} for remark in remarks if remark],
        "derivedFrom": [{"reference": study}],
        "component": [*_derivation(quantity), *_deviation(district, quantity)],
    }
    if quantity == VOLUME or value is None:
        return checked(Observation, content)
    return {"resourceType": Observation.__name__, **without_empty(content)}


def report_identifiers(update: TwinUpdate) -> list[Resource]:
    """The content UID of the measurement report that says the same; none where the PACS does not hold one."""
    reports = [series for series in update.companion_series if series.modality == "SR"]
    return [
        {"system": DICOM_UID_SYSTEM, "value": f"urn:oid:{uid}"}
        for series in reports
        for uid in series.sop_instance_uids
    ]


def _is_missing(update: TwinUpdate, district: DistrictValues) -> bool:
    return district.district in update.missing_districts


def _measured_value(value: float, quantity: Quantity) -> Resource:
    return {"valueQuantity": _quantity(round(value, quantity.digits), quantity.unit)}


def _quantity(value: float, unit: Code) -> Resource:
    shown = {"{SUVbw}g/ml": "g/ml"}.get(unit.value, unit.value)
    return {"value": value, "unit": shown, "system": UCUM_SYSTEM, "code": unit.value}


def _derivation(quantity: Quantity) -> list[Resource]:
    if quantity.derivation is None:
        return []
    return [{"code": concept_of(codes.DCM.Derivation), "valueCodeableConcept": concept_of(quantity.derivation)}]


def _deviation(district: DistrictValues, quantity: Quantity) -> list[Resource]:
    if quantity != SUV_MEAN or district.suv_deviation is None:
        return []
    value = _quantity(round(district.suv_deviation, quantity.digits), SUV_UNIT)
    return [{"code": {"text": DEVIATION[district.calibrated]}, "valueQuantity": value}]
