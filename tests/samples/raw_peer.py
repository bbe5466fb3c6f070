"""A DICOM peer that writes its bytes itself (PS3.8 9.3, PS3.7 6.3), and so may break every rule."""

import socket
import struct
from pathlib import Path
from typing import Final

CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
CONTEXT: Final = 1
LAST_COMMAND: Final = 0x03
MORE_DATA: Final = 0x00
LAST_DATA: Final = 0x02
C_STORE: Final = 0x0001
NO_DATA_SET: Final = 0x0101


def pdu(pdu_type: int, body: bytes, *, claimed: int | None = None) -> bytes:
    """A PDU, which may claim another length than it has."""
    return struct.pack(">BxL", pdu_type, len(body) if claimed is None else claimed) + body


def _item(item_type: int, value: bytes) -> bytes:
    return struct.pack(">BxH", item_type, len(value)) + value


def association_request(
    called: str = "TWINSCANNER", calling: str = "PACS", abstract_syntax: str = CT_IMAGE, transfer_syntax: str = EXPLICIT
) -> bytes:
    """A whole A-ASSOCIATE-RQ with one presentation context."""
    context = bytes([CONTEXT, 0, 0, 0]) + _item(0x30, abstract_syntax.encode()) + _item(0x40, transfer_syntax.encode())
    user = _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"1.2.3.4")
    titles = called.ljust(16).encode() + calling.ljust(16).encode()
    items = _item(0x10, b"1.2.840.10008.3.1.1.1") + _item(0x20, context) + _item(0x50, user)
    return pdu(0x01, struct.pack(">Hxx", 1) + titles + bytes(32) + items)


def data_pdu(control: int, content: bytes) -> bytes:
    """A P-DATA-TF with one presentation data value."""
    return pdu(0x04, struct.pack(">LBB", len(content) + 2, CONTEXT, control) + content)


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, element, len(value)) + value


def _uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def store_command(sop_instance_uid: str, sop_class_uid: str = CT_IMAGE, *, data_set: int = 1, number: int = 7) -> bytes:
    """The command set of a C-STORE-RQ."""
    elements = (
        _element(0x0002, _uid(sop_class_uid))
        + _element(0x0100, struct.pack("<H", C_STORE))
        + _element(0x0110, struct.pack("<H", number))
        + _element(0x0700, struct.pack("<H", 0))
        + _element(0x0800, struct.pack("<H", data_set))
        + _element(0x1000, _uid(sop_instance_uid))
    )
    return _element(0x0000, struct.pack("<L", len(elements))) + elements


def store_pdus(sop_instance_uid: str, data_set: bytes, size: int = 16000) -> list[bytes]:
    """The PDUs of a whole C-STORE."""
    parts = [data_set[start : start + size] for start in range(0, len(data_set), size)]
    command = data_pdu(LAST_COMMAND, store_command(sop_instance_uid))
    return [command, *(data_pdu(MORE_DATA, part) for part in parts[:-1]), data_pdu(LAST_DATA, parts[-1])]


class RawPeer:
    """A connection to a node; closed at the end of a ``with`` block."""

    def __init__(self, port: int, timeout_s: float = 60.0) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "RawPeer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.close()

    def associate(self, **options: str) -> "RawPeer":
        """Ask for an association; it must be accepted."""
        self.connection.sendall(association_request(**options))
        answer, _ = self.read()
        assert answer == 0x02, f"the node answered the request with a PDU of type {answer}"
        return self

    def read(self) -> tuple[int, bytes]:
        """The next PDU: its type and what follows its first six bytes; type 0 where the node closed the connection."""
        try:
            header = self._read(6)
            return (0, b"") if len(header) < 6 else (header[0], self._read(int.from_bytes(header[2:], "big")))
        except ConnectionError:
            return 0, b""

    def status(self) -> int:
        """The status of the next response."""
        kind, body = self.read()
        assert kind == 0x04, f"the node answered with a PDU of type {kind}"
        command, place = body[6:], 0
        while place < len(command):
            element, length = struct.unpack_from("<xxHL", command, place)
            if element == 0x0900:
                return int.from_bytes(command[place + 8 : place + 10], "little")
            place += 8 + length
        raise AssertionError("the answer has no status")

    def store(self, sop_instance_uid: str, data_set: bytes) -> int:
        """Send an instance, and give back the status."""
        self.connection.sendall(b"".join(store_pdus(sop_instance_uid, data_set)))
        return self.status()

    def pour(self, limit: int, block: bytes = bytes(65536)) -> int:
        """Send bytes until the node has enough of it or the limit is reached: how many it took."""
        sent = 0
        try:
            while sent < limit:
                sent += self.connection.send(block)
        except (ConnectionError, TimeoutError):
            return sent
        return sent

    def is_ended(self, within_s: float) -> bool:
        """Whether the node ends the connection in time, after whatever it still says."""
        self.connection.settimeout(within_s)
        try:
            while self.connection.recv(4096):
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    def _read(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            part = self.connection.recv(count - len(content))
            if not part:
                break
            content += part
        return content


def resident_mb(process_id: int, field: str = "VmRSS") -> float:
    """Memory of a process in MB: now (VmRSS), or the most it ever had (VmHWM)."""
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {process_id} has no {field}")
