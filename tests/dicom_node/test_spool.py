"""The spool keeps what it says it keeps. Oracles: the bytes themselves, and the order of fsync and rename."""

import errno
import os
import shutil
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dicom_node.spool import Spool, StoreOutcome, snapshot
from tests.fakes.full_disk import files_end_at
from tests.fakes.open_umask import open_umask
from twin_scanner.errors import Rejected, Transient

pytestmark = pytest.mark.unit

CALLS = ("open", "writev", "fsync", "mkdir", "link", "rename", "unlink")
MOST_CUTS = 200

STUDY, SERIES, INSTANCE = "1.2.3", "1.2.3.4", "1.2.3.4.5"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def keep(spool: Spool, content: bytes, sop_instance_uid: str = INSTANCE, series_uid: str = SERIES) -> StoreOutcome:
    return spool.store((content,), STUDY, series_uid, sop_instance_uid)


def remains(spool: Spool) -> list[Path]:
    return list((spool.folder / ".partial").iterdir())


def test_an_instance_is_the_parts_of_its_file_one_after_the_other(spool: Spool) -> None:
    outcome = spool.store((b"head", memoryview(b""), memoryview(b"data set")), STUDY, SERIES, INSTANCE)
    (file,) = spool.files(STUDY)
    assert outcome == StoreOutcome.STORED
    assert file == spool.folder / STUDY / SERIES / f"{INSTANCE}.dcm"
    assert file.read_bytes() == b"headdata set"
    assert not remains(spool)


def test_a_write_that_takes_a_few_bytes_at_a_time_still_keeps_all(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "writev", lambda descriptor, parts: os.write(descriptor, b"".join(parts)[:7]))
    parts = (b"a" * 10, b"b" * 4, b"c" * 21)
    spool.store(parts, STUDY, SERIES, INSTANCE)
    assert spool.files(STUDY)[0].read_bytes() == b"".join(parts)


def test_the_same_bytes_again_are_not_written_again(spool: Spool) -> None:
    keep(spool, b"slice")
    before, fingerprint = spool.files(STUDY)[0].stat(), spool.fingerprint(STUDY)
    assert spool.store((b"sl", b"ice"), STUDY, SERIES, INSTANCE) == StoreOutcome.IDENTICAL
    after = spool.files(STUDY)[0].stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert spool.fingerprint(STUDY) == fingerprint


@pytest.mark.parametrize("content", [b"slicf", b"slice and more", b"sl", b""])
def test_other_bytes_are_kept_apart_and_the_first_stay(spool: Spool, content: bytes) -> None:
    keep(spool, b"slice")
    fingerprint = spool.fingerprint(STUDY)
    assert keep(spool, content) == StoreOutcome.KEPT_APART
    assert [file.read_bytes() for file in spool.files(STUDY)] == [b"slice"]
    assert spool.fingerprint(STUDY) == fingerprint
    (apart,) = spool.apart(STUDY)
    assert apart.read_bytes() == content
    assert apart.parent == spool.folder / ".apart" / STUDY / SERIES
    assert spool.studies() == [STUDY]
    assert not remains(spool)


def test_each_other_content_is_kept_apart_once(spool: Spool) -> None:
    keep(spool, b"slice")
    outcomes = [keep(spool, content) for content in (b"other", b"third", b"other", b"slice")]
    assert outcomes == [*[StoreOutcome.KEPT_APART] * 3, StoreOutcome.IDENTICAL]
    assert sorted(file.read_bytes() for file in spool.apart(STUDY)) == [b"other", b"third"]
    assert [file.read_bytes() for file in spool.files(STUDY)] == [b"slice"]


def test_what_is_kept_apart_goes_with_its_study(spool: Spool) -> None:
    keep(spool, b"slice")
    keep(spool, b"other")
    assert spool.remove(STUDY)
    assert (spool.apart(STUDY), list((spool.folder / ".apart").iterdir()), remains(spool)) == ((), [], [])
    assert keep(spool, b"other") == StoreOutcome.STORED


