"""The command line of a node whose Dask workers render in a moment: ``dask_node.py serve --config FILE``.

The first worker that is given a job stays at it, so that a test can kill it amid the render; the next one renders.
Each notes its process id beside the CT.
"""

import os
import time
from functools import partial
from pathlib import Path
from typing import Final

from tests.fakes.scanner_node import fake_render
from twin_scanner import app
from twin_scanner.cli.command_line import main as run
from twin_scanner.render.exchange import Carried, Shared
from twin_scanner.render.report import RenderReport
from twin_scanner.render.request import RenderRequest

ATTEMPTS: Final = "attempts"
"""The file, in the folder of a job, with the process id of each worker that began it."""


def render(request: RenderRequest) -> RenderReport:
    """On a worker."""
    attempts = request.source.parent / ATTEMPTS
    with attempts.open("a") as lines:
        lines.write(f"{os.getpid()}\n")
    if len(attempts.read_text().splitlines()) == 1:
        time.sleep(3600.0)
    return fake_render(request, lambda: None)


def load(*_what: object) -> None:
    """On a worker: what a stand-in for a render needs is there."""


def pids(attempts: Path) -> list[int]:
    """Who has begun, in their order."""
    return [int(line) for line in attempts.read_text().splitlines()] if attempts.exists() else []


if __name__ == "__main__":
    from tests.fakes import dask_node

    # Workers find the functions under their module's own name.
    shared, carried = (partial(exchange, dask_node.render) for exchange in (Shared, Carried))
    vars(app).update(Shared=shared, Carried=carried, load_in_worker=dask_node.load)
    run()
