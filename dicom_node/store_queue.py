"""What is still to be sent: instances by their place, taken by the associations that store them side by side."""

import heapq
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StoreQueue:
    """The places 0 to ``count`` - 1, each taken once and in this order, unless an association gives one back.

    Those below ``shared`` are for all associations, until the first one settles; what is left then, and the others, are
    for that one alone. ``check_stop`` is asked before a place is taken; once it says True nothing is taken any more.
    """

    def __init__(self, count: int, shared: int, check_stop: Callable[[], bool]) -> None:
        self._waiting = list(range(count))
        self._shared = shared
        self._check_stop = check_stop
        self._under_way = 0
        self._changed = threading.Condition()
        self._ended = False
        self.stopped = False
        """Whether ``check_stop`` has said so."""

    def take(self, *, shared: bool) -> int | None:
        """The next place, of those for all where ``shared``; None where there is none, or the sending has ended."""
        with self._changed:
            if self._ended or not self._waiting or (shared and self._waiting[0] >= self._shared):
                return None
            if self._check_stop():
                self._ended = self.stopped = True
                return None
            self._under_way += 1
            return heapq.heappop(self._waiting)

    def give_back(self, place: int) -> None:
        """Another association is to send what was taken."""
        with self._changed:
            heapq.heappush(self._waiting, place)

    def end(self) -> None:
        """Nothing is taken any more."""
        with self._changed:
            self._ended = True

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around the work on a place that was taken; an error of it ends the sending."""
        is_done = False
        try:
            yield
            is_done = True
        finally:
            with self._changed:
                self._ended = self._ended or not is_done
                self._under_way -= 1
                self._changed.notify_all()

    def settle(self) -> None:
        """Share nothing any more, and wait until nothing is under way: all work ends by a timeout of its own."""
        with self._changed:
            self._shared = 0
            self._changed.wait_for(lambda: self._under_way == 0)
