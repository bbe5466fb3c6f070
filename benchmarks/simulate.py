"""A day of arrivals through the real ledger, on a fake clock and a fake executor: how long studies wait, by priority.

Real are the ledger, the lanes of ``Steps`` with claims, turns, breakers and retries, and what records each outcome.
Not real are time, the CTs, the render and the destinations: each takes as many seconds as was measured. One destination
is down for two hours. At the end nothing may be lost and nothing doubled: else RuntimeError.
"""

import heapq
import itertools
import logging
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import sqlalchemy as sa

from benchmarks.figures import Figure
from twin_scanner.districts.choice import SegmenterChoice
from twin_scanner.errors import Misconfigured, Unavailable
from twin_scanner.executor.waiting import Limit, wait
from twin_scanner.progress import Progress
from twin_scanner.render.report import RenderReport
from twin_scanner.render.request import RenderRequest
from twin_scanner.service.breaker import Breaker
from twin_scanner.service.image_delivery import ImageDestination
from twin_scanner.service.intake import JobFolders
from twin_scanner.service.ledger import Arrival, Delivery, Ledger, NewJob, Outcome, Priority, State, Study, migrate
from twin_scanner.service.ledger.columns import METADATA
from twin_scanner.service.retry import DAY_S, RetryPolicy
from twin_scanner.service.steps import Steps
from twin_scanner.service.worker import Beat, Lane, Record, Worker

NAME: Final = "simulate"
HOUR_S: Final = 3600.0
DAYS: Final = {"a department": (200, 1), "a hospital group": (10_000, 5)}
"""CTs a day, and renders at a time: the fewest with which the busiest hour's renders keep up."""
STAGES_S: Final = {"evidence": 2.9, "intake": 1.0, "render": 20.4, "pacs": 1.9, "archive": 1.9, "twin": 0.2}
"""As `benchmarks latency` measured them on 2 cores, idle, for a thorax of 135 slices with the demonstration package.

docs/scale.md computes with them, and a test compares it."""
SLICES: Final = 135
ARCHIVE: Final = "archive"
DOWN_S: Final = (10 * HOUR_S, 12 * HOUR_S)
"""When the archive serves nobody."""
SHARES: Final = {Priority.URGENT: 0.1, Priority.ROUTINE: 0.7, Priority.BACKFILL: 0.2}
DAYTIME_S: Final = (7 * HOUR_S, 19 * HOUR_S)
NIGHT_SHARE: Final = 0.15
"""Of urgent and routine CTs; the others come evenly by day."""
TRANSFER_S: Final = (20 * HOUR_S, 20.5 * HOUR_S)
"""When the nightly transfer brings what is backfill."""
DELIVERERS: Final = 2
"""Threads per destination."""
POLL_S: Final = 30.0
"""So often an idle lane looks again for what has come due; what the lane before it ends wakes it at once."""
LATEST_S: Final = 7 * DAY_S
NODE: Final = "node"
AGE_LIMIT_S: Final = 30 * DAY_S


class Clock:
    """Wall and monotonic time of a day that takes as long as its arithmetic."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._midnight = datetime(2026, 3, 2, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self._midnight + timedelta(seconds=self.seconds)

    def monotonic_s(self) -> float:
        return self.seconds


class AtOnce(Executor):
    """An executor that has done its work when it is asked."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@dataclass(order=True)
class _Event:
    at_s: float
    number: int
    act: Callable[[], None] = field(compare=False)


