"""How a run is asked to end: by SIGTERM and SIGINT, or by its executor; the loop looks at it between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from twin_scanner.executor.wanted import is_wanted

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
Stop = Callable[[], bool]


def never() -> bool:
    """Nobody asks."""
    return False


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """Whether one of the signals has come; the second one acts as it did before.

    Outside the main thread, where Python allows no handler, nothing is changed: whether the work is still wanted is
    asked there, of an executor that gives its threads work.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: not is_wanted()
        return
    asked = threading.Event()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
