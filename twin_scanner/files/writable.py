"""Whether a folder can be written, asked before the work; and what is wrong, in one sentence, where it cannot."""

import errno
import os
import tempfile
from pathlib import Path
from typing import Final

from twin_scanner.errors import Rejected, Transient, TwinScannerError

PROBE_BYTES: Final = 2**20
"""Written and synced to see that the disk takes it: enough to meet a full disk, a quota or a limit on file sizes."""
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def check_writable(folder: Path) -> None:
    """Raise where ``folder`` cannot be made or written; nothing stays, not even a folder.

    Raises Rejected where another folder must be chosen or a right given (a file in the way, no permission, a read-only
    file system), Transient where the disk is full or fails.
    """
    try:
        standing = _nearest(folder)
        if not standing.is_dir():
            raise Rejected(f"{standing} is no folder, so nothing can be written into it: choose another folder.")
        with tempfile.TemporaryFile(dir=standing, buffering=0) as probe:
            content = memoryview(bytes(PROBE_BYTES))
            while content:
                content = content[probe.write(content) :]
            os.fsync(probe.fileno())
    except OSError as error:
        raise disk_fault(folder, error) from error


def disk_fault(path: Path, error: OSError) -> TwinScannerError:
    """What an error of the disk means for whoever wants ``path`` written, as one sentence that says what to do."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return Rejected(f"{path} cannot be written: the user who runs this has no permission; choose another folder.")
    if error.errno == errno.EROFS:
        return Rejected(f"{path} is on a read-only file system: choose another folder.")
    if error.errno == errno.ENAMETOOLONG:
        return Rejected(f"{path} cannot be written ({error.strerror}): choose a shorter name.")
    if error.errno in FULL:
        return Transient(f"{path} cannot be written: the disk is full; free some space, or choose another disk.")
    return Transient(f"{path} cannot be written ({error.strerror}): check the disk, then try again.")


def _nearest(folder: Path) -> Path:
    """The folder itself where it is there, else what is there of its parents; a broken link counts as there."""
    try:
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return _nearest(folder.absolute().parent)
    return folder
