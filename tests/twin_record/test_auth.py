"""A token that others renew in its file is used as soon as it lies there, and shows nowhere else."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.fakes.scripted_fhir import Sent, empty_server, scripted_fhir
from tests.samples.twin_updates import SITE, an_update
from twin_record.auth import TokenFile
from twin_record.remote import FhirClient
from twin_scanner.errors import Unavailable

pytestmark = pytest.mark.record


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("s3cret-old\n")
    return file


@contextmanager
def guarded(is_valid: Callable[[str], bool], token_file: Path) -> Iterator[tuple[FhirClient, list[Sent]]]:
    """A client of an empty server that answers 401 to the other tokens."""

    def script(sent: Sent) -> tuple[int, str]:
        return empty_server(sent) if is_valid(sent.headers["Authorization"].removeprefix("Bearer ")) else (401, "")

    with (
        scripted_fhir(script) as (url, seen),
        closing(FhirClient(url, SITE, auth=TokenFile(token_file), sleep=lambda _seconds: None)) as client,
    ):
        yield client, seen


def test_a_token_that_is_renewed_between_two_records_is_read_again(token_file: Path) -> None:
    with guarded(lambda _token: True, token_file) as (client, seen):
        client.record(an_update())
        assert {sent.headers["Authorization"] for sent in seen} == {"Bearer s3cret-old"}
        seen.clear()
        replacement = token_file.with_name("token.new")
        replacement.write_text("s3cret-new")
        replacement.replace(token_file)
        client.record(an_update())
        assert {sent.headers["Authorization"] for sent in seen} == {"Bearer s3cret-new"}


def test_a_token_that_is_renewed_while_the_old_one_is_refused_is_sent_once_more(token_file: Path) -> None:
    """The file's size and time stay as they were: a file system's clock may be coarse."""
    before = token_file.stat()

    def is_valid(token: str) -> bool:
        if token == "s3cret-old":
            token_file.write_text("s3cret-new\n")
            os.utime(token_file, ns=(before.st_atime_ns, before.st_mtime_ns))
        return token == "s3cret-new"

    with guarded(is_valid, token_file) as (client, seen):
        client.record(an_update())
        assert [sent.headers["Authorization"][-3:] for sent in seen] == ["old", "new", "new", "new"]


def test_a_token_that_stays_refused_is_sent_once(token_file: Path) -> None:
    with guarded(lambda _token: False, token_file) as (client, seen):
        with pytest.raises(Unavailable, match="check the token"):
            client.record(an_update())
        assert len(seen) == 1


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe\x00", b"two\nlines", "pässword".encode(), None])
def test_a_file_that_holds_no_token_stops_everything_and_nothing_is_sent(
    content: bytes | None, token_file: Path
) -> None:
    if content is None:
        token_file.unlink()
    else:
        token_file.write_bytes(content)
    with guarded(lambda _token: True, token_file) as (client, seen):
        with pytest.raises(Unavailable, match="token file") as error:
            client.record(an_update())
        assert seen == []
        token_file.write_text("s3cret-repaired")
        client.record(an_update())
    assert "pässword" not in str(error.value)


def test_the_token_goes_into_the_header_and_nowhere_else(token_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), guarded(lambda _token: False, token_file) as (client, seen):
        with pytest.raises(Unavailable, match="token") as error:
            client.record(an_update())
        assert {sent.headers["Authorization"] for sent in seen} == {"Bearer s3cret-old"}
        assert {sent.headers["Content-Type"] for sent in seen} == {"application/fhir+json"}
    assert "s3cret" not in str(error.value) + caplog.text
