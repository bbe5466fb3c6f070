"""Live pages: one look at the ledger per second for all who watch, sent as server-sent events when it has changed."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from starlette.concurrency import run_in_threadpool

LOOK_S: Final = 1.0
QUIET_S: Final = 15.0
"""So often something is sent although nothing has changed: whoever has gone is noticed by it."""


class Live:
    """What is shown now; ``look`` costs a few queries and is never asked twice within a second."""

    def __init__(self, look: Callable[[], str], monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._seen, self._seen_s = "", float("-inf")

    def now(self) -> str:
        """What there is to see, at most a second old."""
        with self._lock:
            if self._monotonic_s() - self._seen_s >= LOOK_S:
                self._seen = self._look()
                self._seen_s = self._monotonic_s()
            return self._seen

    async def changes(self, is_gone: Callable[[], Awaitable[bool]]) -> AsyncIterator[str]:
        """What there is to see as an event, and again whenever it is another."""
        sent, sent_s = None, self._monotonic_s()
        while not await is_gone():
            seen = await run_in_threadpool(self.now)
            if seen != sent:
                sent, sent_s = seen, self._monotonic_s()
                yield f"data: {json.dumps({'html': seen})}\n\n"
            elif self._monotonic_s() - sent_s >= QUIET_S:
                sent_s = self._monotonic_s()
                yield ": nothing new\n\n"
            await asyncio.sleep(LOOK_S)
