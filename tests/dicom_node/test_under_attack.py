"""A receiver as a process of its own while others misuse it. Oracles: its memory, threads and files as Linux counts.

Meanwhile a real sender (dcmtk's storescu) has to be served at once.
"""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from tests.samples import instances, raw_peer
from tests.samples.loopback_node import eventually
from tests.samples.raw_peer import LAST_COMMAND, LAST_DATA, MORE_DATA, RawPeer, data_pdu, resident_mb, store_command

pytestmark = [pytest.mark.node, pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")]

MOST_MB: Final = 400
SERVED_S: Final = 2.0
BLOCK: Final = bytes(131_000)
GIGABYTE: Final = 2**30


@dataclass
class Receiver:
    """The process and how a real sender is served by it."""

    process_id: int
    port: int
    spool: Path
    storescu: str
    file: Path

    def serve_s(self) -> float:
        """How long storescu takes for one instance, the best of three: the machine may have other work."""
        command = [self.storescu, "-aec", "TWINSCANNER", "127.0.0.1", str(self.port), str(self.file)]
        times = []
        for _ in range(3):
            began_s = time.monotonic()
            subprocess.run(command, check=True, timeout=60, env={**os.environ, "TCP_NODELAY": "1"})
            times.append(time.monotonic() - began_s)
        return min(times)

    def count(self, what: str) -> int:
        """Its threads (task) or open files (fd)."""
        return sum(1 for _ in Path(f"/proc/{self.process_id}/{what}").iterdir())

    def kept(self) -> list[int]:
        """The sizes of what lies in the spool under a study."""
        return sorted(file.stat().st_size for file in self.spool.glob("[0-9]*/*/*.dcm"))


@pytest.fixture
def receiver(
    peer: Callable[[str], str], tmp_path: Path, project: Path, free_port: Callable[[], int]
) -> Iterator[Receiver]:
    storescu, port = peer("storescu"), free_port()
    file = instances.write(instances.instance(99, study_uid="1.9", series_uid="1.9.9"), tmp_path / "real.dcm")
    program = str(project / "tests" / "peers" / "receiver_process.py")
    process = subprocess.Popen(
        [sys.executable, program, str(tmp_path / "spool"), str(port)], stdout=subprocess.PIPE, cwd=project
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"listening\n"
        yield Receiver(process.pid, port, tmp_path / "spool", storescu, file)
    finally:
        process.kill()
        process.communicate()


def silent(port: int, count: int, beginning: bytes = b"") -> list[socket.socket]:
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    for connection in connections:
        connection.sendall(beginning)
    return connections


@pytest.mark.long
def test_dripping_half_open_and_idle_connections_hold_up_no_real_sender(receiver: Receiver) -> None:
    """70 that drip, 200 half-open and 64 idle ones: real senders waited for 26 and 51 s, or as long as was wanted."""
    request = raw_peer.association_request()
    idle = silent(receiver.port, 64)
    half_open = silent(receiver.port, 200, request[:3])
    dripping, stop = silent(receiver.port, 70, request[:20]), threading.Event()

    def drip() -> None:
        for place in range(20, len(request)):
            for connection in dripping:
                try:
                    connection.send(request[place : place + 1])
                except OSError:
                    continue
            if stop.wait(0.5):
                return

    dripper = threading.Thread(target=drip)
    dripper.start()
    try:
        assert receiver.serve_s() < SERVED_S
        assert resident_mb(receiver.process_id, "VmHWM") < MOST_MB
    finally:
        stop.set()
        dripper.join()
        for connection in (*idle, *half_open, *dripping):
            connection.close()
    assert eventually(lambda: receiver.count("task") < 10)


@pytest.mark.long
def test_lengths_that_only_claim_take_no_memory_and_hold_up_no_real_sender(receiver: Receiver) -> None:
    """1 GiB of a request, before any name was checked, and a data PDU of 300 MiB: it used to hold them whole."""
    taken = []
    for claimed, prepare in ((2**31 - 1, RawPeer), (300 * 2**20, lambda port: RawPeer(port).associate())):
        with prepare(receiver.port) as attacker:
            pdu_type = 0x01 if prepare is RawPeer else 0x04
            attacker.connection.sendall(raw_peer.pdu(pdu_type, b"", claimed=claimed))
            taken.append(attacker.pour(GIGABYTE))
            assert receiver.serve_s() < SERVED_S
    assert max(taken) < 32 * 2**20
    assert resident_mb(receiver.process_id, "VmHWM") < MOST_MB


def send_large(port: int, number: int, size: int, failures: list[str]) -> None:
    """One multi-frame object of so many bytes, whose pixels are zeros."""
    uid = f"1.2.3.1.{number}"
    header = instances.instance(number, pixels=b"")
    content = encoded(header)
    with RawPeer(port, timeout_s=300).associate() as peer:
        peer.connection.sendall(data_pdu(LAST_COMMAND, store_command(uid)))
        peer.connection.sendall(data_pdu(MORE_DATA, content + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<L", size)))
        left = size
        whole = data_pdu(MORE_DATA, BLOCK)
        while left > len(BLOCK):
            peer.connection.sendall(whole)
            left -= len(BLOCK)
        peer.connection.sendall(data_pdu(LAST_DATA, bytes(left)))
        status = peer.status()
        if status != 0:
            failures.append(f"{uid}: 0x{status:04X}")


def encoded(dataset: Dataset) -> bytes:
    del dataset.PixelData
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_dataset(stream, dataset)
    return stream.getvalue()


@pytest.mark.long
def test_64_senders_with_four_objects_of_500_mb_leave_the_memory_flat(receiver: Receiver) -> None:
    """One C-STORE of 1.5 GB used to take 2.3 GB of memory."""
    sizes = [500_000_000 if number < 4 else 500_000 for number in range(63)]
    failures: list[str] = []
    senders = [
        threading.Thread(target=send_large, args=(receiver.port, number, size, failures))
        for number, size in enumerate(sizes, start=1)
    ]
    for sender in senders:
        sender.start()
    served_s = receiver.serve_s()
    for sender in senders:
        sender.join()
    assert failures == []
    assert [size for size in receiver.kept() if size > 10**6] == pytest.approx([500_000_000] * 4, rel=1e-4)
    assert len(receiver.kept()) == len(sizes) + 1
    assert resident_mb(receiver.process_id, "VmHWM") < MOST_MB
    assert served_s < 10 * SERVED_S, "64 senders share the disk"


@pytest.mark.long
def test_500_probes_leave_no_thread_no_file_and_no_memory(receiver: Receiver) -> None:
    receiver.serve_s()
    assert eventually(lambda: receiver.count("task") <= 3)
    files, memory_mb = receiver.count("fd"), resident_mb(receiver.process_id)
    for number in range(500):
        with socket.create_connection(("127.0.0.1", receiver.port)) as probe:
            probe.sendall((b"", b"\x01", b"GET / HTTP/1.1\r\n\r\n", raw_peer.association_request()[:60])[number % 4])
    assert eventually(lambda: receiver.count("task") <= 3)
    assert eventually(lambda: receiver.count("fd") <= files)
    assert resident_mb(receiver.process_id) < memory_mb + 50
    receiver.serve_s()
