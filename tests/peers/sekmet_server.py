"""Starts sekmet-fhir, an R4 server with real transactions, as a process of its own on a free port, empty each time.

As shipped it has no search parameter for List and says so in its CapabilityStatement: a real server that lacks
something. Its environment is .venv-peers (sekmet/install.sh), or the one that TWIN_SCANNER_PEERS names.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).resolve().parent / "sekmet" / "sekmet_process.py"
STOP_TIMEOUT_S = 20.0


def peers_folder() -> Path | None:
    """The folder of the programs of the peers' environment; None where it was not installed."""
    named = os.environ.get("TWIN_SCANNER_PEERS")
    for environment in (ROOT / ".venv-peers", *([Path(named)] if named else [])):
        if (environment / "bin" / "sekmet").is_file():
            return environment / "bin"
    return None


@contextmanager
def running_sekmet(settings: Mapping[str, Any] = MappingProxyType({}), port: int = 0) -> Iterator[str]:
    """The base URL of a fresh, empty server with sekmet's own `settings`, stopped at the end."""
    programs = peers_folder()
    if programs is None:
        raise FileNotFoundError("sekmet-fhir is not installed: run tests/peers/sekmet/install.sh")
    command = [str(programs / "python"), str(PROGRAM), str(port), json.dumps(dict(settings))]
    # Its environment is not ours: what ours sets for the interpreter would lead it to our packages.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline().split()
            if len(ready) != 2 or ready[0] != "ready":
                raise RuntimeError(f"sekmet-fhir did not start: {ready}")
            yield f"http://127.0.0.1:{ready[1]}/fhir"
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
