"""A process without a umask: what it creates has exactly the rights that the program gives."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def open_umask() -> Iterator[None]:
    """Within the block nothing is taken from the rights of new files and folders."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)
