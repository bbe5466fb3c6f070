"""Validators that did not write our resources: fhirkit (Rust) and sekmet-fhir's $validate; r4_schema has the schema."""

import json
import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.peers.sekmet_server import peers_folder

TIMEOUT_S = 120.0
Json = dict[str, Any]


def fhirkit_faults(resources: Sequence[Json], folder: Path) -> list[str]:
    """What fhirkit has against the resources, which are written into `folder`; empty where all are valid."""
    programs = peers_folder()
    if programs is None:
        raise FileNotFoundError("fhirkit is not installed: run tests/peers/sekmet/install.sh")
    for number, resource in enumerate(resources):
        (folder / f"{number:03d}-{resource['resourceType']}.json").write_text(json.dumps(resource), "utf-8")
    # Not the program, but its module: an environment that was moved keeps its modules and loses its programs.
    command = [str(programs / "python"), "-m", "fhirkit.cli", "validate", *sorted(map(str, folder.glob("*.json")))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    lines = done.stdout.splitlines()
    assert sum(not line.startswith(" ") for line in lines) == len(resources), done.stderr
    faults = [line for line in lines if not line.endswith(": ok")]
    assert bool(faults) == (done.returncode == 1), done.stderr
    return faults


def sekmet_faults(resource: Json, base_url: str) -> list[str]:
    """What the operation $validate of a running sekmet-fhir has against a resource."""
    request = urllib.request.Request(
        f"{base_url}/{resource['resourceType']}/$validate",
        data=json.dumps(resource).encode("utf-8"),
        headers={"Content-Type": "application/fhir+json"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        issues = json.load(answer)["issue"]
    return [str(issue.get("diagnostics")) for issue in issues if issue["severity"] in ("error", "fatal")]