@dataclass
class Day:
    """One site on one day."""

    ledger: Ledger
    clock: Clock
    folders: JobFolders
    renders: int
    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often a destination has taken a job's result."""

    def __post_init__(self) -> None:
        policy = RetryPolicy(15.0, HOUR_S, AGE_LIMIT_S)
        probing = RetryPolicy(15.0, 60.0)
        nothing: Any = SimpleNamespace()
        intake: Any = SimpleNamespace(take=self._take, check_real_pet=lambda job, has_left=False: None)
        destinations = tuple(ImageDestination(name, nothing, "status") for name in ("pacs", ARCHIVE))
        steps = Steps(
            ledger=self.ledger,
            folders=self.folders,
            intake=intake,
            render=self._render,
            template=_template(self.folders.root),
            destinations=destinations,
            twin=nothing,
            twin_name="simulated",
            zone=UTC,
            breaker=lambda: Breaker(lambda failures: probing.delay_s(failures, 1.0), self.clock.monotonic_s),
            now=self.clock,
            threads=DELIVERERS,
        )
        known = ("intake", "render")
        lanes = [lane if lane.name in known else replace(lane, work=self._deliver) for lane in steps.lanes()]
        self._lanes = {lane.name: lane for lane in lanes}
        self._free = {name: self.renders if name == "render" else lane.threads for name, lane in self._lanes.items()}
        self._worker = Worker(ledger=self.ledger, lanes=lanes, policy=policy, on_fatal=lambda: None, draw=lambda: 0.5)
        self._next = {"intake": ("render",), "render": ("pacs", ARCHIVE), "pacs": ("twin",), ARCHIVE: ("twin",)}
        self._arrived = self._ended = 0
        self._events: list[_Event] = []
        self._numbers = itertools.count()

    def run(self, arrivals: Sequence[tuple[float, Priority]], progress: Progress) -> None:
        """Let all of them arrive, and go on until every job has ended."""
        for number, (at_s, priority) in enumerate(arrivals):
            self._at(at_s, partial(self._arrive, f"1.2.{number}", priority))
        self._at(POLL_S, self._poll)
        done = 0
        while self._ended < len(arrivals):
            event = heapq.heappop(self._events)
            if event.at_s > LATEST_S:
                raise RuntimeError(f"Jobs were lost: {len(arrivals) - self._ended} have not ended after seven days.")
            self.clock.seconds = event.at_s
            event.act()
            if self._ended > done:
                done = self._ended
                progress(done, len(arrivals))

    def _at(self, at_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, _Event(at_s, next(self._numbers), act))

    def _poll(self) -> None:
        if self._arrived > self._ended:
            for name in self._lanes:
                self._begin(name)
        self._at(self.clock.seconds + POLL_S, self._poll)

    def _arrive(self, study_uid: str, priority: Priority) -> None:
        now = self.clock()
        self._arrived += 1
        self.ledger.studies.arrived([Arrival(study_uid, "PACS", SLICES, now, now, priority)])
        self._at(self.clock.seconds + STAGES_S["evidence"], partial(self._complete, study_uid))

    def _complete(self, study_uid: str) -> None:
        self.ledger.studies.complete(study_uid, "C-FIND")
        self._begin("intake")

    def _begin(self, name: str) -> None:
        """Let the free threads of a lane claim what is due."""
        lane = self._lanes[name]
        while self._free[name]:
            row = self._worker.take(lane)
            if row is None:
                return
            self._free[name] -= 1
            self._at(self.clock.seconds + STAGES_S[name], partial(self._end, lane, row))

    def _end(self, lane: Lane[Any], row: Any) -> None:
        self._worker.work(lane, row)
        self._free[lane.name] += 1
        if lane.name == "twin" and self.ledger.jobs.find(row.job_id).state == State.DONE:
            self._ended += 1
        for name in (lane.name, *self._next.get(lane.name, ())):
            self._begin(name)

    def _take(self, study: Study, beat: Beat) -> str:
        digest = f"{study.study_id:064x}"
        new = NewJob(study.study_uid, "1.3", "1.4", digest, SLICES, priority=study.priority, evidence=study.evidence)
        self.folders.ct(new.job_id).mkdir(parents=True, exist_ok=True)
        self.ledger.jobs.open(new)
        return digest

    def _render(self, request: RenderRequest, beat: Beat) -> RenderReport:
        limit = Limit("The render", "limits.render_s", HOUR_S, lambda: None)
        job_id = request.result.parent.name
        return wait(AtOnce().submit(_report, job_id, request), beat, 1.0, limit, self.clock.monotonic_s)

    def _deliver(self, delivery: Delivery, beat: Beat) -> Record:
        if delivery.destination == ARCHIVE and DOWN_S[0] <= self.clock.seconds < DOWN_S[1]:
            raise Unavailable("The archive does not answer.")
        self.sent[delivery.job_id, delivery.destination] += 1
        return partial(self.ledger.deliveries.confirmed, delivery, "simulated", Outcome(SLICES, SLICES))


def measure(
    progress: Progress = lambda done, total: None,
    days: dict[str, tuple[int, int]] | None = None,
    url: str = "",
    seed: int = 1,
) -> list[Figure]:
    """Each day's waiting times; ``url`` names an empty PostgreSQL database for one day, else each has a SQLite file.

    Raises Misconfigured where that database is not empty.
    """
    # What fails on purpose is counted, not printed.
    logging.getLogger("twin_scanner").addHandler(logging.NullHandler())
    figures = []
    if days is None:
        days = dict(list(DAYS.items())[:1]) if url else DAYS
    for who, (count, renders) in days.items():
        with tempfile.TemporaryDirectory() as folder:
            ledger_url = url or f"sqlite:///{Path(folder) / 'ledger.sqlite'}"
            migrate(ledger_url)
            clock = Clock()
            opened = Ledger(ledger_url, node=NODE, who="simulation", now=clock, monotonic_s=clock.monotonic_s)
            with closing(opened) as ledger:
                if ledger.jobs.newest():
                    raise Misconfigured("The database holds jobs already: name an empty one.")
                ledger.enter(folder)
                day = Day(ledger, clock, JobFolders(Path(folder) / "jobs"), renders)
                day.run(arrivals(count, seed), progress)
                check(ledger, day.sent, count)
                figures += _figures(f"{who}, {count:,} CTs, {renders} at a time", waits_s(ledger))
    return figures


