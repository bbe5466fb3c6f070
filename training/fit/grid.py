"""Many runs from one file: variants x datasets x seeds, every network a task of its own on any executor."""

import logging
import tomllib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import torch
from pydantic import Field

from training.fit.checkpoint import load_checkpoint
from training.fit.config import STRICT, Count, TrainConfig, merged, read_toml, validated
from training.fit.finished_package import PACKAGE, write_package
from training.fit.fit import train_networks
from training.fit.phantom_pairs import kept_pairs
from training.fit.run_data import RunData, load_data, phantom_data
from training.fit.stopping import stopped_by_signals
from twin_scanner.errors import Rejected, Transient, TwinScannerError
from twin_scanner.files.writable import check_writable
from twin_scanner.progress import Progress

log = logging.getLogger(__name__)

NETWORKS: Final = "networks"
"""The folder of a run in which each of its networks is trained."""
Word = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
Table = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """Runs below ``out``: each variant on each dataset with each seed, in this order.

    ``common`` is a training configuration without name, out and seed; a variant's and a dataset's entries are laid
    over it, table by table. A run is called VARIANT-DATASET-sSEED.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    out: Path
    variants: dict[Word, Table]
    datasets: dict[Word, Table]
    seeds: tuple[Count, ...]
    common: Table = field(default_factory=dict)

    def runs(self, only: str = "*") -> list[TrainConfig]:
        """The configurations whose names match a pattern; raises Rejected for a faulty one, or where none matches."""
        runs = list(self._runs())
        found = [config for config in runs if fnmatchcase(config.name, only)]
        if not runs:
            raise Rejected("This grid has no run: give at least one of variants, datasets and seeds.")
        if not found:
            raise Rejected(f"No run of this grid is called '{only}': give a pattern such as '{runs[0].name}'.")
        return found

    def _runs(self) -> Iterator[TrainConfig]:
        for variant, of_variant in self.variants.items():
            for seed in self.seeds:
                for dataset, of_dataset in self.datasets.items():
                    name = f"{variant}-{dataset}-s{seed}"
                    values = merged(self.common, of_variant, of_dataset)
                    values |= {"name": name, "out": self.out / name, "seed": seed}
                    yield validated(values, TrainConfig, f"The run {name} of the grid", "training")


def is_grid(path: Path) -> bool:
    """Whether a file is a grid's and not one run's; one that cannot be read is not."""
    try:
        return "variants" in tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False


def read_grid(path: Path) -> Grid:
    """A Grid from a TOML file; raises Rejected with every fault of the file in one sentence."""
    return read_toml(path, Grid, "grid")


def train_grid(
    grid: Grid, executor: Executor, *, at_once: int = 1, only: str = "*", progress: Progress | None = None
) -> list[Path]:
    """Train what is missing of the grid and write each run's package; the packages' folders, in the grid's order.

    ``at_once`` jobs are with the executor at any time. A run that was begun goes on from its checkpoints, a finished
    one is left alone. ``progress`` receives (jobs done, jobs in all). A run that fails does not end the others;
    raises Rejected (or Transient, where trying again may help) at the end, with the first reason.
    """
    runs = grid.runs(only)
    for config in runs:
        check_writable(config.out)
    work = _Work(runs, at_once)
    try:
        work.run(executor, progress or (lambda done, total: None))
    except KeyboardInterrupt as stop:
        raise Transient(
            f"The grid was stopped: {work.done} of {work.jobs} jobs are done, and every run keeps its last checkpoint; "
            "start it again to go on."
        ) from stop
    if work.failures:
        name, error = next(iter(work.failures.items()))
        raise type(error)(f"{len(work.failures)} of {len(runs)} runs of the grid failed, the first is {name}: {error}")
    return [config.out / PACKAGE for config in runs]


def train_part(config: TrainConfig, network: str) -> None:
    """One network of a run, in a folder of its own: a job; raises as ``training.fit.fit.train`` does."""
    torch.set_num_threads(config.threads or torch.get_num_threads())
    with stopped_by_signals() as stop:
        train_networks(_part(config, network), _data(config), (network,), resume=True, stop=stop)


def assemble(config: TrainConfig) -> Path:
    """The package of a run whose networks are all trained: a job; raises as ``load_checkpoint`` does."""
    torch.set_num_threads(config.threads or torch.get_num_threads())
    data = _data(config)
    states = {name: load_checkpoint(_part(config, name), data.sha256)[0] for name in config.trained_networks}
    return write_package(config, {name: state.finished[name] for name, state in states.items()}, data)


def _data(config: TrainConfig) -> RunData:
    if config.data.kind == "store":
        return load_data(config)
    return phantom_data(config, kept_pairs(config.data, config.plan, keep_air=config.covered.whole_volume))


class _Work:
    """What is still to do, with the executor, or failed."""

    def __init__(self, runs: list[TrainConfig], at_once: int) -> None:
        self.at_once = at_once
        self.missing: dict[str, set[str]] = {}
        self.ready: deque[tuple[TrainConfig, str | None]] = deque()
        self.failures: dict[str, TwinScannerError] = {}
        for config in runs:
            if not (config.out / PACKAGE).is_dir():
                self.missing[config.name] = set(config.trained_networks)
                self.ready += [(config, network) for network in config.trained_networks]
        self.jobs = len(self.ready) + len(self.missing)
        self.done = 0

    def run(self, executor: Executor, progress: Progress) -> None:
        """Every job that can be done; a package is written as soon as its networks are there."""
        under_way: dict[Future[Any], tuple[TrainConfig, str | None]] = {}
        progress(self.done, self.jobs)
        while self.ready or under_way:
            while self.ready and len(under_way) < self.at_once:
                config, network = self.ready.popleft()
                job = (
                    executor.submit(assemble, config)
                    if network is None
                    else executor.submit(train_part, config, network)
                )
                under_way[job] = (config, network)
            for job in wait(under_way, return_when=FIRST_COMPLETED).done:
                self._ended(job, *under_way.pop(job))
                self.done += 1
                progress(self.done, self.jobs)

    def _ended(self, job: Future[Any], config: TrainConfig, network: str | None) -> None:
        try:
            job.result()
        except BrokenExecutor as error:
            raise Transient(
                f"A worker process was lost while it trained {config.name}: start the grid again, with fewer workers "
                "where memory is short; every run goes on from its last checkpoint."
            ) from error
        except TwinScannerError as error:
            self.failures.setdefault(config.name, error)
            log.warning("run %s failed: %s", config.name, error)
            return
        log.info("run %s: %s is ready", config.name, "the package" if network is None else f"network {network}")
        if network is not None:
            self.missing[config.name].discard(network)
            if not self.missing[config.name]:
                self.ready.appendleft((config, None))


def _part(config: TrainConfig, network: str) -> TrainConfig:
    return replace(config, out=config.out / NETWORKS / network)
