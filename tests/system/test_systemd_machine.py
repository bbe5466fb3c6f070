"""The units of deploy/ under a real systemd: start, sandbox, a CT to its PET, backup, crash, stop, fault."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.peers.systemd_machine import SystemdMachine, why_not
from training.phantom.files import write_ct_dicom
from training.phantom.phantom import PhantomOptions, make_phantom

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(600)]

UNIT: Final = "twin-scanner"
FOLDER: Final = "/var/lib/twin-scanner"
CONFIG: Final = "/etc/twin-scanner/twin-scanner.toml"
PACS_PORT: Final = 11113
WAIT_S: Final = 240.0
SETTINGS: Final = f"""
[node]
port = 11112
open_to_loopback = true
quiet_period_s = 0.5
longest_wait_s = 2.0
incomplete = "go on"
minimum_free_mb = 0
[pacs]
port = {PACS_PORT}
confirm = "status"
[model]
accept_phantom_only = true
[scanner]
accept_synthetic_ct = true
"""


@pytest.fixture
def machine(project: Path, tmp_path: Path) -> Iterator[SystemdMachine]:
    if reason := why_not():
        pytest.skip(f"{reason} is not possible here")
    with SystemdMachine(tmp_path / "machine", project) as running:
        for file in sorted((project / "deploy").glob("*.service")):
            assert running.run(f"cp /opt/checkout/deploy/{file.name} /etc/systemd/system/").returncode == 0
        configure(running, SETTINGS)
        running.run("install -d -m 0700 -o twin-scanner -g twin-scanner /var/backups/twin-scanner")
        running.run("systemctl daemon-reload")
        yield running


def configure(machine: SystemdMachine, text: str) -> None:
    """Write the configuration."""
    done = machine.run(f"install -d /etc/twin-scanner && cat > {CONFIG} <<'END'\n{text}\nEND")
    assert done.returncode == 0, done.stderr


def wait_for(machine: SystemdMachine, what: str, found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not found():
        log = machine.run(f"journalctl --no-pager --unit {UNIT} | tail -n 30").stdout
        assert time.monotonic() < deadline, f"{what} did not come: {log}"
        time.sleep(0.5)


def listens(machine: SystemdMachine, echoscu: str) -> bool:
    """Whether it answers a C-ECHO."""
    echo = machine.in_its_network(echoscu, "-aec", "TWINSCANNER", "127.0.0.1", "11112")
    return subprocess.run(echo, capture_output=True, timeout=60).returncode == 0


def states(machine: SystemdMachine) -> list[str]:
    """Of the jobs, as the service's user sees them."""
    ask = f"TWIN_SCANNER__STORAGE__FOLDER={FOLDER} runuser -u twin-scanner --"
    done = machine.run(f"cd {FOLDER} && {ask} /opt/twin-scanner/bin/twin-scanner jobs list --json --config {CONFIG}")
    return [job["state"] for job in json.loads(done.stdout)]


def status_of(machine: SystemdMachine, key: str) -> str:
    """A line of /proc/PID/status of the service."""
    process = machine.shown(UNIT, "MainPID")
    return machine.run(f"sed -n 's/^{key}:[[:space:]]*//p' /proc/{process}/status").stdout.strip()


def test_the_units_do_under_a_real_systemd_what_they_say(
    machine: SystemdMachine, tmp_path: Path, peer: Callable[[str], str]
) -> None:
    echoscu = peer("echoscu")
    assert machine.run(f"systemctl start {UNIT}").returncode == 0
    wait_for(machine, "an answer to C-ECHO", lambda: listens(machine, echoscu))

    assert machine.run(f"stat -c '%a %U' {FOLDER}").stdout.strip() == "700 twin-scanner"
    assert (status_of(machine, "CapEff"), status_of(machine, "CapBnd")) == ("0" * 16, "0" * 16)
    assert (status_of(machine, "NoNewPrivs"), status_of(machine, "Seccomp")) == ("1", "2")
    process = machine.shown(UNIT, "MainPID")
    its_root = f"/proc/{process}/root"
    assert machine.run(f"ls -A {its_root}/home {its_root}/root | grep -v :").stdout.split() == [], "ProtectHome"
    assert machine.run(f"touch {its_root}{FOLDER}/x && rm {its_root}{FOLDER}/x").stderr == ""
    assert "Read-only" in machine.run(f"touch {its_root}/etc/x").stderr, "ProtectSystem"

    a_ct_becomes_a_pet(machine, tmp_path, peer)
    assert machine.run(f"systemctl start {UNIT}-backup").returncode == 0, "the backup ends well"
    assert machine.run("ls /var/backups/twin-scanner/*/").stdout.split()

    machine.run(f"kill -KILL {process}")
    wait_for(machine, "another process", lambda: machine.shown(UNIT, "MainPID") not in ("0", process))
    wait_for(machine, "an answer to C-ECHO", lambda: listens(machine, echoscu))

    assert machine.run(f"systemctl stop {UNIT}").returncode == 0
    assert (machine.shown(UNIT, "Result"), machine.shown(UNIT, "ExecMainStatus")) == ("success", "0")

    configure(machine, "[node]\nport = 'none'")
    machine.run(f"systemctl start {UNIT}")
    wait_for(machine, "the end", lambda: machine.shown(UNIT, "ActiveState") == "failed")
    assert (machine.shown(UNIT, "ExecMainStatus"), machine.shown(UNIT, "NRestarts")) == ("2", "0")


def a_ct_becomes_a_pet(machine: SystemdMachine, tmp_path: Path, peer: Callable[[str], str]) -> None:
    """The networks run in the sandbox, and what they made leaves it."""
    options = PhantomOptions(spacing_mm=(10.0, 5.0, 5.0))
    ct = make_phantom(1, options).ct
    depth, height, width = ct.geometry.shape
    head = ct.cropped((slice(depth - 26, depth), slice(0, height), slice(0, width)))
    files = write_ct_dicom(head, tmp_path / "ct", seed=1, options=options)
    received = tmp_path / "pacs"
    received.mkdir()
    storescp = machine.in_its_network(peer("storescp"), "-od", str(received), str(PACS_PORT))
    with subprocess.Popen(storescp) as pacs:
        try:
            storescu = [peer("storescu"), "-aec", "TWINSCANNER", "127.0.0.1", "11112", *map(str, files)]
            subprocess.run(machine.in_its_network(*storescu), check=True, timeout=120)
            wait_for(machine, "the PET", lambda: states(machine) == ["done"])
        finally:
            pacs.kill()
    assert len(list(received.iterdir())) > len(files)
