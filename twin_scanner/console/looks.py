"""Who looked at which job: one event for a person who reloads a page or moves through the slices, not one a request."""

import threading
import time
from collections.abc import Callable
from typing import Final

from fastapi import Request

ONE_LOOK_S: Final = 600.0
"""What a person sees of a job within it is one look."""
MOST_KEPT: Final = 10_000


class LookLog:
    """Notes a look before anything of the job is sent: where the note fails, nothing is sent."""

    def __init__(self, note: Callable[[str], None], monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._note = note
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._noted: dict[tuple[str, str], float] = {}

    def __call__(self, request: Request, job_id: str) -> None:
        """Whoever asks sees the job."""
        user = getattr(request.state, "user", None)
        look = (user.name if user is not None else "", job_id)
        now_s = self._monotonic_s()
        with self._lock:
            last_s = self._noted.get(look)
        if last_s is not None and now_s - last_s < ONE_LOOK_S:
            return
        self._note(job_id)
        with self._lock:
            self._noted.pop(look, None)
            self._noted[look] = now_s
            if len(self._noted) > MOST_KEPT:
                del self._noted[next(iter(self._noted))]
