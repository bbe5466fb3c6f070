"""DIMSE messages put together from what comes in P-DATA; the data set of a C-STORE never lies in memory whole.

Replaces pynetdicom's assembly, which keeps it all and leaves a request without a valid UID unanswered.
"""

import logging
import queue
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Final, cast

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE, DimsePrimitiveType
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass

from dicom_node.instance_header import PARSE_ERRORS
from dicom_node.receipt import Receipt
from dicom_node.refusal import INVALID_SOP_INSTANCE, SOP_CLASS_NOT_SUPPORTED
from dicom_node.spool import is_file_name_uid

MAXIMUM_COMMAND_BYTES: Final = 65536
"""Of a command set: the longest that PS3.7 knows has a tenth of it, a UID list apart."""
MAXIMUM_IN_MEMORY_BYTES: Final = 2**21
"""Of the data set of any other message than C-STORE: a report on the commitment of 10,000 instances fits."""
_VALUE_HEADER: Final = struct.Struct(">LBB")
_ELEMENT_HEADER: Final = struct.Struct("<HHL")
_COMMAND: Final = 0x01
_LAST: Final = 0x02
_US: Final = struct.Struct("<H")
_C_STORE_REQUEST: Final = 0x0001
_C_STORE_RESPONSE: Final = 0x8001
_NO_DATA_SET: Final = 0x0101
_A_DATA_SET: Final = 0x0001

logger = logging.getLogger(__name__)


class BrokenMessage(ValueError):
    """What came is no DIMSE message, or breaks a limit; the association cannot go on."""


@dataclass(frozen=True)
class StoreRequest:
    """The command set of a C-STORE-RQ (PS3.7 9.3.1.1), as far as we need it, and where it came."""

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data_set: bool


Begin = Callable[[Association, StoreRequest], Receipt]
"""Opens the receipt of an instance that was announced."""


