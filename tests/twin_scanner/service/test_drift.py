"""The shift of the newest CTs against those before. Oracle: Cohen's d with the earlier side's standard deviation."""

import math
import statistics

import pytest

from twin_scanner.service.drift import FEWEST, shifts
from twin_scanner.service.ledger import Result

pytestmark = pytest.mark.unit


def results(*slices: float, **features: object) -> list[Result]:
    return [Result({}, {"slices": count, **features}) for count in slices]


def test_the_shift_is_the_difference_of_means_in_standard_deviations_of_before() -> None:
    earlier, later = [300.0 + 10 * (number % 5) for number in range(40)], [330.0] * 12
    (found,) = shifts(results(*earlier), results(*later))
    assert found.shift == pytest.approx((330.0 - statistics.fmean(earlier)) / statistics.stdev(earlier))
    assert (found.name, found.now, found.is_notable) == ("slices", 330.0, False)


def test_the_largest_shift_comes_first_and_words_lists_and_gaps_are_passed_over() -> None:
    earlier = [
        Result(
            {}, {"slices": 300 + number % 2, "volume_ml": {"head": 4000.0 + number % 3, "legs": None}, "part": "CHEST"}
        )
        for number in range(20)
    ]
    later = [
        Result({}, {"slices": 301, "volume_ml": {"head": 9000.0, "legs": math.nan}, "part": "HEAD", "lacks": ["legs"]})
        for _ in range(20)
    ]
    assert [(one.name, one.is_notable) for one in shifts(earlier, later)] == [
        ("volume ml head", True),
        ("slices", True),
    ]


def test_a_feature_that_never_changed_shifts_without_bound_where_it_changes_now() -> None:
    (found,) = shifts(results(*[300.0] * 10), results(*[299.0] * 10))
    assert found.shift == -math.inf and found.is_notable
    (same,) = shifts(results(*[300.0] * 10), results(*[300.0] * 10))
    assert same.shift == 0.0 and not same.is_notable


@pytest.mark.parametrize(("before", "now"), [(FEWEST - 1, FEWEST), (FEWEST, FEWEST - 1)])
def test_too_few_on_a_side_are_not_compared(before: int, now: int) -> None:
    assert shifts(results(*[300.0] * before), results(*[10.0] * now)) == []
