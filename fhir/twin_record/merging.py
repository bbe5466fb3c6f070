"""Our resources merged into what the server already holds: nobody else's content is ever lost."""

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from twin_record.resources.content import Resource, short_reference
from twin_record.resources.imaging_study import note_prefix
from twin_record.resources.provenance import provenance_id
from twin_record.update import TwinUpdate
from twin_scanner.errors import Held

SERVER_META = ("versionId", "lastUpdated")
"""The parts of meta that a server changes by itself; they are no content."""


def content_of(value: Any) -> Any:
    """What a resource says, in a form that two equal contents share: no server meta, short references."""
    if isinstance(value, Mapping):
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


def check_same_person(theirs: Resource, ours: Resource) -> tuple[str, ...]:
    """Compare the server's Patient with the CT's: the guard against the wrong patient.

    Raises Held where birth date or sex contradict each other (a partial birth date is compared as far as it
    goes; what one side does not know contradicts nothing). A differing name is a remark: spelling varies.
    """
    for field, name in (("birthDate", "birth date"), ("gender", "sex")):
        known, said = theirs.get(field), ours.get(field)
        if not known or not said or "unknown" in (known, said):
            continue
        shared = min(len(known), len(said)) if field == "birthDate" else None
        if known[:shared] != said[:shared]:
            raise Held(
                f"The {name} in the CT contradicts the Patient with the same identifier on the FHIR server: "
                "this may be the wrong patient, so nothing was recorded; correct the one that is wrong."
            )
    names, our_names = _names(theirs), _names(ours)
    if names and our_names and not names & our_names:
        return ("The name in the CT is written differently from the Patient's on the FHIR server.",)
    return ()


def _names(patient: Resource) -> set[frozenset[str]]:
    return {
        frozenset(_plain(" ".join([name.get("family", ""), *filter(None, name.get("given", ()))])).split())
        for name in patient.get("name", ())
        if name.get("family") or name.get("given")
    }


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).replace("-", " ")


def merged_study(theirs: Resource, ours: Resource, update: TwinUpdate) -> Resource:
    """Their ImagingStudy with what we made in it, our replaced series out of it, all other content theirs.

    The source CT is added only where they do not list it. Counts are carried on from theirs: a server may count
    series that it does not list.
    """
    replaced = {*update.replaces_series_uids, *update.replaces_companion_uids}
    old = theirs.get("series", [])
    kept = {series["uid"]: series for series in old if series["uid"] not in replaced}
    for one in ours["series"]:
        if one["uid"] == update.source_series.series_uid:
            kept.setdefault(one["uid"], one)
        else:
            kept[one["uid"]] = _merged_series(kept.get(one["uid"], {}), one)
    series = list(kept.values())
    merged = {
        **theirs,
        "series": series,
        "meta": _merged_meta(theirs, ours),
        "note": _merged_notes(theirs, ours, update),
    }
    merged["modality"] = _union(theirs.get("modality", []), ours["modality"], "code")
    merged |= {key: ours[key] for key in ("started", "description") if key in ours and key not in theirs}
    instances, old_instances = (sum(s.get("numberOfInstances", 0) for s in listed) for listed in (series, old))
    merged |= _count(theirs, "numberOfSeries", len(old), len(series))
    merged |= _count(theirs, "numberOfInstances", old_instances, instances)
    return merged


def _merged_series(theirs: Resource, ours: Resource) -> Resource:
    instances = _union(ours["instance"], theirs.get("instance", []), "uid")
    return {**theirs, **ours, "instance": instances, "numberOfInstances": len(instances)}


def _merged_meta(theirs: Resource, ours: Resource) -> Resource:
    meta = dict(theirs.get("meta", {}))
    return {**meta, "security": _union(meta.get("security", []), ours["meta"]["security"], "code")}


def _merged_notes(theirs: Resource, ours: Resource, update: TwinUpdate) -> list[Resource]:
    stale = tuple(note_prefix(uid) for uid in (*update.replaces_series_uids, update.pet_series.series_uid))
    return [note for note in theirs.get("note", []) if not note["text"].startswith(stale)] + ours["note"]


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


def _flagged(entry: Resource, superseded: Collection[str], update: TwinUpdate) -> Resource:
    if _item(entry) not in superseded or "flag" in entry:
        return entry
    return {**entry, "flag": {"text": f"Superseded by series {update.pet_series.series_uid}"}}


def is_superseded(record: Resource, update: TwinUpdate) -> bool:
    """Whether the record already says that another PET replaced this update's."""
    ours = f"Provenance/{provenance_id(update.pet_series.series_uid)}"
    return any(_item(entry) == ours and "flag" in entry for entry in record.get("entry", []))


def listed_provenances(record: Resource) -> list[str]:
    """The references of the Provenances that the record lists."""
    return [item for item in map(_item, record.get("entry", [])) if item.startswith("Provenance/")]


def is_replaced(provenances: Iterable[Resource], update: TwinUpdate) -> bool:
    """Whether one of these says that its PET is a revision of this update's: that one was recorded first."""
    return any(
        entity.get("role") == "revision"
        and entity.get("what", {}).get("identifier", {}).get("value") == f"urn:oid:{update.pet_series.series_uid}"
        for provenance in provenances
        for entity in provenance.get("entity", [])
    )


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
