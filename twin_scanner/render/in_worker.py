"""A render as a worker process runs it: torch is imported there, and never by whoever asks for it."""

import gc
from collections.abc import Sequence
from pathlib import Path

from twin_scanner.districts.choice import SegmenterChoice
from twin_scanner.errors import Transient
from twin_scanner.executor.memory import memory_of_this_machine
from twin_scanner.executor.wanted import is_wanted
from twin_scanner.models.compute import PROCESSOR, Compute
from twin_scanner.render.report import RenderReport
from twin_scanner.render.request import RenderRequest
from twin_scanner.render.windows_done import writing_windows


def render_in_worker(request: RenderRequest) -> RenderReport:
    """The report of ``render.render``; this function can be named, and so sent to another process, without torch.

    Raises Transient where whoever asked does not want it any more: a worker of a cluster is not ended for that. How far
    it is stands beside the result meanwhile (``windows_done``).
    """
    from twin_scanner.render.render import render

    note = writing_windows(request.result)

    def progress(done: int, total: int) -> None:
        if not is_wanted():
            raise Transient("The render was cancelled before it ended.")
        note(done, total)

    return render(request, progress)


def read_ahead_in_worker(files: Sequence[Path], request: RenderRequest) -> bool:
    """Read the CT of a study, before it is known to be complete, for a render like ``request``; whether it is kept."""
    from twin_scanner.render.read_ahead import READ_AHEAD

    return READ_AHEAD.read(files, request, memory_of_this_machine())


def load_in_worker(model: str, model_store: Path, segmenter: SegmenterChoice, compute: Compute = PROCESSOR) -> None:
    """Load torch, the model, the segmenter's code and what makes DICOM objects and pictures, for the renders to come.

    All of it stays, so the garbage collector is told to look through it no more: one of its passes took a quarter of a
    second, some of them in every render. Raises as a render would.
    """
    from twin_scanner.dicom.write.segmentation import load_definitions
    from twin_scanner.districts.choice import make_segmenter
    from twin_scanner.pictures.preview import load_drawing
    from twin_scanner.render.render import load_model

    load_model(model, model_store, compute)
    make_segmenter(segmenter)
    load_definitions()
    load_drawing()
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def check_compute_in_worker(compute: Compute) -> None:
    """Raise Misconfigured where this machine does not have the device, or that cannot compute in the precision."""
    from twin_scanner.models.device import check_compute

    check_compute(compute)
