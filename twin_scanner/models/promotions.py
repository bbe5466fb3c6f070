"""Who became champion when, and why: one numbered record per change, kept with the model packages."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from twin_scanner.errors import Rejected
from twin_scanner.files.durable_file import write_durably

PROMOTIONS: Final = "promotions"
"""The folder of the records in a model store."""
By: TypeAlias = Literal["gate", "force", "rollback"]


@dataclass(frozen=True)
class Promotion:
    """One change of champion: when (UTC, ISO 8601), from which model hash to which, and by whose word.

    ``decision`` names the gate's record where the gate decided, and is empty otherwise.
    """

    number: int
    at: str
    champion: str
    previous: str
    by: By
    reason: str
    decision: str = ""


def read_promotions(store: Path) -> tuple[Promotion, ...]:
    """Every record of a model store, oldest first; raises Rejected where one cannot be read."""
    return tuple(_read(path) for path in sorted((store / PROMOTIONS).glob("*.json")))


def write_promotion(store: Path, promotion: Promotion) -> None:
    """Put a record on disk; raises OSError."""
    folder = store / PROMOTIONS
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / f"{promotion.number:06d}.json", (json.dumps(asdict(promotion), indent=1) + "\n").encode())


def _read(path: Path) -> Promotion:
    try:
        return Promotion(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise Rejected(f"{path} is no record of a promotion: restore it from a copy.") from error
