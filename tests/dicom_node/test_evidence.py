"""When a study has arrived. The clock is a number; the oracle is the rule, written out case by case."""

import pytest

from dicom_node.evidence import Completeness, Counted, Evidence, EvidenceKind, Look, compare
from dicom_node.query import SeriesCount

pytestmark = pytest.mark.unit


def _complete(studies: Completeness, now_s: float) -> list[str]:
    return [study_uid for study_uid, _ in studies.complete(now_s)]


@pytest.fixture
def studies() -> Completeness:
    return Completeness(quiet_period_s=30.0, longest_wait_s=300.0)


def test_a_study_is_complete_when_the_quiet_period_has_passed_and_is_handed_out_once(studies: Completeness) -> None:
    studies.touch("1.2", 0.0)
    assert _complete(studies, 29.9) == []
    assert _complete(studies, 30.0) == ["1.2"]
    assert _complete(studies, 1000.0) == []


def test_every_instance_starts_the_quiet_period_again(studies: Completeness) -> None:
    for now_s in (0.0, 20.0, 40.0):
        studies.touch("1.2", now_s)
    assert _complete(studies, 69.9) == []
    assert _complete(studies, 70.0) == ["1.2"]


def test_a_late_instance_hands_the_study_out_again(studies: Completeness) -> None:
    studies.touch("1.2", 0.0)
    _complete(studies, 30.0)
    studies.touch("1.2", 100.0)
    assert _complete(studies, 129.0) == []
    assert _complete(studies, 130.0) == ["1.2"]


def test_the_longest_silent_study_comes_first(studies: Completeness) -> None:
    studies.touch("1.1", 2.0)
    studies.touch("1.2", 1.0)
    studies.touch("1.3", 99.0)
    assert _complete(studies, 40.0) == ["1.2", "1.1"]
    assert studies.arriving() == ["1.3"]


def test_an_open_association_postpones_the_study_it_sent_last(studies: Completeness) -> None:
    studies.touch("1.2", 0.0, association=7)
    assert _complete(studies, 60.0) == []
    studies.association_closed(7)
    assert _complete(studies, 60.0) == ["1.2"]


def test_an_association_that_closes_early_does_not_shorten_the_quiet_period(studies: Completeness) -> None:
    studies.touch("1.2", 0.0, association=7)
    studies.association_closed(7)
    assert _complete(studies, 29.0) == []
    assert _complete(studies, 30.0) == ["1.2"]


def test_an_open_association_postpones_no_longer_than_the_longest_wait(studies: Completeness) -> None:
    studies.touch("1.2", 10.0, association=7)
    assert _complete(studies, 309.0) == []
    assert _complete(studies, 310.0) == ["1.2"]


def test_an_association_that_has_gone_on_to_another_study_no_longer_postpones_the_first(studies: Completeness) -> None:
    studies.touch("1.1", 0.0, association=7)
    studies.touch("1.2", 25.0, association=7)
    assert _complete(studies, 60.0) == ["1.1"]


def test_one_of_two_associations_that_is_still_open_is_enough_to_postpone(studies: Completeness) -> None:
    studies.touch("1.2", 0.0, association=7)
    studies.touch("1.2", 1.0, association=8)
    studies.association_closed(8)
    assert _complete(studies, 60.0) == []
    studies.association_closed(7)
    assert _complete(studies, 60.0) == ["1.2"]


def test_closing_an_association_that_sent_nothing_changes_nothing(studies: Completeness) -> None:
    studies.association_closed(99)
    assert _complete(studies, 0.0) == []


def test_a_longest_wait_below_the_quiet_period_counts_as_the_quiet_period() -> None:
    studies = Completeness(quiet_period_s=30.0, longest_wait_s=1.0)
    studies.touch("1.2", 0.0, association=7)
    assert _complete(studies, 29.0) == []
    assert _complete(studies, 30.0) == ["1.2"]


