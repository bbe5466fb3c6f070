"""The TLS files. Oracle: certificates by the openssl command, of which the test sets the dates."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.tls import TlsFiles
from tests.samples.authority import Authority
from tests.samples.examined import examined_settings
from twin_scanner.doctor import Finding, findings_of
from twin_scanner.doctor.tls import check_tls

pytestmark = pytest.mark.node


@pytest.fixture
def authority(tmp_path: Path, peer: Callable[[str], str]) -> Authority:
    return Authority(tmp_path / "authority", peer("openssl"))


def look(folder: Path, files: TlsFiles | None) -> list[Finding]:
    section = {} if files is None else {key: getattr(files, key) for key in ("certificate", "key", "ca_file")}
    return list(findings_of("TLS", check_tls, examined_settings(folder, 1, tls=section)))


@pytest.mark.parametrize(
    ("days", "state", "sentence"),
    [
        (365, "ok", "and belongs to its key."),
        (31, "ok", "and belongs to its key."),
        (30, "warning", "29 days more: have a new one signed; it is read without a restart."),
        (-1, "fault", ": have a new one signed."),
    ],
)
def test_the_end_of_the_certificate_is_told_in_time(
    tmp_path: Path, authority: Authority, days: int, state: str, sentence: str
) -> None:
    (finding,) = look(tmp_path, authority.sign("scanner.hospital", days=days))
    assert finding.state == state
    assert finding.sentence.endswith(sentence)


def test_a_certificate_for_one_use_alone_and_files_that_cannot_be_used_are_faults(
    tmp_path: Path, authority: Authority
) -> None:
    one_use = look(tmp_path, authority.sign("client", usage="clientAuth"))
    assert [finding.state for finding in one_use] == ["fault"]
    assert "it needs clientAuth and serverAuth." in one_use[0].sentence
    files, other = authority.sign("scanner"), authority.sign("other")
    mixed = look(tmp_path, authority.files(files.certificate, other.key))
    assert "does not belong to the certificate" in mixed[0].sentence
    gone = look(tmp_path, authority.files(files.certificate, tmp_path / "none"))
    assert "none cannot be read (No such file or directory): check [tls]." in gone[0].sentence


def test_a_key_that_every_user_may_read_is_a_warning(tmp_path: Path, authority: Authority) -> None:
    files = authority.sign("scanner")
    files.key.chmod(0o644)
    assert [finding.state for finding in look(tmp_path, files)] == ["ok", "warning"]


def test_no_tls_is_said(tmp_path: Path) -> None:
    (finding,) = look(tmp_path, None)
    assert finding.state == "ok" and "TLS is not configured" in finding.sentence
