"""The wiring: one scanner a folder, a start that leaves nothing behind, recovery, clearing, and the loop guard."""

import contextlib
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa

from dicom_node.peers import Peer
from dicom_node.store_scu import NotStored, send
from tests.fakes import scanner_node
from tests.fakes.archive import Archive
from tests.fakes.clock import Clock
from tests.fakes.hanging_work import hang
from tests.samples.authority import Authority
from tests.samples.small_ct import write_series
from twin_record.embedded import EmbeddedStore
from twin_record.update import TwinSite
from twin_scanner import app
from twin_scanner.app import Scanner
from twin_scanner.dicom.read.series_choice import Choice
from twin_scanner.errors import Held, Misconfigured, Rejected, Transient
from twin_scanner.executor import local
from twin_scanner.executor.memory import Memory
from twin_scanner.render.exchange import InPlace
from twin_scanner.render.report import RenderReport
from twin_scanner.render.request import RenderRequest
from twin_scanner.service.ahead import _Begun
from twin_scanner.service.ledger import DeliveryState, State, StudyState
from twin_scanner.service.worker import Beat
from twin_scanner.settings import Settings

pytestmark = pytest.mark.node

STUDY_UID = "1.2.3"
DEADLINE_S = 60.0


def settings(folder: Path, **sections: dict[str, Any]) -> Settings:
    node = sections.pop("node", {"port": 0, "quiet_period_s": 0.5, "minimum_free_mb": 0})
    return Settings.model_validate(
        {
            "node": {"open_to_loopback": True, **node},
            "storage": {"folder": folder / "data", "keep_days": 0.0},
            **({} if "destinations" in sections else {"pacs": {"port": 1}}),
            "model": {"accept_phantom_only": True},
            **sections,
        }
    )


@pytest.fixture
def short(tmp_path: Path) -> list[Path]:
    """A CT that covers too little to be translated: its study is rejected without a render."""
    return write_series(tmp_path / "ct", slices=3)


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with Scanner(settings(tmp_path)).running() as running:
        yield running


def push(files: list[Path], scanner: Scanner) -> None:
    send(files, Peer("TWINSCANNER", "127.0.0.1", scanner.receiver.port), calling_ae="CT")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def states(scanner: Scanner) -> list[State]:
    return [job.state for job in scanner.ledger.jobs.newest()]


def own_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.daemon}


def test_a_second_scanner_on_the_same_folder_is_refused(scanner: Scanner, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="Another scanner already runs on"):
        Scanner(settings(tmp_path))
    assert (tmp_path / "data" / "lock").read_text() == str(os.getpid()), "it says which process is to be stopped"


def test_the_storage_folder_is_its_owners_alone(scanner: Scanner, tmp_path: Path) -> None:
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


def test_a_busy_port_leaves_no_thread_and_no_lock(tmp_path: Path) -> None:
    before = own_threads()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        node = {"port": other.getsockname()[1], "minimum_free_mb": 0}
        with pytest.raises(Transient, match="is in use"):
            Scanner(settings(tmp_path, node=node))
    assert own_threads() == before
    with Scanner(settings(tmp_path)).running():
        assert own_threads() > before


