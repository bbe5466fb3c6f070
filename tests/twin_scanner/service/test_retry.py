"""The retry decision; the oracle is the policy's own sentence: exponential, at least half, at most the whole."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin_scanner.errors import Defect, Held, Misconfigured, Rejected, Transient, Unavailable
from twin_scanner.service.retry import DAY_S, Again, GiveUp, RetryPolicy, decide

pytestmark = pytest.mark.unit

POLICY = RetryPolicy(first_delay_s=10.0, longest_delay_s=100.0, age_limit_s=30 * DAY_S)


@given(st.integers(1, 10_000), st.floats(0, 0.999))
def test_what_may_pass_comes_back_after_an_exponential_delay_with_jitter(attempt: int, draw: float) -> None:
    decision = decide(Transient("later"), attempt, 0.0, draw, POLICY)
    whole = min(10.0 * 2 ** min(attempt - 1, 10), 100.0)
    assert isinstance(decision, Again)
    assert whole / 2 <= decision.delay_s <= whole


@pytest.mark.parametrize(
    "error",
    [
        Transient("later"),
        Unavailable("down"),
        Misconfigured("There is no model 'champion'."),
        MemoryError(),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_nothing_outside_the_ct_gives_a_job_up_before_its_age_limit(error: Exception) -> None:
    """24 attempts used to be 12 hours; a missing model used to reject every patient."""
    assert isinstance(decide(error, 500, 29.9 * DAY_S, 0.0, POLICY), Again)
    assert decide(error, 500, 30 * DAY_S, 0.0, POLICY) == GiveUp.FAIL


def test_a_wrong_input_is_rejected_at_once_and_a_persons_decision_is_waited_for() -> None:
    assert decide(Rejected("no"), 1, 0.0, 0.0, POLICY) == GiveUp.REJECT
    assert decide(Held("Which patient?"), 1, 0.0, 0.0, POLICY) == GiveUp.HOLD


@pytest.mark.parametrize("error", [Defect("ours"), ValueError("unforeseen")])
def test_our_own_fault_is_not_tried_again(error: Exception) -> None:
    assert decide(error, 1, 0.0, 0.0, POLICY) == GiveUp.FAIL


def test_failures_that_nobody_counts_wait_longer_the_older_they_are_and_pass_every_attempt_on_the_way() -> None:
    """Whatever the draws: an alarm at some attempt is raised once at least. It used never to come."""
    policy = RetryPolicy()
    for draw in (0.0, 0.5, 0.999):
        age_s, seen = 0.0, []
        while age_s < 4000.0:
            seen.append(policy.attempt_at(age_s))
            age_s += policy.delay_s(seen[-1], draw)
        assert set(seen) == set(range(1, max(seen) + 1)) and max(seen) > 5 and len(seen) < 30
