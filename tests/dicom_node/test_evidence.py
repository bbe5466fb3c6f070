"""When a study has arrived. The clock is a number; the oracle is the rule, written out case by case."""

import pytest

from dicom_node.evidence import QuietPeriod

pytestmark = pytest.mark.unit


@pytest.fixture
def studies() -> QuietPeriod:
    return QuietPeriod(quiet_period_s=30.0, longest_wait_s=300.0)


def test_a_study_is_complete_when_the_quiet_period_has_passed_and_is_handed_out_once(studies: QuietPeriod) -> None:
    studies.touch("1.2", 0.0)
    assert studies.complete(29.9) == []
    assert studies.complete(30.0) == ["1.2"]
    assert studies.complete(1000.0) == []


def test_every_instance_starts_the_quiet_period_again(studies: QuietPeriod) -> None:
    for now_s in (0.0, 20.0, 40.0):
        studies.touch("1.2", now_s)
    assert studies.complete(69.9) == []
    assert studies.complete(70.0) == ["1.2"]


def test_a_late_instance_hands_the_study_out_again(studies: QuietPeriod) -> None:
    studies.touch("1.2", 0.0)
    studies.complete(30.0)
    studies.touch("1.2", 100.0)
    assert studies.complete(129.0) == []
    assert studies.complete(130.0) == ["1.2"]


def test_the_longest_silent_study_comes_first(studies: QuietPeriod) -> None:
    studies.touch("1.1", 2.0)
    studies.touch("1.2", 1.0)
    studies.touch("1.3", 99.0)
    assert studies.complete(40.0) == ["1.2", "1.1"]
    assert studies.arriving() == ["1.3"]


def test_an_open_association_postpones_the_study_it_sent_last(studies: QuietPeriod) -> None:
    studies.touch("1.2", 0.0, association=7)
    assert studies.complete(60.0) == []
    studies.association_closed(7)
    assert studies.complete(60.0) == ["1.2"]


def test_an_association_that_closes_early_does_not_shorten_the_quiet_period(studies: QuietPeriod) -> None:
    studies.touch("1.2", 0.0, association=7)
    studies.association_closed(7)
    assert studies.complete(29.0) == []
    assert studies.complete(30.0) == ["1.2"]


def test_an_open_association_postpones_no_longer_than_the_longest_wait(studies: QuietPeriod) -> None:
    studies.touch("1.2", 10.0, association=7)
    assert studies.complete(309.0) == []
    assert studies.complete(310.0) == ["1.2"]


def test_an_association_that_has_gone_on_to_another_study_no_longer_postpones_the_first(studies: QuietPeriod) -> None:
    studies.touch("1.1", 0.0, association=7)
    studies.touch("1.2", 25.0, association=7)
    assert studies.complete(60.0) == ["1.1"]


def test_one_of_two_associations_that_is_still_open_is_enough_to_postpone(studies: QuietPeriod) -> None:
    studies.touch("1.2", 0.0, association=7)
    studies.touch("1.2", 1.0, association=8)
    studies.association_closed(8)
    assert studies.complete(60.0) == []
    studies.association_closed(7)
    assert studies.complete(60.0) == ["1.2"]


def test_closing_an_association_that_sent_nothing_changes_nothing(studies: QuietPeriod) -> None:
    studies.association_closed(99)
    assert studies.complete(0.0) == []


def test_a_longest_wait_below_the_quiet_period_counts_as_the_quiet_period() -> None:
    studies = QuietPeriod(quiet_period_s=30.0, longest_wait_s=1.0)
    studies.touch("1.2", 0.0, association=7)
    assert studies.complete(29.0) == []
    assert studies.complete(30.0) == ["1.2"]
