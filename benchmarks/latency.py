"""From the last C-STORE of a CT to its PET in the PACS, a real Orthanc that knows the CT, stage by stage."""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import wait
from datetime import datetime
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure, at_most
from benchmarks.receipt import ORTHANC, TITLE, receivers, running
from dicom_node.peers import Peer
from dicom_node.store_scu import send
from training.phantom.files import write_ct_dicom
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_scanner.app import Scanner
from twin_scanner.render.report import read_report
from twin_scanner.service.ledger import Job, Ledger, State
from twin_scanner.settings import Folders, Settings

NAME: Final = "latency"
SEED: Final = 7
TRUNK: Final = PhantomOptions(spacing_mm=(3.0, 0.98, 0.98), field_of_view=(900.0, 1420.0), height_mm=1750.0)
"""Where no CT is given: slices of 512 x 512 as a scanner makes them."""
MOST_S: Final = 5.0
"""What everything but the networks may take where the PACS says that the CT is complete."""
STAGES: Final = (
    *("evidence", "intake", "begin", "read", "districts", "networks"),
    *("write", "delivery", "confirmation", "twin"),
)
_DONE_S: Final = 1200.0
_POLL_S: Final = 0.1


def measure(progress: Callable[[int, int], None] = lambda done, total: None, ct: Path | None = None) -> list[Figure]:
    """Seconds of each stage, and of all but the networks; raises RuntimeError without Orthanc."""
    command = receivers().get(ORTHANC)
    if command is None:
        raise RuntimeError("Orthanc is not installed: apt-get install orthanc.")
    with tempfile.TemporaryDirectory() as scratch:
        source = ct or _phantom(Path(scratch) / "ct")
        progress(1, len(STAGES))
        with running(command, Path(scratch) / "pacs") as (pacs_port, _):
            _send(source, TITLE, pacs_port)
            scanner = Scanner(_settings(Path(scratch) / "scanner", pacs_port))
            with scanner.running():
                wait(scanner.warm_up())  # as in a service that runs
                _send(source, "TWINSCANNER", scanner.receiver.port)
                job = _done(scanner.ledger)
                progress(len(STAGES), len(STAGES))
                report = read_report(Folders(Path(scratch) / "scanner").jobs / job.job_id / "result")
                moments = _moments(scanner.ledger, job)
    return _figures(moments, report.seconds, len(report.source_instance_uids))


def _figures(moments: dict[str, datetime], seconds: dict[str, float], slices: int) -> list[Figure]:
    def between(first: str, last: str) -> float:
        return (moments[last] - moments[first]).total_seconds()

    stages = {
        "evidence": between("last instance", "complete"),
        "intake": between("complete", "opened"),
        # Memory predicted, the CT that is read ahead awaited, the report taken.
        "begin": between("opened", "rendered") - sum(seconds[name] for name in ("read", "translate", "write")),
        "read": seconds["read"],
        "districts": seconds["translate"] - seconds["networks"],
        "networks": seconds["networks"],
        "write": seconds["write"],
        "delivery": between("rendered", "stored"),
        "confirmation": between("stored", "confirmed"),
        "twin": between("confirmed", "twin"),
    }
    whole = between("last instance", "confirmed")
    figures = [Figure(NAME, f"{slices} slices: {stage}", stages[stage], "s", "whole", whole, 1.0) for stage in STAGES]
    rest = whole - stages["networks"]
    figures.append(Figure(NAME, "last C-STORE to PET confirmed in the PACS", whole, "s", "whole", whole, 1.0))
    return [*figures, at_most(NAME, "all but the networks", rest, MOST_S, "s")]


def _moments(ledger: Ledger, job: Job) -> dict[str, datetime]:
    """When what happened, by the ledger's own events."""
    study = ledger.studies.find(job.study_uid)
    assert study is not None and study.last_instance_at is not None
    found = {"last instance": study.last_instance_at}
    for event in ledger.events.of_row("studies", study.study_id):
        found[event.what] = event.at
    for event in ledger.events.of_row("jobs", job.job_id):
        found[event.what] = event.at
    for delivery in ledger.deliveries.of_jobs([job.job_id])[job.job_id]:
        assert delivery.confirmed_at is not None
        if delivery.destination == "pacs":
            found |= {"stored": delivery.stored_at or delivery.confirmed_at, "confirmed": delivery.confirmed_at}
        else:
            found["twin"] = delivery.confirmed_at
    return found


def _phantom(folder: Path) -> Path:
    phantom = make_phantom(SEED, TRUNK)
    write_ct_dicom(phantom.ct, folder, seed=SEED, options=TRUNK)
    return folder


def _settings(folder: Path, pacs_port: int) -> Settings:
    return Settings.model_validate(
        {
            "node": {"port": 0, "open_to_loopback": True, "minimum_free_mb": 256},
            "pacs": {"ae_title": TITLE, "port": pacs_port},
            "storage": {"folder": folder},
            "model": {"accept_phantom_only": True},
            "scanner": {"accept_synthetic_ct": True},
            "log": {"level": "ERROR"},
        }
    )


def _send(folder: Path, called: str, port: int) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    send(files, Peer(called, "127.0.0.1", port), calling_ae="SENDER")


def _done(ledger: Ledger) -> Job:
    deadline_s = time.monotonic() + _DONE_S
    while time.monotonic() < deadline_s:
        for job in ledger.jobs.newest():
            if job.state in (State.HELD, State.REJECTED, State.FAILED):
                raise RuntimeError(f"The job ended as {job.state}: {job.reason}")
            if job.state == State.DONE:
                return job
        time.sleep(_POLL_S)
    raise RuntimeError(f"The job was not done within {_DONE_S:.0f} s.")
