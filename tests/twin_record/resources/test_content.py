"""Every resource is valid R4, and a reference is one however it is written."""

from dataclasses import replace

import pytest
from fhir.resources.R4B import get_fhir_model_class

from tests.conftest import missing
from tests.peers.fhir_server import r4_schema_path
from tests.peers.r4_schema import schema_faults
from tests.samples.twin_updates import SITE, a_series, an_update, companions, measured_districts, measured_update
from twin_record.resources.content import Resource, short_reference
from twin_record.resources.device import new_device
from twin_record.resources.diagnostic_report import new_report
from twin_record.resources.imaging_study import new_study
from twin_record.resources.observation import new_observations
from twin_record.resources.patient import new_patient
from twin_record.resources.provenance import new_provenance, provenance_id
from twin_record.resources.record_list import new_record
from twin_record.update import TwinSite, TwinUpdate

pytestmark = pytest.mark.unit


def all_resources(update: TwinUpdate, site: TwinSite = SITE) -> list[Resource]:
    """Every resource an update makes, referring to each other as in a first transaction."""
    placeholders = [f"urn:uuid:00000000-0000-0000-0000-00000000000{n}" for n in range(4)]
    patient, study, device, record = placeholders
    provenance = f"Provenance/{provenance_id(update.pet_series.series_uid)}"
    return [
        new_patient(update.identity, site),
        new_device(update),
        new_study(update, site, {"reference": patient}, device),
        new_record(update, site, {"reference": patient}, (study, provenance)),
        new_provenance(update, {"reference": patient}, study, record, device),
        *new_observations(update, site, {"reference": patient}, study, device).values(),
        new_report(update, site, {"reference": patient}, study, ["Observation/1"]),
    ]


SUPERSEDED = a_series("PT", instance_numbers=(1, 2, 3), body_part_examined="CHESTABDPELVIS")
UPDATES = {
    "complete": an_update(),
    "almost empty": an_update(
        patient_name="",
        birth_date="",
        sex="",
        accession_number="",
        study_description="",
        study_date="",
        study_time="",
        timezone_offset=None,
        source_series=a_series("CT", description="", number=None, body_part_examined=""),
    ),
    "three scripts": an_update(patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう", issuer_of_patient_id="ELSEWHERE"),
    "enhanced CT": an_update(source_series=a_series("CT", instances=1, body_part_examined="EXTREMITY", number=-1)),
    "measured": measured_update(companion_series=companions(), missing_districts=("legs",)),
    "superseding": measured_update(
        replaces_series_uids=(SUPERSEDED.series_uid,),
        superseded_series=(SUPERSEDED,),
        districts=(replace(measured_districts()[0], suv_peak=None, withdrawn=("suv_peak",)),),
    ),
    "a long CT": an_update(source_series=a_series("CT", instances=501)),
    "a replacement": an_update(missing_districts=("legs", "arms"), replaces_series_uids=("2.25.1", "2.25.2")),
}


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_every_resource_is_valid_in_the_model_and_in_r4s_own_schema(update: TwinUpdate) -> None:
    """Two independent validators: fhir.resources' R4B models and the JSON schema that HL7 publishes with R4."""
    if r4_schema_path() is None:
        missing("the R4 server with its schema (tests/peers/fhir-r4-server/node_modules)")
    for resource in all_resources(update):
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
        assert schema_faults(resource) == []


def test_the_schema_gate_sees_a_wrong_field_and_a_missing_one() -> None:
    if r4_schema_path() is None:
        missing("the R4 server with its schema (tests/peers/fhir-r4-server/node_modules)")
    study = all_resources(an_update())[2]
    assert schema_faults({**study, "endpointt": []})
    assert schema_faults({key: part for key, part in study.items() if key != "subject"})
    assert schema_faults({**study, "started": "2026-03-04T04:15:02"}), "a time needs a zone"


@pytest.mark.parametrize(
    ("reference", "short"),
    [
        ("https://host/fhir/Patient/1", "Patient/1"),
        ("Patient/1/_history/4", "Patient/1"),
        ("Patient/1", "Patient/1"),
        ("urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0", "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"),
        ("#contained", "#contained"),
    ],
)
def test_a_reference_is_the_same_however_it_is_written(reference: str, short: str) -> None:
    assert short_reference(reference) == short
