"""How often a login may be tried: buckets of tries that fill up again, so that nobody stays locked out.

Each account has a bucket per address, each address one, and each account one for all addresses from which nobody has
logged in to it yet. A stranger who empties the last one so locks out strangers alone: whoever logs in from where they
did before has a bucket of their own.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

REMEMBERED: Final = 10_000
"""So many buckets are kept; the one that was used longest ago is forgotten first."""


@dataclass(frozen=True)
class Allowance:
    """So many tries at once, and one more every ``refill_s`` seconds."""

    tries: int
    refill_s: float


PER_ACCOUNT_AND_ADDRESS: Final = Allowance(5, 30.0)
PER_ADDRESS: Final = Allowance(30, 5.0)
PER_ACCOUNT: Final = Allowance(60, 30.0)


class Buckets:
    """One bucket for each key that was seen lately."""

    def __init__(self, allowance: Allowance, monotonic_s: Callable[[], float]) -> None:
        self._allowance = allowance
        self._monotonic_s = monotonic_s
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: Hashable) -> float:
        """For how long there is no try left; 0 where there is one."""
        return max(0.0, (1.0 - self._level(key)) * self._allowance.refill_s)

    def take(self, key: Hashable) -> None:
        """One try is used."""
        self._buckets[key] = (self._level(key) - 1.0, self._monotonic_s())
        self._buckets.move_to_end(key)
        while len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)

    def fill(self, key: Hashable) -> None:
        """The key's tries were honest ones."""
        self._buckets.pop(key, None)

    def _level(self, key: Hashable) -> float:
        level, since_s = self._buckets.get(key, (float(self._allowance.tries), self._monotonic_s()))
        gained = (self._monotonic_s() - since_s) / self._allowance.refill_s
        return min(float(self._allowance.tries), level + gained)


class LoginLimits:
    """The tries of all accounts and addresses."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._pairs = Buckets(PER_ACCOUNT_AND_ADDRESS, monotonic_s)
        self._addresses = Buckets(PER_ADDRESS, monotonic_s)
        self._accounts = Buckets(PER_ACCOUNT, monotonic_s)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def begin(self, account: str, address: str) -> float:
        """Take one try, before the password is looked at; more than 0: none is left for so many seconds."""
        pair = (account, address)
        with self._lock:
            used: list[tuple[Buckets, Hashable]] = [(self._pairs, pair), (self._addresses, address)]
            if pair not in self._known:
                used.append((self._accounts, account))
            wait_s = max(buckets.wait_s(key) for buckets, key in used)
            if wait_s == 0.0:
                for buckets, key in used:
                    buckets.take(key)
            return wait_s

    def succeeded(self, account: str, address: str) -> None:
        """The password was right: the tries before it were slips."""
        pair = (account, address)
        with self._lock:
            self._pairs.fill(pair)
            self._known[pair] = None
            self._known.move_to_end(pair)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
