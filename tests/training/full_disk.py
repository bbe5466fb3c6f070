"""A disk that fills up: a limit on the size of files, which every write of this process meets, C libraries too."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ALMOST_NOTHING = 512
"""Bytes of a file that are still written."""


@contextmanager
def disk_that_fills() -> Iterator[Callable[[], None]]:
    """A function that fills the disk: from then on writes fail (EFBIG; Python ignores the signal) until the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (ALMOST_NOTHING, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
