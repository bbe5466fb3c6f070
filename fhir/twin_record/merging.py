"""Our resources merged into what the server already holds: nobody else's content is ever lost."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from twin_record.resources.codes import DICOM_UID_SYSTEM, MEASUREMENT_SYSTEM, PRODUCT
from twin_record.resources.content import Resource, short_reference
from twin_record.resources.imaging_study import instances_of, is_acquired, note_prefix
from twin_record.resources.provenance import made_series, provenance_id, series_path
from twin_record.update import TwinUpdate

OUR_SYSTEMS = (MEASUREMENT_SYSTEM, DICOM_UID_SYSTEM)
"""The identifiers of a measurement that are ours: its own, and the content UID of the report that says it now."""
MEASURED = (
    "status",
    "valueQuantity",
    "dataAbsentReason",
    "component",
    "bodySite",
    "effectiveDateTime",
    "issued",
    "result",
    "conclusion",
)
"""What a measurement or report says itself: of these nothing of an earlier PET stays."""
SUPERSEDED_BY = "Superseded by series "
"""How the flag of a replaced PET's Provenance in the List begins."""
SERVER_META = ("versionId", "lastUpdated")
"""The parts of meta that a server changes by itself; they are no content."""


def content_of(value: Any) -> Any:
    """What a resource says, in a form that two equal contents share: no server meta, short references."""
    if isinstance(value, dict):
        kept = {key: content_of(part) for key, part in value.items()}
        if "meta" in kept:
            kept["meta"] = {key: part for key, part in kept["meta"].items() if key not in SERVER_META}
        if isinstance(kept.get("reference"), str):
            kept["reference"] = short_reference(kept["reference"])
        return {key: part for key, part in kept.items() if part not in ([], {})}
    return [content_of(item) for item in value] if isinstance(value, list) else value


def differs(first: Resource, second: Resource) -> bool:
    """Whether two resources say different things."""
    return bool(content_of(first) != content_of(second))


def merged_study(theirs: Resource, ours: Resource, update: TwinUpdate) -> Resource:
    """Their ImagingStudy with what we made in it, all other content theirs.

    Instances of the source CT join those that they list of it. Our replaced series leave, but for those that the PACS
    still holds: these stay, marked. Counts are carried on from theirs: a server may count series that it does not list.
    """
    replaced = {*update.replaces_series_uids, *update.replaces_companion_uids}
    superseded = {series.series_uid for series in update.superseded_series}
    old = theirs.get("series", [])
    kept = {series["uid"]: series for series in old if series["uid"] not in replaced - superseded}
    for one in ours["series"]:
        known = kept.get(one["uid"], {})
        if one["uid"] == update.source_series.series_uid:
            kept[one["uid"]] = _merged_source(known, one, update)
        else:
            kept[one["uid"]] = _merged_series(_unmade(known) if one["uid"] in superseded else known, one)
    series = list(kept.values())
    merged = {
        **theirs,
        "series": series,
        "meta": _merged_meta(theirs, ours),
        "note": _merged_notes(theirs, ours, update),
        "modality": _merged_modality(theirs, ours, series),
        "endpoint": _union(theirs.get("endpoint", []), ours.get("endpoint", []), "reference"),
    }
    merged |= {key: ours[key] for key in ("started", "description", "basedOn") if key in ours and key not in theirs}
    instances, old_instances = (sum(s.get("numberOfInstances", 0) for s in listed) for listed in (series, old))
    merged |= _count(theirs, "numberOfSeries", len(old), len(series))
    merged |= _count(theirs, "numberOfInstances", old_instances, instances)
    return {key: part for key, part in merged.items() if part != []}


def _merged_source(theirs: Resource, ours: Resource, update: TwinUpdate) -> Resource:
    """The CT as they list it, with the slices that they do not list yet; an InstanceNumber is DICOM's.

    Where they list no instances of it, only their number is carried on.
    """
    if not theirs:
        return ours
    known = {one["uid"]: one for one in instances_of(update.source_series)}
    listed = [{**one, **_number(known.get(one.get("uid"), {}))} for one in theirs.get("instance", [])]
    return _with_instances(theirs, _union(listed, list(known.values()), "uid") if listed else [], theirs, ours)


def _number(instance: Resource) -> Resource:
    return {"number": instance["number"]} if "number" in instance else {}


def _merged_series(theirs: Resource, ours: Resource) -> Resource:
    instances = _union(ours.get("instance", []), theirs.get("instance", []), "uid")
    return _with_instances({**theirs, **ours}, instances, theirs, ours)


def _with_instances(series: Resource, instances: list[Resource], theirs: Resource, ours: Resource) -> Resource:
    endpoints = _union(theirs.get("endpoint", []), ours.get("endpoint", []), "reference")
    counts = (len(instances), *(one.get("numberOfInstances", 0) for one in (theirs, ours)))
    merged = {**series, "instance": instances, "endpoint": endpoints, "numberOfInstances": max(counts)}
    return {key: part for key, part in merged.items() if part != []}


def _unmade(series: Resource) -> Resource:
    """A series without what says when and by which model it was made: its Provenance says that."""
    return {key: part for key, part in series.items() if key not in ("started", "performer")}


def _merged_modality(theirs: Resource, ours: Resource, series: list[Resource]) -> list[Resource]:
    """Their modalities and ours, without those that acquire nothing and that an earlier version listed for ours."""
    of_series = {one.get("modality", {}).get("code", "") for one in series}
    made = {modality for modality in of_series if not is_acquired(modality)}
    return [one for one in _union(theirs.get("modality", []), ours["modality"], "code") if one.get("code") not in made]


