"""What to do after a failure: a pure decision from error, attempt, age and a random draw; it never sleeps."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from twin_scanner.errors import Held, Misconfigured, Rejected, Transient

DAY_S: Final = 86400.0
_MOST_DOUBLINGS: Final = 60
"""Beyond any sensible cap; a larger power of two would leave the range of a float in the end."""


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential back-off with jitter and a cap, in seconds; what is older than the limit is given up."""

    first_delay_s: float = 15.0
    longest_delay_s: float = 3600.0
    age_limit_s: float = 30 * DAY_S

    def delay_s(self, attempt: int, draw: float) -> float:
        """How long to wait after the attempt of this number (from 1).

        ``draw`` is uniform in [0, 1): the delay lies between half and the whole of the exponential one, so that what
        failed together does not come back together.
        """
        whole_s = min(self.first_delay_s * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS), self.longest_delay_s)
        return whole_s * (0.5 + 0.5 * draw)

    def attempt_at(self, age_s: float) -> int:
        """Which attempt comes after so many seconds, for failures that nobody counts."""
        return 1 + int(math.log2(1.0 + max(age_s, 0.0) / self.first_delay_s))


@dataclass(frozen=True)
class Again:
    """Try again after a delay."""

    delay_s: float


class GiveUp(StrEnum):
    """Do not try again by yourself."""

    HOLD = "hold"
    REJECT = "reject"
    FAIL = "fail"


def decide(error: Exception, attempt: int, age_s: float, draw: float, policy: RetryPolicy) -> Again | GiveUp:
    """A wrong input is rejected, what a person must decide is held, what may pass is tried again up to the age limit.

    A configuration that cannot be, too little memory, and a disk or network that refuses are no fault of the input:
    they may pass. All else failed.
    """
    if isinstance(error, Held):
        return GiveUp.HOLD
    if isinstance(error, Rejected) and not isinstance(error, Misconfigured):
        return GiveUp.REJECT
    may_pass = isinstance(error, Transient | Misconfigured | MemoryError | OSError)
    if not may_pass or age_s >= policy.age_limit_s:
        return GiveUp.FAIL
    return Again(policy.delay_s(attempt, draw))
