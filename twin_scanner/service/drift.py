"""Drift: what the newest CTs look like beside those before them, by the features that the ledger keeps of each."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from twin_scanner.service.ledger import Ledger, Result

NEWEST, BEFORE = 50, 500
FEWEST: Final = 10
"""With fewer on either side there is nothing to compare."""
NOTABLE: Final = 0.8
"""A shift of so many standard deviations is a large one (Cohen 1988); deploy/prometheus/alerts.yml has the same."""


@dataclass(frozen=True)
class Shift:
    """One feature: its mean before and now, and the difference in standard deviations of before."""

    name: str
    before: float
    now: float
    shift: float

    @property
    def is_notable(self) -> bool:
        """Whether a person should look."""
        return abs(self.shift) >= NOTABLE


@dataclass(frozen=True)
class Drift:
    """How many CTs there are on either side, and the shift of each feature, the largest first."""

    before: int
    now: int
    shifts: tuple[Shift, ...]


def drift_of(ledger: Ledger) -> Drift:
    """The drift of all nodes' CTs at this moment."""
    results = ledger.results.newest(NEWEST + BEFORE)
    now, before = results[:NEWEST], results[NEWEST:]
    return Drift(len(before), len(now), tuple(shifts(before, now)))


def shifts(before: Sequence[Result], now: Sequence[Result]) -> list[Shift]:
    """The features that both sides have often enough, the largest shift first."""
    earlier, later = _values(before), _values(now)
    found = []
    for name in sorted(earlier.keys() & later.keys()):
        old, new = earlier[name], later[name]
        if min(len(old), len(new)) >= FEWEST:
            spread = statistics.stdev(old)
            difference = statistics.fmean(new) - statistics.fmean(old)
            shift = difference / spread if spread else math.copysign(math.inf, difference) if difference else 0.0
            found.append(Shift(name, statistics.fmean(old), statistics.fmean(new), shift))
    return sorted(found, key=lambda one: -abs(one.shift))


def _values(results: Sequence[Result]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for result in results:
        for name, value in _numbers(result.features):
            found.setdefault(name, []).append(value)
    return found


def _numbers(values: Any, name: str = "") -> list[tuple[str, float]]:
    if isinstance(values, dict):
        return [pair for key, value in values.items() for pair in _numbers(value, f"{name} {key}".strip())]
    if isinstance(values, bool) or not isinstance(values, int | float) or not math.isfinite(values):
        return []
    return [(name.replace("_", " "), float(values))]
