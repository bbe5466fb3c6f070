"""The verb `train`: the networks that a configuration names."""

import signal
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from twin_scanner.cli.options import DeviceName
from twin_scanner.cli.output import log_from, losses_bar, stages
from twin_scanner.errors import Misconfigured

if TYPE_CHECKING:
    from twin_scanner.executor.workers import Workers

STOP_S: Final = 30.0
"""How long the workers of a stopped grid have for the step that they are at and its checkpoint."""


def train(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            help="A training configuration, or a grid of them (TOML); see training/configs/.",
            dir_okay=False,
        ),
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint; a grid always does.")
    ] = False,
    only: Annotated[
        str, typer.Option("--only", metavar="PATTERN", help="Train the runs of a grid whose names match this pattern.")
    ] = "*",
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="The number of a grid's networks that are trained at once.")
    ] = 1,
    device: DeviceName = None,
    cluster: Annotated[
        Path | None,
        typer.Option(
            "--cluster",
            metavar="FILE",
            help="A configuration of twin-scanner: a grid is trained on the Dask workers of its [executor].",
            dir_okay=False,
        ),
    ] = None,
) -> None:
    """Train the networks of a configuration, or of every run of a grid, and write the model packages."""
    from training.fit.config import merged
    from training.fit.fit import main as fit
    from training.fit.grid import is_grid, read_grid, train_grid

    log_from("INFO")
    if not is_grid(config):
        finished = fit(config, resume=resume, bar=losses_bar(), device=device)
        print(finished.folder)
        for sentence in finished.sentences:
            print(sentence)
        return
    grid = read_grid(config)
    if device is not None:
        grid = replace(grid, common=merged(grid.common, {"compute": {"device": device}}))
    # Ctrl-C reaches the workers' parent alone, and it passes SIGTERM on: both let them keep the step that they are at.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as closing, stages() as stage:
        executor = _executor(workers, cluster)
        closing.callback(executor.close, STOP_S)
        packages = train_grid(grid, executor, at_once=workers, only=only, progress=stage("Networks"))
    for package in packages:
        print(package)


def _executor(workers: int, cluster: Path | None) -> "Workers":
    """Where the networks of a grid are trained."""
    if cluster is None:
        from twin_scanner.executor.local import LocalProcesses

        return LocalProcesses(workers)
    from twin_scanner.app import open_cluster
    from twin_scanner.settings import load_settings

    settings = load_settings(cluster)
    if settings.executor.kind != "dask":
        raise Misconfigured(f'{cluster} names no cluster: set executor.kind = "dask" and executor.scheduler there.')
    return open_cluster(settings, "training")
