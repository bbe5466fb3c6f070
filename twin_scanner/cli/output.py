"""What a user sees: results on stdout as tables or pairs, progress on stderr as bars."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress as rich_progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from twin_scanner.progress import Progress


@contextmanager
def progress_bars() -> Iterator[rich_progress.Progress]:
    """Bars on stderr, where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with rich_progress.Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        yield bars


def reporter(bars: rich_progress.Progress) -> Callable[[str], Progress]:
    """For each named stage, a function that takes (done, total); outside a terminal a stage is one line, said once."""

    def stage(name: str) -> Progress:
        task = bars.add_task(name, total=None)
        begun = not bars.disable

        def report(done: int, total: int) -> None:
            nonlocal begun
            if not begun:
                print(f"{name} ...", file=sys.stderr, flush=True)
                begun = True
            bars.update(task, completed=done, total=total)

        return report

    return stage


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A table on stdout, as wide as the terminal or 200 columns."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


def print_pairs(pairs: dict[str, str]) -> None:
    """Names and values on stdout, aligned."""
    width = max(len(name) for name in pairs)
    for name, value in pairs.items():
        print(f"{name:<{width}}  {value}")
