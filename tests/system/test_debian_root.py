"""deploy/README.md by hand, word for word, in a fresh Debian root: user, folders, rights, doctor, serve and its end.

Too slow for the suite (ten minutes and 4 GB): it runs only as root, where debootstrap and dcmtk are installed
and TWIN_SCANNER_DEBIAN_ROOT=1 asks for it. pip's configuration on this machine holds in the root too.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

pytestmark = [
    pytest.mark.system,
    pytest.mark.long,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        os.environ.get("TWIN_SCANNER_DEBIAN_ROOT") != "1", reason="TWIN_SCANNER_DEBIAN_ROOT=1 asks for it"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter another root"),
]

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CHECKOUT: Final = "/root/twin-scanner"
CONFIG: Final = "etc/twin-scanner/twin-scanner.toml"
STORAGE: Final = "var/lib/twin-scanner"
STEP_TIMEOUT_S: Final = 1800.0
ANSWER_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 60.0


def pip_paths() -> list[Path]:
    """Files and folders of this machine that its pip is configured with."""

    def ask(*words: str) -> str:
        command = [sys.executable, "-m", "pip", "config", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    files = re.findall(r"^\s*(/\S+), exists: True", ask("debug"), re.MULTILINE)
    values = ask("list")
    # An index's files lie beside its pages.
    indices = [str(Path(path).parent) for path in re.findall(r"file://(/[^\s']+)", values)]
    plain = re.findall(r"(?<![/\w])(/[^\s']+)", values)
    return [path for name in dict.fromkeys([*files, *indices, *plain]) if (path := Path(name)).exists()]


class Root:
    """A Debian root in a folder; what is mounted into it is seen by its own processes alone and ends with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mounts = [f"mount -t proc proc {folder}/proc", f"mount --rbind /dev {folder}/dev"]
        for path in pip_paths():
            inside = folder / path.relative_to("/")
            if path.is_dir():
                mounts += [f"mkdir -p {inside}", f"mount --bind -o ro {path} {inside}"]
            else:
                inside.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, inside)
        self._enter = "\n".join(["set -e", *mounts, f'exec chroot {folder} "$@"'])
        pip = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("PIP_")]
        self._environment = ["env", "-i", f"PATH={PATH}", "HOME=/root", *pip]

    def command(self, block: str) -> list[str]:
        """What runs a block of shell commands in the root's copy of the repository."""
        shell = ["sh", "-euc", f"cd {CHECKOUT}\n{block}"]
        unshared = ["unshare", "--mount", "--propagation", "private", "sh", "-c", self._enter, "enter"]
        return [*unshared, *self._environment, *shell]

    def run(self, block: str) -> str:
        """Run it to its end; its standard output."""
        done = subprocess.run(
            self.command(block), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=STEP_TIMEOUT_S
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-4000:]}"
        return done.stdout


def blocks(project: Path) -> dict[str, str]:
    """The commands of the README's section, by what each is for."""
    text = (project / "deploy" / "README.md").read_text("utf-8").split("## By hand")[1].split("\n## ")[0]
    found = [textwrap.dedent(block) for block in re.findall(r" *```sh\n(.*?)```", text, re.DOTALL)]
    install, doctor, serve, systemd = found
    return {"install": install, "doctor": doctor, "serve": serve, "systemd": systemd}


@pytest.fixture(scope="module")
def root(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A minimal bookworm with systemd, certificates and a copy of the repository's files, as one clones it."""
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not here")
    folder = tmp_path_factory.mktemp("debian") / "root"
    command = ["debootstrap", "--variant=minbase", "--include=systemd,ca-certificates", "bookworm", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=STEP_TIMEOUT_S)
    copy = folder / CHECKOUT.removeprefix("/")
    copy.mkdir()
    pack = (
        "git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from - --ignore-failed-read"
    )
    subprocess.run(f"{pack} | tar --extract --directory {shlex.quote(str(copy))}", shell=True, cwd=project, check=True)
    yield Root(folder)
    shutil.rmtree(folder.parent, ignore_errors=True)


def mode(path: Path) -> tuple[str, int]:
    """Octal rights and owner."""
    found = path.lstat()
    return oct(found.st_mode & 0o7777), found.st_uid


@contextmanager
def serving(root: Root, block: str) -> Iterator[subprocess.Popen[str]]:
    """The scanner in the foreground, killed where a test leaves it running."""
    process = subprocess.Popen(
        root.command(block), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_TIMEOUT_S)
        assert process.stdout is not None
        process.stdout.close()


def wait_for_echo(echoscu: str, port: int, process: subprocess.Popen[str]) -> None:
    """Until the node answers a C-ECHO from outside."""
    command = [echoscu, "-aec", "TWINSCANNER", "127.0.0.1", str(port)]
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while subprocess.run(command, capture_output=True, timeout=60).returncode != 0:
        assert process.poll() is None, "serve ended"
        assert time.monotonic() < deadline, "no C-ECHO was answered"
        time.sleep(0.5)


def scanner_process(process: subprocess.Popen[str]) -> int:
    """The program below the shell and `su`, which would give it two seconds only."""
    number = process.pid
    while Path(f"/proc/{number}/comm").read_text("utf-8").strip() in ("sh", "su"):
        (child,) = Path(f"/proc/{number}/task/{number}/children").read_text("ascii").split()
        number = int(child)
    return number


def test_the_page_works_as_written(
    root: Root, project: Path, tmp_path: Path, free_port: Callable[[], int], peer: Callable[[str], str]
) -> None:
    steps = blocks(project)
    root.run(f"export DEBIAN_FRONTEND=noninteractive\n{steps['install']}")
    config, storage = root.folder / CONFIG, root.folder / STORAGE
    user = storage.stat().st_uid
    assert user != 0
    assert mode(storage) == ("0o700", user)
    assert mode(config) == ("0o640", 0)
    assert mode(config.parent) == ("0o750", 0)
    assert config.stat().st_gid == storage.stat().st_gid

    pacs_port, node_port = free_port(), free_port()
    text = config.read_text("utf-8").replace("port = 11112 ", f"port = {node_port} ")
    text = text.replace("port = 104 ", f"port = {pacs_port} ").replace("minimum_free_mb = 2048", "minimum_free_mb = 16")
    # dcmtk's storescp answers no query.
    text = text.replace('\nconfirm = "query"', '\nconfirm = "status"')
    # The installation brings the demonstration package alone; a hospital imports one that was trained on patients.
    text = text.replace("accept_phantom_only = false", "accept_phantom_only = true")
    config.write_text(text, "utf-8")

    received = tmp_path / "pacs"
    received.mkdir()
    with subprocess.Popen([peer("storescp"), "-od", str(received), str(pacs_port)]) as pacs:
        try:
            findings = root.run(steps["doctor"])
        finally:
            pacs.kill()
    assert "FAULT" not in findings
    assert f"{node_port} is free for the scanner" in findings

    with serving(root, steps["serve"]) as process:
        wait_for_echo(peer("echoscu"), node_port, process)
        os.kill(scanner_process(process), signal.SIGTERM)
        assert process.wait(STOP_TIMEOUT_S) == 0
    made = list(storage.rglob("*"))
    assert any(path.name == "ledger.sqlite" for path in made)
    assert {path.lstat().st_uid for path in made} == {user}

    place_unit, *_ = steps["systemd"].splitlines()
    assert root.run(f"{place_unit}\nsystemd-analyze verify --man=no twin-scanner.service") == ""
