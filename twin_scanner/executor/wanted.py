"""Whether work is still wanted: what an executor that cannot end a process tells the work, which asks now and then."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_WANTED: ContextVar[Callable[[], bool]] = ContextVar("wanted", default=lambda: True)


def is_wanted() -> bool:
    """False where whoever asked for this thread's work has cancelled it, or other work goes before it."""
    return _WANTED.get()()


@contextmanager
def wanted_while(wanted: Callable[[], bool]) -> Iterator[None]:
    """Within the block ``is_wanted`` of this thread asks ``wanted``."""
    token = _WANTED.set(wanted)
    try:
        yield
    finally:
        _WANTED.reset(token)
