"""In which order studies and jobs are worked on: by a turn, which is when they came, moved by their priority.

The turn never changes while a row waits, so an index gives the order, and nothing waits for ever: what is backfill goes
before everything that came more than a day later.
"""

from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final


class Priority(IntEnum):
    """How a study is to be treated; the smaller one is first."""

    URGENT = -1
    ROUTINE = 0
    BACKFILL = 1


DELAY: Final = {
    Priority.URGENT: timedelta(hours=-4),
    Priority.ROUTINE: timedelta(0),
    Priority.BACKFILL: timedelta(hours=24),
}
"""By how much a turn comes earlier or later than that of routine work that came at the same moment."""
LATEST_TURN: Final = max(DELAY.values())


def turn_at(came_at: datetime, priority: int) -> datetime:
    """The turn of what came at a steady moment."""
    return came_at + DELAY[Priority(priority)]