WHOLE, GAP = Look(gap_free=True), Look(gap_free=False)
NONE_MISSING = Counted(here=20, there=20, equal=True, missing=False, other_ct=False)
TWO_MISSING = Counted(here=18, there=20, equal=False, missing=True, other_ct=False)
RELEASED, QUIET = Evidence(EvidenceKind.RELEASED), Evidence(EvidenceKind.QUIET)


def _look(studies: Completeness, look: Look, now_s: float) -> None:
    """The one study that is due at this moment is looked at."""
    [(study_uid, version)] = studies.due(now_s)
    studies.looked(study_uid, version, look, now_s)


def test_counts_are_compared_series_by_series() -> None:
    theirs = [SeriesCount("1.1", "CT", "", 20), SeriesCount("1.2", "CT", "", 5), SeriesCount("1.3", "PT", "", 40)]
    assert compare({"1.1": 20, "1.2": 5}, theirs) == Counted(25, 25, equal=True, missing=False, other_ct=False)
    assert compare({"1.1": 20}, theirs) == Counted(20, 20, equal=True, missing=False, other_ct=True)
    assert compare({"1.1": 19, "1.2": 6}, theirs) == Counted(25, 25, equal=False, missing=True, other_ct=False)
    assert compare({"1.1": 21, "1.2": 5}, theirs) == Counted(26, 25, equal=False, missing=False, other_ct=False)
    assert compare({"1.9": 20}, theirs).missing and compare({"1.9": 20}, []).missing


def test_a_study_is_complete_when_a_peer_gives_our_count_twice_and_no_slice_is_missing(studies: Completeness) -> None:
    studies.touch("1.2", 0.0, association=7)
    assert studies.due(0.9) == []
    _look(studies, Look(True, NONE_MISSING), 1.0)
    assert (studies.complete(1.5), studies.due(1.5)) == ([], []), "once is not enough"
    _look(studies, Look(True, NONE_MISSING), 2.0)
    assert studies.complete(2.0) == [("1.2", Evidence(EvidenceKind.COUNTED, "20 of 20"))], "the association is open"


def test_two_answers_that_differ_are_none(studies: Completeness) -> None:
    studies.touch("1.2", 0.0)
    _look(studies, Look(True, TWO_MISSING), 1.0)
    _look(studies, Look(True, NONE_MISSING), 2.0)
    assert studies.complete(2.0) == []
    _look(studies, Look(True, NONE_MISSING), 4.0)
    assert _complete(studies, 4.0) == ["1.2"]


def test_a_second_answer_is_waited_for_although_the_quiet_period_is_over(studies: Completeness) -> None:
    studies.touch("1.2", 0.0)
    _look(studies, Look(True, NONE_MISSING), 29.5)
    assert studies.complete(30.0) == []
    _look(studies, Look(True, NONE_MISSING), 30.5)
    assert studies.complete(30.5) == [("1.2", Evidence(EvidenceKind.COUNTED, "20 of 20"))]


def test_an_instance_that_comes_after_a_look_makes_it_void(studies: Completeness) -> None:
    studies.touch("1.2", 0.0)
    _look(studies, Look(True, NONE_MISSING), 1.0)
    [(study_uid, version)] = studies.due(2.0)
    studies.touch("1.2", 2.0)
    studies.looked(study_uid, version, Look(True, NONE_MISSING), 2.1)
    assert studies.complete(2.1) == []
    _look(studies, Look(True, NONE_MISSING), 3.0)
    assert studies.complete(3.0) == [], "what was said before the last instance does not count"


def test_a_pause_longer_than_the_quiet_period_starts_nothing_while_the_peer_has_more(studies: Completeness) -> None:
    studies.touch("1.2", 0.0, association=7)
    studies.association_released(7)
    _look(studies, Look(True, TWO_MISSING), 1.0)
    assert studies.complete(299.0) == []
    studies.touch("1.2", 299.0, association=8)
    studies.association_released(8)
    _look(studies, Look(True, NONE_MISSING), 300.0)
    _look(studies, Look(True, NONE_MISSING), 301.0)
    assert studies.complete(301.0) == [("1.2", Evidence(EvidenceKind.COUNTED, "20 of 20"))]