class Messages(DIMSEServiceProvider):
    """The DIMSE provider of an association that others asked for; ``receive`` is called by its reading thread only."""

    def __init__(self, association: Association, begin: Begin) -> None:
        super().__init__(association)
        self._begin = begin
        self._command = b""
        self._data_bytes = 0
        self._store: tuple[StoreRequest, Receipt] | None = None

    def receive(self, body: memoryview) -> None:
        """Take what follows the first six bytes of a P-DATA-TF; raises BrokenMessage."""
        try:
            for context_id, control, value in data_values(body):
                if control & _COMMAND:
                    self._receive_command(context_id, control, value)
                elif self._store is not None:
                    self._receive_instance(control, value)
                else:
                    self._receive_data(context_id, control, value)
        except PARSE_ERRORS as error:
            raise BrokenMessage(str(error) if isinstance(error, BrokenMessage) else "it is no DIMSE message") from error

    def send_msg(self, primitive: DimsePrimitiveType, context_id: int) -> None:
        """Send a message; the answer to a C-STORE is encoded here, in a tenth of the time that pynetdicom takes."""
        if not isinstance(primitive, C_STORE) or primitive.MessageIDBeingRespondedTo is None:
            super().send_msg(primitive, context_id)
            return
        data = P_DATA()
        data.presentation_data_value_list.append((context_id, bytes([_COMMAND | _LAST]) + store_response(primitive)))
        self.dul.send_pdu(data)

    def discard(self) -> None:
        """Remove what is left of instances that nobody will answer; called when the connection is closed."""
        if self._store is not None:
            self._store[1].close()
        left = []
        while True:
            try:
                left.append(self.msg_queue.get_nowait())
            except queue.Empty:
                break
        for item in left:
            receipt = receipt_of(item[1])
            if receipt is None:
                self.msg_queue.put(item)
            else:
                receipt.close()

    def _receive_command(self, context_id: int, control: int, value: memoryview) -> None:
        self._command += value
        if len(self._command) > MAXIMUM_COMMAND_BYTES or self._store is not None or self._data_bytes:
            raise BrokenMessage("its message is longer than any that we take")
        if not control & _LAST:
            return
        command, self._command = self._command, b""
        if context_id not in self.assoc._accepted_cx:
            raise BrokenMessage("its message has a presentation context that was not accepted")
        request = store_request(context_id, command)
        if request is None:
            self._pass_on(context_id, control, command)
        elif request.has_data_set:
            self._store = (request, self._begin(self.assoc, request))
        else:
            self._complete(request, None)

    def _receive_instance(self, control: int, value: memoryview) -> None:
        request, receipt = cast(tuple[StoreRequest, Receipt], self._store)
        receipt.write(value)
        if control & _LAST:
            self._store = None
            self._complete(request, receipt)

    def _receive_data(self, context_id: int, control: int, value: memoryview) -> None:
        """The data set of another message, which is small, or of none."""
        self._data_bytes += len(value)
        if not self._is_open() or self._data_bytes > MAXIMUM_IN_MEMORY_BYTES:
            raise BrokenMessage("its message is longer than any that we take")
        self._pass_on(context_id, control, bytes(value))
        if not self._is_open():
            self._data_bytes = 0

    def _is_open(self) -> bool:
        return self.message is not None

    def _pass_on(self, context_id: int, control: int, value: bytes) -> None:
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context_id, bytes([control]) + value))
        self.receive_primitive(primitive)

    def _complete(self, announced: StoreRequest, receipt: Receipt | None) -> None:
        """Hand the request to pynetdicom's service; it ignores one without a UID, so that one is answered here."""
        context = self.assoc._accepted_cx[announced.context_id]
        if not is_file_name_uid(announced.sop_instance_uid):
            self._answer(announced, receipt, INVALID_SOP_INSTANCE)
        elif announced.sop_class_uid != context.abstract_syntax:
            self._answer(announced, receipt, SOP_CLASS_NOT_SUPPORTED)
        else:
            request = C_STORE()
            request.MessageID = announced.message_id
            request.AffectedSOPClassUID = announced.sop_class_uid
            request.AffectedSOPInstanceUID = announced.sop_instance_uid
            request.Priority = 0
            request.DataSet = BytesIO()
            request._context_id = announced.context_id
            request._dataset_file = receipt  # type: ignore[assignment]  # pynetdicom's place for a data set in a file
            self._serve(request, context)

    def _serve(self, request: C_STORE, context: PresentationContext) -> None:
        """Serve it in this thread: a hand-over to the association's own and back costs two waits for the processor.

        A request that is here before that thread has entered the association in its books is left to it.
        """
        if self.assoc.is_established:
            StorageServiceClass(self.assoc).SCP(request, context)
        else:
            self.msg_queue.put((cast(int, context.context_id), request))

    def _answer(self, request: StoreRequest, receipt: Receipt | None, status: int) -> None:
        if receipt is not None:
            receipt.close()
        logger.warning("A C-STORE from %r was refused with 0x%04X.", self.assoc.requestor.ae_title, status)
        answer = C_STORE()
        answer.MessageIDBeingRespondedTo = request.message_id
        answer.Status = status
        self.send_msg(answer, request.context_id)


def store_request(context_id: int, command: bytes) -> StoreRequest | None:
    """The C-STORE-RQ that a command set is (implicit VR little endian, PS3.7 6.3.1); None where it is another one.

    Raises BrokenMessage where it is none, or lacks the number that an answer must name.
    """
    elements = _elements_of(command)
    field, data_set, number = (_number(elements, element) for element in (0x0100, 0x0800, 0x0110))
    if field is None or data_set is None:
        raise BrokenMessage("its command set does not say what it is")
    if field != _C_STORE_REQUEST:
        return None
    if number is None:
        raise BrokenMessage("its request has no number")
    sop_class_uid, sop_instance_uid = (
        elements.get(element, b"").decode("latin-1").rstrip(" \0") for element in (0x0002, 0x1000)
    )
    return StoreRequest(context_id, number, sop_class_uid, sop_instance_uid, data_set != _NO_DATA_SET)