def test_a_kill_at_any_call_of_the_disk_while_another_content_is_kept_loses_nothing_that_was_acknowledged(
    tmp_path: Path,
) -> None:
    """SIGKILL before and after each call in turn, in a process of its own; the next one sweeps, and gets it again."""
    for cut in range(1, MOST_CUTS):
        folder = tmp_path / str(cut)
        keep(Spool(folder), b"first")
        killed, acknowledged = done_until_killed(partial(keep_in, folder), cut)
        spool = Spool(folder)
        spool.sweep()
        (first,) = spool.files(STUDY)
        assert first.read_bytes() == b"first" and remains(spool) == []
        apart = [path.read_bytes() for path in spool.apart(STUDY)]
        assert apart == [b"other"] or (apart == [] and not acknowledged)
        assert keep(spool, b"other") == StoreOutcome.KEPT_APART
        assert [path.read_bytes() for path in spool.apart(STUDY)] == [b"other"]
        if not killed:
            break
    assert acknowledged and 20 < cut < MOST_CUTS - 1, "every call was cut"


def test_a_kill_at_any_call_of_the_disk_while_a_correction_takes_its_place_leaves_no_mixture_for_ever(
    tmp_path: Path,
) -> None:
    """Half of a series had the new content and half the old one, and the rest never took its place."""
    uids = [f"{INSTANCE}.{number}" for number in range(3)]
    for cut in range(1, MOST_CUTS):
        folder = tmp_path / str(cut)
        spool = Spool(folder)
        for content in (b"first", b"other"):
            for uid in uids:
                keep(spool, content, uid)
        killed, _ = done_until_killed(partial(take_apart, folder), cut)
        spool = Spool(folder)
        spool.sweep()
        contents = {path.read_bytes() for path in spool.files(STUDY)}
        assert contents == {b"other"} or len(spool.apart(STUDY)) == len(uids)
        spool.take_apart(STUDY)
        assert [path.read_bytes() for path in spool.files(STUDY)] == [b"other"] * len(uids)
        assert spool.apart(STUDY) == () and remains(spool) == []
        if not killed:
            break
    assert 20 < cut < MOST_CUTS - 1, "every call was cut"


def keep_in(folder: Path) -> None:
    keep(Spool(folder), b"other")


def take_apart(folder: Path) -> None:
    Spool(folder).take_apart(STUDY)


def done_until_killed(work: Callable[[], object], cut: int) -> tuple[bool, bool]:
    """Work in a process that ends at its ``cut``-th point: whether it was killed, and had done it all."""
    listening, telling = os.pipe()
    child = os.fork()
    if child == 0:
        left = cut

        def point() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def cutting(call: Callable[..., Any]) -> Callable[..., Any]:
            def cut_call(*arguments: Any, **options: Any) -> Any:
                point()
                result = call(*arguments, **options)
                point()
                return result

            return cut_call

        try:
            for name in CALLS:
                setattr(os, name, cutting(getattr(os, name)))
            work()
            os.write(telling, b"done")
        finally:
            os._exit(0)
    os.close(telling)
    with os.fdopen(listening, "rb") as told:
        done = told.read() == b"done"
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status), done


def test_bytes_that_differ_only_far_inside_are_seen_to_differ(spool: Spool) -> None:
    content = bytearray(300_000)
    keep(spool, bytes(content))
    content[250_000] = 1
    assert keep(spool, bytes(content)) == StoreOutcome.KEPT_APART


