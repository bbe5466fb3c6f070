"""The listening port: free, ours, or somebody else's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.samples.examined import examined_settings, found
from tests.samples.examined_listener import receiver
from twin_scanner.doctor import Finding, findings_of
from twin_scanner.doctor.port import check_port
from twin_scanner.settings import Settings

pytestmark = pytest.mark.node


def look(settings: Settings) -> list[Finding]:
    return list(findings_of("listening port", check_port, settings))


def test_the_port_is_free_ours_or_someone_elses(tmp_path: Path, free_port: Callable[[], int], closed_port: int) -> None:
    def finding(port: int, **node: Any) -> Finding:
        one = examined_settings(tmp_path, closed_port, node={"port": port, **node})
        return found(look(one), "listening port")

    port = free_port()
    assert finding(port).sentence == f"127.0.0.1:{port} is free for the scanner."
    with receiver(tmp_path / "ours", ae_title="TWINSCANNER") as node:
        assert finding(node.port).state == "ok"
        assert finding(node.port, host="0.0.0.0").state == "ok"
        other = finding(node.port, ae_title="SOMEONE")
        assert other.state == "fault"
        assert "does not answer as SOMEONE" in other.sentence
    assert finding(port, host="192.0.2.1").state == "fault"
    assert finding(port, host="no.such.host.invalid").state == "fault"
    assert finding(0).state == "warning"