def store_response(answer: C_STORE) -> bytes:
    """The command set of a C-STORE-RSP (PS3.7 9.3.1.2)."""
    elements = [
        (0x0002, _padded(answer.AffectedSOPClassUID, b"\0")),
        (0x0100, _US.pack(_C_STORE_RESPONSE)),
        (0x0120, _US.pack(answer.MessageIDBeingRespondedTo)),
        (0x0800, _US.pack(_NO_DATA_SET)),
        (0x0900, _US.pack(answer.Status)),
        (0x0902, _padded(answer.ErrorComment, b" ")),
        (0x1000, _padded(answer.AffectedSOPInstanceUID, b"\0")),
    ]
    return _command_set(elements)


def store_command(request: C_STORE) -> bytes:
    """The command set of a C-STORE-RQ with a data set (PS3.7 9.3.1.1)."""
    elements = [
        (0x0002, _padded(request.AffectedSOPClassUID, b"\0")),
        (0x0100, _US.pack(_C_STORE_REQUEST)),
        (0x0110, _US.pack(request.MessageID)),
        (0x0700, _US.pack(request.Priority)),
        (0x0800, _US.pack(_A_DATA_SET)),
        (0x1000, _padded(request.AffectedSOPInstanceUID, b"\0")),
    ]
    return _command_set(elements)


def store_answer(command: bytes) -> C_STORE | None:
    """The C-STORE-RSP that a command set is, None where it is another message; raises BrokenMessage."""
    elements = _elements_of(command)
    field, data_set, number, status = (_number(elements, element) for element in (0x0100, 0x0800, 0x0120, 0x0900))
    if field != _C_STORE_RESPONSE or data_set != _NO_DATA_SET or number is None or status is None:
        return None
    answer = C_STORE()
    answer.MessageIDBeingRespondedTo, answer.Status = number, status
    comment = elements.get(0x0902, b"").decode("latin-1").rstrip(" \0")
    answer.ErrorComment = comment or None  # type: ignore[assignment]
    return answer


def _command_set(elements: Iterable[tuple[int, bytes]]) -> bytes:
    """Elements that have a value, in implicit VR little endian, behind their group's length (PS3.7 6.3.1)."""
    body = b"".join(_ELEMENT_HEADER.pack(0, tag, len(value)) + value for tag, value in elements if value)
    return _ELEMENT_HEADER.pack(0, 0, 4) + struct.pack("<L", len(body)) + body


def _elements_of(command: bytes) -> dict[int, bytes]:
    """The values of a command set by element number; raises BrokenMessage."""
    elements: dict[int, bytes] = {}
    place = 0
    while place < len(command):
        if len(command) - place < _ELEMENT_HEADER.size:
            raise BrokenMessage("its command set ends within an element")
        group, element, length = _ELEMENT_HEADER.unpack_from(command, place)
        place += _ELEMENT_HEADER.size
        if group != 0 or place + length > len(command):
            raise BrokenMessage("its command set is none")
        elements[element] = command[place : place + length]
        place += length
    return elements


def _padded(text: str | None, padding: bytes) -> bytes:
    value = (text or "").encode("ascii", "replace")
    return value + padding * (len(value) % 2)


def _number(elements: dict[int, bytes], element: int) -> int | None:
    value = elements.get(element, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None


def receipt_of(request: object) -> Receipt | None:
    """Where the data set of a C-STORE lies; None of another message, and of a request that came without one."""
    return cast(Receipt | None, request._dataset_file) if isinstance(request, C_STORE) else None


def data_values(body: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Presentation context, control header and content of each value (PS3.8 9.3.5.1, E.2); raises BrokenMessage."""
    place = 0
    while place < len(body):
        if len(body) - place < _VALUE_HEADER.size:
            raise BrokenMessage("a presentation data value has no header")
        length, context_id, control = _VALUE_HEADER.unpack_from(body, place)
        end = place + 4 + length
        if length < 2 or end > len(body):
            raise BrokenMessage("a presentation data value is not as long as it says")
        yield context_id, control, body[place + _VALUE_HEADER.size : end]
        place = end