def test_the_fingerprint_is_the_same_for_another_spool_of_the_same_files(spool: Spool, tmp_path: Path) -> None:
    keep(spool, b"slice")
    other = Spool(tmp_path / "other")
    keep(other, b"slice")
    status = spool.files(STUDY)[0].stat()
    os.utime(other.files(STUDY)[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert other.fingerprint(STUDY) == spool.fingerprint(STUDY)


class Recorder:
    """The order in which the system was asked to make things durable."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, Path]] = []
        fsync, rename = os.fsync, Path.rename

        def record_fsync(descriptor: int) -> None:
            self.calls.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink()))
            fsync(descriptor)

        def record_rename(source: Path, target: Path) -> Path:
            self.calls.append(("rename", target))
            return rename(source, target)

        monkeypatch.setattr(os, "fsync", record_fsync)
        monkeypatch.setattr(Path, "rename", record_rename)

    def index(self, call: str, path: Path) -> int:
        return self.calls.index((call, path))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads file names from /proc")
def test_a_new_instance_is_durable_with_every_folder_above_it_before_store_returns(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    keep(spool, b"slice")
    series = spool.folder / STUDY / SERIES
    renamed = recorder.index("rename", series / f"{INSTANCE}.dcm")
    assert recorder.index("fsync", spool.folder) < renamed
    assert recorder.index("fsync", spool.folder / STUDY) < renamed
    call, written = recorder.calls[renamed - 1]
    assert call == "fsync" and written.parent == spool.folder / ".partial"
    assert recorder.calls[renamed + 1 :] == [("fsync", series)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads file names from /proc")
def test_a_folder_left_by_a_process_before_is_made_durable_once_more(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(spool, b"slice")
    restarted = Spool(spool.folder)
    recorder = Recorder(monkeypatch)
    keep(restarted, b"slice")
    series = spool.folder / STUDY / SERIES
    assert [path for _, path in recorder.calls] == [
        spool.folder,
        spool.folder / STUDY,
        series / f"{INSTANCE}.dcm",
        series,
    ]


def failing(error_number: int) -> Callable[..., Any]:
    def fail(*arguments: object, **options: object) -> Any:
        raise OSError(error_number, os.strerror(error_number))

    return fail


@pytest.mark.parametrize(("owner", "name"), [(os, "writev"), (os, "fsync"), (Path, "rename")])
def test_a_disk_that_refuses_raises_transient_and_leaves_the_old_instance_alone(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    keep(spool, b"slice")
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, failing(errno.ENOSPC))
        with pytest.raises(Transient, match=r"nstance .*cannot be (kept|written) \(No space left on device\)"):
            keep(spool, b"another slice")
    assert spool.files(STUDY)[0].read_bytes() == b"slice"
    assert not remains(spool)


def test_a_disk_that_is_really_full_raises_transient_and_leaves_the_old_instance_alone(spool: Spool) -> None:
    keep(spool, b"slice")
    with files_end_at(100_000), pytest.raises(Transient, match="A received instance cannot be written"):
        keep(spool, bytes(200_000))
    assert spool.files(STUDY)[0].read_bytes() == b"slice"
    assert not remains(spool)


def test_a_snapshot_by_copies_on_a_full_disk_raises_transient_and_leaves_nothing(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(spool, bytes(200_000))
    with monkeypatch.context() as patched, files_end_at(100_000):
        patched.setattr(os, "link", failing(errno.EXDEV))
        with pytest.raises(Transient, match="cannot be linked"):
            snapshot(spool.files(STUDY), tmp_path / "job")
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]


def test_a_disk_that_refuses_a_folder_raises_transient(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", failing(errno.EIO))
        with pytest.raises(Transient, match="cannot be kept"):
            keep(spool, b"slice")
    assert keep(spool, b"slice") == StoreOutcome.STORED


def test_a_spool_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Transient, match="cannot be created"):
        Spool(tmp_path / "file" / "spool")


@pytest.mark.parametrize(
    "uid", ["", "1", ".", "..", "1..2", "1.2/3", "../1.2", "1.2\0", "1.2\n", "1.2 ", "a.b", "1." * 40]
)
def test_a_text_that_is_no_uid_never_becomes_a_path(spool: Spool, uid: str) -> None:
    for uids in ((uid, SERIES, INSTANCE), (STUDY, uid, INSTANCE), (STUDY, SERIES, uid)):
        with pytest.raises(Rejected, match="not a valid UID"):
            spool.store((b"slice",), *uids)
    with pytest.raises(Rejected):
        spool.files(uid)
    with pytest.raises(Rejected):
        spool.remove(uid)
    assert spool.studies() == []


def test_a_uid_with_a_leading_zero_is_kept_as_scanners_send_it(spool: Spool) -> None:
    spool.store((b"slice",), "1.2.03", SERIES, INSTANCE)
    assert spool.studies() == ["1.2.03"]


def test_a_uid_of_64_characters_is_kept_and_of_65_not(spool: Spool) -> None:
    longest = "1." + "2" * 62
    spool.store((b"slice",), longest, longest, longest)
    assert spool.studies() == [longest]
    with pytest.raises(Rejected):
        spool.store((b"slice",), longest + "2", SERIES, INSTANCE)


def test_the_sweep_removes_what_a_crash_left_and_nothing_else(spool: Spool) -> None:
    keep(spool, b"slice")
    (spool.folder / ".partial" / "half").write_bytes(b"sli")
    (spool.folder / ".partial" / "removed" / SERIES).mkdir(parents=True)
    (spool.folder / ".partial" / "removed" / SERIES / "1.2.dcm").write_bytes(b"old")
    assert spool.sweep() == 2
    assert not remains(spool)
    assert spool.files(STUDY)[0].read_bytes() == b"slice"


def test_parallel_senders_of_one_series_lose_nothing(spool: Spool) -> None:
    def sender(number: int) -> None:
        for index in range(40):
            spool.store((f"{number}-{index}".encode(),), STUDY, SERIES, f"1.2.{number}.{index}")

    run_together([lambda number=number: sender(number) for number in range(4)])
    contents = {file.stem: file.read_text() for file in spool.files(STUDY)}
    assert contents == {f"1.2.{number}.{index}": f"{number}-{index}" for number in range(4) for index in range(40)}


def test_parallel_senders_of_one_instance_leave_one_of_theirs_whole(spool: Spool) -> None:
    contents = [bytes([value]) * 50_000 for value in range(4)]
    outcomes: list[StoreOutcome] = []
    run_together([lambda content=content: outcomes.append(keep(spool, content)) for content in contents])
    assert spool.files(STUDY)[0].read_bytes() in contents
    assert sorted(outcomes) == [StoreOutcome.KEPT_APART] * 3 + [StoreOutcome.STORED]
    assert sorted(file.read_bytes() for file in (*spool.files(STUDY), *spool.apart(STUDY))) == contents


def run_together(work: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_removed_study_is_gone_and_can_come_again(spool: Spool) -> None:
    keep(spool, b"slice")
    assert spool.remove(STUDY)
    assert (spool.studies(), spool.files(STUDY), remains(spool)) == ([], (), [])
    assert spool.remove(STUDY)
    assert keep(spool, b"slice") == StoreOutcome.STORED


def test_a_study_that_changed_since_is_not_removed(spool: Spool) -> None:
    keep(spool, b"slice")
    fingerprint = spool.fingerprint(STUDY)
    keep(spool, b"late slice", "1.2.3.4.6")
    assert not spool.remove(STUDY, fingerprint)
    assert len(spool.files(STUDY)) == 2
    assert spool.remove(STUDY, spool.fingerprint(STUDY))


def test_an_instance_that_comes_again_is_reported_before_its_study_could_be_removed(spool: Spool) -> None:
    """Between the two, the clearing used to take it away, and the sender was told that it is kept."""
    keep(spool, b"slice")
    arriving, removed = list[str](), list[bool]()
    fingerprint = spool.fingerprint(STUDY)
    clearing = threading.Thread(
        target=lambda: removed.append(spool.remove(STUDY, fingerprint, unless=lambda: STUDY in arriving))
    )

    def report(outcome: StoreOutcome) -> None:
        clearing.start()
        clearing.join(0.2)
        assert outcome == StoreOutcome.IDENTICAL
        arriving.append(STUDY)

    spool.store([b"slice"], STUDY, SERIES, INSTANCE, report)
    clearing.join()
    assert removed == [False]
    assert len(spool.files(STUDY)) == 1


def test_removing_while_a_sender_stores_loses_no_instance_that_was_not_seen(spool: Spool) -> None:
    stored: list[str] = []
    removed: set[str] = set()
    finished = threading.Event()

    def sender() -> None:
        for index in range(150):
            keep(spool, b"slice", f"1.2.{index}")
            stored.append(f"1.2.{index}")
        finished.set()

    def housekeeper() -> None:
        while not finished.is_set():
            fingerprint = spool.fingerprint(STUDY)
            seen = {file.stem for file in spool.files(STUDY)}
            if spool.fingerprint(STUDY) == fingerprint and spool.remove(STUDY, fingerprint):
                removed.update(seen)

    run_together([sender, housekeeper])
    assert set(stored) == removed | {file.stem for file in spool.files(STUDY)}


def test_a_snapshot_stays_as_it_was_when_the_study_is_removed(spool: Spool, tmp_path: Path) -> None:
    keep(spool, b"slice")
    keep(spool, b"another", "1.2.3.5.1", series_uid="1.2.3.5")
    linked = snapshot(spool.files(STUDY), tmp_path / "jobs" / "7")
    spool.remove(STUDY)
    assert linked == (
        tmp_path / "jobs" / "7" / SERIES / f"{INSTANCE}.dcm",
        tmp_path / "jobs" / "7" / "1.2.3.5" / "1.2.3.5.1.dcm",
    )
    assert [file.read_bytes() for file in linked] == [b"slice", b"another"]


def test_a_snapshot_that_is_there_is_kept_as_it_is(spool: Spool, tmp_path: Path) -> None:
    keep(spool, b"slice")
    first = snapshot(spool.files(STUDY), tmp_path / "job")
    keep(spool, b"late slice", "1.2.3.4.6")
    assert snapshot(spool.files(STUDY), tmp_path / "job") == first
    assert first[0].read_bytes() == b"slice"


def test_a_snapshot_shares_the_spool_s_disk_blocks(spool: Spool, tmp_path: Path) -> None:
    keep(spool, b"slice")
    (linked,) = snapshot(spool.files(STUDY), tmp_path / "job")
    assert linked.samefile(spool.files(STUDY)[0])


def test_a_snapshot_on_another_file_system_is_a_copy(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(spool, b"slice")
    monkeypatch.setattr(os, "link", failing(errno.EXDEV))
    (copied,) = snapshot(spool.files(STUDY), tmp_path / "job")
    assert copied.read_bytes() == b"slice"
    assert not copied.samefile(spool.files(STUDY)[0])


def test_a_snapshot_that_fails_leaves_nothing(spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(spool, b"slice")
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", failing(errno.EIO))
        with pytest.raises(Transient, match="cannot be linked"):
            snapshot(spool.files(STUDY), tmp_path / "jobs" / "7")
    assert list((tmp_path / "jobs").iterdir()) == []
    assert len(snapshot(spool.files(STUDY), tmp_path / "jobs" / "7")) == 1


def test_what_is_received_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    """It used to depend on the unit's UMask: without one, everybody on the machine could read the patients' images."""
    with open_umask():
        spool = Spool(tmp_path / "data" / "spool")
        keep(spool, b"slice")
        (linked,) = snapshot(spool.files(STUDY), tmp_path / "data" / "jobs" / "7" / "ct")
    assert linked.stat().st_mode & 0o777 == 0o600
    folders = [path for path in (tmp_path / "data").rglob("*") if path.is_dir()]
    assert len(folders) >= 7
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


def test_the_free_space_is_what_the_file_system_says(tmp_path: Path) -> None:
    assert Spool(tmp_path / "a").free_bytes() > 0
    assert Spool(tmp_path / "b", free=lambda folder: 12345).free_bytes() == 12345


def test_a_study_folder_that_somebody_deleted_is_made_again(spool: Spool) -> None:
    keep(spool, b"slice")
    shutil.rmtree(spool.folder / STUDY)
    assert keep(spool, b"slice") == StoreOutcome.STORED


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_series_that_cannot_be_listed_is_no_series_that_is_not_there(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    keep(spool, b"slice")
    spool.store([b"other"], STUDY, f"{SERIES}.5", f"{INSTANCE}.5")
    scan = os.scandir

    def refusing(folder: Any) -> Any:
        if Path(folder).name == SERIES:
            raise OSError(number, os.strerror(number))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    for look in (spool.files, spool.fingerprint):
        with pytest.raises(Transient, match="cannot be read from the spool"):
            look(STUDY)
    assert spool.files("1.2.99") == ()


def test_a_file_that_cannot_be_looked_at_is_a_matter_of_the_disk(spool: Spool) -> None:
    keep(spool, b"slice")
    (file,) = spool.files(STUDY)
    file.unlink()
    file.symlink_to(file)
    with pytest.raises(Transient, match="cannot be read from the spool"):
        spool.fingerprint(STUDY)
