"""What a terminal shows while bars and log lines come at once."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

STAGES = """
import logging
from twin_scanner.cli.output import log_from, stages
log_from("INFO")
with stages() as stage:
    report = stage("Working")
    for done in range(20):
        report(done, 20)
        logging.getLogger("twin_scanner.test").info("record %d", done)
    print("the result")
"""
LOSSES = """
import logging
from twin_scanner.cli.output import log_from, losses_bar
log_from("INFO")
with losses_bar() as on_step:
    for done in range(20):
        on_step("Working", done, 20, {"mae": 0.5})
        logging.getLogger("twin_scanner.test").info("record %d", done)
    print("the result")
"""


def shown_in_a_terminal(program: str, stdout: int) -> str:
    """What a program writes to the terminal on its stderr, without colours and cursor moves."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", program], stdout=stdout, stderr=theirs) as process:
        os.close(theirs)
        written = bytearray()
        while chunk := _read(ours):
            written += chunk
        os.close(ours)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())


def _read(descriptor: int) -> bytes:
    """Linux reports the end of a terminal as an error."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


@pytest.mark.parametrize("program", [STAGES, LOSSES], ids=["stages", "losses"])
def test_no_log_line_stands_in_the_line_of_a_bar_and_the_result_goes_to_stdout(tmp_path: Path, program: str) -> None:
    with (tmp_path / "stdout").open("w+") as stdout:
        shown = shown_in_a_terminal(program, stdout.fileno())
        stdout.seek(0)
        assert stdout.read() == "the result\n"
    lines = re.split(r"[\r\n]+", shown)
    records = [line for line in lines if "record" in line]
    assert len(records) == 20
    assert [line for line in records if "Working" in line] == []
    assert any("Working" in line for line in lines)
