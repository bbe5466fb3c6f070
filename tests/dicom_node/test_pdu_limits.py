"""The lengths that a PDU may claim. Oracle: PS3.8 9.3, whose fixed PDUs have 4 bytes behind their length."""

import pytest

from dicom_node.associations import MAXIMUM_PDU_BYTES
from dicom_node.pdu_limits import MAXIMUM_REQUEST_BYTES, fault_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("pdu_type", "most"),
    [(0x01, MAXIMUM_REQUEST_BYTES), (0x04, MAXIMUM_PDU_BYTES + 6), (0x05, 4), (0x06, 4), (0x07, 4)],
)
def test_a_pdu_of_its_longest_length_is_read_and_one_of_a_byte_more_is_not(pdu_type: int, most: int) -> None:
    assert fault_of(pdu_type, most, is_first=False) is None
    assert fault_of(pdu_type, most + 1, is_first=False) == (
        f"a PDU of type 0x{pdu_type:02X} claims {most + 1} bytes, {most} are allowed"
    )


@pytest.mark.parametrize("pdu_type", [0x00, 0x02, 0x03, 0x08, 0x47, 0xFF])
def test_what_no_requestor_sends_is_not_read(pdu_type: int) -> None:
    assert fault_of(pdu_type, 4, is_first=False) == f"a PDU of type 0x{pdu_type:02X} is none that we take"


@pytest.mark.parametrize("pdu_type", [0x04, 0x05, 0x07, 0x16])
def test_nothing_but_an_association_request_may_come_first(pdu_type: int) -> None:
    assert fault_of(0x01, 200, is_first=True) is None
    assert "no association request" in (fault_of(pdu_type, 4, is_first=True) or "")
