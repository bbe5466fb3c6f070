"""The DIMSE messages of an association over which we store: a C-STORE request and its answer in a tenth of the time.

pynetdicom makes a data set of each command set and encodes it element by element, in both directions; for a small
instance that is most of its time. Every other message is left to pynetdicom.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE, DimsePrimitiveType
from pynetdicom.pdu_primitives import P_DATA

from dicom_node.associations import MAXIMUM_PDU_BYTES
from dicom_node.messages import BrokenMessage, store_answer, store_command

_COMMAND_ALONE: Final = b"\x03"
"""The control header of a value that is a whole command set, of one that is part of a data set, and of its last part
(PS3.8 E.2)."""
_PART: Final = b"\x00"
_LAST_PART: Final = b"\x02"
_VALUE_HEADER_BYTES: Final = 6


class StoreMessages(DIMSEServiceProvider):
    """The DIMSE provider of an association that we asked for to store files as they are."""

    def send_msg(self, primitive: DimsePrimitiveType, context_id: int) -> None:
        """Send a message; of a C-STORE request whose data set lies in a file, nothing is decoded or copied twice."""
        file = primitive._dataset_path if isinstance(primitive, C_STORE) else None
        if not isinstance(primitive, C_STORE) or not isinstance(file, tuple):
            super().send_msg(primitive, context_id)
            return
        self._send(context_id, _COMMAND_ALONE + store_command(primitive))
        for value in self._values(*file):
            self._send(context_id, value)

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take what the peer has sent: an answer to C-STORE is put together here."""
        answer = None if self.message is not None else _answer_in(primitive)
        if answer is None:
            super().receive_primitive(primitive)
        else:
            self.msg_queue.put(answer)

    def _send(self, context_id: int, value: bytes) -> None:
        data = P_DATA()
        data.presentation_data_value_list.append((context_id, value))
        self.dul.send_pdu(data)

    def _values(self, file: Path, start: int) -> Iterator[bytes]:
        """The data set in parts that the peer takes, each with its control header."""
        most = (self.maximum_pdu_size or MAXIMUM_PDU_BYTES) - _VALUE_HEADER_BYTES
        with file.open("rb") as stream:
            stream.seek(start)
            part = stream.read(most)
            while part:
                following = stream.read(most)
                yield (_PART if following else _LAST_PART) + part
                part = following


def _answer_in(primitive: P_DATA) -> tuple[int, C_STORE] | None:
    """The presentation context and the C-STORE response that is all of these values; None where they are not."""
    if len(primitive.presentation_data_value_list) != 1:
        return None
    context_id, value = primitive.presentation_data_value_list[0]
    if bytes(value[:1]) != _COMMAND_ALONE:
        return None
    try:
        answer = store_answer(bytes(value[1:]))
    except BrokenMessage:
        return None
    return None if answer is None else (context_id, answer)
