"""Whether the FHIR server knows Patients by the configured systems. Oracle: a real R4 server with one Patient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import missing
from tests.peers.fhir_server import running_server, server_folder
from tests.samples.examined import examined_settings, found
from twin_scanner.doctor import Finding, findings_of
from twin_scanner.doctor.identity import check_identity_systems

pytestmark = pytest.mark.node


def test_a_system_that_no_patient_of_the_server_has_is_told(
    tmp_path: Path, closed_port: int, peer: Callable[[str], str]
) -> None:
    """It used to be ok, and every patient got a second Patient."""
    peer("node")
    if server_folder() is None:
        missing("the FHIR test server (npm install in tests/peers/fhir-r4-server)")

    def look(url: str, **twin: Any) -> Finding:
        settings = examined_settings(tmp_path, closed_port, twin={"url": url, **twin})
        return found(list(findings_of("patient identity", check_identity_systems, settings)), "patient identity")

    with running_server() as url:
        hospital = {"resourceType": "Patient", "identifier": [{"system": "urn:oid:2.999.5", "value": "4711"}]}
        assert httpx.post(f"{url}/Patient", json=hospital).is_success
        wrong, right = look(url), look(url, patient_identifier_system="urn:oid:2.999.5", unknown_patient="create")
        issuers = look(url, patient_identifier_system="urn:oid:2.999.5", issuer_systems={"B": "urn:oid:2.999.6"})
    assert wrong.state == "warning"
    assert "no Patient with an identifier in the system urn:oid:2.999.1" in wrong.sentence
    assert "holds its job" in wrong.sentence
    assert right.state == "ok"
    assert "gets a new Patient" in right.sentence
    assert (issuers.state, "urn:oid:2.999.6" in issuers.sentence) == ("warning", True)


def test_the_embedded_store_has_its_own_patients(tmp_path: Path, closed_port: int) -> None:
    assert list(check_identity_systems(examined_settings(tmp_path, closed_port))) == []
