"""The storage folder, with little room, open to everybody and under a file."""

from pathlib import Path

import pytest

from tests.samples.examined import examined_settings, found
from twin_scanner.doctor import Finding, findings_of
from twin_scanner.doctor.storage import check_storage
from twin_scanner.settings import Settings

pytestmark = pytest.mark.node


def look(settings: Settings) -> list[Finding]:
    return list(findings_of("storage folder", check_storage, settings))


def test_little_room_and_open_folders_are_told(tmp_path: Path, closed_port: int) -> None:
    full = found(look(examined_settings(tmp_path, closed_port, node={"minimum_free_mb": 10**9})), "free space")
    assert full.state == "fault"
    assert "every image is refused" in full.sentence
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    assert "chmod o-rwx" in found(look(examined_settings(tmp_path, closed_port)), "storage folder").sentence
    (tmp_path / "data").chmod(0o700)
    assert found(look(examined_settings(tmp_path, closed_port)), "storage folder").state == "ok"
    (tmp_path / "file").write_text("no folder")
    findings = look(examined_settings(tmp_path, closed_port, storage={"folder": tmp_path / "file" / "data"}))
    assert found(findings, "storage folder").state == "fault"