def arrivals(count: int, seed: int) -> list[tuple[float, Priority]]:
    """When each CT of a day has come, and how it is to be treated."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        (priority,) = draw.choices(tuple(SHARES), tuple(SHARES.values()))
        span = TRANSFER_S if priority == Priority.BACKFILL else DAYTIME_S
        if priority != Priority.BACKFILL and draw.random() < NIGHT_SHARE:
            span = (0.0, 24 * HOUR_S)
        found.append((draw.uniform(*span), priority))
    return sorted(found)


def check(ledger: Ledger, sent: Counter[tuple[str, str]], count: int) -> None:
    """Raise RuntimeError where a study has not exactly one job, or a job not one delivery to each destination."""
    jobs, deliveries = METADATA.tables["jobs"].c, METADATA.tables["deliveries"].c
    with ledger.database.read() as connection:
        of_jobs = list(connection.execute(sa.select(jobs.study_uid, jobs.job_id, jobs.state)))
        confirmed = set(connection.execute(sa.select(deliveries.job_id, deliveries.destination, deliveries.state)))
    expected = {(job_id, name) for _, job_id, _ in of_jobs for name in ("pacs", ARCHIVE, "twin")}
    lost = count - len({study_uid for study_uid, _, state in of_jobs if state == State.DONE})
    doubled = len(of_jobs) - len({study_uid for study_uid, _, _ in of_jobs})
    unsent = expected - sent.keys()
    twice = [key for key, times in sent.items() if times != 1]
    if (
        lost
        or doubled
        or unsent
        or twice
        or {(job, to, "confirmed") for job, to in expected} != {*map(tuple, confirmed)}
    ):
        raise RuntimeError(
            f"Of {count} studies {lost} were lost and {doubled} doubled; {len(unsent)} deliveries were never made, "
            f"{len(twice)} were made twice."
        )


def waits_s(ledger: Ledger) -> dict[tuple[Priority, str], list[float]]:
    """Seconds from a study's last instance to its confirmation, by priority and destination."""
    studies, jobs, deliveries = (METADATA.tables[name] for name in ("studies", "jobs", "deliveries"))
    columns = (jobs.c.priority, deliveries.c.destination, studies.c.last_instance_at, deliveries.c.confirmed_at)
    joined = jobs.join(studies, studies.c.study_uid == jobs.c.study_uid)
    joined = joined.join(deliveries, deliveries.c.job_id == jobs.c.job_id)
    found: dict[tuple[Priority, str], list[float]] = {}
    with ledger.database.read() as connection:
        for priority, destination, came_at, confirmed_at in connection.execute(sa.select(*columns).select_from(joined)):
            waited_s = (confirmed_at - came_at).total_seconds()
            found.setdefault((Priority(priority), destination), []).append(waited_s)
    return found


def _figures(day: str, waits: dict[tuple[Priority, str], list[float]]) -> list[Figure]:
    figures = []
    for (priority, destination), seconds in sorted(waits.items()):
        if destination == "twin":
            continue
        alone_s = sum(STAGES_S[stage] for stage in ("evidence", "intake", "render", destination))
        down = ", down for 2 h" if destination == ARCHIVE else ""
        cuts = {
            "median": statistics.median(seconds),
            "95th": statistics.quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0],
            "worst": max(seconds),
        }
        for what, value in cuts.items():
            figure = f"{day}: {priority.name.lower()} to {destination}{down}, {what}"
            figures.append(Figure(NAME, figure, value, "s", "with nothing before it", alone_s, 1.0))
    return figures


def _report(job_id: str, request: RenderRequest) -> RenderReport:
    return RenderReport(
        software_version="0",
        model_name="simulated",
        model_hash="0" * 64,
        plan_hash="0" * 64,
        segmenter="simulated",
        segmenter_hash="0" * 64,
        missing_districts=(),
        districts={},
        segmentation_quality=(),
        suv_max=1.0,
        notes=(),
        seconds={},
        made_at=request.made_at.isoformat(),
        revision=request.revision,
        pet_series_uid=f"2.25.{int(job_id, 16)}",
    )


def _template(folder: Path) -> RenderRequest:
    return RenderRequest(
        source=folder,
        result=folder,
        made_at=datetime(2026, 3, 2, tzinfo=UTC),
        model="simulated",
        model_store=folder,
        segmenter=SegmenterChoice(),
        allow_other_segmenter=False,
        missing_district="reject",
        device_serial_number="0",
        accept_synthetic_ct=True,
    )
