"""The systemd unit: systemd understands it, and it fits to how `serve` ends."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from twin_scanner.app import STOP_BUDGET_S

pytestmark = pytest.mark.system


@pytest.fixture
def unit(project: Path) -> str:
    return (project / "deploy" / "twin-scanner.service").read_text("utf-8")


def value(unit: str, key: str) -> str:
    (found,) = re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)
    return str(found)


def test_systemd_finds_nothing_to_say_of_the_unit(unit: str, tmp_path: Path, peer: Callable[[str], str]) -> None:
    """The program is replaced by one that is here; a misspelt key shows that the tool would complain."""
    copy = tmp_path / "twin-scanner.service"
    command = [peer("systemd-analyze"), "verify", str(copy)]
    copy.write_text(unit.replace("/opt/twin-scanner/bin/twin-scanner", "/bin/true"), "utf-8")
    verified = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    copy.write_text(unit.replace("RestartPreventExitStatus", "RestartNeverOn"), "utf-8")
    assert "RestartNeverOn" in subprocess.run(command, capture_output=True, text=True, timeout=60).stderr


def test_the_unit_lets_a_gpu_through_and_no_other_device(unit: str) -> None:
    """PrivateDevices hides it: a render then runs on the CPU, and nobody is told."""
    assert value(unit, "PrivateDevices") == "no"
    assert value(unit, "DevicePolicy") == "closed"
    allowed = re.findall(r"^DeviceAllow=(\S+) rw$", unit, re.MULTILINE)
    assert allowed == ["char-nvidia-frontend", "char-nvidia", "char-nvidia-uvm", "char-nvidia-caps"]


def test_the_unit_waits_longer_than_a_stop_may_take(unit: str) -> None:
    assert float(value(unit, "TimeoutStopSec")) > STOP_BUDGET_S


def test_a_configuration_at_fault_is_not_started_again_and_a_busy_port_is(unit: str) -> None:
    assert value(unit, "Restart") == "always"
    assert value(unit, "RestartPreventExitStatus") == "2"
