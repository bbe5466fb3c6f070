"""The most memory that a render takes, each in a process of its own, beside what was predicted of it."""

import resource
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import torch

from benchmarks.figures import Figure, at_most
from training.phantom.dicom_series import write_ct_dicom
from training.phantom.phantom import PhantomOptions, make_phantom
from twin_scanner.districts.choice import SegmenterChoice
from twin_scanner.imaging.volume import AIR_HU, Geometry, Shape, Triple, resample
from twin_scanner.models.card import read_card
from twin_scanner.models.store import ModelStore
from twin_scanner.render.memory import GIGABYTE, extent_of, predicted
from twin_scanner.render.render import render
from twin_scanner.render.request import RenderRequest

NAME: Final = "memory"
CASES: Final[tuple[tuple[Shape, Triple], ...]] = (
    ((150, 512, 512), (2.5, 0.977, 0.977)),
    ((500, 512, 512), (2.5, 0.977, 0.977)),
    ((1500, 512, 512), (1.2, 0.977, 0.977)),
)
"""A chest, a trunk in thin slices, a whole body in the thinnest."""
GOAL_GB: Final = 4.0
TOLERANCE: Final = 0.25
"""Of the measured peak, by which the predicted one may differ."""
MODEL: Final = "demonstration"

Progress = Callable[[int, int], None]


def measure(progress: Progress | None = None, cases: tuple[tuple[Shape, Triple], ...] = CASES) -> list[Figure]:
    """The measured peak of each case against the goal, and how far the prediction is from it."""
    figures = []
    for number, (shape, spacing_mm) in enumerate(cases, start=1):
        with tempfile.TemporaryDirectory() as folder:
            _in_own_process(_draw, Path(folder), shape, spacing_mm)
            measured, foreseen = _in_own_process(_render, Path(folder))
        what = "x".join(map(str, reversed(shape)))
        off = abs(foreseen / measured - 1)
        figures += [
            at_most(NAME, f"peak of a render, {what}", measured, GOAL_GB, "GB"),
            at_most(NAME, f"|predicted {foreseen:.2f} GB / measured - 1|, {what}", off, TOLERANCE, ""),
        ]
        if progress is not None:
            progress(number, len(cases))
    return figures


def _in_own_process(work: Callable[..., tuple[float, float]], *arguments: object) -> tuple[float, float]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _draw(folder: Path, shape: Shape, spacing_mm: Triple) -> tuple[float, float]:
    """A phantom around its middle, drawn coarsely, as a CT series."""
    coarse = make_phantom(1, PhantomOptions((4.0, 3.0, 3.0))).ct
    d, h, w = ((n - 1) / 2 for n in coarse.geometry.shape)
    centre = coarse.geometry.position_lps_mm((d, h, w))
    x, y, z = (
        middle - (n - 1) / 2 * step
        for middle, n, step in zip(centre, reversed(shape), reversed(spacing_mm), strict=True)
    )
    write_ct_dicom(resample(coarse, Geometry(shape, spacing_mm, (x, y, z)), AIR_HU), folder / "ct", seed=1)
    return 0.0, 0.0


def _render(folder: Path) -> tuple[float, float]:
    """The process's peak and the predicted one, in GB."""
    torch.set_num_threads(1)
    request = RenderRequest(
        source=folder / "ct",
        result=folder / "result",
        made_at=datetime.now(UTC),
        model=MODEL,
        model_store=folder / "models",
        segmenter=SegmenterChoice(),
        allow_other_segmenter=True,
        missing_district="deliver",
        device_serial_number="TS-0001",
        accept_synthetic_ct=True,
        accept_phantom_only=True,
    )
    render(request)
    package = ModelStore(request.model_store).resolve(MODEL)
    need = predicted(extent_of(request.source), read_card(package), package)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIGABYTE, need.peak / GIGABYTE
