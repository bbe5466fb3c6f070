"""Sends what the ledger has noted to the audit repository from a cursor in the ledger: late or twice, never not."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from twin_scanner.errors import Transient
from twin_scanner.service.ledger import Event, Ledger

LOG = logging.getLogger("twin_scanner.console.audit")
AT_ONCE: Final = 200
"""Events per connection."""
BATCHES: Final = 20
"""Connections per run, so that a stop is not waited for."""


def forward(ledger: Ledger, send: Callable[[Sequence[Event]], None]) -> bool:
    """Send what this node has noted since last time; whether all of it has gone.

    Raises Transient where the repository does not take it: the cursor stays, and the work of the scanner goes on.
    """
    for _ in range(BATCHES):
        events = ledger.events.unsent(AT_ONCE)
        if not events:
            return True
        send(events)
        ledger.events.sent(events[-1])
    return False


class Forwarding:
    """The periodic task: it logs when the repository goes away and when it is back, not each try between."""

    def __init__(self, ledger: Ledger, send: Callable[[Sequence[Event]], None]) -> None:
        self._ledger = ledger
        self._send = send
        self._is_down = False

    def __call__(self) -> None:
        """One run."""
        try:
            forward(self._ledger, self._send)
        except Transient as error:
            if not self._is_down:
                LOG.warning("Audit messages wait in the ledger.", extra={"reason": str(error)})
            self._is_down = True
            return
        if self._is_down:
            LOG.info("Audit messages are sent again.")
        self._is_down = False
