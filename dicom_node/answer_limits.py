"""What a peer's answers to a query or a retrieval may cost: more is not even received, and the association ends."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf

from pynetdicom import evt
from pynetdicom.association import Association

from dicom_node.associations import connection_of


@dataclass(frozen=True)
class AnswerLimits:
    """Of one association, from the moment when it was established."""

    message_bytes: float
    """Of one answer, command and data set together."""
    received_bytes: float = inf
    """Of all of them."""
    seconds: float | None = None
    """From the first question to the last answer."""


@contextmanager
def limited(association: Association, limits: AnswerLimits) -> Iterator[None]:
    """Cut the connection where a peer sends more than it may, before that is received, or when the time is over.

    pynetdicom reads as many bytes as a PDU claims to have: its reading is replaced for this one association.
    """
    transport = association.dul.socket
    connection = connection_of(association)
    if transport is None or connection is None:
        yield
        return
    received = received_before_message = 0
    receive = transport.recv

    def receive_within_limits(count: int) -> bytearray:
        nonlocal received
        received += count
        if received > limits.received_bytes or received - received_before_message > limits.message_bytes:
            raise OSError("The peer sends more than it may.")
        return receive(count)

    def begin_next_message(_: evt.Event) -> None:
        """For EVT_DIMSE_RECV, which the thread that reads triggers as soon as it has a whole message."""
        nonlocal received_before_message
        received_before_message = received

    setattr(transport, "recv", receive_within_limits)  # noqa: B010  a method, replaced for this association alone
    association.bind(evt.EVT_DIMSE_RECV, begin_next_message)
    timer = None if limits.seconds is None else threading.Timer(limits.seconds, _cut, [connection])
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
