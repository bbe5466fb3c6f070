"""Studies on SQLite and PostgreSQL: arriving, complete, taken, held after attempts that never ended, released."""

from collections.abc import Callable

import pytest

from tests.fakes.clock import Clock
from twin_scanner.errors import Rejected
from twin_scanner.service.ledger import Arrival, Ledger, Priority, Study, StudyState
from twin_scanner.service.ledger.columns import METADATA

pytestmark = pytest.mark.record

Open = Callable[..., Ledger]


def arrive(ledger: Ledger, clock: Clock, count: int = 1, study_uid: str = "1.2") -> None:
    ledger.studies.arrived([Arrival(study_uid, "PACS", count, clock(), clock())])


def claimed(ledger: Ledger) -> Study:
    study = ledger.studies.claim()
    assert study is not None
    return study


def found(ledger: Ledger, study_uid: str = "1.2") -> Study:
    study = ledger.studies.find(study_uid)
    assert study is not None
    return study


def test_a_study_is_counted_from_its_first_instance_and_claimed_when_complete(ledger: Ledger, clock: Clock) -> None:
    arrive(ledger, clock, 3)
    clock.pass_s(5.0)
    arrive(ledger, clock, 2)
    study = found(ledger)
    assert (study.received, study.calling_ae, study.state) == (5, "PACS", StudyState.ARRIVING)
    assert study.first_instance_at is not None and study.last_instance_at is not None
    assert (study.last_instance_at - study.first_instance_at).total_seconds() == 5.0
    assert ledger.studies.claim() is None
    ledger.studies.complete("1.2", "quiet period")
    assert claimed(ledger).evidence == "quiet period"
    assert ledger.studies.claim() is None


def test_a_taken_study_remembers_the_files_that_were_looked_at(ledger: Ledger, clock: Clock) -> None:
    arrive(ledger, clock)
    ledger.studies.complete("1.2", "quiet period")
    ledger.studies.taken(claimed(ledger), "f" * 64)
    assert (found(ledger).state, found(ledger).fingerprint) == (StudyState.TAKEN, "f" * 64)
    arrive(ledger, clock)
    assert (found(ledger).state, found(ledger).received) == (StudyState.ARRIVING, 2)
    assert ledger.studies.claim() is None


def test_what_arrives_while_intake_looks_is_looked_at_again(ledger: Ledger, clock: Clock) -> None:
    arrive(ledger, clock)
    ledger.studies.complete("1.2", "quiet period")
    study = claimed(ledger)
    arrive(ledger, clock)
    ledger.studies.taken(study, "f" * 64)
    assert (found(ledger).state, found(ledger).due_at) == (StudyState.ARRIVING, None)
    ledger.studies.complete("1.2", "quiet period")
    assert claimed(ledger).attempts == 1


def test_a_study_that_only_the_spool_knows_is_complete_without_having_arrived(ledger: Ledger) -> None:
    ledger.studies.complete("1.2", "quiet period")
    assert claimed(ledger).received == 0


def test_attempts_that_never_ended_are_counted_over_restarts(url: str, ledger: Ledger, open_ledger: Open) -> None:
    ledger.studies.complete("1.2", "quiet period")
    assert [claimed(open_ledger(url)).attempts for _ in range(4)] == [1, 2, 3, 4]


def test_a_failure_that_says_nothing_of_the_study_is_not_counted(ledger: Ledger, clock: Clock) -> None:
    ledger.studies.complete("1.2", "quiet period")
    for _ in range(5):
        study = claimed(ledger)
        assert study.attempts == 1
        ledger.studies.postpone(study, 10.0, "The disk does not answer.", counts=False)
        clock.pass_s(11.0)
    ledger.studies.postpone(claimed(ledger), 10.0, "The process was lost.")
    clock.pass_s(11.0)
    assert claimed(ledger).attempts == 2


def test_a_held_study_stays_held_whatever_arrives_until_it_is_released(ledger: Ledger, clock: Clock) -> None:
    arrive(ledger, clock)
    ledger.studies.complete("1.2", "quiet period")
    ledger.studies.hold(claimed(ledger), "Reading its headers never ended.")
    arrive(ledger, clock)
    ledger.studies.complete("1.2", "quiet period")
    assert found(ledger).state == StudyState.HELD and ledger.studies.claim() is None
    assert [study.study_uid for study in ledger.studies.of_node(StudyState.HELD)] == ["1.2"]
    ledger.studies.release("1.2")
    assert (claimed(ledger).attempts, found(ledger).reason) == (1, "")
    with pytest.raises(Rejected, match="is not held on node node"):
        ledger.studies.release("1.2")


