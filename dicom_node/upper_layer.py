"""pynetdicom's upper layer for what others send to us: bounded in length and in time, and awake at once.

pynetdicom reads as many bytes as a PDU claims, for as long as the peer drips them, and sleeps between two looks.
Here the length is checked before anything is read, a whole PDU has one deadline, and both threads of an association
wait for events. Replaced are private parts of pynetdicom: ``KNOWN_LIBRARY`` says of which releases.
"""

import queue
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

import pynetdicom
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.transport import AssociationSocket

from dicom_node.associations import Timeouts
from dicom_node.instance_header import PARSE_ERRORS
from dicom_node.messages import Begin, BrokenMessage, Messages
from dicom_node.pdu_limits import P_DATA, fault_of
from twin_scanner.errors import Misconfigured

KNOWN_LIBRARY: Final = "3.0."
"""How the version of a pynetdicom begins whose private parts are those replaced here."""
_HEADER: Final = struct.Struct(">BxL")
_LOOK_S: Final = 0.5
"""How often a thread looks up although nothing woke it: at timers, and at a neighbour that ended in an error."""
_NEARLY_ALL: Final = 0.9
"""Of a PDU's time: a PDU may be late by the rest of it at most."""
_ESTABLISHED: Final = "Sta6"
_CLOSING: Final = "Sta13"
"""The state in which only the end of the connection is waited for (PS3.8 9.2.1)."""
_OPENED: Final = "Evt5"
_CLOSED: Final = "Evt17"
_INVALID: Final = "Evt19"