@pytest.mark.parametrize(
    "theirs, said",
    [([SeriesCount("1.1", "CT", "", 20)], "18 of 20"), ([], "the peer does not know the study")],
)
def test_a_study_of_which_the_peer_has_more_or_nothing_is_incomplete_after_the_longest_wait(
    studies: Completeness, theirs: list[SeriesCount], said: str
) -> None:
    studies.touch("1.2", 0.0, association=7)
    studies.association_released(7)
    _look(studies, Look(True, compare({"1.1": 18}, theirs)), 1.0)
    assert studies.complete(299.9) == []
    assert studies.complete(300.0) == [("1.2", Evidence(EvidenceKind.INCOMPLETE, said))]
    assert len(str(Evidence(EvidenceKind.INCOMPLETE, said))) <= 64, "the ledger's column is no wider"


def test_a_ct_series_of_the_peer_that_has_not_begun_to_come_is_waited_for_until_the_quiet_period(
    studies: Completeness,
) -> None:
    studies.touch("1.2", 0.0)
    counted = Counted(20, 20, equal=True, missing=False, other_ct=True)
    _look(studies, Look(True, counted), 1.0)
    _look(studies, Look(True, counted), 2.0)
    assert studies.complete(29.9) == []
    assert studies.complete(30.0) == [("1.2", Evidence(EvidenceKind.COUNTED, "20 of 20"))]


def test_a_released_association_and_a_stack_without_a_gap_are_evidence_after_a_settling_time(
    studies: Completeness,
) -> None:
    studies.touch("1.2", 0.0, association=7)
    _look(studies, WHOLE, 1.0)
    assert studies.complete(6.0) == [], "the association is open"
    studies.association_released(7)
    assert studies.complete(4.9) == []
    assert studies.complete(5.0) == [("1.2", RELEASED)]


def test_a_gap_in_the_stack_an_abort_or_a_start_in_between_leave_only_the_quiet_period(studies: Completeness) -> None:
    studies.touch("1.1", 0.0, association=7)
    studies.association_released(7)
    _look(studies, GAP, 1.0)
    studies.touch("1.2", 1.0, association=8)
    studies.association_closed(8)
    studies.touch("1.3", 1.0)
    for study_uid, version in studies.due(2.0):
        studies.looked(study_uid, version, GAP if study_uid == "1.1" else WHOLE, 2.0)
    assert studies.complete(29.9) == []
    assert studies.complete(31.0) == [("1.1", QUIET), ("1.2", QUIET), ("1.3", QUIET)]


def test_a_sender_that_releases_after_every_slice_is_waited_for_as_long_as_it_has_paused(
    studies: Completeness,
) -> None:
    now_s = 0.0
    for association in range(20):
        studies.touch("1.2", now_s, association)
        studies.association_released(association)
        for study_uid, version in studies.due(now_s + 1.0):
            studies.looked(study_uid, version, WHOLE, now_s + 1.0)
        assert studies.complete(now_s + 3.9) == []
        now_s += 4.0
    last_s = now_s - 4.0
    assert studies.complete(last_s + 11.9) == []
    assert studies.complete(last_s + 12.0) == [("1.2", RELEASED)]


def test_two_senders_of_one_series_are_both_waited_for(studies: Completeness) -> None:
    studies.touch("1.2", 0.0, association=7)
    studies.touch("1.2", 0.1, association=8)
    studies.association_released(7)
    _look(studies, WHOLE, 1.1)
    assert studies.complete(20.0) == []
    studies.association_released(8)
    assert studies.complete(20.0) == [("1.2", RELEASED)]


