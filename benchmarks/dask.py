"""How many CTs an hour two Dask workers of one thread render, against one of them and against the local executor.

The CTs are one small phantom; scheduler, workers and storage are this machine's, so no network slows them. The three
ways take turns, and the best turn of each counts: other work on the machine slows the others. The processor time of a
render says what the second worker costs the first whatever else runs.
"""

import dataclasses
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.figures import Figure, at_least, at_most
from training.phantom.files import write_ct_dicom
from training.phantom.phantom import make_phantom, sample_options
from twin_scanner.app import open_cluster, render_template, storage_id
from twin_scanner.executor.local import LocalProcesses
from twin_scanner.progress import Progress
from twin_scanner.render.exchange import Exchange, InPlace, Shared
from twin_scanner.render.request import RenderRequest
from twin_scanner.settings import Settings

NAME: Final = "dask"
SPACING_MM: Final = (4.0, 4.0, 4.0)
WORKERS: Final = 2
RENDERS: Final = 4
"""Of each turn."""
TURNS: Final = 3
GOAL: Final = 1.8
START_S: Final = 180.0
RENDER_S: Final = 600.0
ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")


def measure(progress: Progress = lambda done, total: None, turns: int = TURNS) -> list[Figure]:
    """Renders an hour by each; every worker has one thread, and has loaded everything before.

    Nothing is measured where the extra ``dask`` is not installed.
    """
    if importlib.util.find_spec("distributed") is None:
        print("dask: not measured, for Dask is not installed: pip install -e '.[dask]'", file=sys.stderr)
        return []
    os.environ.update(ONE_THREAD)
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        options = sample_options(3, spacing_mm=SPACING_MM)
        write_ct_dicom(make_phantom(3, options).ct, folder / "ct", seed=3, options=options)
        (folder / "storage").mkdir()
        storage_id(folder / "storage")
        local = running.enter_context(closing(LocalProcesses()))
        cluster = running.enter_context(_two_workers(folder))
        ways: dict[str, _Way] = {
            "local": (local, InPlace(), 1),
            "one": (cluster, Shared(), 1),
            "two": (cluster, Shared(), WORKERS),
        }
        for way in ways.values():
            _turn(way, _requests(folder, way[2]))
        taken: dict[str, list[_Turn]] = {which: [] for which in ways}
        for number in range(turns):
            for which, way in ways.items():
                progress(sum(map(len, taken.values())), turns * len(ways))
                taken[which].append(_turn(way, _requests(folder, RENDERS)))
            progress((number + 1) * len(ways), turns * len(ways))
    return _figures(taken)


def _figures(turns: dict[str, list["_Turn"]]) -> list[Figure]:
    """From each way's best turn: whoever else uses the machine slows most of them."""
    here, one, two = (min(turn.wall_s for turn in turns[which]) for which in ("local", "one", "two"))
    rate = {which: 3600.0 * RENDERS / seconds for which, seconds in (("here", here), ("one", one), ("two", two))}
    alone, beside = (min(turn.processor_s for turn in turns[which]) for which in ("one", "two"))
    local = ("/h", "local executor", rate["here"])
    return [
        Figure(NAME, "renders, one Dask worker", rate["one"], *local, rate["one"] / rate["here"]),
        Figure(NAME, "renders, two Dask workers", rate["two"], *local, rate["two"] / rate["here"]),
        at_least(NAME, "renders, two Dask workers against one", one / two, GOAL, "times"),
        at_most(NAME, "processor time of a render, two at a time against one", beside / alone, WORKERS / GOAL, "times"),
    ]


@dataclass(frozen=True)
class _Turn:
    """RENDERS renders: how long they took, and the processor time of all our processes meanwhile."""

    wall_s: float
    processor_s: float


_Way: TypeAlias = tuple[Executor, Exchange, int]
"""An executor, how files come to it, and how many renders it is given at a time."""


@contextmanager
def _two_workers(folder: Path) -> Iterator[Executor]:
    """The executor of a cluster on this machine; given one render at a time, it is a cluster of one worker."""
    from distributed import LocalCluster

    config = folder / "worker.toml"
    config.write_text(f'[storage]\nfolder = "{folder / "storage"}"\n')
    with (
        LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            host="127.0.0.1",
            memory_limit=0,
            dashboard_address=None,
            preload=["twin_scanner.dask_worker"],
            preload_argv=["--config", str(config)],
        ) as cluster,
        closing(open_cluster(_settings(folder, cluster.scheduler_address), "render")) as executor,
    ):
        deadline_s = time.monotonic() + START_S
        while executor.places() < WORKERS:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{WORKERS} workers did not join within {START_S:g} s.")
            time.sleep(0.2)
        yield executor


def _settings(folder: Path, scheduler: str = "") -> Settings:
    executor = {"kind": "dask", "scheduler": scheduler} if scheduler else {}
    sections = {"executor": executor, "storage": {"folder": folder / "storage"}}
    return Settings.model_validate(
        {**sections, "model": {"accept_phantom_only": True}, "scanner": {"accept_synthetic_ct": True}}
    )


def _requests(folder: Path, count: int) -> list[RenderRequest]:
    """So many renders of the one CT, each into a new folder of the storage."""
    template = dataclasses.replace(render_template(_settings(folder)), source=folder / "ct")
    jobs = [Path(tempfile.mkdtemp(dir=folder / "storage")) for _ in range(count)]
    return [dataclasses.replace(template, result=job / "result") for job in jobs]


def _turn(way: _Way, requests: Sequence[RenderRequest]) -> _Turn:
    executor, exchange, at_a_time = way

    def render(request: RenderRequest) -> None:
        exchange.end(request, exchange.begin(executor, request).result(RENDER_S))

    begin_s, processor_s = time.perf_counter(), _processor_s()
    with ThreadPoolExecutor(at_a_time) as waiting:
        list(waiting.map(render, requests))
    return _Turn(time.perf_counter() - begin_s, _processor_s() - processor_s)


def _processor_s() -> float:
    """Of this process and all that it started."""
    import psutil

    ours = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (ours, *ours.children(recursive=True)))
