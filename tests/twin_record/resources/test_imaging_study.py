"""The ImagingStudy lists what was made and says what AI made of it."""

from dataclasses import replace

import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from tests.samples.twin_updates import SITE, a_series, an_update, companions
from twin_record.resources.codes import AIAST, INLINE_LABEL_EXTENSION
from twin_record.resources.imaging_study import new_study
from twin_record.resources.provenance import new_provenance
from twin_record.update import InstanceLists
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.unit

PATIENT = {"reference": "Patient/1"}


def test_only_the_synthetic_series_is_labelled_as_made_by_ai() -> None:
    """AI Transparency on FHIR: an inline label on the element, PROCESSINLINELABEL on the resource around it."""
    update = an_update(missing_districts=("legs",), pet_series=a_series("PT", description="FDG"))
    study = new_study(update, SITE, PATIENT, "Device/2")
    ct, pet = study["series"]
    assert pet["extension"] == [{"url": INLINE_LABEL_EXTENSION, "valueCoding": AIAST}]
    assert "extension" not in ct
    assert [label["code"] for label in study["meta"]["security"]] == ["PROCESSINLINELABEL"]
    assert pet["description"] == "SYNTHETIC FDG"
    assert pet["modality"]["code"] == "PT"
    assert "endpoint" not in pet
    assert pet["performer"][0]["actor"] == {"reference": "Device/2"}
    assert "Not synthesised: legs." in study["note"][0]["text"]
    assert new_provenance(update, PATIENT, "ImagingStudy/1", "List/1", "Device/2")["meta"]["security"] == [AIAST]


def test_a_uid_that_fhir_cannot_take_is_rejected_without_its_value() -> None:
    update = an_update(source_series=a_series("CT", series_uid="1.2.3_4711"))
    with pytest.raises(Rejected, match=r"valid FHIR ImagingStudy: correct its .*series") as error:
        new_study(update, SITE, PATIENT, "Device/2")
    assert "4711" not in str(error.value)


def test_what_stands_beside_the_pet_is_listed_and_labelled_where_a_network_had_its_part() -> None:
    update = an_update(companion_series=companions())
    study = new_study(update, SITE, PATIENT, "Device/1")
    listed = {series["uid"]: series for series in study["series"]}
    assert study["numberOfSeries"] == len(listed) == 4
    assert {series["modality"]["code"] for series in study["series"]} == {"CT", "PT", "SEG", "SR"}
    seg, report = (listed[series.series_uid] for series in update.companion_series)
    assert "extension" not in seg
    assert report["extension"][0]["valueCoding"]["code"] == "AIAST"
    assert report["performer"][0]["actor"]["reference"] == "Device/1"


def test_the_modalities_of_a_study_are_those_that_acquire() -> None:
    """R4: 'a list of all the series.modality values that are actual acquisition modalities, CID 29'."""
    study = new_study(an_update(companion_series=companions()), SITE, PATIENT, "Device/1")
    assert [coding["code"] for coding in study["modality"]] == ["CT", "PT"]


def test_an_instance_has_its_own_dicom_number() -> None:
    """The stack goes from the feet up, the scanner has counted from the head down."""
    update = an_update(source_series=a_series("CT", instance_numbers=(12, None, 10)))
    ct, pet = new_study(update, SITE, PATIENT, "Device/1")["series"]
    assert [instance.get("number") for instance in ct["instance"]] == [12, None, 10]
    assert [instance.get("number") for instance in pet["instance"]] == [None, None, None]


def test_a_negative_instance_number_is_left_out_because_fhir_has_none() -> None:
    update = an_update(source_series=a_series("CT", instance_numbers=(-1, 0, 1)))
    ct = new_study(update, SITE, PATIENT, "Device/1")["series"][0]
    assert [instance.get("number") for instance in ct["instance"]] == [None, 0, 1]


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("CHESTABDPELVIS", codes.cid4031.ChestAbdomenAndPelvis),
        ("NECKCHESTABDPELV", codes.cid4031.NeckChestAbdomenAndPelvis),
        ("ABDOMENPELVIS", codes.cid4031.AbdomenAndPelvis),
        ("CHEST", codes.cid4031.Chest),
        ("HEADNECK", codes.cid4031.HeadAndNeck),
        ("WHOLEBODY", codes.cid4031.EntireBody),
    ],
)
def test_a_body_part_has_the_code_of_pydicoms_own_table(part: str, code: Code) -> None:
    """PS3.16 CID 4031 by its terms of Annex L, as pydicom ships it."""
    series = new_study(an_update(pet_series=a_series("PT", body_part_examined=part)), SITE, PATIENT, "Device/1")[
        "series"
    ]
    site = {"system": "http://snomed.info/sct", "code": code.value, "display": code.meaning}
    assert series[1]["bodySite"] == site


def test_an_accession_number_has_its_system_and_names_the_order_where_the_site_wants_it() -> None:
    site = replace(SITE, accession_system="urn:oid:2.999.7", based_on=True, endpoint="Endpoint/pacs")
    study = new_study(an_update(), site, PATIENT, "Device/1")
    accession = study["identifier"][1]
    assert (accession["system"], accession["value"]) == ("urn:oid:2.999.7", "ACC-77")
    assert study["basedOn"] == [{"type": "ServiceRequest", "identifier": accession}]
    assert study["endpoint"] == [{"reference": "Endpoint/pacs"}]
    plain = new_study(an_update(), SITE, PATIENT, "Device/1")
    assert "system" not in plain["identifier"][1] and "basedOn" not in plain and "endpoint" not in plain
    without = new_study(an_update(accession_number=""), site, PATIENT, "Device/1")
    assert "basedOn" not in without and len(without["identifier"]) == 1


@pytest.mark.parametrize(
    ("wanted", "instances", "listed"),
    [("auto", 500, True), ("auto", 501, False), ("series", 3, False), ("list", 501, True)],
)
def test_a_long_series_is_listed_without_its_instances(wanted: InstanceLists, instances: int, listed: bool) -> None:
    update = an_update(source_series=a_series("CT", instances=instances))
    series = new_study(update, replace(SITE, instances=wanted), PATIENT, "Device/1")["series"][0]
    assert series["numberOfInstances"] == instances
    assert ("instance" in series) is listed


def test_one_wrong_instance_uid_among_many_makes_no_study() -> None:
    series = a_series("CT", instances=20)
    uids = (*series.sop_instance_uids[:19], "1.2/3")
    with pytest.raises(Rejected, match="correct its uid"):
        new_study(an_update(source_series=replace(series, sop_instance_uids=uids)), SITE, PATIENT, "Device/1")
