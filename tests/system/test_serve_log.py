"""The log of a real `twin-scanner serve` under malformed traffic: JSON lines alone, and no value of what was sent."""

import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE, build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

from tests.peers.scanner_process import ScannerProcess
from tests.samples.small_ct import write_series

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore:Unknown encoding"),
    # pynetdicom's client leaves its socket to the garbage collector where an association is cut.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CONTEXT = build_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
CONTEXT.context_id = 1
MALFORMED = 500
SEED = 20260301
JOB_TIMEOUT_S = 240.0
ENDED = ("done", "held", "rejected", "failed")
NAME = "SECRETNAME"
"""Stands in values that no reader accepts; it must not come out again."""


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[ScannerProcess]:
    with ScannerProcess(
        tmp_path / "scanner",
        node={"port": 0, "quiet_period_s": 0.5, "minimum_free_mb": 0},
        pacs={"port": 1},
        scanner={"accept_synthetic_ct": True},
    ) as process:
        yield process


def association_request(calling: str) -> bytes:
    """The bytes of a well-formed A-ASSOCIATE-RQ for CT Image Storage."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling, "TWINSCANNER"
    longest, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    longest.maximum_length_received, implementation.implementation_class_uid = 16384, pydicom.uid.UID("1.2.3.4")
    primitive.user_information = [longest, implementation]
    primitive.presentation_context_definition_list = [CONTEXT]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def malformed(chance: random.Random) -> list[bytes]:
    """What is sent on one connection: a request with some bytes changed, cut off or followed by nonsense."""
    request = bytearray(association_request(NAME))
    kind = chance.randrange(4)
    if kind == 0:
        for _ in range(chance.randint(1, 12)):
            request[chance.randrange(len(request))] = chance.randrange(256)
        return [bytes(request)]
    if kind == 1:
        nonsense = chance.randbytes(chance.randint(1, 200))
        return [bytes([chance.randint(0, 9), 0]) + len(nonsense).to_bytes(4, "big") + nonsense]
    if kind == 2:
        return [bytes(request[: chance.randrange(1, len(request))])]
    message = bytes([0, 0, 0, 0]) + chance.randbytes(chance.randint(0, 60)) + NAME.encode()
    item = (len(message) + 2).to_bytes(4, "big") + bytes([1, chance.randrange(4)]) + message
    return [bytes(request), bytes([4, 0]) + len(item).to_bytes(4, "big") + item]


def send_malformed(port: int, parts: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.settimeout(0.2)
        try:
            for number, part in enumerate(parts):
                connection.sendall(part)
                if number + 1 < len(parts):
                    connection.recv(4096)
        except OSError:
            return


def lines_of(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.strip()]


def is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


def test_malformed_pdus_leave_json_lines_without_tracebacks_and_values(scanner: ScannerProcess, tmp_path: Path) -> None:
    port = scanner.start()
    chance = random.Random(SEED)
    for _ in range(MALFORMED):
        send_malformed(port, malformed(chance))
    assert scanner.stop() == 0
    log = scanner.log()
    foreign = [line for line in lines_of(log) if not is_json(line)]
    print(f"{log.count('Traceback')} tracebacks, {len(foreign)} lines that are no JSON of {len(lines_of(log))}")
    assert "Traceback" not in log
    assert foreign == []


def test_wrong_values_do_not_come_out_in_the_log_and_every_record_of_a_job_says_of_which(
    scanner: ScannerProcess, tmp_path: Path
) -> None:
    port = scanner.start()
    application = AE("CT01")
    for number, file in enumerate(write_series(tmp_path / "ct", slices=3, SpecificCharacterSet="ISO_IR 100")):
        values = (b"DOE^JANE", NAME.encode()[:8]), (b"19500101", NAME.encode()[:8]), (b"ISO_IR 100", NAME.encode())
        content = file.read_bytes()
        for written, wrong in values:
            assert written in content
            content = content.replace(written, wrong)
        file.write_bytes(content)
        association = application.associate("127.0.0.1", port, [CONTEXT], ae_title="TWINSCANNER")
        assert association.send_c_store(file, msg_id=number + 1).Status == 0x0000
        association.release()
    deadline = time.monotonic() + JOB_TIMEOUT_S
    while not any(job["state"] in ENDED for job in scanner.jobs()):
        assert time.monotonic() < deadline, scanner.log()[-3000:]
        time.sleep(0.5)
    assert scanner.stop() == 0
    assert NAME[:8] not in scanner.log()
    assert [line for line in lines_of(scanner.log()) if not is_json(line)] == []
    records = [json.loads(line) for line in lines_of(scanner.log())]
    scheduled = "twin_scanner.schedule"
    of_job = [one for one in records if ("step" in one and one["logger"] != scheduled) or "job_id" in one]
    assert of_job and all("study_uid" in record and "step" in record for record in of_job)
    (rejected,) = (record for record in records if record["message"] == "series rejected")
    assert (rejected["study_uid"], rejected["series_uid"], rejected["step"]) == ("1.2.3", "1.2.3.4", "intake")
    assert "job_id" in rejected
