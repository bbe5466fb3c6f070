"""What every association has, whichever side asked for it: timeouts, the size of a PDU, the library's options."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pynetdicom
from pynetdicom import _config
from pynetdicom.association import Association

SUCCESS: Final = 0x0000
"""The DIMSE status of every service (PS3.7 annex C)."""
PROCESSING_FAILURE: Final = 0x0110
PENDING: Final = (0xFF00, 0xFF01)
"""More answers of a query or retrieval follow."""
MAXIMUM_PDU_BYTES: Final = 131072
"""Measured: 15 % faster than 16382; 0 (no limit) gains nothing more and takes the bound off a PDU's memory."""
KNOWN_LIBRARY: Final = "3.0."
"""How the version of a pynetdicom begins whose private parts are those that we replace."""
_REST_S: Final = 5.0
"""The reactor looks every millisecond; one that does not rest by then never will."""
_REST_POLL_S: Final = 0.0002


@dataclass(frozen=True)
class Timeouts:
    """How long an association waits, in seconds, and for what."""

    connection_s: float = 10.0
    """For the TCP connection to a peer."""
    negotiation_s: float = 30.0
    """For the peer's part of opening, releasing and aborting."""
    response_s: float = 60.0
    """For a peer's answer to a request."""
    idle_s: float = 60.0
    """For the next PDU of a peer that sends to us; then the association is aborted."""
    read_s: float = 20.0
    """For the next bytes inside a PDU; then the connection is closed."""


def is_known_library() -> bool:
    """Whether the pynetdicom that is installed is one whose private parts we know."""
    return pynetdicom.__version__.startswith(KNOWN_LIBRARY)


def connection_of(association: Association) -> socket.socket | None:
    """The TCP connection under the association, while it is open.

    Whoever keeps it closes it at the end: pynetdicom forgets to where the peer was faster to close.
    """
    transport = association.dul.socket
    return None if transport is None else transport.socket


def rest_reactor(association: Association) -> bool:
    """Wait until pynetdicom's reactor thread really rests, so that it cannot take the answer that we wait for.

    Returns whether it does: it may have ended, or this machine stood still for so long.
    Its own check looks at a flag that the reactor also raises while it runs on: on a busy machine the reactor then
    takes a response as an unexpected message and drops it, and the request ends in a timeout.
    """
    checkpoint = association._reactor_checkpoint
    checkpoint.clear()
    deadline = time.monotonic() + _REST_S
    while not checkpoint._cond._waiters and association.is_alive() and time.monotonic() < deadline:  # type: ignore[attr-defined]
        time.sleep(_REST_POLL_S)
    return bool(checkpoint._cond._waiters)  # type: ignore[attr-defined]


class RestingReactor:
    """pynetdicom's reactor thread at rest from one request to the next, instead of a turn between every two.

    What it alone looks at (a release or an abort by the peer) waits meanwhile: then ``rest`` gives it its turn. With a
    pynetdicom that is not known it has its turn between every two.
    """

    def __init__(self, association: Association) -> None:
        self._association = association
        self._held: threading.Event | None = None

    def rest(self) -> None:
        """Before a request: the reactor rests, and has seen what came before."""
        if self._held is not None and self._association.dul.to_user_queue.empty():
            return
        self.let_go()
        if not rest_reactor(self._association) or not is_known_library():
            return
        self._held = self._association._reactor_checkpoint
        self._association._reactor_checkpoint = threading.Event()  # which the library sets behind each request

    def let_go(self) -> None:
        """The reactor goes on."""
        if self._held is not None:
            self._association._reactor_checkpoint, self._held = self._held, None
            self._association._reactor_checkpoint.set()


@contextmanager
def resting_reactor(association: Association) -> Iterator[RestingReactor]:
    """The association's reactor, for several requests in a row; it goes on at the end."""
    reactor = RestingReactor(association)
    try:
        yield reactor
    finally:
        reactor.let_go()


def configure_library() -> None:
    """Set pynetdicom's process-wide options; called when a listener or client starts, never at import.

    No log handlers (they cost 2 to 5 % and print data sets at DEBUG), and what a query asks and finds is not logged:
    it names patients. Files are sent as they are, never re-encoded.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.STORE_SEND_CHUNKED_DATASET = True
