"""How a run is asked to end: SIGTERM and SIGINT raise a flag, which the loop looks at between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
Stop = Callable[[], bool]


def never() -> bool:
    """Nobody asks."""
    return False


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """Whether one of the signals has come; the second one acts as it did before.

    Outside the main thread, where Python allows no handler, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield never
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
