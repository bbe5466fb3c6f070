"""What a user sees: results on stdout as tables or pairs; bars, notes and log lines on one console on stderr."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import typer

from twin_scanner.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells expect it."""
WIDTH_WITHOUT_TERMINAL = 200


@cache
def console() -> "Console":
    """The one console on stderr: what is written through it never tears a bar that is shown there."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """A sentence for the user beside the result."""
    console().print(text, markup=False, soft_wrap=True)


def log_from(level: str) -> None:
    """Log from this level on, above the bars where stderr is a terminal."""
    from twin_scanner.logs import set_up_logging

    set_up_logging(level, console())


@contextmanager
def stages(kept: str = "what was finished is kept; start it again to go on.") -> Iterator[Callable[[str], Progress]]:
    """For each named stage, a function that takes (done, total): a bar in a terminal, else one line for each stage.

    Ctrl-C ends the program with ``kept``, where the work itself does not say how much of it is kept.
    """
    try:
        with _bars() as bars:
            yield lambda name: _stage(bars, name)
    except KeyboardInterrupt:
        say(f"stopped: {kept}")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def losses_bar() -> Iterator[Callable[[str, int, int, dict[str, float]], None]]:
    """One bar per network with its losses and the time left, for whoever gives (network, step, steps, losses)."""
    from rich.progress import TaskID, TextColumn, TimeElapsedColumn

    tasks: dict[str, TaskID] = {}
    with _bars(TimeElapsedColumn(), TextColumn("{task.fields[losses]}")) as bars:

        def on_step(network: str, step: int, steps: int, losses: dict[str, float]) -> None:
            if network not in tasks:
                tasks[network] = bars.add_task(network, total=steps, losses="")
            shown = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
            bars.update(tasks[network], completed=step, losses=shown)

        yield on_step


def _bars(*further: "ProgressColumn") -> "Bars":
    """Bars on the one console, shown in a terminal alone."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), *further)
    # A redirected stdout would send results that are printed meanwhile to stderr.
    return Bars(*columns, console=console(), disable=not sys.stderr.isatty(), redirect_stdout=False)


def _stage(bars: "Bars", name: str) -> Progress:
    task = bars.add_task(name, total=None)
    begun = not bars.disable

    def report(done: int, total: int) -> None:
        nonlocal begun
        if not begun:
            begun = True
            print(f"{name} ...", file=sys.stderr, flush=True)
        bars.update(task, completed=done, total=total)

    return report


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    Console(markup=False, highlight=False, width=width).print(table)


def print_pairs(pairs: Mapping[str, str]) -> None:
    """Names and values on stdout, aligned."""
    width = max(len(name) for name in pairs)
    for name, value in pairs.items():
        print(f"{name:<{width}}  {value}")
