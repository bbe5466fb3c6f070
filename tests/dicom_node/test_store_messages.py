"""A C-STORE as our sender encodes it, and the answer as it reads it. The oracle is the library's own coding."""

from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.uid import UID
from pynetdicom.dimse_messages import C_ECHO_RSP, C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dsutils import split_dataset

from dicom_node.store_messages import StoreMessages
from tests.samples import instances, raw_peer

pytestmark = pytest.mark.unit


def _messages(maximum_pdu_bytes: int = 16382) -> tuple[StoreMessages, list[Any]]:
    """The provider of an association that keeps what is sent over it."""
    sent: list[Any] = []
    association: Any = SimpleNamespace(
        dul=SimpleNamespace(send_pdu=sent.append, event_queue=Queue()),
        is_requestor=True,
        dimse_timeout=None,
        acceptor=SimpleNamespace(maximum_length=maximum_pdu_bytes),
        get_handlers=lambda event: [],
    )
    return StoreMessages(association), sent


@pytest.mark.parametrize("pixel_bytes", [100, 16382, 16376 * 3, 100_000])
def test_a_request_is_sent_in_the_values_that_the_library_would_send(tmp_path: Path, pixel_bytes: int) -> None:
    file = instances.write(instances.instance(1, pixels=bytes(pixel_bytes)), tmp_path / "a.dcm")
    request = C_STORE()
    request.MessageID, request.Priority = 513, 0
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UID(raw_peer.CT_IMAGE), UID("1.2.3.45")
    request._dataset_path = (file, split_dataset(file)[1])
    library = C_STORE_RQ()
    library.primitive_to_message(request)
    expected = [(cx, bytes(value)) for data in library.encode_msg(3, 16382) for cx, value in _values(data)]
    messages, sent = _messages()
    messages.send_msg(request, 3)
    assert [(cx, bytes(value)) for data in sent for cx, value in _values(data)] == expected


@pytest.mark.parametrize(("status", "comment"), [(0x0000, None), (0xB000, "Coerced."), (0xA700, "No room. ")])
def test_an_answer_is_read_as_the_library_would_read_it(status: int, comment: str | None) -> None:
    answer = C_STORE()
    answer.MessageIDBeingRespondedTo = 513
    answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID = UID(raw_peer.CT_IMAGE), UID("1.2.3.45")
    answer.Status, answer.ErrorComment = status, comment  # type: ignore[assignment]
    encoded = C_STORE_RSP()
    encoded.primitive_to_message(answer)
    messages, _ = _messages()
    for data in encoded.encode_msg(5, 16382):
        messages.receive_primitive(data)
    context_id, read = messages.get_msg()
    assert isinstance(read, C_STORE) and context_id == 5 and read.is_valid_response
    read_comment = None if read.ErrorComment is None else str(read.ErrorComment)
    expected_comment = None if comment is None else comment.rstrip()
    assert (read.MessageIDBeingRespondedTo, read.Status, read_comment) == (513, status, expected_comment)


def test_what_is_no_answer_to_a_store_is_left_to_the_library() -> None:
    answer = C_ECHO()
    answer.MessageIDBeingRespondedTo, answer.Status = 7, 0x0000
    encoded = C_ECHO_RSP()
    encoded.primitive_to_message(answer)
    messages, _ = _messages()
    for data in encoded.encode_msg(1, 16382):
        messages.receive_primitive(data)
    context_id, read = messages.get_msg()
    assert isinstance(read, C_ECHO) and (context_id, read.MessageIDBeingRespondedTo, read.Status) == (1, 7, 0x0000)


def _values(data: Any) -> list[tuple[int, bytes]]:
    return list(data.presentation_data_value_list)
