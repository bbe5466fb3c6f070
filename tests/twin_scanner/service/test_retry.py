"""The retry decision; the oracle is the policy's own sentence: exponential, at least half, at most the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin_scanner.errors import Defect, Rejected, Transient
from twin_scanner.service.ledger.ledger import State
from twin_scanner.service.retry import Again, GiveUp, RetryPolicy, decide

pytestmark = pytest.mark.unit

POLICY = RetryPolicy(first_delay_s=10.0, longest_delay_s=100.0, attempts=6)


@given(st.integers(0, 4), st.floats(0, 0.999))
def test_a_transient_error_comes_back_after_an_exponential_delay_with_jitter(attempts: int, draw: float) -> None:
    decision = decide(Transient("later"), attempts, draw, POLICY)
    whole = min(10.0 * 2**attempts, 100.0)
    assert isinstance(decision, Again)
    assert whole / 2 <= decision.delay_s <= whole


def test_the_last_attempt_makes_a_dead_letter() -> None:
    assert decide(Transient("later"), 5, 0.0, POLICY) == GiveUp(State.FAILED)


def test_a_wrong_input_is_rejected_at_once() -> None:
    assert decide(Rejected("no"), 0, 0.0, POLICY) == GiveUp(State.REJECTED)


@pytest.mark.parametrize("error", [Defect("ours"), ValueError("unforeseen")])
def test_our_own_fault_is_not_tried_again(error: Exception) -> None:
    assert decide(error, 0, 0.0, POLICY) == GiveUp(State.FAILED)
