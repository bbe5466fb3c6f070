"""What to do after a failure: a pure decision from the error, the attempt and a random draw; it never sleeps."""

from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, wait_exponential

from twin_scanner.errors import Rejected, Transient
from twin_scanner.service.ledger.ledger import State


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential back-off with jitter and a cap, in seconds; after ``attempts`` failures the job is a dead letter."""

    first_delay_s: float = 15.0
    longest_delay_s: float = 3600.0
    attempts: int = 24


@dataclass(frozen=True)
class Again:
    """Try again after a delay."""

    delay_s: float


@dataclass(frozen=True)
class GiveUp:
    """End the job in this state."""

    state: State


def decide(error: Exception, attempts_before: int, draw: float, policy: RetryPolicy) -> Again | GiveUp:
    """Transient errors are tried again, up to the policy's number; a Rejected input is rejected; all else has failed.

    ``draw`` is uniform in [0, 1): the delay lies between half and the whole of the exponential one, so that jobs that
    failed together do not come back together.
    """
    if isinstance(error, Rejected):
        return GiveUp(State.REJECTED)
    if not isinstance(error, Transient) or attempts_before + 1 >= policy.attempts:
        return GiveUp(State.FAILED)
    attempt = RetryCallState(Retrying(), None, (), {})
    attempt.attempt_number = attempts_before + 1
    whole = wait_exponential(multiplier=policy.first_delay_s, max=policy.longest_delay_s)(attempt)
    return Again(whole * (0.5 + 0.5 * draw))