class BoundedProvider(DULServiceProvider):
    """The thread that reads and writes an association's connection, accepted at ``accepted_s`` (monotonic)."""

    def __init__(
        self,
        association: Association,
        transport: AssociationSocket,
        timeouts: Timeouts,
        accepted_s: float,
        ended: Callable[[], None],
        refused: Callable[[str, str], None],
    ) -> None:
        super().__init__(association)
        self.socket = transport
        self._timeouts = timeouts
        self._ended = ended
        self._refused = refused
        self._request_deadline_s = accepted_s + timeouts.negotiation_s
        self._is_first = True
        self._buffer = bytearray()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._waker_lock = threading.Lock()
        self._run_loop_delay = 0.0
        self.event_queue = Waiting(self._wait)
        self.to_provider_queue = Telling(self.wake)

    @property
    def _messages(self) -> Messages:
        return cast(Messages, self.assoc.dimse)

    def wake(self) -> None:
        """Let the thread look up; from the thread itself there is no need."""
        if threading.current_thread() is self:
            return
        with self._waker_lock:
            if self._waker.fileno() >= 0:
                with suppress(BlockingIOError):
                    self._waker.send(b"\0")

    def run_reactor(self) -> None:
        """Run until the connection is closed, and give everything back."""
        try:
            super().run_reactor()
        except InvalidEventError:
            self._end()
        finally:
            self._messages.discard()
            self._ended()
            with self._waker_lock:
                self._waker.close()
                self._woken.close()

    def _end(self) -> None:
        """Both sides ended the association at once, one by abort and one by release: there is no state for that."""
        cast(AssociationSocket, self.socket).close()
        evt.trigger(self.assoc, evt.EVT_CONN_CLOSE, {"address": self.assoc.requestor.address_info})

    def kill_dul(self) -> None:
        """End the thread."""
        super().kill_dul()
        self.wake()

    def stop_dul(self) -> bool:
        """End the thread where the connection is closed, and say whether it has ended."""
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        self.join()
        return True

    def _wait(self) -> None:
        """Until the peer sends, our side has something to send, or a timer may have expired.

        While a message waits to be served, nothing more is read: a peer that sends without waiting for its answers
        fills its own buffers, not our memory.
        """
        connection = cast(AssociationSocket, self.socket).socket
        if not self.to_provider_queue.empty():
            return
        is_held = not self._messages.msg_queue.empty()
        if isinstance(connection, ssl.SSLSocket) and connection.pending() and not is_held:
            return
        poller = select.poll()
        poller.register(self._woken, select.POLLIN)
        if connection is not None and connection.fileno() >= 0 and not is_held:
            poller.register(connection, select.POLLIN)
        woken = self._woken.fileno()
        for descriptor, _ in poller.poll(1000 * min(_LOOK_S, max(0.0, self.artim_timer.remaining))):
            if descriptor == woken:
                self._woken.recv(4096)

    def _is_transport_event(self) -> bool:
        """Read what came, after all that was read before; what is to be closed is closed, whatever is still sent."""
        if not self.event_queue.empty():
            return False
        if self.state_machine.current_state == _CLOSING:
            cast(AssociationSocket, self.socket).close()
            return True
        if not self._messages.msg_queue.empty():
            return False
        return super()._is_transport_event()

    def _read_pdu_data(self) -> None:
        """Read what has come, PDU by PDU, until one of them or somebody else asks for more than to be kept.

        A sender's data comes faster than the library's loop goes round, and each turn of it is six system calls, at
        each of which this thread gives way to all others.
        """
        connection = cast(socket.socket, cast(AssociationSocket, self.socket).socket)
        self._read_pdu(connection)
        while self._may_read_on(connection):
            self._read_pdu(connection)

    def _may_read_on(self, connection: socket.socket) -> bool:
        """Whether there is nothing to do but to read, and more has come."""
        has_other_work = not (self.event_queue.empty() and self.to_provider_queue.empty())
        if has_other_work or self._kill_thread or not self._messages.msg_queue.empty():
            return False
        if connection.fileno() < 0:
            return False
        poller = select.poll()
        poller.register(connection, select.POLLIN)
        return bool(poller.poll(0))

    def _read_pdu(self, connection: socket.socket) -> None:
        """Read one PDU within its limits and put its event; whatever breaks them ends the association."""
        try:
            header = bytearray(_HEADER.size)
            deadline_s = self._request_deadline_s if self._is_first else time.monotonic() + self._timeouts.read_s
            if not self._read_into(connection, memoryview(header), deadline_s):
                self.event_queue.put(_CLOSED)
                return
            pdu_type, length = _HEADER.unpack(header)
            fault = fault_of(pdu_type, length, is_first=self._is_first)
            if fault is not None:
                self._refuse(fault)
                return
            if not self._read_body(connection, header, length, deadline_s):
                self.event_queue.put(_CLOSED)
        except OSError as error:
            reason = "a PDU was not whole in time" if isinstance(error, TimeoutError) else error.strerror
            self._log_refusal(f"was closed: {reason}.")
            self.event_queue.put(_CLOSED)

    def _read_body(self, connection: socket.socket, header: bytearray, length: int, deadline_s: float) -> bool:
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        body = memoryview(self._buffer)[:length]
        if not self._read_into(connection, body, deadline_s):
            return False
        self._is_first = False
        if header[0] == P_DATA and self.state_machine.current_state == _ESTABLISHED:
            self._deliver(body)
            return True
        try:
            pdu, event = self._decode_pdu(header + body)
        except PARSE_ERRORS:
            self._refuse("a PDU cannot be decoded")
            return True
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)
        return True

    def _read_into(self, connection: socket.socket, target: memoryview, deadline_s: float) -> bool:
        """Fill the target by the deadline; False where the peer closed before. Raises TimeoutError, OSError.

        The connection's own timeout is that of a PDU; setting it is a system call, left out while nearly all is left.
        """
        got, is_set = 0, False
        while got < len(target):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            if self._is_first or left_s < _NEARLY_ALL * self._timeouts.read_s:
                connection.settimeout(left_s)
                is_set = True
            count = connection.recv_into(target[got:])
            if count == 0:
                return False
            got += count
        if is_set:
            connection.settimeout(self._timeouts.read_s)
        return True

    def _deliver(self, body: memoryview) -> None:
        """The state stays as it is (PS3.8 table 9-10, DT-2), so the message is put together without its machine."""
        try:
            self._messages.receive(body)
        except BrokenMessage as error:
            self._refuse(str(error))

    def _refuse(self, fault: str) -> None:
        """Abort the association; what the peer sends after the fault is not read."""
        self._log_refusal(f"was ended: {fault}.")
        self.event_queue.put(_INVALID)

    def _log_refusal(self, what: str) -> None:
        address = self.assoc.requestor.address_info
        name = "somebody" if address is None else str(address.address)
        self._refused(name, f"The connection from {name} {what}")


