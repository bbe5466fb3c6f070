"""Files are whole or not there, and an error of the disk is one sentence."""

import errno
import os
from pathlib import Path

import pytest

from tests.fakes.full_disk import files_end_at
from twin_scanner.errors import Transient
from twin_scanner.files.durable_file import put_in_place, whole_folder, write_durably, writing

pytestmark = pytest.mark.unit


def test_a_full_disk_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "aliases.json"
    write_durably(path, b"old")
    with files_end_at(10), pytest.raises(OSError, match="too large"):
        write_durably(path, bytes(1000))
    assert path.read_bytes() == b"old"


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with files_end_at(10), pytest.raises(OSError, match="too large"), whole_folder(tmp_path / "package") as scratch:
        write_durably(scratch / "small", b"small")
        write_durably(scratch / "large", bytes(1000))
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_library_takes_its_name_in_one_step(tmp_path: Path) -> None:
    part, path = tmp_path / "part-image", tmp_path / "image"
    path.write_bytes(b"old")
    part.write_bytes(b"new")
    put_in_place(part, path)
    assert path.read_bytes() == b"new" and not part.exists()


def test_an_error_of_the_disk_is_transient_and_names_the_file_the_folder_and_the_reason(tmp_path: Path) -> None:
    with pytest.raises(Transient) as fault, writing("preview.png", tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert str(fault.value) == (
        f"preview.png cannot be written to {tmp_path} (Input/output error): check its free space and rights."
    )


def test_an_error_that_is_not_the_disks_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError), writing("preview.png", tmp_path):
        raise KeyError("a fault of our own")
