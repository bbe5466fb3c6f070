"""One measured figure beside its peer's, and how both are printed."""

import json
from dataclasses import asdict, dataclass
from typing import Final

from rich.table import Table

GOAL: Final = "goal"
"""The peer of a figure that has to reach a fixed value."""
HIGHEST_RATIO: Final = 1000.0
"""Of a figure that is 0 where little is good."""


@dataclass(frozen=True)
class Figure:
    """What was measured; ``ratio`` is above 1 where we are ahead of the peer or of the goal."""

    name: str
    figure: str
    value: float
    unit: str
    peer: str
    peer_value: float
    ratio: float

    def line(self) -> str:
        """One JSON object."""
        rounded = {key: round(v, 4) if isinstance(v, float) else v for key, v in asdict(self).items()}
        return json.dumps(rounded)


def at_least(name: str, figure: str, value: float, goal: float, unit: str = "Dice") -> Figure:
    """A figure that should be high."""
    return Figure(name, figure, value, unit, GOAL, goal, value / goal)


def at_most(name: str, figure: str, value: float, limit: float, unit: str, peer: str = GOAL) -> Figure:
    """A figure that should be low, against a limit or a peer's."""
    return Figure(name, figure, value, unit, peer, limit, limit / max(value, limit / HIGHEST_RATIO))


def table_of(figures: list[Figure]) -> Table:
    """All figures as a text table."""
    table = Table("Benchmark", "Figure", "Value", "Peer", "Peer's value", "Ratio", title="Figures")
    for f in figures:
        state = "" if f.ratio >= 1 else " behind"
        table.add_row(
            f.name,
            f.figure,
            f"{f.value:,.3g} {f.unit}",
            f.peer,
            f"{f.peer_value:,.3g} {f.unit}",
            f"{f.ratio:.2f}{state}",
        )
    return table