class _Checkpoint(threading.Event):
    """Where an association's own thread stops between two looks: it goes on when there is something to look at."""

    def __init__(self, is_pending: Callable[[], bool]) -> None:
        super().__init__()
        super().set()
        self._is_pending = is_pending
        self._news = threading.Event()

    def tell(self) -> None:
        """Something came."""
        self._news.set()

    def set(self) -> None:
        """Let the thread go on where it was held."""
        super().set()
        self.tell()

    def wait(self, timeout: float | None = None) -> bool:
        """Until something came, and nobody holds the thread."""
        if not self._is_pending():
            self._news.wait(_LOOK_S)
        self._news.clear()
        return super().wait(timeout)


def take_over(
    association: Association,
    begin: Begin,
    timeouts: Timeouts,
    accepted_s: float,
    ended: Callable[[], None],
    refused: Callable[[str, str], None],
) -> None:
    """Give an association that pynetdicom has just made for a connection the parts of this module.

    ``begin`` opens the receipt of an instance; ``ended`` is called once, when nothing more is read or written;
    ``refused`` logs, once a minute per address, why a connection was ended: address and sentence.
    """
    transport = cast(AssociationSocket, association.dul.socket)
    provider = BoundedProvider(association, transport, timeouts, accepted_s, ended, refused)
    association.dul = provider
    association.acse_timeout = association.acse_timeout  # the provider's timers learn of it by the setters
    association.network_timeout = association.network_timeout
    messages = Messages(association, begin)
    association.dimse = messages
    checkpoint = _Checkpoint(lambda: not (messages.msg_queue.empty() and provider.to_user_queue.empty()))
    messages.msg_queue = _Handing(checkpoint.tell, provider.wake)
    provider.to_user_queue = Telling(checkpoint.tell)
    association._reactor_checkpoint = checkpoint
    provider.event_queue.put(_OPENED)


def check_library() -> None:
    """Raise Misconfigured where pynetdicom is another one than that whose parts are replaced here."""
    if not pynetdicom.__version__.startswith(KNOWN_LIBRARY):
        raise Misconfigured(
            f"pynetdicom {pynetdicom.__version__} is installed, {KNOWN_LIBRARY}x is needed: install the pinned version."
        )


class Waiting(queue.Queue[str]):
    """Events of the upper layer: whoever finds none waits until there may be one."""

    def __init__(self, wait: Callable[[], None]) -> None:
        super().__init__()
        self._wait = wait

    def get(self, block: bool = True, timeout: float | None = None) -> str:
        """The next event; queue.Empty where there is still none after the wait."""
        if self.empty():
            self._wait()
        return super().get(block=False)


class Telling(queue.Queue[Any]):
    """A queue that tells its reader what was put into it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put, and tell."""
        super().put(item, block, timeout)
        self._tell()


class _Handing(Telling):
    """A queue that tells its reader what was put into it, and its writer what was taken."""

    def __init__(self, tell: Callable[[], None], tell_taken: Callable[[], None]) -> None:
        super().__init__(tell)
        self._tell_taken = tell_taken

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take, and tell."""
        item = super().get(block, timeout)
        self._tell_taken()
        return item
