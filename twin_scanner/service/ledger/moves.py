"""Every state of every row, and every legal move between them; nothing else in the project decides on one."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from twin_scanner.errors import Defect


class StudyState(StrEnum):
    """What arrives: still coming or not yet looked at; held until a person releases it; turned into jobs."""

    ARRIVING = "arriving"
    HELD = "held"
    TAKEN = "taken"


class State(StrEnum):
    """A job: its CT waits to be rendered; its deliveries are under way; or how it has ended."""

    QUEUED = "queued"
    RENDERED = "rendered"
    DONE = "done"
    HELD = "held"
    REJECTED = "rejected"
    FAILED = "failed"
    SUPERSEDED = "superseded"


class DeliveryState(StrEnum):
    """A job's result on its way to one destination, which has stored it, and has confirmed that it keeps it."""

    WAITING = "waiting"
    STORED = "stored"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    HELD = "held"


class ResendReason(StrEnum):
    """Why a person sends again what a destination had confirmed; a word of ours, so that the audit holds no free text.

    It does not have it any more; it was restored or replaced; a part is missing; what is there cannot be read or was
    altered; whoever runs it asks for it.
    """

    LOST = "lost"
    RESTORED = "restored"
    INCOMPLETE = "incomplete"
    DAMAGED = "damaged"
    REQUESTED = "requested"


class RunState(StrEnum):
    """A scheduled command's run."""

    RUNNING = "running"
    ENDED = "ended"
    INTERRUPTED = "interrupted"


def _moves(**targets: str) -> Mapping[str, frozenset[str]]:
    return MappingProxyType({state: frozenset(after.split()) for state, after in targets.items()})


MOVES: Final[Mapping[type[StrEnum], Mapping[str, frozenset[str]]]] = MappingProxyType(
    {
        StudyState: _moves(arriving="taken held", taken="arriving", held="arriving"),
        State: _moves(
            queued="rendered held rejected failed superseded",
            rendered="done held failed rejected",
            held="queued rendered superseded",
            rejected="queued rendered",
            failed="queued rendered superseded",
            done="rendered",
            superseded="",
        ),
        DeliveryState: _moves(
            waiting="stored confirmed failed held",
            stored="confirmed waiting failed held",
            failed="waiting",
            held="waiting",
            confirmed="waiting",
        ),
        RunState: _moves(running="ended interrupted", ended="", interrupted=""),
    }
)
"""Out of held a person's release leads, out of rejected and failed a person's retry, each to where the row stood;
out of confirmed, and of done with it, a person's wish to have it sent again."""
ENDED: Final = (State.DONE, State.SUPERSEDED, State.REJECTED)
"""Jobs that need no more help: their files may go. Held and failed ones wait for a person."""


def check_move(row: str, before: StrEnum, after: StrEnum) -> None:
    """Raise Defect where ``row`` may not go from the one state to the other."""
    if after.value not in MOVES[type(before)][before.value]:
        raise Defect(f"{row} cannot go from {before} to {after}: report this.")
