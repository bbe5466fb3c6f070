"""Everything but the networks: from the folder of a CT to the folder of its results, and how long the worker starts."""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure, at_most
from training.phantom.files import write_ct_dicom
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_scanner.districts.choice import SegmenterChoice
from twin_scanner.executor.local import LocalProcesses
from twin_scanner.render.in_worker import load_in_worker, render_in_worker
from twin_scanner.render.report import RenderReport
from twin_scanner.render.request import RenderRequest

NAME: Final = "rendering"
SEED: Final = 7
TRUNK: Final = PhantomOptions(spacing_mm=(3.0, 0.98, 0.98), field_of_view=(900.0, 1420.0), height_mm=1750.0)
"""Where no CT is given: slices of 512 x 512 as a scanner makes them."""
MODEL: Final = "champion"
MOST_S: Final = 5.0
"""Of all but the networks, in a worker that is resident."""
MOST_START_S: Final = 4.0
ROUNDS: Final = 2
"""The quicker one counts."""


def measure(progress: Callable[[int, int], None] = lambda done, total: None, ct: Path | None = None) -> list[Figure]:
    """Seconds of the worker's start, of each stage of a render, and of all stages but the networks."""
    with tempfile.TemporaryDirectory() as scratch:
        source = ct or _phantom(Path(scratch) / "ct")
        worker = LocalProcesses()
        try:
            start_s = _seconds(
                partial(worker.submit, load_in_worker, MODEL, Path(scratch) / "models", SegmenterChoice())
            )
            reports = []
            for turn in range(ROUNDS):
                request = _request(source, Path(scratch) / f"result-{turn}")
                reports.append(worker.submit(render_in_worker, request).result())
                progress(turn + 1, ROUNDS)
        finally:
            worker.close()
    quickest = min(reports, key=_around_the_networks)
    stages = {
        "read": quickest.seconds["read"],
        "districts and grid": quickest.seconds["translate"] - quickest.seconds["networks"],
        "networks": quickest.seconds["networks"],
        "write": quickest.seconds["write"],
    }
    what, whole = f"{len(quickest.source_instance_uids)} slices", sum(stages.values())
    figures = [Figure(NAME, f"{what}: {stage}", value, "s", "whole", whole, 1.0) for stage, value in stages.items()]
    rest = "everything but the networks, from CT folder to result folder"
    figures.append(at_most(NAME, rest, _around_the_networks(quickest), MOST_S, "s"))
    return [*figures, at_most(NAME, "start of the worker process", start_s, MOST_START_S, "s")]


def _around_the_networks(report: RenderReport) -> float:
    seconds = report.seconds
    return seconds["read"] + seconds["translate"] - seconds["networks"] + seconds["write"]


def _seconds(submit: Callable[[], "Future[None]"]) -> float:
    begun = time.monotonic()
    submit().result()
    return time.monotonic() - begun


def _request(source: Path, result: Path) -> RenderRequest:
    return RenderRequest(
        source=source,
        result=result,
        made_at=datetime.now(UTC),
        model=MODEL,
        model_store=result.parent / "models",
        segmenter=SegmenterChoice(),
        allow_other_segmenter=False,
        missing_district="deliver",
        device_serial_number="BENCHMARK",
        accept_synthetic_ct=True,
        accept_phantom_only=True,
    )


def _phantom(folder: Path) -> Path:
    phantom = make_phantom(SEED, TRUNK)
    write_ct_dicom(phantom.ct, folder, seed=SEED, options=TRUNK)
    return folder
