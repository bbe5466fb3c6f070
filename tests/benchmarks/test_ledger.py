"""The ledger's benchmark begins, measures and ends at its smallest size."""

import pytest

from benchmarks import ledger

pytestmark = [pytest.mark.record, pytest.mark.long]


def test_the_ledgers_steps_are_measured_on_a_small_and_a_less_small_one() -> None:
    figures = ledger.measure(many=150)
    assert [figure.figure for figure in figures][-2:] == [
        "start, 150 ended jobs against 100: slower by",
        "status and a timeline, 150 jobs",
    ]
    assert len(figures) == 5 and figures[-1].value > 0
