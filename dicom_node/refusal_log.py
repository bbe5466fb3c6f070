"""What the log says of callers that are refused: a scanner of the network fills it with one line a minute, not more."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

EVERY_S: Final = 60.0
"""An address has one line in so long."""
MOST_ADDRESSES: Final = 1000
"""So many are remembered; whoever comes beside them has no line before one of them is forgotten."""

logger = logging.getLogger(__name__)


@dataclass
class _Said:
    """When an address had its line, and how many refusals have come since."""

    at_s: float
    more: int = 0


class RefusalLog:
    """Logs the first refusal of an address at once and counts what follows; ``clock_s`` is monotonic."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._said: dict[str, _Said] = {}
        self._beside = 0
        self._lock = threading.Lock()

    def refused(self, address: str, words: str) -> None:
        """A caller was refused; ``words`` is a sentence that names the address."""
        self.flush()
        with self._lock:
            said = self._said.get(address)
            if said is not None:
                said.more += 1
                return
            if len(self._said) >= MOST_ADDRESSES:
                self._beside += 1
                return
            self._said[address] = _Said(self._clock_s())
        logger.warning("%s", words)

    def flush(self) -> None:
        """Say how many more came from each address whose minute is over, and forget it."""
        now_s = self._clock_s()
        with self._lock:
            over = {address: said for address, said in self._said.items() if now_s - said.at_s >= EVERY_S}
            for address, said in over.items():
                del self._said[address]
                if said.more:
                    self._said[address] = _Said(now_s)
            beside, self._beside = (self._beside, 0) if over else (0, self._beside)
        for address, said in over.items():
            if said.more:
                logger.warning("%d more callers from %s were refused in the last minute.", said.more, address)
        if beside:
            logger.warning("%d callers from still other addresses were refused.", beside)
