"""Records leave the embedded store, come back, and are forgotten: export, import, erasure."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.peers.twin_rig import opened_stores
from tests.samples.twin_updates import MADE_AT, SITE, a_series, an_update, another_study
from twin_record.embedded import EmbeddedStore
from twin_record.update import TwinUpdate
from twin_scanner.errors import Held, Rejected

pytestmark = pytest.mark.record

Json = dict[str, Any]
Make = Callable[[str], EmbeddedStore]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Make]:
    """Opens embedded stores by name."""
    with opened_stores(tmp_path) as make:
        yield make


def revised(update: TwinUpdate) -> TwinUpdate:
    return replace(
        update,
        pet_series=a_series("PT"),
        replaces_series_uids=(update.pet_series.series_uid,),
        made_at=MADE_AT + timedelta(minutes=9),
    )


def resources(bundle: Json) -> dict[str, Json]:
    """By type and id, without what a store gives by itself."""
    found = {}
    for entry in bundle["entry"]:
        resource = entry["resource"]
        meta = {k: v for k, v in resource.get("meta", {}).items() if k not in ("versionId", "lastUpdated")}
        found[f"{resource['resourceType']}/{resource['id']}"] = {**resource, "meta": meta}
    return found


def versions(bundle: Json) -> list[str]:
    return [entry["resource"]["meta"]["versionId"] for entry in bundle["entry"]]


def test_an_exported_record_is_the_same_in_another_store_and_a_second_import_writes_nothing(store: Make) -> None:
    here, there = store("here"), store("there")
    first = an_update()
    for update in (first, revised(first), another_study(first), an_update()):
        here.record(update)
    for bundle in here.records():
        assert there.import_record(json.loads(json.dumps(bundle)))
    before = list(there.records())
    assert [resources(bundle) for bundle in before] == [resources(bundle) for bundle in here.records()]
    assert len(before) == 2
    for bundle in here.records():
        assert there.import_record(bundle) == ()
    assert [versions(bundle) for bundle in there.records()] == [versions(bundle) for bundle in before]


def test_an_imported_record_goes_on_where_it_stood(store: Make) -> None:
    here, there = store("here"), store("there")
    first = an_update()
    here.record(first)
    there.import_record(here.patient_record(first.patient_id, None))
    assert there.record(first).written == ()
    there.record(another_study(first))
    kinds = [key.split("/")[0] for key in resources(there.patient_record(first.patient_id, None))]
    assert sorted(kinds) == sorted(["Patient", "List", "Device", *["ImagingStudy", "Provenance"] * 2])


def test_a_model_that_the_store_knows_already_stays_one_device(store: Make) -> None:
    here, there = store("here"), store("there")
    mine, other = an_update(), an_update()
    other = replace(other, model_hash=mine.model_hash)
    device = there.record(other).device
    here.record(mine)
    there.import_record(here.patient_record(mine.patient_id, None))
    assert device in resources(there.patient_record(mine.patient_id, None))


def test_another_state_of_the_same_record_is_not_overwritten(store: Make) -> None:
    here, there = store("here"), store("there")
    first = an_update()
    for one in (here, there):
        one.record(first)
    here.record(another_study(first))
    before = there.patient_record(first.patient_id, None)
    with pytest.raises(Held, match="another state of this record"):
        there.import_record(here.patient_record(first.patient_id, None))
    assert there.patient_record(first.patient_id, None) == before


def test_another_person_under_the_same_id_is_not_imported(store: Make) -> None:
    here, there = store("here"), store("there")
    first = an_update()
    here.record(first)
    there.record(replace(another_study(first), birth_date="19910101"))
    with pytest.raises(Held, match="birth date"):
        there.import_record(here.patient_record(first.patient_id, None))


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ([], "no FHIR Bundle"),
        ({"resourceType": "Patient"}, "no FHIR Bundle"),
        ({"resourceType": "Bundle", "entry": []}, "no twin record"),
        ({"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Patient"}}]}, "with an id"),
        ({"resourceType": "Bundle", "entry": [{"resource": {"id": "1"}}]}, "with an id"),
        (
            {
                "resourceType": "Bundle",
                "entry": [{"resource": {"resourceType": "Patient", "id": "1", "birthDate": "x"}}],
            },
            "correct its birthDate",
        ),
    ],
)
def test_what_is_no_record_is_refused_in_one_sentence(store: Make, document: Any, sentence: str) -> None:
    with pytest.raises(Rejected, match=sentence):
        store("there").import_record(document)


def test_an_erased_patient_is_gone_with_every_version_and_nobody_else_is(store: Make, tmp_path: Path) -> None:
    here = store("here")
    first, other = an_update(patient_id="PID-forget-me", patient_name="Vergessen^Viktor"), an_update()
    other = replace(other, model_hash=first.model_hash)
    for update in (first, other, revised(first), another_study(first)):
        here.record(update)
    kept = here.patient_record(other.patient_id, None)
    erased = here.erase("PID-forget-me", None)
    kinds = sorted(literal.split("/")[0] for literal in erased)
    assert kinds == sorted(["Patient", "List", *["ImagingStudy"] * 2, *["Provenance"] * 3])
    assert all(here.history(*literal.split("/")) == [] for literal in erased)
    assert here.patient_record(other.patient_id, None) == kept
    with pytest.raises(Rejected, match="no twin record"):
        here.erase("PID-forget-me", None)
    bytes_left = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"PID-forget-me" not in bytes_left
    assert b"Vergessen" not in bytes_left
    assert first.study_uid.encode() not in bytes_left


def test_erased_and_recorded_again_leaves_one_of_each(store: Make) -> None:
    here = store("here")
    first = an_update()
    here.record(first)
    here.erase(first.patient_id, None)
    assert len(here.record(first).written) == 4
    found = resources(here.patient_record(first.patient_id, None))
    assert sorted(key.split("/")[0] for key in found) == ["Device", "ImagingStudy", "List", "Patient", "Provenance"]
    assert here.record(first).written == ()


def test_no_statement_of_an_update_or_a_look_reads_a_whole_table(store: Make) -> None:
    """Then both take as long with 2,000 patients as with one."""
    here = store("here")
    first = an_update()
    here.record(first)
    asked: list[tuple[str, Any]] = []
    engine = here._engine
    sa.event.listen(engine, "before_cursor_execute", lambda _c, _k, text, values, *_: asked.append((text, values)))
    here.record(revised(first))
    here.patient_record(first.patient_id, None)
    looked = {text: values for text, values in asked if text.split()[0] in ("SELECT", "DELETE")}
    assert len(looked) >= 4
    with engine.connect() as connection:
        for text, values in looked.items():
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)
            assert [row.detail for row in plan if "SCAN" in row.detail or "(type=?)" in row.detail] == [], text


def test_a_record_that_names_its_patient_by_identifier_alone_moves_and_is_erased_like_any(tmp_path: Path) -> None:
    site = replace(SITE, unknown_patient="reference")
    here, there = (EmbeddedStore(tmp_path / f"{name}.sqlite", site) for name in ("here", "there"))
    first = an_update()
    here.record(first)
    (bundle,) = here.records()
    assert not any(entry["resource"]["resourceType"] == "Patient" for entry in bundle["entry"])
    there.import_record(bundle)
    assert [resources(one) for one in there.records()] == [resources(bundle)]
    there.erase(first.patient_id, None)
    assert list(there.records()) == []
    left = {row[0] for row in there._engine.connect().execute(sa.text("SELECT type FROM resource"))}
    assert left == {"Device"}
    for one in (here, there):
        one.close()
