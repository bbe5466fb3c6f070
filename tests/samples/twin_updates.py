"""The twin updates that the tests of the record start from."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from twin_record.update import DistrictValues, SeriesEntry, TwinSite, TwinUpdate

SITE = TwinSite(
    patient_identifier_system="urn:oid:2.999.1", zone="Europe/Rome", systems_by_issuer={"HOSPITAL": "urn:oid:2.999.2"}
)
CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
PET_STORAGE = "1.2.840.10008.5.1.4.1.1.128"
MADE_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def new_uid() -> str:
    """A UID that nobody used before."""
    return f"2.25.{uuid.uuid4().int}"


def a_series(modality: str, instances: int = 3, **changes: Any) -> SeriesEntry:
    """A series of its own UIDs."""
    uid = new_uid()
    series = SeriesEntry(
        series_uid=uid,
        modality=modality,
        sop_class_uid=CT_STORAGE if modality == "CT" else PET_STORAGE,
        sop_instance_uids=tuple(new_uid() for _ in range(instances)),
        description="SYNTHETIC FDG-PET" if modality == "PT" else "thorax 3.0 B30f",
        number=1001 if modality == "PT" else 2,
        body_part_examined="CHEST",
    )
    return replace(series, **changes)


def an_update(**changes: Any) -> TwinUpdate:
    """An update of a patient, study and series that nothing else knows, with ``changes``."""
    update = TwinUpdate(
        patient_id=f"PID-{uuid.uuid4().hex[:12]}",
        issuer_of_patient_id=None,
        patient_name="Müller^Jürgen^Karl^Dr.^MD",
        birth_date="19480229",
        sex="M",
        study_uid=new_uid(),
        accession_number="ACC-77",
        study_description="Whole-body staging",
        study_date="20260304",
        study_time="041502.25",
        timezone_offset="+0100",
        source_series=a_series("CT"),
        pet_series=a_series("PT"),
        model_name="pix2pix-districts",
        model_hash=uuid.uuid4().hex,
        plan_hash=uuid.uuid4().hex,
        segmenter="landmarks",
        segmenter_hash=uuid.uuid4().hex,
        software_version="0.1.0",
        device_serial_number="TS-0001",
        made_at=MADE_AT,
    )
    return replace(update, **changes)


def another_study(update: TwinUpdate) -> TwinUpdate:
    """A later update of the same patient by the same model: another study, another PET."""
    return replace(
        update,
        study_uid=new_uid(),
        source_series=a_series("CT"),
        pet_series=a_series("PT"),
        made_at=update.made_at + timedelta(hours=1),
    )


def companions() -> tuple[SeriesEntry, ...]:
    """Districts of a rule-based segmenter, and what was measured on the synthetic PET."""
    return (
        a_series("SEG", instances=1, description="RESEARCH districts"),
        a_series("SR", instances=1, description="SYNTHETIC FDG-PET, SUV by district", asserted_by_ai=True),
    )


def measured_districts() -> tuple[DistrictValues, ...]:
    """A trunk with everything that can be measured, and legs that no network covers."""
    return (
        DistrictValues(
            district="trunk",
            site=("22943007", "SCT", "Trunk"),
            volume_ml=30000.125,
            suv_mean=1.25,
            suv_max=9.5,
            suv_peak=8.75,
            remark="trunk: cut by the field of view.",
            suv_deviation=0.5,
            calibrated=True,
        ),
        DistrictValues("legs", ("61685007", "SCT", "Lower limb"), volume_ml=8000.0),
    )


def measured_update(**changes: Any) -> TwinUpdate:
    """An update with what was measured in two districts, with ``changes``."""
    return an_update(**{"frame_of_reference_uid": new_uid(), "districts": measured_districts(), **changes})
