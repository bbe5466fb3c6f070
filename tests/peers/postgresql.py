"""A private PostgreSQL (Debian's) in a temporary folder: a cluster of its own, trusted on loopback, nothing shared."""

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import psycopg

from tests.peers.ports import free_port

USER: Final = "postgres"
"""PostgreSQL refuses to run as root; Debian's package makes this user."""
TIMEOUT_S: Final = 120


def programs() -> Path | None:
    """The folder of the newest installed version's programs; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return None if program is None else Path(program).parent


class PostgreSQL:
    """A running cluster; ``new_database`` makes an empty one in it."""

    def __init__(self, bin_folder: Path) -> None:
        self._bin = bin_folder
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._data = self._folder / "data"
        self.port = free_port()
        self._dumps: dict[str, str] = {}

    def __enter__(self) -> "PostgreSQL":
        if os.geteuid() == 0:
            shutil.chown(self._folder, USER)
        self._run("initdb", "-D", str(self._data), "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")
        self.start()
        return self

    def start(self) -> None:
        """Start the server and wait until it answers."""
        # What a power cut would lose does not matter here; what a crash of the server would lose is kept.
        unsafe = "-c fsync=off -c full_page_writes=off"
        options = f"{unsafe} -p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-o", options, "-l", log, "-w", "-t", str(TIMEOUT_S), "start")

    def stop(self) -> None:
        """Stop the server as a fault would: connections are cut."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "-t", str(TIMEOUT_S), "stop")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        """The SQLAlchemy URL of a new, empty database: a schema of its own, which is made and removed faster."""
        name = f"ledger_{uuid.uuid4().hex}"
        address = f"host=127.0.0.1 port={self.port} user={USER} dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f'CREATE SCHEMA "{name}"')
        return self._url(name)

    def new_copy(self, url: str) -> str:
        """The URL of a new database with the tables and rows that another one has now."""
        origin = url.rsplit("%3D", 1)[1]
        if origin not in self._dumps:
            address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", "postgres"]
            dump = self._run("pg_dump", *address, "--schema", origin, "--inserts", "--no-owner")
            # psql's own commands begin with a backslash.
            self._dumps[origin] = "\n".join(line for line in dump.splitlines() if not line.startswith("\\"))
        name = f"ledger_{uuid.uuid4().hex}"
        with psycopg.connect(f"host=127.0.0.1 port={self.port} user={USER} dbname=postgres") as connection:
            connection.execute(self._dumps[origin].replace(origin, name).encode())
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/postgres?options=-csearch_path%3D{name}"

    def _run(self, program: str, *arguments: str) -> str:
        """What the program wrote."""
        command: Sequence[str] = [str(self._bin / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", USER, "--", *command]
        done = subprocess.run(
            command,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stdout}")
        return done.stdout
