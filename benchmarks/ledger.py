"""What the ledger's daily work costs with 100,000 ended jobs instead of 100: claim, list, clear, start; on SQLite.

And what a person waits for: every part of `status`, with the timeline of a job.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from benchmarks.figures import Figure, at_most
from dicom_node.spool import Spool
from twin_scanner.cli.status import SECTIONS, look
from twin_scanner.progress import Progress
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import Ledger, NewJob, migrate
from twin_scanner.service.ledger.columns import METADATA
from twin_scanner.service.retention import clear_aged

NAME: Final = "ledger"
FEW: Final = 100
MANY: Final = 100_000
NODE: Final = "node"
LIST: Final = 50
REPEATS: Final = 25
STARTS: Final = 7
STEP_GOAL_MS: Final = 5.0
START_GOAL_S: Final = 0.2
STATUS_GOAL_S: Final = 1.0
KEEP_DAYS: Final = 7.0


def measure(progress: Progress = lambda done, total: None, many: int = MANY) -> list[Figure]:
    """Both ledgers, their steps in turns, and how much slower the large one is."""
    with tempfile.TemporaryDirectory() as folder:
        small, large = (filled(Path(folder) / str(count), count) for count in (FEW, many))
        progress(1, 3)
        steps_ms = _steps_ms(small, large)
        progress(2, 3)
        start_s = [min(_start_s(place) for _ in range(STARTS)) for place in (small, large)]
        status_s = min(_status_s(large) for _ in range(STARTS))
        progress(3, 3)
    figures = [_slower(what, after_ms - before_ms, many) for what, (before_ms, after_ms) in steps_ms.items()]
    slower_s = max(0.0, start_s[1] - start_s[0])
    figures.append(at_most(NAME, f"start, {many:,} ended jobs against {FEW}: slower by", slower_s, START_GOAL_S, "s"))
    figures.append(at_most(NAME, f"status and a timeline, {many:,} jobs", status_s, STATUS_GOAL_S, "s"))
    return figures


def _slower(what: str, by_ms: float, many: int) -> Figure:
    return at_most(NAME, f"{what}, {many:,} ended jobs against {FEW}: slower by", max(0.0, by_ms), STEP_GOAL_MS, "ms")


def filled(folder: Path, count: int) -> Path:
    """A ledger with so many jobs that are done and too young to be cleared, each with its deliveries and events."""
    folder.mkdir()
    migrate(_url(folder))
    with closing(_opened(folder)) as ledger, ledger.database.engine.begin() as connection:
        moment, tables = ledger.database.steady(), METADATA.tables
        for first in range(0, count, 1000):
            numbers = range(first, min(first + 1000, count))
            jobs = [_job(number, moment - timedelta(seconds=number)) for number in numbers]
            connection.execute(sa.insert(tables["jobs"]), jobs)
            connection.execute(sa.insert(tables["studies"]), [_study(job) for job in jobs])
            connection.execute(sa.insert(tables["deliveries"]), [d for job in jobs for d in _deliveries(job)])
            connection.execute(sa.insert(tables["events"]), [e for job in jobs for e in _events(job)])
    return folder


def _job(number: int, moment: Any) -> dict[str, Any]:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return {
        "job_id": digest[:32],
        "node": NODE,
        "state": "done",
        "attempts": 0,
        "reason": "",
        "kind": "render",
        "priority": 0,
        "study_uid": f"1.2.{number}",
        "frame_of_reference_uid": "1.3",
        "series_uid": "1.4",
        "source_digest": digest,
        "revision": 1,
        "made_at": moment,
        "updated_at": moment,
        "ended_at": moment,
        "held_for": "",
        "skipped": [],
        "instance_count": 300,
        "pet_series_uid": f"2.25.{number}",
        "model_hash": digest,
    }


def _study(job: dict[str, Any]) -> dict[str, Any]:
    same = {name: job[name] for name in ("node", "attempts", "reason", "priority", "study_uid")}
    came = {"calling_ae": "PACS", "received": 300, "evidence": "", "fingerprint": "", "state": "taken"}
    return {**same, **came, "study_date": "20260301", "accession_number": "A", "study_description": "CT"}


def _deliveries(job: dict[str, Any]) -> list[dict[str, Any]]:
    waiting = {name: job[name] for name in ("job_id", "node", "reason", "attempts")}
    ended = {"state": "confirmed", "confirmed_at": job["ended_at"], "confirmed_by": "C-STORE status"}
    return [{**waiting, **ended, "destination": destination} for destination in ("pacs", "twin")]


def _events(job: dict[str, Any]) -> list[dict[str, Any]]:
    of_job = {"node": NODE, "at": job["ended_at"], "who": NODE, "of_table": "jobs", "row_id": job["job_id"]}
    whats = ("opened", "rendered", "done")
    return [{**of_job, "what": what, "detail": {"seconds": 1.0}, "hash": job["source_digest"]} for what in whats]


def _steps_ms(few: Path, many: Path) -> dict[str, tuple[float, float]]:
    """Each step's best time on both ledgers, which take turns: whoever else uses the machine slows most of them."""
    with closing(_opened(few)) as one, closing(_opened(many)) as other:
        steps = [_steps(ledger, folder) for ledger, folder in ((one, few), (other, many))]
        times: dict[str, tuple[list[float], list[float]]] = {what: ([], []) for what in steps[0]}
        for turn in range(REPEATS):
            for what, taken in times.items():
                pairs = list(zip(steps, taken, strict=True))
                for ledger_steps, mine in pairs if turn % 2 else reversed(pairs):
                    begin_s = time.perf_counter()
                    ledger_steps[what]()
                    mine.append(1000 * (time.perf_counter() - begin_s))
    return {what: (min(few_ms), min(many_ms)) for what, (few_ms, many_ms) in times.items()}


def _steps(ledger: Ledger, folder: Path) -> dict[str, Callable[[], object]]:
    ledger.enter(str(folder))
    ledger.jobs.open(NewJob("1.9.9", "1.3", "1.4", "f" * 64, 300))
    spool, folders = Spool(folder / "spool"), JobFolders(folder / "jobs")

    def claim() -> None:
        job = ledger.jobs.claim()
        assert job is not None
        ledger.jobs.put_back(job)

    return {
        "claim, and give back": claim,
        f"list of {LIST}": lambda: ledger.jobs.newest(limit=LIST),
        "clearing with nothing due": lambda: clear_aged(ledger, spool, folders, KEEP_DAYS, list),
    }


def _start_s(folder: Path) -> float:
    """Opening, entering and adopting, as a scanner does before it listens."""
    begin_s = time.perf_counter()
    with closing(_opened(folder)) as ledger:
        ledger.enter(str(folder))
        ledger.adopt([], [])
    return time.perf_counter() - begin_s


def _status_s(folder: Path) -> float:
    """Opening, all parts of `status` and the timeline of one job."""
    begin_s = time.perf_counter()
    with closing(_opened(folder)) as ledger:
        since = ledger.database.steady() - timedelta(days=1)
        look(ledger, since, SECTIONS, LIST).as_json(since)
        (work, *_) = ledger.overview.jobs(1)
        ledger.overview.timeline(work)
    return time.perf_counter() - begin_s


def _opened(folder: Path) -> Ledger:
    return Ledger(_url(folder), node=NODE, who="benchmark")


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.sqlite'}"
