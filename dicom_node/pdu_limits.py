"""How long a PDU may be (PS3.8 9.3), by its type and its place on the connection; pure, knows no socket."""

from typing import Final

from dicom_node.associations import MAXIMUM_PDU_BYTES

ASSOCIATE_REQUEST: Final = 0x01
P_DATA: Final = 0x04
MAXIMUM_REQUEST_BYTES: Final = 131072
"""Of an A-ASSOCIATE-RQ: 128 presentation contexts with 20 transfer syntaxes each fit; senders in use need a tenth."""
_PDV_HEADER_BYTES: Final = 6
"""Some senders count the data value's header (PS3.8 9.3.5.1) beside the maximum that was announced, not in it."""
_LENGTHS: Final = {
    ASSOCIATE_REQUEST: MAXIMUM_REQUEST_BYTES,
    P_DATA: MAXIMUM_PDU_BYTES + _PDV_HEADER_BYTES,
    0x05: 4,  # A-RELEASE-RQ
    0x06: 4,  # A-RELEASE-RP
    0x07: 4,  # A-ABORT
}
"""What an acceptor may be sent, and how many bytes may follow the first six."""


def fault_of(pdu_type: int, length: int, *, is_first: bool) -> str | None:
    """Why a PDU that says it has so many bytes is not read, in words; None where it is."""
    if is_first and pdu_type != ASSOCIATE_REQUEST:
        return f"its first PDU is of type 0x{pdu_type:02X}, no association request"
    most = _LENGTHS.get(pdu_type)
    if most is None:
        return f"a PDU of type 0x{pdu_type:02X} is none that we take"
    if length > most:
        return f"a PDU of type 0x{pdu_type:02X} claims {length} bytes, {most} are allowed"
    return None
