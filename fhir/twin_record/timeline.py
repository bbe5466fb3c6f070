"""A patient's record as a timeline: each scan with its synthetic series, their models, and the values by district.

It reads what a Bundle of the record has, whoever wrote it, and is silent on what it has not.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

from twin_record.resources.codes import DICOM_UID_SYSTEM, MODEL_SYSTEM, TARGET_PATH_EXTENSION
from twin_record.resources.content import Resource, held_if_invalid, literal_of, short_reference

_SERIES_PATH: Final = re.compile(r"ImagingStudy\.series\.where\(uid = '([0-9.]+)'\)")
WRONG: Final = "entered-in-error"


@dataclass(frozen=True)
class SyntheticSeries:
    """One PET that was made; ``superseded`` says by what, and is empty while it is the current one."""

    series_uid: str
    description: str
    made_at: str
    model: str
    model_hash: str
    instances: int | None
    superseded: str


@dataclass(frozen=True)
class DistrictValue:
    """One measurement; ``change`` is the difference to the last scan that has it, made by the same model.

    ``device`` is the literal reference of the model.
    """

    district: str
    name: str
    value: float
    unit: str
    device: str
    change: float | None = None


@dataclass(frozen=True)
class Scan:
    """One study; ``changed_since`` is the UID of the scan that its values are compared with, where there is one."""

    study_uid: str
    started: str
    description: str
    series: int
    synthetic: tuple[SyntheticSeries, ...]
    values: tuple[DistrictValue, ...]
    changed_since: str | None = None


@dataclass(frozen=True)
class Timeline:
    """The scans of one patient, the oldest first."""

    name: str
    birth_date: str
    sex: str
    scans: tuple[Scan, ...]


def timeline_of(bundle: Resource) -> Timeline:
    """The timeline of a record as ``TwinTarget.patient_record`` gives it; Held where it holds what is no valid R4."""
    resources: list[Resource] = [entry["resource"] for entry in bundle.get("entry", []) if "resource" in entry]
    with held_if_invalid(resources):
        patient = next(iter(_of_kind(resources, "Patient")), {})
        scans = [_scan(study, resources) for study in _of_kind(resources, "ImagingStudy")]
        return Timeline(
            name=_name(patient),
            birth_date=str(patient.get("birthDate", "")),
            sex=str(patient.get("gender", "")),
            scans=tuple(_with_changes(sorted(scans, key=_moment))),
        )


def _of_kind(resources: Sequence[Resource], kind: str) -> list[Resource]:
    return [one for one in resources if one["resourceType"] == kind and one.get("status") != WRONG]


def _name(patient: Resource) -> str:
    for name in patient.get("name", []):
        parts = [*name.get("prefix", []), *name.get("given", []), name.get("family", ""), *name.get("suffix", [])]
        text = name.get("text") or " ".join(part for part in parts if part)
        if text:
            return str(text)
    return ""


def _scan(study: Resource, resources: Sequence[Resource]) -> Scan:
    literal = literal_of(study)
    flags = _flags(resources)
    made = [
        _synthetic(provenance, series_uid, study, resources, flags)
        for provenance in _of_kind(resources, "Provenance")
        for series_uid in _made_series(provenance, literal)
    ]
    values = [
        value
        for observation in _of_kind(resources, "Observation")
        if literal in _references(observation.get("derivedFrom", []))
        for value in _values(observation)
    ]
    return Scan(
        study_uid=_study_uid(study),
        started=str(study.get("started", "")),
        description=str(study.get("description", "")),
        series=int(study.get("numberOfSeries", len(study.get("series", [])))),
        synthetic=tuple(sorted(made, key=lambda one: (one.made_at, one.series_uid))),
        values=tuple(sorted(values, key=lambda one: (one.district, one.name))),
    )


def _study_uid(study: Resource) -> str:
    values = [key.get("value", "") for key in study.get("identifier", []) if key.get("system") == DICOM_UID_SYSTEM]
    return str(values[0]).removeprefix("urn:oid:") if values else ""


def _references(listed: Sequence[Resource]) -> list[str]:
    return [short_reference(item["reference"]) for item in listed if "reference" in item]


def _flags(resources: Sequence[Resource]) -> dict[str, str]:
    """What the List says of an entry that is not current any more, by its reference."""
    entries = [entry for record in _of_kind(resources, "List") for entry in record.get("entry", []) if "flag" in entry]
    return {
        ref: str(entry["flag"].get("text", "superseded")) for entry in entries for ref in _references([entry["item"]])
    }


def _made_series(provenance: Resource, study: str) -> Iterator[str]:
    """The series of this study that a Provenance is about."""
    for target in provenance.get("target", []):
        if _references([target]) != [study]:
            continue
        for extension in target.get("extension", []):
            found = _SERIES_PATH.fullmatch(str(extension.get("valueString", "")))
            if extension.get("url") == TARGET_PATH_EXTENSION and found:
                yield found.group(1)


def _synthetic(
    provenance: Resource, series_uid: str, study: Resource, resources: Sequence[Resource], flags: dict[str, str]
) -> SyntheticSeries:
    series: Resource = next((one for one in study.get("series", []) if one.get("uid") == series_uid), {})
    device = _author(provenance, resources)
    hashes = [key.get("value", "") for key in device.get("identifier", []) if key.get("system") == MODEL_SYSTEM]
    return SyntheticSeries(
        series_uid=series_uid,
        description=str(series.get("description", "")),
        made_at=str(provenance.get("occurredDateTime", "")),
        model=str(next((name.get("name", "") for name in device.get("deviceName", [])), "")),
        model_hash=str(hashes[0]) if hashes else "",
        instances=series.get("numberOfInstances"),
        superseded=flags.get(literal_of(provenance), ""),
    )


def _author(provenance: Resource, resources: Sequence[Resource]) -> Resource:
    for agent in provenance.get("agent", []):
        for device in _of_kind(resources, "Device"):
            if literal_of(device) in _references([agent.get("who", {})]):
                return device
    return {}


def _values(observation: Resource) -> Iterator[DistrictValue]:
    quantity = observation.get("valueQuantity", {})
    if "value" in quantity:
        yield DistrictValue(
            district=_text(observation.get("bodySite", {})),
            name=_text(observation.get("code", {})),
            value=float(quantity["value"]),
            unit=str(quantity.get("unit") or quantity.get("code", "")),
            device="".join(_references([observation.get("device", {})])),
        )


def _text(concept: Any) -> str:
    codings = [str(coding.get("display") or coding.get("code", "")) for coding in concept.get("coding", [])]
    return str(concept.get("text") or next(iter(codings), ""))


def _moment(scan: Scan) -> tuple[str, str, str]:
    """By the day of the study, and on one day by what is known of the time; without a date by when a PET was made."""
    made_at = min((one.made_at for one in scan.synthetic), default="")
    moment = scan.started or made_at
    return moment[: len(date.min.isoformat())], moment, made_at


def _with_changes(scans: Sequence[Scan]) -> Iterator[Scan]:
    for number, scan in enumerate(scans):
        before = next((one for one in reversed(scans[:number]) if one.values), None)
        if before is None or not scan.values:
            yield scan
            continue
        known = {(v.district, v.name, v.unit, v.device): v.value for v in before.values}
        values = [replace(v, change=_change(v, known)) for v in scan.values]
        yield replace(scan, values=tuple(values), changed_since=before.study_uid)


def _change(value: DistrictValue, known: dict[tuple[str, str, str, str], float]) -> float | None:
    before = known.get((value.district, value.name, value.unit, value.device))
    return None if before is None else round(value.value - before, 6)