def test_a_start_that_fails_half_way_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = own_threads()
    scanner = Scanner(settings(tmp_path))

    def fail() -> None:
        raise Transient("The ledger cannot be reached.")

    monkeypatch.setattr(scanner.retraining, "start", fail)
    with pytest.raises(Transient, match="ledger"):
        scanner.start()
    assert own_threads() == before
    with Scanner(settings(tmp_path)).running():
        pass


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"model": {"name": "nobody-has-this-model"}}, "There is no model 'nobody-has-this-model'"),
        ({"model": {"accept_phantom_only": False}}, "was trained on phantoms only"),
        ({"districts": {"segmenter": "moose"}, "model": {"accept_phantom_only": True}}, "moose"),
        (
            {"districts": {"segmenter": "labelmap", "labelmap": "."}, "model": {"accept_phantom_only": True}},
            "trained on districts by 'landmarks', configured is 'labelmap'",
        ),
    ],
)
def test_a_configuration_with_which_no_patient_can_be_served_is_refused_before_anything_is_touched(
    tmp_path: Path, sections: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        Scanner(settings(tmp_path, **sections))
    assert not (tmp_path / "data").exists()


def test_a_folder_stays_locked_while_a_step_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a PACS does not answer: another scanner would deliver the same once more."""
    monkeypatch.setattr(app, "WORKER_STOP_S", 0.1)
    begun, end = threading.Event(), threading.Event()

    def render(request: RenderRequest, beat: Beat) -> RenderReport:
        begun.set()
        end.wait(DEADLINE_S)
        raise Transient("It was too late.")

    scanner = Scanner(settings(tmp_path), render=render)
    with scanner.running():
        push(write_series(tmp_path / "long"), scanner)
        assert begun.wait(DEADLINE_S)
    assert scanner.at_work
    assert "the folder stays locked" in caplog.text
    with pytest.raises(Rejected, match="Another scanner already runs on"):
        Scanner(settings(tmp_path))
    end.set()
    wait_for(lambda: not scanner.at_work)
    scanner._lock.close()


def test_a_reader_that_hangs_is_ended_each_time_and_its_study_quarantined(
    tmp_path: Path, short: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to stop the intake of every study for ever."""
    monkeypatch.setattr(app, "choices_of", hang)
    with Scanner(settings(tmp_path, limits={"reading_s": 0.5}, retry={"first_delay_s": 0.1})).running() as scanner:
        push(short, scanner)
        wait_for(lambda: bool(scanner.ledger.studies.of_node(StudyState.HELD)))
        (study,) = scanner.ledger.studies.of_node(StudyState.HELD)
        assert "never ended in 3 attempts" in study.reason


def test_a_study_whose_headers_hang_ahead_of_time_is_not_laid_to_another_ones_charge(
    tmp_path: Path, short: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process was ended by the other study's limit, and an attempt of that one counted."""
    monkeypatch.setattr(app, "AHEAD_S", 0.3)
    with Scanner(settings(tmp_path)).running() as scanner:
        hanging = scanner._reader.submit(hang)
        scanner._ahead._begun["1.2.9"] = _Begun("", hanging)
        push(short, scanner)
        wait_for(lambda: states(scanner) == [State.REJECTED])
        assert hanging.done()
        study = scanner.ledger.studies.find(str(pydicom.dcmread(short[0]).StudyInstanceUID))
        assert study is not None and study.attempts <= 1


def test_a_ct_that_hangs_while_it_is_read_ahead_holds_up_no_render_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "AHEAD_S", 0.3)
    with Scanner(settings(tmp_path)).running() as scanner:
        hanging = scanner._executor.submit(hang)
        scanner._ahead._reading = hanging
        write_series(tmp_path / "ct")
        request = replace(app.render_template(settings(tmp_path)), source=tmp_path / "ct", result=tmp_path / "result")

        def begin(self: InPlace, executor: Executor, request: RenderRequest) -> Future[Any]:
            raise Transient("The render has begun.")

        monkeypatch.setattr(InPlace, "begin", begin)
        with pytest.raises(Transient, match="has begun"):
            scanner._render(request, lambda: None)
        assert isinstance(hanging.exception(10.0), BrokenExecutor)
        assert scanner._begin_reading(()) is not None, "and the worker is idle again"


def test_a_study_that_was_looked_at_ahead_of_time_is_not_looked_at_again(
    tmp_path: Path, short: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Scanner(settings(tmp_path)).running() as scanner:
        begun: list[Future[list[Choice]]] = []
        begin = scanner._begin_look

        def count(study_uid: str, files: Sequence[Path]) -> Future[list[Choice]]:
            begun.append(begin(study_uid, files))
            return begun[-1]

        monkeypatch.setattr(scanner._ahead, "_choose", count)
        monkeypatch.setattr(scanner, "_begin_look", count)
        for file in short:
            header = pydicom.dcmread(file)
            scanner._spool.store([file.read_bytes()], STUDY_UID, header.SeriesInstanceUID, header.SOPInstanceUID)
        scanner._ahead.begin(STUDY_UID)
        files = scanner._spool.files(STUDY_UID)
        (choice,) = scanner._look(STUDY_UID, files, lambda: None)
        assert len(begun) == 1 and "fewer than 16" in choice.skipped[0][1]
        scanner._look(STUDY_UID, files, lambda: None)
        assert len(begun) == 2, "what was begun counts once"


def test_the_process_that_reads_headers_is_there_before_the_first_study_comes(scanner: Scanner) -> None:
    """Its start and what it imports took two seconds of the first study's time."""
    _, started = scanner.warm_up()
    assert started.result(120.0) == []
    scanner._executor.close()
    (reader,) = multiprocessing.active_children()
    scanner._look("1.2.3", (), lambda: None)
    assert multiprocessing.active_children() == [reader]


def test_a_look_at_a_study_that_is_gone_meanwhile_has_its_time_too(tmp_path: Path) -> None:
    """Its limit was that of no file, none at all: the process was ended before it had begun."""
    with Scanner(settings(tmp_path)).running() as scanner:
        assert scanner._look(STUDY_UID, (), lambda: None) == []


def test_a_render_that_hangs_is_ended_and_tried_again_by_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to stop every render for ever."""
    monkeypatch.setattr(app, "InPlace", lambda: InPlace(hang))
    with Scanner(settings(tmp_path, limits={"render_s": 0.5}, retry={"first_delay_s": 0.1})).running() as scanner:
        push(write_series(tmp_path / "ct"), scanner)
        wait_for(lambda: [job.attempts for job in scanner.ledger.jobs.newest()] == [2])
        (job,) = scanner.ledger.jobs.newest()
        assert job.state == State.QUEUED
        assert "did not end within 0.5 s (limits.render_s)" in job.reason


def test_a_ct_that_cannot_fit_into_this_machine_is_held_before_its_render_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker was killed for memory, and the job tried again for 30 days."""
    monkeypatch.setattr(local, "memory_of_this_machine", lambda: Memory(total=1_000_000, free=1_000_000))
    write_series(tmp_path / "ct")
    request = replace(app.render_template(settings(tmp_path)), source=tmp_path / "ct", result=tmp_path / "result")
    held = pytest.raises(Held, match=r"GB of memory, and this machine gives 0\.0 GB")
    with Scanner(settings(tmp_path)).running() as scanner, held:
        scanner._render(request, lambda: None)


def test_aged_files_are_cleared_while_the_row_stays_and_the_same_ct_makes_nothing_new(
    scanner: Scanner, short: list[Path], tmp_path: Path
) -> None:
    push(short, scanner)
    wait_for(lambda: states(scanner) == [State.REJECTED])
    spool = tmp_path / "data" / "spool"

    def cleared() -> bool:
        scanner.clear_aged()
        return not list(spool.rglob("*.dcm"))

    wait_for(cleared)
    assert not list((tmp_path / "data" / "jobs").glob("*"))
    push(short, scanner)

    def taken_again() -> bool:
        study = scanner.ledger.studies.find(STUDY_UID)
        return study is not None and study.state == StudyState.TAKEN and bool(list(spool.rglob("*.dcm")))

    wait_for(taken_again)
    assert states(scanner) == [State.REJECTED]


def test_clearing_keeps_the_half_of_a_study_that_has_arrived_again(tmp_path: Path, short: list[Path]) -> None:
    with Scanner(settings(tmp_path)).running() as first:
        push(short, first)
        wait_for(lambda: [study.study_uid for study in first.ledger.studies.of_node(StudyState.TAKEN)] == [STUDY_UID])
    patient = {"port": 0, "quiet_period_s": 600.0, "minimum_free_mb": 0}
    with Scanner(settings(tmp_path, node=patient)).running() as second:
        push(short[:1], second)
        second.clear_aged()
    assert len(list((tmp_path / "data" / "spool").rglob("*.dcm"))) == len(short)


def test_what_was_spooled_before_a_stop_is_taken_up_at_the_next_start(tmp_path: Path, short: list[Path]) -> None:
    patient = {"port": 0, "quiet_period_s": 600.0, "minimum_free_mb": 0}
    with Scanner(settings(tmp_path, node=patient)).running() as first:
        push(short, first)
        assert states(first) == []
    with Scanner(settings(tmp_path)).running() as second:
        wait_for(lambda: states(second) == [State.REJECTED])


def test_a_node_whose_ledger_is_damaged_acknowledges_nothing_until_it_works_again(
    scanner: Scanner, short: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to go on acknowledging when both its workers had died of it."""

    def damaged(*_: object) -> None:
        raise sa.exc.DatabaseError("SELECT", {}, Exception("database disk image is malformed"))

    with monkeypatch.context() as patched:
        patched.setattr(scanner.ledger.database.engine, "connect", damaged)
        wait_for(lambda: scanner.ledger.database.fault is not None)
        with pytest.raises(NotStored, match="0xA700"):
            push(short, scanner)
    wait_for(lambda: scanner.ledger.database.fault is None)
    push(short, scanner)
    wait_for(lambda: states(scanner) == [State.REJECTED])


def test_the_loop_guard_knows_our_equipment_and_our_series(scanner: Scanner) -> None:
    stranger = pydicom.Dataset()
    stranger.Modality, stranger.Manufacturer, stranger.DeviceSerialNumber = "PT", "ACME", "1"
    stranger.SeriesInstanceUID = "1.2.840.1"
    assert not scanner._is_own(stranger)
    ours = pydicom.Dataset()
    ours.Modality, ours.Manufacturer, ours.DeviceSerialNumber = "PT", "twin-scanner", "TS-0001"
    assert scanner._is_own(ours)


def test_a_retraining_that_was_missed_is_started_with_the_scanner_and_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each command is a program of the test that writes its words down, in the place of Python.

    The check of the twin, missed as well, starts beside the retraining.
    """
    program, words = tmp_path / "python", tmp_path / "words"
    program.write_text(f'#!/bin/sh\necho "$@" >> {words}\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    config, retrain = tmp_path / "twin-scanner.toml", tmp_path / "retrain.toml"
    configured = settings(tmp_path, retrain={"config": retrain, "cron": "0 3 1 1 *"})
    clock = Clock()
    with Scanner(configured, config=config, now=clock).running() as first:
        due = first.retraining.next_start()
        assert due is not None
    clock.pass_s((due - clock.now + timedelta(days=1)).total_seconds())
    caplog.set_level("INFO", "twin_scanner.schedule")
    with Scanner(configured, config=config, now=clock).running() as second:
        wait_for(lambda: caplog.messages.count("command ended") == 2)
        assert second.retraining.next_start() == due.replace(year=due.year + 1)
    check, retraining = sorted(words.read_text().splitlines(), key=lambda line: "retrain " in line)
    assert retraining == f"-m twin_scanner.cli retrain {retrain} --config {config}"
    assert check.startswith("-m twin_scanner.cli twin check ")


def test_a_ct_comes_from_the_peer_that_shows_its_certificate_and_ours_is_looked_at_before_its_end(
    tmp_path: Path, short: list[Path], peer: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path / "authority", peer("openssl"))
    ours, theirs = authority.sign("scanner.hospital", days=10), authority.sign("ct.hospital")
    known = {"name": "ct", "ae_title": "CT", "host": "127.0.0.1", "tls": True, "certificate_name": "ct.hospital"}
    configured = settings(
        tmp_path,
        node={"port": 0, "quiet_period_s": 600.0, "minimum_free_mb": 0, "open_to_loopback": False},
        tls={"certificate": ours.certificate, "key": ours.key, "ca_file": ours.ca_file},
    )
    values = {**configured.model_dump(exclude_unset=True), "peers": [known]}
    with Scanner(Settings.model_validate(values)).running() as scanner:
        port = scanner.receiver.port
        node = Peer("TWINSCANNER", "127.0.0.1", port, tls=theirs, certificate_name="scanner.hospital")
        send(short, node, calling_ae="CT")
        for stranger in (replace(node, tls=None), replace(node, tls=authority.sign("other.hospital"))):
            with pytest.raises(Transient):
                send(short, stranger, calling_ae="CT")
        assert scanner._spool.studies() == [STUDY_UID]
    (record,) = [record for record in caplog.records if "certificate needs a look" in record.getMessage()]
    assert record.__dict__["reason"].endswith("9 days more: have a new one signed; it is read without a restart.")


def test_without_a_cron_text_nothing_is_scheduled(scanner: Scanner) -> None:
    assert scanner.retraining.next_start() is None


def test_an_archive_commits_to_the_running_scanner_while_another_destination_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole wiring but the networks: the report on storage commitment comes to the scanner's own port."""
    monkeypatch.setattr(scanner_node, "RENDER_S", 0.0)
    with Archive() as archive:
        peer = archive.peer
        sections: dict[str, Any] = {
            "peers": [
                {"name": "archive", "ae_title": peer.ae_title, "host": peer.host, "port": peer.port},
                {"name": "dead", "ae_title": "DEAD", "host": "127.0.0.1", "port": 1},
            ],
            "destinations": [
                {"name": "archive", "peer": "archive", "confirm": "commitment"},
                {"name": "away", "peer": "dead", "required": False},
            ],
        }
        with Scanner(settings(tmp_path, **sections), render=scanner_node.fake_render).running() as scanner:
            archive.caller = ("TWINSCANNER", scanner.receiver.port)
            push(write_series(tmp_path / "ct"), scanner)
            wait_for(lambda: states(scanner) == [State.DONE])
            (job,) = scanner.ledger.jobs.newest()
            by = {d.destination: d for d in scanner.ledger.deliveries.of_jobs([job.job_id])[job.job_id]}
        assert by["archive"].confirmed_by == "storage commitment"
        assert by["away"].state == DeliveryState.WAITING and not by["away"].required
        assert len(archive.kept()) == scanner_node.PET_SLICES and archive.answers == [0x0000]
    fewer = {**sections, "destinations": sections["destinations"][:1]}
    with Scanner(settings(tmp_path, **fewer), render=scanner_node.fake_render).running() as scanner:
        (away,) = [d for d in scanner.ledger.deliveries.of_jobs([job.job_id])[job.job_id] if d.destination == "away"]
        assert away.state == DeliveryState.HELD and "no destination 'away' any more" in away.reason


def test_a_patient_who_contradicts_the_record_is_held_before_the_render(tmp_path: Path) -> None:
    """The whole scanner: what it takes, what its twin store knows, and what it would have rendered."""
    rendered: list[Path] = []

    def render(request: RenderRequest, beat: Beat) -> RenderReport:
        rendered.append(request.source)
        return scanner_node.fake_render(request, beat)

    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    patient: dict[str, Any] = {"resourceType": "Patient", "birthDate": "1951-01-01"}
    patient["identifier"] = [{"system": "urn:twin-scanner:patient-id", "value": "P1"}]
    entry = {"resource": patient, "request": {"method": "POST", "url": "Patient"}}
    with contextlib.closing(EmbeddedStore(folder / "twin.sqlite", TwinSite("urn:oid:2.999.1"))) as store:
        store.exchange({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    files = write_series(tmp_path / "wrong") + write_series(
        tmp_path / "right", StudyInstanceUID="1.2.4", SeriesInstanceUID="1.2.4.4", PatientBirthDate="19510101"
    )
    with Scanner(settings(tmp_path), render=render).running() as scanner:
        assert scanner.identity_check.next_start() is not None, "the PACS is asked again each night"
        push(files, scanner)
        wait_for(lambda: sorted(states(scanner)) == [State.HELD, State.RENDERED])
        (held,) = (job for job in scanner.ledger.jobs.newest() if job.state == State.HELD)
    assert (held.study_uid, held.held_for) == ("1.2.3", "identity")
    assert len(rendered) == 1