def _merged_meta(theirs: Resource, ours: Resource) -> Resource:
    meta = dict(theirs.get("meta", {}))
    return {**meta, "security": _union(meta.get("security", []), ours["meta"]["security"], "code")}


def _merged_notes(theirs: Resource, ours: Resource, update: TwinUpdate) -> list[Resource]:
    stale = tuple(note_prefix(uid) for uid in (*update.replaces_series_uids, update.pet_series.series_uid))
    said = {note["text"] for note in ours["note"]}
    kept = [note for note in theirs.get("note", []) if note["text"] in said or not note["text"].startswith(stale)]
    return _union(kept, ours["note"], "text")


def _union(first: list[Resource], second: list[Resource], key: str) -> list[Resource]:
    known = {item.get(key) for item in first}
    return first + [item for item in second if item.get(key) not in known]


def _count(theirs: Resource, field: str, listed_before: int, listed_now: int) -> Resource:
    if field not in theirs:
        return {}
    return {field: listed_now if theirs[field] == listed_before else max(theirs[field], listed_now)}


def merged_record(theirs: Resource, ours: Resource, update: TwinUpdate) -> Resource:
    """Their List with our entries added: no entry is dropped; a replaced PET's Provenance is flagged."""
    superseded = {f"Provenance/{provenance_id(uid)}" for uid in update.replaces_series_uids}
    entries = [_flagged(entry, superseded, update) for entry in theirs.get("entry", [])]
    known = {_item(entry) for entry in entries}
    entries += [entry for entry in ours["entry"] if _item(entry) not in known]
    return {**theirs, "entry": entries, "date": _later(theirs.get("date"), ours["date"]), "status": "current"}


def _item(entry: Resource) -> str:
    return short_reference(entry.get("item", {}).get("reference", ""))


def merged_history(theirs: Resource, ours: Resource, update: TwinUpdate, successor: str) -> Resource:
    """Their List with the Provenance of a PET that was replaced before it was recorded; all else stays theirs."""
    provenance = f"Provenance/{provenance_id(update.pet_series.series_uid)}"
    if provenance in listed_provenances(theirs):
        return theirs
    added = [{**entry, **_flag(successor)} for entry in ours["entry"] if _item(entry) == provenance]
    return {**theirs, "entry": [*theirs.get("entry", []), *added]}


def _flagged(entry: Resource, superseded: Collection[str], update: TwinUpdate) -> Resource:
    """The flag names the newest successor, whatever was recorded first; one that is not ours stays."""
    flag = str(entry.get("flag", {}).get("text", SUPERSEDED_BY))
    if _item(entry) not in superseded or not flag.startswith(SUPERSEDED_BY):
        return entry
    return {**entry, **_flag(update.pet_series.series_uid)}


def _flag(successor: str) -> Resource:
    return {"flag": {"text": f"{SUPERSEDED_BY}{successor}"}}


def superseded_by(record: Resource, update: TwinUpdate) -> str | None:
    """The series that the record already says has replaced this update's PET; empty where a flag does not say which."""
    ours = f"Provenance/{provenance_id(update.pet_series.series_uid)}"
    flags = [
        entry["flag"].get("text", "") for entry in record.get("entry", []) if _item(entry) == ours and "flag" in entry
    ]
    return flags[0].removeprefix(SUPERSEDED_BY) if flags else None


def listed_provenances(record: Resource) -> list[str]:
    """The references of the Provenances that the record lists."""
    return [item for item in map(_item, record.get("entry", [])) if item.startswith("Provenance/")]


def replaced_by(provenances: Iterable[Resource], update: TwinUpdate) -> str | None:
    """The series of the newest PET whose Provenance says that it is a revision of this update's."""
    successors = [
        (str(provenance.get("recorded", "")), uid)
        for provenance in provenances
        for entity in provenance.get("entity", [])
        if entity.get("role") == "revision" and _names_series(entity.get("what", {}), update.pet_series.series_uid)
        for uid in [made_series(provenance)]
    ]
    return max(successors)[1] if successors else None


def _names_series(what: Resource, series_uid: str) -> bool:
    """Whether a reference leads to the series: by the path in its study, or as an earlier version wrote it."""
    paths = {extension.get("valueString") for extension in what.get("extension", [])}
    return series_path(series_uid) in paths or what.get("identifier", {}).get("value") == f"urn:oid:{series_uid}"


def merged_measurement(theirs: Resource, ours: Resource) -> Resource:
    """Our Observation or DiagnosticReport over theirs: identifiers and notes of others stay."""
    kept = {key: part for key, part in theirs.items() if key not in MEASURED}
    identifiers = [one for one in theirs.get("identifier", []) if one.get("system") not in OUR_SYSTEMS]
    notes = [one for one in theirs.get("note", []) if one.get("authorString") != PRODUCT]
    merged = {
        **kept,
        **ours,
        "meta": _merged_meta(theirs, ours),
        "identifier": [*ours["identifier"], *identifiers],
        "note": [*ours.get("note", []), *notes],
    }
    return {key: part for key, part in merged.items() if part != []}


def _later(theirs: str | None, ours: str) -> str:
    if theirs is None:
        return ours
    try:
        return max(theirs, ours, key=datetime.fromisoformat)
    except (ValueError, TypeError):
        return ours


def merged_provenance(theirs: Resource, ours: Resource) -> Resource:
    """Our Provenance over theirs: the id is ours alone, so only what a server adds by itself is kept."""
    return {**theirs, **ours, "meta": _merged_meta(theirs, ours)}
