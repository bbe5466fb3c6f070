"""A process that is killed between any two writes of a delivery: nothing is lost, and the archive has nothing twice.

Each write of the ledger is cut before and after its commit, each file before and after it is written, and each answer
of the archive before and after it is noted. What a later process finds is what the next test run starts from.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dicom_node.commitment import CommitmentReport, CommitmentReports
from dicom_node.spool import Spool
from tests.fakes import scanner_node
from tests.fakes.archive import Archive
from tests.fakes.clock import Clock
from tests.fakes.delivery_site import CALLING_AE, DeliverySite, archive_destination, eventually
from tests.samples.loopback_node import start_node
from twin_scanner.dicom.write import companions
from twin_scanner.files import durable_file
from twin_scanner.service import answered_instances
from twin_scanner.service.image_target import DicomTarget
from twin_scanner.service.ledger import Ledger, ResendReason
from twin_scanner.service.ledger.database import Database

pytestmark = [pytest.mark.record, pytest.mark.long, pytest.mark.timeout(900)]

Open = Callable[..., Ledger]
MOST_POINTS = 200


class Killed(BaseException):
    """The process is no more: nothing in the product may catch it."""


class Kill:
    """Ends this thread's work at a point that is counted; other threads, such as the archive's, go on."""

    def __init__(self) -> None:
        self.left = 0
        self.thread = threading.get_ident()

    def point(self) -> None:
        if threading.get_ident() != self.thread or self.left == 0:
            return
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Kill:
    """Puts the points into the product."""
    kill = Kill()
    write, commit = Database.write, DicomTarget.commit
    send: Any = DicomTarget.send
    write_durably = durable_file.write_durably

    @contextmanager
    def cut_write(database: Database) -> Iterator[Any]:
        with write(database) as transaction:
            yield transaction
            kill.point()
        kill.point()

    def cut_send(target: DicomTarget) -> Any:
        def sent(*files: Any, on_answer: Callable[[Any], None], **options: Any) -> Any:
            def note(answer: Any) -> None:
                kill.point()
                on_answer(answer)
                kill.point()

            return send.fget(target)(*files, on_answer=note, **options)

        return sent

    def cut_commit(target: DicomTarget, *request: Any) -> None:
        commit(target, *request)
        kill.point()

    def cut_file(path: Path, content: bytes) -> None:
        kill.point()
        write_durably(path, content)
        kill.point()

    monkeypatch.setattr(Database, "write", cut_write)
    monkeypatch.setattr(DicomTarget, "send", property(cut_send))
    monkeypatch.setattr(DicomTarget, "commit", cut_commit)
    for module in (answered_instances, companions):
        monkeypatch.setattr(module, "write_durably", cut_file)
    monkeypatch.setattr(scanner_node, "PET_SLICES", 2)
    return kill


@pytest.mark.parametrize("confirm", ["query", "commitment", "status"])
def test_a_kill_between_any_two_writes_of_a_delivery_loses_nothing_and_doubles_nothing(
    tmp_path: Path, sqlite_url: str, migrated_file: Path, open_ledger: Open, clock: Clock, kill: Kill, confirm: str
) -> None:
    Path(sqlite_url.removeprefix("sqlite:///")).write_bytes(migrated_file.read_bytes())
    ledgers = [open_ledger(sqlite_url)]
    reports = CommitmentReports(lambda report: keep(ledgers[-1], report))
    with Archive() as archive:
        node = start_node(Spool(tmp_path / "spool"), reports=reports, peers=[archive.peer])
        archive.caller = (CALLING_AE, node.peer.port)
        destination = archive_destination(archive, confirm=confirm, rejects=True, reports=reports)

        def process() -> DeliverySite:
            """The next one, after the last was killed."""
            ledgers.append(open_ledger(sqlite_url))
            return DeliverySite(tmp_path, ledgers[-1], clock, destination)

        killed_at = 0
        for point in range(1, MOST_POINTS):
            site = process()
            first = site.job(2 * point, study=point)
            until_done(site, first, archive, clock)
            second = site.job(2 * point + 1, study=point, slices=3)
            kill.left = point
            try:
                until_done(site, second, archive, clock)
            except Killed:
                killed_at = point
                kill.left = 0
                site = process()
                until_done(site, second, archive, clock)
            was_killed, kill.left = killed_at == point, 0
            everything_is_there_once(archive, site, first, second)
            if not was_killed:
                break
        assert 12 < killed_at < MOST_POINTS - 1, "every point up to the last was cut"
    node.listener.stop(20.0)


@pytest.mark.parametrize("confirm", ["commitment", "status"])
def test_a_kill_while_something_is_sent_again_leaves_none_of_it_out(
    tmp_path: Path, sqlite_url: str, migrated_file: Path, open_ledger: Open, clock: Clock, kill: Kill, confirm: str
) -> None:
    Path(sqlite_url.removeprefix("sqlite:///")).write_bytes(migrated_file.read_bytes())
    ledgers = [open_ledger(sqlite_url)]
    reports = CommitmentReports(lambda report: keep(ledgers[-1], report))
    with Archive() as archive:
        node = start_node(Spool(tmp_path / "spool"), reports=reports, peers=[archive.peer])
        archive.caller = (CALLING_AE, node.peer.port)
        destination = archive_destination(archive, confirm=confirm, reports=reports)

        def process() -> DeliverySite:
            ledgers.append(open_ledger(sqlite_url))
            return DeliverySite(tmp_path, ledgers[-1], clock, destination)

        killed_at = 0
        for point in range(1, MOST_POINTS):
            site = process()
            job = site.job(point, study=point)
            until_done(site, job, archive, clock)
            site.ledger.resend(job.job_id, "pacs", ResendReason.RESTORED)
            kill.left = point
            try:
                until_done(site, job, archive, clock)
            except Killed:
                killed_at = point
                kill.left = 0
                site = process()
                until_done(site, job, archive, clock)
            was_killed, kill.left = killed_at == point, 0
            for uid in site.issued(job):
                assert len(set(archive.stored[uid])) == 1, "another content under the same UID"
                assert 2 <= len(archive.stored[uid]) <= 3, "left out, or sent again although it was noted"
            if not was_killed:
                break
        assert 8 < killed_at < MOST_POINTS - 1, "every point up to the last was cut"
    node.listener.stop(20.0)


def keep(ledger: Ledger, report: CommitmentReport) -> bool:
    return ledger.deliveries.reported(report.transaction_uid, report.kept)


def until_done(site: DeliverySite, job: Any, archive: Archive, clock: Clock) -> None:
    def is_done() -> bool:
        site.run()
        return site.state(job) == "done"

    eventually(is_done)


def everything_is_there_once(archive: Archive, site: DeliverySite, first: Any, second: Any) -> None:
    """By the archive's own record: each instance of both revisions and one rejection note, never with two contents."""
    of_study = {uid for uid, one in archive.datasets.items() if one.StudyInstanceUID == second.study_uid}
    issued = {*site.issued(first), *site.issued(second)}
    notes = of_study - issued
    assert of_study > issued and len(notes) == 1
    assert archive.datasets[notes.pop()].Modality == "KO"
    for uid in of_study:
        assert len(set(archive.stored[uid])) == 1, "another content under the same UID"
        assert len(archive.stored[uid]) <= 2, "sent again although it was noted"
