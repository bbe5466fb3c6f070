"""Whether a folder can be written is known before the work, and looking leaves nothing behind."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from twin_scanner.errors import Rejected, Transient
from twin_scanner.files import writable
from twin_scanner.files.writable import check_writable

pytestmark = pytest.mark.unit


def test_a_folder_that_can_be_written_passes_and_nothing_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    for folder in (tmp_path, tmp_path / "new", tmp_path / "deep" / "er" / "still"):
        check_writable(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("below", ["", "/results", "/results/pet"])
def test_a_file_in_the_way_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "report.txt").write_text("a file")
    with pytest.raises(Rejected, match=r"report\.txt is no folder.* choose another folder") as fault:
        check_writable(Path(f"{tmp_path}/report.txt{below}"))
    assert "\n" not in str(fault.value)


def test_a_name_that_no_file_system_takes_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="File name too long"):
        check_writable(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("number", "error", "sentence"),
    [
        (errno.EACCES, Rejected, "the user who runs this has no permission"),
        (errno.EPERM, Rejected, "the user who runs this has no permission"),
        (errno.EROFS, Rejected, "is on a read-only file system"),
        (errno.ENOSPC, Transient, "the disk is full"),
        (errno.EDQUOT, Transient, "the disk is full"),
        (errno.EIO, Transient, os.strerror(errno.EIO)),
    ],
)
def test_each_fault_of_the_disk_has_a_sentence_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception], sentence: str
) -> None:
    def faulty(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(writable.os, "fsync", faulty)
    with pytest.raises(error, match=sentence) as fault:
        check_writable(tmp_path / "new")
    assert str(tmp_path) in str(fault.value) and "\n" not in str(fault.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_permission_is_found() -> None:
    """By a process of another user where the tests run as root, whom no permission stops."""
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from twin_scanner.errors import Rejected\n"
        "from twin_scanner.files.writable import check_writable\n"
        "if os.getuid() == 0:\n"
        "    os.setgid(65534)\n"
        "    os.setuid(65534)\n"
        "try:\n"
        "    check_writable(Path(sys.argv[1]))\n"
        "except Rejected as fault:\n"
        "    print(fault)\n"
    )
    with tempfile.TemporaryDirectory() as closed:
        Path(closed).chmod(0o555)
        command = [sys.executable, "-c", program, f"{closed}/results"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.stdout.startswith(f"{closed}/results cannot be written: the user who runs this"), run.stderr


def test_a_broken_link_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    with pytest.raises(Rejected, match="out is no folder"):
        check_writable(tmp_path / "out")


def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: the process may write 4 KiB a file, so the probe fails as it would on a full disk."""
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from twin_scanner.errors import Transient\n"
        "from twin_scanner.files.writable import check_writable\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    check_writable(Path(sys.argv[1]))\n"
        "except Transient as fault:\n"
        "    print(fault)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert "the disk is full" in run.stdout, run.stderr
    assert not list(tmp_path.iterdir())
