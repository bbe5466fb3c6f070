"""What the doctor finds as a whole: where nothing is around the scanner, and where it runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.samples.examined import examined_settings, found
from twin_scanner import app
from twin_scanner.doctor import Finding, examine

pytestmark = pytest.mark.node


def test_a_fresh_machine_with_nothing_around_it_is_told_what_to_do(tmp_path: Path, closed_port: int) -> None:
    told: list[Finding] = []
    findings = examine(examined_settings(tmp_path, closed_port), told.append)
    assert told == findings
    assert {finding.name for finding in findings} == {
        "storage folder",
        "free space",
        "ledger",
        "model",
        "model's segmenter",
        "device",
        "memory",
        "clock",
        "segmenter landmarks",
        "segmenter labelmap",
        "segmenter moose",
        "segmenter totalsegmentator",
        "TLS",
        "peer pacs",
        "destination pacs",
        "listening port",
        "twin record",
    }
    assert [finding.name for finding in findings if finding.state == "fault"] == [
        "model",
        "peer pacs",
        "destination pacs",
    ]
    assert found(findings, "peer pacs").sentence == (
        f"PACS at 127.0.0.1:{closed_port} cannot be reached: check that it runs and that no firewall lies between."
    )
    assert "phantoms only" in found(findings, "model").sentence
    accepted = examine(examined_settings(tmp_path, closed_port, model={"accept_phantom_only": True}))
    assert found(accepted, "model").state == "warning"
    for finding in findings:
        assert "\n" not in finding.sentence
        assert finding.sentence.endswith(".")
    assert not (tmp_path / "data").exists(), "looking changes nothing"


def test_a_running_scanner_is_well(tmp_path: Path, closed_port: int) -> None:
    one = examined_settings(tmp_path, closed_port, node={"port": 0}, model={"accept_phantom_only": True})
    assert not one.node.open_to_loopback, "it knows itself"
    with app.Scanner(one).running() as scanner:
        findings = examine(examined_settings(tmp_path, closed_port, node={"port": scanner.receiver.port}))
    assert found(findings, "listening port").state == "ok"
    assert "at migration" in found(findings, "ledger").sentence
    assert found(findings, "ledger").state == "ok"
    assert found(findings, "twin record").sentence == "The embedded twin store opens."


def test_a_finding_is_a_value() -> None:
    one = Finding("model", "ok", "It is whole.")
    assert replace(one, state="fault") != one