def test_a_study_waits_for_a_look_that_is_under_way_but_not_for_ever() -> None:
    studies = Completeness(quiet_period_s=30.0, longest_wait_s=300.0, look_patience_s=60.0)
    studies.touch("1.2", 0.0)
    assert studies.complete(89.9) == []
    assert studies.complete(90.0) == [("1.2", QUIET)]


def test_looks_become_rare_and_end_where_another_finds_the_same(studies: Completeness) -> None:
    studies.touch("1.2", 0.0)
    moments = []
    for tenth in range(1, 2000):
        for study_uid, version in studies.due(tenth / 10):
            moments.append(tenth / 10)
            studies.looked(study_uid, version, Look(True, TWO_MISSING), tenth / 10)
    assert moments == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 124.0, 184.0]
    studies.touch("1.3", 200.0)
    for study_uid, version in studies.due(201.0):
        studies.looked(study_uid, version, GAP, 201.0, again=study_uid != "1.3")
    assert [study_uid for study_uid, _ in studies.due(10_000.0)] == ["1.2"]


def test_what_one_association_brought_whole_is_looked_at_sooner_and_twice_all_the_same(studies: Completeness) -> None:
    for slice_number in range(16):
        studies.touch("1.2", slice_number / 100, association=7)
    studies.association_released(7)
    assert studies.due(0.24) == []
    _look(studies, Look(True, NONE_MISSING), 0.26)
    assert _complete(studies, 0.26) == [] and studies.due(0.75) == []
    _look(studies, Look(True, NONE_MISSING), 0.76)
    assert _complete(studies, 0.76) == ["1.2"]


def test_a_peer_that_counts_the_last_instance_late_is_asked_a_third_time_soon(studies: Completeness) -> None:
    """It was asked again after two seconds; what it says first is no answer, so two more are needed."""
    for slice_number in range(16):
        studies.touch("1.2", slice_number / 100, association=7)
    studies.association_released(7)
    _look(studies, Look(True, Counted(16, 15, equal=False, missing=False, other_ct=False)), 0.3)
    _look(studies, Look(True, NONE_MISSING), 0.8)
    assert _complete(studies, 0.8) == [] and studies.due(1.29) == []
    _look(studies, Look(True, NONE_MISSING), 1.3)
    assert _complete(studies, 1.3) == ["1.2"]


@pytest.mark.parametrize(
    ("instances", "associations", "pause_s", "is_released"),
    [(15, 1, 0.01, True), (16, 2, 0.01, True), (16, 1, 0.4, True), (16, 1, 0.01, False)],
    ids=("few instances", "two associations", "a sender that pauses", "open still"),
)
def test_a_first_look_is_hurried_for_no_other_study(
    studies: Completeness, instances: int, associations: int, pause_s: float, is_released: bool
) -> None:
    for number in range(instances):
        studies.touch("1.2", number * pause_s, association=number % associations)
    for association in range(associations) if is_released else ():
        studies.association_released(association)
    last_s = (instances - 1) * pause_s
    assert studies.due(last_s + 0.99) == []
    assert [study_uid for study_uid, _ in studies.due(last_s + 1.0)] == ["1.2"]


def test_a_look_that_nobody_answered_counts_as_no_answer(studies: Completeness) -> None:
    """One answer of a peer that is still receiving the study itself would else be taken for two."""
    equal = Look(True, Counted(20, 20, equal=True, missing=False, other_ct=False))
    studies.touch("1.2", 0.0)
    studies.looked("1.2", 1, Look(True), 1.0)
    studies.looked("1.2", 1, equal, 3.0)
    assert _complete(studies, 3.0) == []
    studies.looked("1.2", 1, Look(True), 7.0)
    studies.looked("1.2", 1, equal, 15.0)
    assert _complete(studies, 15.0) == [], "nor are two answers in a row those with an unanswered look between"
    studies.looked("1.2", 1, equal, 16.0)
    assert studies.complete(16.0) == [("1.2", Evidence(EvidenceKind.COUNTED, "20 of 20"))]
