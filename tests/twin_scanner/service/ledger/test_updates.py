"""What each job adds to the twin record stays in the ledger, until the patient is erased; on both databases."""

import json
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import alembic.command
import alembic.config
import pytest
import sqlalchemy as sa

from tests.fakes.clock import Clock
from twin_scanner.service.ledger import KeptUpdate, Ledger, Which, migrate
from twin_scanner.service.ledger.database import make_engine
from twin_scanner.service.ledger.updates import BATCH, UPDATES

pytestmark = pytest.mark.record

MADE_AT = datetime(2026, 3, 4, 5, 6, 7, 8, tzinfo=UTC)
EVERY = Which()


def kept(number: int, patient_id: str = "P1", *, day: int | None = None) -> KeptUpdate:
    made_at = MADE_AT + timedelta(days=number if day is None else day)
    return KeptUpdate(f"{number:032x}", made_at, patient_id, {"patient_id": patient_id, "number": number})


def numbers(ledger: Ledger, target: str, only: Which = EVERY) -> list[int]:
    return [update.document["number"] for update in ledger.updates.to_record(target, only=only)]


def test_updates_come_in_the_order_of_the_making_whatever_their_number(ledger: Ledger) -> None:
    count = 2 * BATCH + 3
    with ledger.database.write() as write:
        for number in range(count):
            write.execute(UPDATES.insert().values(**vars(kept(number, day=(number * 7) % count // 2))))
    found = list(ledger.updates.to_record("embedded", only=EVERY))
    order = [(update.made_at, update.job_id) for update in found]
    assert len(found) == count == ledger.updates.count("embedded", only=EVERY)
    assert order == sorted(order)


def test_what_a_target_holds_is_not_recorded_there_again_and_elsewhere_it_is(ledger: Ledger) -> None:
    for number in (1, 2):
        ledger.updates.keep(kept(number))
    ledger.updates.recorded(kept(1).job_id, "embedded")
    assert numbers(ledger, "embedded") == [2]
    assert numbers(ledger, "https://fhir.example/r4") == [1, 2]
    assert ledger.updates.count("embedded", only=EVERY) == 1


def test_a_run_that_ends_early_leaves_the_rest(ledger: Ledger) -> None:
    for number in range(4):
        ledger.updates.keep(kept(number))
    for update in ledger.updates.to_record("embedded", only=EVERY):
        ledger.updates.recorded(update.job_id, "embedded")
        if update.document["number"] == 1:
            break
    assert numbers(ledger, "embedded") == [2, 3]


def test_an_update_that_was_kept_again_is_recorded_again_with_what_it_says_now(ledger: Ledger) -> None:
    ledger.updates.keep(kept(1))
    ledger.updates.recorded(kept(1).job_id, "embedded")
    later = kept(1)
    later.document["number"] = 9
    assert ledger.updates.keep(later)
    assert numbers(ledger, "embedded") == [9]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (EVERY, [1, 2, 3]),
        (Which(since=MADE_AT + timedelta(days=2)), [2, 3]),
        (Which(patient_id="P2"), [3]),
        (Which(patient_id="P"), []),
    ],
)
def test_those_that_are_meant_are_recorded_again(ledger: Ledger, which: Which, expected: list[int]) -> None:
    for number, patient_id in ((1, "P1"), (2, "P1"), (3, "P2")):
        ledger.updates.keep(kept(number, patient_id))
        ledger.updates.recorded(kept(number).job_id, "embedded")
    moved_back(ledger)
    assert ledger.updates.count("embedded", only=EVERY, again=which) == len(expected)
    assert numbers(ledger, "embedded") == []
    assert ledger.updates.record_again(which) == len(expected)
    assert numbers(ledger, "embedded") == expected


def moved_back(ledger: Ledger) -> None:
    """As if all had been recorded at the beginning of that year."""
    with ledger.database.write() as write:
        write.execute(sa.text("UPDATE twin_updates SET recorded_at = '2026-01-01 00:00:00'"))


def test_what_was_made_before_a_day_and_recorded_after_it_is_lost_with_a_backup_of_that_day(ledger: Ledger) -> None:
    ledger.updates.keep(kept(1))
    ledger.updates.recorded(kept(1).job_id, "embedded")
    now = ledger.database.steady()
    assert ledger.updates.record_again(Which(since=max(now, MADE_AT + timedelta(days=1)) - timedelta(hours=1))) == 1


def test_an_erased_update_is_gone_and_does_not_come_back(ledger: Ledger) -> None:
    for number, patient_id in ((1, "P-7731"), (2, "P-7731"), (3, "P2")):
        ledger.updates.keep(kept(number, patient_id))
    (first, second) = ledger.updates.of_patient("P-7731")
    ledger.updates.erase([first.job_id, second.job_id])
    assert ledger.updates.of_patient("P-7731") == []
    assert not ledger.updates.keep(kept(1, "P-7731"))
    ledger.updates.recorded(first.job_id, "embedded")
    assert numbers(ledger, "elsewhere") == [3]
    with ledger.database.read() as connection:
        rows = [dict(row._mapping) for row in connection.execute(sa.text("SELECT * FROM twin_updates"))]
        events = [dict(row._mapping) for row in connection.execute(sa.text("SELECT * FROM events"))]
    assert "7731" not in json.dumps([row for row in rows if row["erased_at"]], default=str)
    assert [event["row_id"] for event in events if event["what"] == "erased"] == [first.job_id, second.job_id]


def test_no_event_names_a_patient(ledger: Ledger) -> None:
    ledger.updates.keep(kept(1, "P-7731"))
    ledger.updates.record_again(Which(patient_id="P-7731"))
    ledger.updates.erase([kept(1).job_id])
    ledger.updates.note_erased_record("List/4", 6)
    with ledger.database.read() as connection:
        events = [dict(row._mapping) for row in connection.execute(sa.text("SELECT * FROM events"))]
    assert {event["what"] for event in events} >= {"record again", "erased"}
    assert "7731" not in json.dumps(events, default=str)


def test_what_an_earlier_version_recorded_without_its_update_is_named(empty_url: str, clock: Clock) -> None:
    """An upgrade keeps every row; there is nothing to keep of what was recorded before."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(files("twin_scanner.service.ledger") / "migrations"))
    engine = make_engine(empty_url, create=True)
    columns = "(job_id, destination, state, attempts, reason, confirmed_by, required, after_required, confirmed_at)"
    rows = [
        ("a", "twin", "confirmed", "FHIR transaction"),
        ("b", "twin", "confirmed", "replaced by a later revision"),
        ("c", "twin", "waiting", ""),
        ("d", "pacs", "confirmed", "query"),
    ]
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0004")
        for job_id, destination, state, by in rows:
            values = f"('{job_id}', '{destination}', '{state}', 1, '', '{by}', true, true, '2026-01-01 00:00:00')"
            connection.exec_driver_sql(f"INSERT INTO deliveries {columns} VALUES {values}")
    engine.dispose()
    migrate(empty_url)
    ledger = Ledger(empty_url, node="node", now=clock, monotonic_s=clock.monotonic_s)
    assert ledger.updates.unkept() == ["a"]
    assert {job_id: len(found) for job_id, found in ledger.deliveries.of_jobs(list("abcd")).items()} == dict.fromkeys(
        "abcd", 1
    )
    ledger.close()
