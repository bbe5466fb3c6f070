"""An association that we asked for, awake at once: its threads wait for what comes and do not sleep between two looks.

pynetdicom's thread looks every millisecond whether there is something to send or to read. Each C-STORE waits for that
twice, each answer to C-FIND once. Replaced are private parts of pynetdicom, in releases that ``associations`` knows.
"""

import select
import socket
import ssl
from contextlib import suppress
from typing import Final

from pynetdicom.association import Association

from dicom_node.associations import connection_of, is_known_library
from dicom_node.upper_layer import Telling, Waiting

_LOOK_MS: Final = 10
"""How often the thread looks up although nothing woke it: at timers, and whether it is to end."""


def keep_awake(association: Association) -> tuple[socket.socket, ...]:
    """Let the association's thread wait for its connection; to be called from that thread, once it has connected.

    Returns what is to be closed once the association has ended. A pynetdicom that is not known stays as it is.
    """
    if not is_known_library():
        return ()
    provider = association.dul
    waker, woken = socket.socketpair()
    waker.setblocking(False)

    def wake() -> None:
        with suppress(OSError):  # So much is waiting that nobody need be woken, or the association has ended.
            waker.send(b"\0")

    def wait() -> None:
        if provider.to_provider_queue.empty():
            _wait_for(connection_of(association), woken)

    asked, events = provider.to_provider_queue, provider.event_queue
    provider.to_provider_queue, provider.event_queue = Telling(wake), Waiting(wait)
    while not asked.empty():
        provider.to_provider_queue.put(asked.get())
    while not events.empty():
        provider.event_queue.put(events.get())
    provider._run_loop_delay = 0.0
    return waker, woken


def _wait_for(connection: socket.socket | None, woken: socket.socket) -> None:
    """Until something came over the connection, or was put into the queue of what is to be sent."""
    if isinstance(connection, ssl.SSLSocket) and connection.pending():
        return
    poller = select.poll()
    for one in (connection, woken):
        if one is not None and one.fileno() >= 0:
            poller.register(one, select.POLLIN)
    for descriptor, _ in poller.poll(_LOOK_MS):
        if descriptor == woken.fileno():
            woken.recv(4096)