def test_one_study_on_two_nodes_is_a_row_of_each(url: str, ledger: Ledger, open_ledger: Open, clock: Clock) -> None:
    other = open_ledger(url, "other")
    arrive(ledger, clock, 3)
    arrive(other, clock, 4)
    assert (found(ledger).received, found(other).received) == (3, 4)
    ledger.studies.complete("1.2", "quiet period")
    assert other.studies.claim() is None


def test_a_study_that_came_again_before_an_old_row_of_it_was_adopted_is_one_row(ledger: Ledger) -> None:
    """Every start ended in a row that contradicts another one."""
    ledger.studies.complete("1.2", "quiet period")
    with ledger.database.write() as write:
        values = {"node": None, "state": "taken", "attempts": 0, "reason": "", "study_uid": "1.2", "calling_ae": ""}
        write.execute(METADATA.tables["studies"].insert().values(**values, received=1, evidence="", fingerprint="f"))
    ledger.adopt([], ["1.2"])
    assert len(ledger.studies.of_node(StudyState.ARRIVING)) == 1


def test_an_urgent_study_is_looked_at_before_the_routine_ones_that_wait(ledger: Ledger, clock: Clock) -> None:
    for study_uid, priority in (("1.1", Priority.ROUTINE), ("1.2", Priority.BACKFILL), ("1.3", Priority.URGENT)):
        ledger.studies.arrived([Arrival(study_uid, "PACS", 1, clock(), clock(), priority)])
        clock.pass_s(1.0)
        ledger.studies.complete(study_uid, "quiet period")
    assert [claimed(ledger).study_uid for _ in range(3)] == ["1.3", "1.1", "1.2"]


def test_a_study_that_several_send_has_the_most_urgent_of_their_priorities_until_it_comes_anew(
    ledger: Ledger, clock: Clock
) -> None:
    def send(priority: Priority) -> int:
        ledger.studies.arrived([Arrival("1.2", "PACS", 1, clock(), clock(), priority)])
        return found(ledger).priority

    assert [send(p) for p in (Priority.BACKFILL, Priority.URGENT, Priority.ROUTINE)] == [1, -1, -1]
    ledger.studies.complete("1.2", "quiet period")
    ledger.studies.taken(claimed(ledger), "f" * 64)
    assert send(Priority.BACKFILL) == Priority.BACKFILL


def test_an_incomplete_study_is_held_and_goes_on_by_itself_once_the_rest_has_come(ledger: Ledger, clock: Clock) -> None:
    arrive(ledger, clock, 18)
    ledger.studies.hold_incomplete("1.2", "incomplete: 18 of 20", "Two are missing.")
    assert (found(ledger).state, found(ledger).reason) == (StudyState.HELD, "Two are missing.")
    assert ledger.studies.claim() is None
    arrive(ledger, clock, 1)
    ledger.studies.hold_incomplete("1.2", "incomplete: 19 of 20", "One is missing.")
    assert (found(ledger).state, found(ledger).evidence) == (StudyState.HELD, "incomplete: 19 of 20")
    arrive(ledger, clock, 1)
    ledger.studies.complete("1.2", "C-FIND: 20 of 20")
    assert (claimed(ledger).evidence, found(ledger).reason) == ("C-FIND: 20 of 20", "")


def test_an_incomplete_study_that_a_person_releases_stays_marked(ledger: Ledger, clock: Clock) -> None:
    arrive(ledger, clock, 18)
    ledger.studies.hold_incomplete("1.2", "incomplete: 18 of 20", "Two are missing.")
    ledger.studies.release("1.2")
    assert claimed(ledger).evidence == "incomplete: 18 of 20"


def test_a_study_that_is_held_for_another_reason_stays_held_when_it_is_complete(ledger: Ledger, clock: Clock) -> None:
    arrive(ledger, clock)
    ledger.studies.complete("1.2", "quiet period")
    ledger.studies.hold(claimed(ledger), "Its headers kill the reader.")
    ledger.studies.complete("1.2", "quiet period")
    assert found(ledger).state == StudyState.HELD


def test_a_real_pet_of_a_study_is_remembered_and_noted_once(ledger: Ledger, clock: Clock) -> None:
    arrive(ledger, clock)
    for _ in range(2):
        ledger.studies.has_real_pet("1.2", "1.2.9")
    assert found(ledger).real_pet == "1.2.9"
    notes = [event.what for event in ledger.events.of_row("studies", found(ledger).study_id)]
    assert notes.count("real PET") == 1
