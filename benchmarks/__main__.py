"""``python -m benchmarks [NAME...] [--json]``: measures, and prints itself and its peers from one run."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from benchmarks import (
    console,
    dask,
    evaluation,
    floors,
    gpu,
    latency,
    ledger,
    memory,
    receipt,
    rendering,
    segmentation,
    segmentation_speed,
    simulate,
    training,
    translation,
    twin,
)
from benchmarks.figures import Figure, table_of
from benchmarks.quick import options_of

NAMES: Final = (
    segmentation.NAME,
    training.NAME,
    floors.NAME,
    evaluation.NAME,
    ledger.NAME,
    console.NAME,
    receipt.NAME,
    latency.NAME,
    rendering.NAME,
    translation.NAME,
    twin.NAME,
    dask.NAME,
    simulate.NAME,
    memory.NAME,
    gpu.NAME,
)
TABLE_WIDTH: Final = 150
"""Of tables on a pipe or in a file, where no terminal says how wide it is."""


def main(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help=f"Of {', '.join(NAMES)}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line and figure.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions and smaller sizes: minutes each.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="segmentation: so many phantoms.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="segmentation: the first phantom's seed.")] = 0,
    speed: Annotated[bool, typer.Option(help="segmentation: also time and memory at 512x512x400.")] = True,
    ct: Annotated[
        Path | None, typer.Option(help="latency, rendering, translation: a folder with a CT series.", file_okay=False)
    ] = None,
    url: Annotated[str, typer.Option(help="simulate: an empty PostgreSQL database for the department's day.")] = "",
    write: Annotated[Path | None, typer.Option(help="segmentation: write its page of docs/.", dir_okay=False)] = None,
) -> None:
    """Measure NAME (default: all) and print the figures beside the goals and the peers."""
    chosen = tuple(names) if names else NAMES
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        raise typer.BadParameter(f"there is no benchmark {', '.join(unknown)}: choose of {', '.join(NAMES)}.")
    out = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH, highlight=False)
    results: list[Figure] = []
    if segmentation.NAME in chosen:
        phantoms = count or options_of(segmentation.NAME, quick=quick).get("count", segmentation.PHANTOMS)
        results += _segmentation(out, as_json, seed, phantoms, speed, write)
    if training.NAME in chosen:
        results += _training(out, as_json, options_of(training.NAME, quick=quick))
    for benchmark in (floors, evaluation, ledger, console, receipt, twin, dask, memory):
        if benchmark.NAME in chosen:
            with _progress() as bars:
                report = partial(_update, bars, bars.add_task(benchmark.NAME, total=None))
                results += benchmark.measure(report, **options_of(benchmark.NAME, quick=quick))
    if simulate.NAME in chosen:
        with _progress() as bars:
            report = partial(_update, bars, bars.add_task(simulate.NAME, total=None))
            results += simulate.measure(report, url=url, **options_of(simulate.NAME, quick=quick))
    for of_a_ct in (latency, rendering, translation):
        if of_a_ct.NAME in chosen:
            with _progress() as bars:
                report = partial(_update, bars, bars.add_task(of_a_ct.NAME, total=None))
                results += of_a_ct.measure(report, ct, **options_of(of_a_ct.NAME, quick=quick))
    if gpu.NAME in chosen:
        results += _gpu()
    if as_json:
        for figure in results:
            print(figure.line())
    elif results:
        out.print(table_of(results))


def _segmentation(out: Console, as_json: bool, seed: int, count: int, speed: bool, write: Path | None) -> list[Figure]:
    with _progress() as bars:
        task = bars.add_task("segmentation", total=count)
        rows = list(segmentation.measure(seed, count, lambda done, total: bars.update(task, completed=done)))
        results = segmentation.figures(rows)
        if speed:
            bars.add_task("segmentation, speed", total=None)
            results += segmentation_speed.measure()
    if not as_json:
        out.print(segmentation.table_of(rows))
    if write is not None:
        write.write_text(segmentation.page(rows, results), encoding="utf-8")
    return results


def _training(out: Console, as_json: bool, options: Mapping[str, Any]) -> list[Figure]:
    with _progress() as bars:
        task = bars.add_task("training", total=None)
        rows, memory = training.measure(partial(_update, bars, task), **options)
    if not as_json:
        out.print(training.table_of(rows, memory))
    return training.figures(rows, memory)


def _gpu() -> list[Figure]:
    if not torch.cuda.is_available():
        print(gpu.ABSENT, file=sys.stderr)
        return []
    with _progress() as bars:
        return gpu.measure(partial(_update, bars, bars.add_task(gpu.NAME, total=None)))


def _update(bars: Progress, task: TaskID, done: int, total: int) -> None:
    bars.update(task, completed=done, total=total)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


if __name__ == "__main__":
    typer.run(main)
