"""The quick setting of each benchmark: fewer repetitions and smaller sizes, so that all of them end in 40 minutes.

That is on 2 idle cores; the sizes stand on the page. What is missing here is as quick as it can be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from benchmarks import (
    console,
    dask,
    evaluation,
    ledger,
    memory,
    receipt,
    segmentation,
    simulate,
    training,
    twin,
)


@dataclass(frozen=True)
class Quick:
    """What a benchmark's ``measure`` is given, and how the page says it."""

    words: str
    options: Mapping[str, Any]


_DEPARTMENT: Final = dict(list(simulate.DAYS.items())[:1])
QUICK: Final[Mapping[str, Quick]] = MappingProxyType(
    {
        segmentation.NAME: Quick(f"8 of {segmentation.PHANTOMS} phantoms", {"count": 8}),
        training.NAME: Quick(
            f"3 turns of 2 s instead of {training.ROUNDS} of {training.SECONDS_A_TURN:g} s, 1,000 patches",
            {"rounds": 3, "seconds": 2.0, "patches": 1000},
        ),
        evaluation.NAME: Quick(f"4 of {evaluation.STUDIES} studies", {"studies": 4}),
        ledger.NAME: Quick(f"10,000 jobs instead of {ledger.MANY:,}", {"many": 10_000}),
        console.NAME: Quick(
            f"10,000 jobs instead of {console.JOBS:,}, 20 turns of {console.TURNS}", {"jobs": 10_000, "turns": 20}
        ),
        receipt.NAME: Quick(
            f"one turn of 200 slices instead of {receipt.ROUNDS} of {receipt.SLICES}", {"slices": 200, "rounds": 1}
        ),
        twin.NAME: Quick(f"400 patients instead of {twin.MANY:,}", {"many": 400}),
        dask.NAME: Quick(f"one turn instead of {dask.TURNS}", {"turns": 1}),
        simulate.NAME: Quick("the department's day alone", {"days": _DEPARTMENT}),
        memory.NAME: Quick("without the CT of 1,500 slices", {"cases": memory.CASES[:2]}),
    }
)


def options_of(name: str, *, quick: bool) -> Mapping[str, Any]:
    """What the benchmark's ``measure`` is given beside its progress."""
    return QUICK[name].options if quick and name in QUICK else {}


def words_of(name: str, *, quick: bool) -> str:
    """How the setting differs from the full one; empty where it does not."""
    return QUICK[name].words if quick and name in QUICK else ""
