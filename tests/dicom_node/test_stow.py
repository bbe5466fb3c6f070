"""STOW-RS and QIDO-RS against a server whose answers are scripted: each instance's status, and what stops a lane."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node import stow
from dicom_node.store_scu import DUPLICATE, InstanceStatus, NotStored, SendingStopped, Unreadable
from dicom_node.stow import StowService
from tests.conftest import missing
from tests.fakes.scripted_stow import FAILED, REFERENCED, ScriptedStow, sequence
from tests.peers.orthanc import DICOM_WEB, Orthanc
from tests.samples.instances import PATIENT_ID, PATIENT_NAME, data_set_bytes, series
from twin_record.auth import TokenFile
from twin_scanner.errors import Held, Misconfigured, Unavailable

pytestmark = pytest.mark.node

STUDY, SERIES = "1.2.3", "1.2.3.1"
UIDS = [f"{SERIES}.{number}" for number in range(1, 5)]


@pytest.fixture
def server() -> ScriptedStow:
    return ScriptedStow()


@pytest.fixture
def service(server: ScriptedStow) -> Iterator[StowService]:
    with server.listening() as url:
        one = StowService("cloud", url, timeout_s=30.0)
        yield one
        one.close()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return series(tmp_path / "files", 4)


def statuses(service: StowService, files: list[Path], **options: Any) -> dict[str, int]:
    try:
        report = service.send(files, **options)
    except NotStored as error:
        report = error.report
    return {one.sop_instance_uid: one.status for one in report.instances}


def test_every_instance_is_posted_once_as_it_is_and_listed_afterwards(
    service: StowService, server: ScriptedStow, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "MOST_INSTANCES", 3)
    heard: list[InstanceStatus] = []
    report = service.send(files, on_answer=heard.append, skip=[UIDS[0]])
    assert [one.sop_instance_uid for one in report.instances] == UIDS[1:] and list(report.instances) == heard
    assert server.posts == [UIDS[1:]]
    assert service.instances(STUDY, SERIES) == set(UIDS[1:])
    assert service.instances(STUDY, "9.9") == frozenset()


def test_a_list_in_pages_is_read_to_its_end(
    service: StowService, server: ScriptedStow, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "PAGE", 3)
    server.page = 3
    service.send(files)
    assert service.instances(STUDY, SERIES) == set(UIDS)


def test_what_failed_is_told_from_what_was_stored(
    service: StowService, server: ScriptedStow, files: list[Path]
) -> None:
    document = sequence(FAILED, {UIDS[1]: 0xC000, UIDS[2]: None}, "00081197")
    document |= sequence(REFERENCED, {UIDS[0]: 0xB000, UIDS[3]: None}, "00081196")
    server.script = [(202, document, {})]
    assert statuses(service, files) == dict(zip(UIDS, [0xB000, 0xC000, 0x0110, 0x0000], strict=True))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (None, [DUPLICATE] * 4),
        (sequence(FAILED, dict.fromkeys(UIDS, 45070), "00081197"), [DUPLICATE] * 4),
        (sequence(FAILED, dict.fromkeys(UIDS[:2], 0x0111), "00081197"), [DUPLICATE] * 4),
        (sequence(FAILED, {UIDS[0]: 0xA900, UIDS[1]: 0x0111}, "00081197"), [0xA900, *[DUPLICATE] * 3]),
    ],
)
def test_a_409_says_that_an_instance_is_there_already_unless_it_names_another_reason(
    service: StowService, server: ScriptedStow, files: list[Path], document: Any, expected: list[int]
) -> None:
    server.script = [(409, document, {})]
    assert list(statuses(service, files).values()) == expected


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (301, "check the destination's url"),
        (401, "check the token in token_file"),
        (403, "check the rights of the token"),
        (404, "check the destination's url"),
        (429, "takes nothing at the moment"),
        (503, "asked again later"),
    ],
)
def test_a_server_that_serves_nobody_stops_the_lane(
    service: StowService, server: ScriptedStow, files: list[Path], status: int, words: str
) -> None:
    server.script = [(status, None, {"Retry-After": "120"})]
    with pytest.raises(Unavailable, match=words) as raised:
        service.send(files)
    assert raised.value.retry_after_s == 120.0
    assert "127.0.0.1" not in str(raised.value)


@pytest.mark.parametrize("status", [400, 413, 415])
def test_a_request_that_is_refused_as_a_whole_is_held(
    service: StowService, server: ScriptedStow, files: list[Path], status: int
) -> None:
    server.script = [(status, None, {})]
    with pytest.raises(Held, match=f"refuses this result \\(status {status}\\)"):
        service.send(files)


def test_a_companion_whose_class_is_not_supported_is_left_out(
    service: StowService, server: ScriptedStow, files: list[Path]
) -> None:
    document = sequence(FAILED, {UIDS[3]: 0x0122}, "00081197")
    server.script = [(202, document, {})]
    report = service.send(files[:3], where_taken=files[3:])
    assert [one.sop_instance_uid for one in report.instances] == UIDS[:3]
    assert report.not_taken == ("1.2.840.10008.5.1.4.1.1.2",)


def test_a_stop_between_two_requests_leaves_the_rest(
    service: StowService, server: ScriptedStow, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "MOST_INSTANCES", 2)
    asked: list[bool] = []
    with pytest.raises(SendingStopped) as raised:
        service.send(files, check_stop=lambda: bool(asked) or bool(asked.append(True)))
    assert server.posts == [UIDS[:2]]
    assert len(raised.value.report.not_stored) == 2


def test_nobody_there_and_a_lost_file_are_told_apart(
    service: StowService, files: list[Path], free_port: Callable[[], int]
) -> None:
    away = StowService("cloud", f"http://127.0.0.1:{free_port()}/dicom-web", timeout_s=2.0)
    with pytest.raises(Unavailable, match="cannot be reached"):
        away.send(files)
    away.close()
    files[1].unlink()
    with pytest.raises(Unreadable, match=r"0002\.dcm cannot be read"):
        service.send(files)


def test_the_token_is_read_for_each_request_and_again_where_it_was_renewed(
    server: ScriptedStow, files: list[Path], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    with server.listening() as url:
        service = StowService("cloud", url, auth=TokenFile(token))
        service.send(files[:1])
        token.write_text("two\n")
        service.send(files[1:2])
        service.close()
    assert server.tokens == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize("url", ["https://me:secret@host/x", "http://host/x?y=1", "https://"])
def test_an_address_that_cannot_be_used_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(Misconfigured, match="destination 'cloud'") as raised:
        StowService("cloud", url)
    assert "secret" not in str(raised.value)


def test_no_patient_is_in_an_address_or_in_the_log(
    service: StowService, server: ScriptedStow, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    service.send(files)
    service.instances(STUDY, SERIES)
    for private in (PATIENT_ID, PATIENT_NAME.split("^")[0]):
        assert private not in caplog.text and not any(private in path for path in server.paths)


@pytest.fixture
def dicom_web(tmp_path: Path, peer: Callable[[str], str], free_port: Callable[[], int]) -> Iterator[Orthanc]:
    peer("Orthanc")
    if not DICOM_WEB.exists():
        missing("Orthanc's DICOMweb plugin (apt: orthanc-dicomweb)")
    with Orthanc(tmp_path / "orthanc", free_port(), free_port(), dicom_web=True) as running:
        yield running


def test_orthanc_stores_what_is_posted_byte_for_byte_and_once(dicom_web: Orthanc, files: list[Path]) -> None:
    service = StowService("orthanc", f"http://127.0.0.1:{dicom_web.http_port}/dicom-web")
    service.check()
    assert service.instances(STUDY, SERIES) == frozenset()
    for _ in range(2):
        assert not service.send(files).not_stored
    assert service.instances(STUDY, SERIES) == set(UIDS)
    service.close()
    held = dicom_web.find("Instance", {"SeriesInstanceUID": SERIES})
    sent = {data_set_bytes(file) for file in files}
    assert {data_set_bytes(dicom_web.rest_bytes(f"/instances/{one['ID']}/file")) for one in held} == sent
    assert len(dicom_web.changes("NewInstance")) == 4
