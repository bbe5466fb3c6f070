"""How far the networks of a render are: from the process that renders to whoever waits for it, by a file.

It lies beside the result, in the job's folder; where that folder is not shared, nothing is known, and nothing fails.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from twin_scanner.progress import Progress

FILE: Final = "windows"
EVERY_S: Final = 3.0
"""Each report becomes a write into the ledger."""


def writing_windows(result: Path, monotonic_s: Callable[[], float] = time.monotonic) -> Progress:
    """What a render reports its windows to; of an earlier try nothing is left."""
    file = result.parent / FILE
    next_s = monotonic_s()
    with suppress(OSError):
        file.unlink(missing_ok=True)

    def write(done: int, total: int) -> None:
        nonlocal next_s
        if monotonic_s() < next_s and done < total:
            return
        next_s = monotonic_s() + EVERY_S
        partial = file.with_suffix(".partial")
        with suppress(OSError):
            partial.write_text(f"{done} {total}", encoding="ascii")
            partial.replace(file)

    return write


def read_windows(result: Path) -> tuple[int, int] | None:
    """Windows done and in all, of the render that writes this result; None where it has come to none."""
    try:
        done, total = (result.parent / FILE).read_text("ascii").split()
        return int(done), int(total)
    except (OSError, ValueError):
        return None
