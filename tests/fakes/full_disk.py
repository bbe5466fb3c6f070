"""A disk that takes no more: a limit on the size of files, which every write of this process meets, C libraries too."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ALMOST_NOTHING = 512
"""Bytes of a file that are still written."""


@contextmanager
def disk_that_fills(size_bytes: int = ALMOST_NOTHING) -> Iterator[Callable[[], None]]:
    """A function that fills the disk: from then on writes fail (EFBIG; Python ignores the signal) until the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def files_end_at(size_bytes: int) -> Iterator[None]:
    """A disk that is full from the start: no file grows beyond so many bytes."""
    with disk_that_fills(size_bytes) as fill:
        fill()
        yield
