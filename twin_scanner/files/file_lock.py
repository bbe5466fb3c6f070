"""Locks that end with their process: one scanner, one writer, one retraining at a time."""

import fcntl
from pathlib import Path
from typing import IO

from twin_scanner.errors import Transient, TwinScannerError


def take_lock(path: Path, busy: TwinScannerError | None) -> IO[str]:
    """The lock file, locked until it is closed or its process ends; its folder is created.

    Raises ``busy`` where another process holds it, or waits for that one where ``busy`` is None; Transient where the
    folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    except OSError as error:
        raise Transient(f"The folder {path.parent} cannot be written: check its free space and rights.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if busy is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.close()
        raise busy or Transient(f"{path} is locked by another process: wait until that one ends.") from error
    return handle
