"""What the Containerfile promises of a running container, without a container engine.

A machine of its own stands for the image: of the Containerfile's last stage the lines that make user and folder are run
in it, and its ENV, USER, WORKDIR, ENTRYPOINT, CMD, HEALTHCHECK and STOPSIGNAL are obeyed, with a root that is read only
and no capability. The base image, what apt-get and pip install, and the engine itself are not tried.
"""

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.peers.systemd_machine import SystemdMachine, why_not

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(600)]

MADE_BY: Final = ("groupadd ", "useradd ", "install -d ")
"""How the commands of RUN begin that make user and folder."""
SETTINGS: Final = """
[node]
port = 11112
minimum_free_mb = 0
[[peers]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 11113
[[destinations]]
name = "archive"
peer = "pacs"
[model]
accept_phantom_only = true
"""
START_S: Final = 120.0
STOP_S: Final = 60.0


def instructions(containerfile: Path) -> list[tuple[str, str]]:
    """The last stage's instructions with their arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", containerfile.read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", "")
    found = [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]
    return found[max(n for n, (name, _) in enumerate(found) if name == "FROM") :]


class Image:
    """The last stage, made in a machine of its own."""

    def __init__(self, machine: SystemdMachine, containerfile: Path) -> None:
        self._machine = machine
        stage = instructions(containerfile)
        self.of = dict(stage)
        self.environment = dict(
            word.split("=", 1) for name, text in stage if name == "ENV" for word in shlex.split(text)
        )
        self._done("userdel twin-scanner")
        for part in self.of["RUN"].split("&&"):
            if part.strip().startswith(MADE_BY):
                self._done(part)
        for source, target in (text.split() for name, text in stage if name == "COPY" and not text.startswith("-")):
            if source != "constraints.txt":
                self._done(f"cp --preserve=mode /opt/checkout/{source} {target}")
        self._done("ln -s /opt/twin-scanner/bin/twin-scanner /usr/local/bin/")
        self._done(f"mkdir -p /etc/twin-scanner && cat > {json.loads(self.of['CMD'])[-1]} <<'END'\n{SETTINGS}\nEND")

    def command(self, words: list[str]) -> list[str]:
        """What runs these words as in a container of the image."""
        user, group = self.of["USER"].split(":")
        volume = self.of["VOLUME"]
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        run = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
        run += ["--bounding-set=-all", "--inh-caps=-all", "env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", *settings]
        prepared = f"mount -o remount,bind,ro / && mount -t tmpfs none /tmp && cd {self.of['WORKDIR']}"
        # A volume takes owner and mode from the folder that it covers.
        mounted = f"mount -t tmpfs -o $(stat -c uid=%u,gid=%g,mode=%a {volume}) none {volume}"
        inner = f"{mounted} && {prepared} && exec {shlex.join([*run, *words])}"
        return self._machine.command(f"exec unshare --mount sh -c {shlex.quote(inner)}")

    def main(self) -> list[str]:
        """ENTRYPOINT and CMD."""
        return [*json.loads(self.of["ENTRYPOINT"]), *json.loads(self.of["CMD"])]

    def check(self) -> int:
        """The exit status of HEALTHCHECK."""
        words = json.loads(self.of["HEALTHCHECK"].split("CMD")[1])
        return subprocess.run(self.command(words), capture_output=True, timeout=60).returncode

    def stop(self) -> None:
        """Send STOPSIGNAL to what was started first, as an engine does."""
        self._done(f"pkill --signal {self.of['STOPSIGNAL']} --oldest --full {shlex.quote(shlex.join(self.main()[:2]))}")

    def _done(self, command: str) -> None:
        done = self._machine.run(command)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def image(project: Path, tmp_path: Path) -> Iterator[Image]:
    if reason := why_not():
        pytest.skip(f"{reason} is not possible here")
    with SystemdMachine(tmp_path / "machine", project) as machine:
        yield Image(machine, project / "deploy" / "Containerfile")


def test_a_container_is_well_on_a_read_only_root_without_capabilities_and_ends_on_its_signal(image: Image) -> None:
    whose = subprocess.run(
        image.command(["sh", "-c", "id -u; touch /etc/x; touch ./x && grep CapBnd /proc/self/status"]),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert whose.stdout.split() == ["10001", "CapBnd:", "0" * 16]
    assert "Read-only" in whose.stderr
    assert image.check() == 1, "nobody answers yet"
    with subprocess.Popen(
        image.command(image.main()), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as node:
        assert node.stdout is not None
        if not node.stdout.readline().startswith("listening "):
            pytest.fail(node.communicate(timeout=STOP_S)[1][-3000:])
        deadline = time.monotonic() + START_S
        while image.check() != 0:
            assert time.monotonic() < deadline, "HEALTHCHECK finds it unwell"
        image.stop()
        _, log = node.communicate(timeout=STOP_S)
    assert node.returncode == 0, log[-3000:]
