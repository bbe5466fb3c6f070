"""`twin-scanner serve` that cannot start says why and ends: with 1 where it may start later, with 2 where not."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.scanner_process import ScannerProcess
from tests.samples.command_line import run

pytestmark = pytest.mark.system

ENDS_WITHIN_S = 90.0
NOWHERE = "192.0.2.1"
"""An address of TEST-NET-1 (RFC 5737): no machine has it."""


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def serve(folder: Path, **sections: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
    """A scanner that is expected to end by itself."""
    scanner = ScannerProcess(folder, **sections)
    return run(folder, "serve", "--config", str(scanner.config), timeout_s=ENDS_WITHIN_S)


def sentence_of(ended: "subprocess.CompletedProcess[str]") -> str:
    """What was said beside the log: one line."""
    assert ended.stdout == ""
    (line,) = (line for line in ended.stderr.splitlines() if not line.startswith("{"))
    return line


def test_a_busy_port_ends_it_with_1_and_leaves_the_folder_to_the_next_start(tmp_path: Path, busy_port: int) -> None:
    ended = serve(tmp_path, node={"port": busy_port, "minimum_free_mb": 0})
    assert ended.returncode == 1, ended.stderr
    assert f"Port {busy_port} on 127.0.0.1 is in use" in sentence_of(ended)
    with ScannerProcess(tmp_path, node={"port": 0, "minimum_free_mb": 0}) as scanner:
        assert scanner.start() > 0
        assert scanner.stop() == 0


def test_a_busy_port_of_the_console_ends_it_before_it_listens_for_a_ct(tmp_path: Path, busy_port: int) -> None:
    ended = serve(tmp_path, node={"port": 0, "minimum_free_mb": 0}, console={"port": busy_port})
    assert ended.returncode == 1, ended.stderr
    assert f"port {busy_port}" in sentence_of(ended)
    assert "Listening" not in ended.stderr


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"node": {"port": 11113, "host": NOWHERE}}, "cannot be listened on"),
        ({"node": {"port": 0}, "model": {"name": "nobody-has-this-model"}}, "nobody-has-this-model"),
        ({"node": {"port": 0}, "districts": {"segmenter": "moose"}}, "moose"),
    ],
)
def test_what_only_another_configuration_can_mend_ends_it_with_2(
    tmp_path: Path, sections: dict[str, Any], sentence: str
) -> None:
    ended = serve(tmp_path, **sections)
    assert ended.returncode == 2, ended.stderr
    assert sentence in sentence_of(ended)


def test_it_refuses_with_the_sentence_that_doctor_gives(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"node": {"port": 0}, "model": {"name": "nobody-has-this-model"}}
    said = sentence_of(serve(tmp_path, **sections))
    doctor = run(tmp_path, "doctor", "--json", "--config", "twin-scanner.toml", timeout_s=ENDS_WITHIN_S)
    (finding,) = (finding for finding in json.loads(doctor.stdout) if finding["name"] == "model")
    assert finding["sentence"] in said
