"""A render as a worker process runs it: torch is imported there, and never by whoever asks for it."""

from pathlib import Path

from twin_scanner.render.report import RenderReport
from twin_scanner.render.request import RenderRequest


def render_in_worker(request: RenderRequest) -> RenderReport:
    """The report of ``render.render``; this function can be named, and so sent to another process, without torch."""
    from twin_scanner.render.render import render

    return render(request)


def load_in_worker(model: str, model_store: Path) -> None:
    """Load torch and the model, which stay for the renders to come; raises as a render would."""
    from twin_scanner.render.render import load_model

    load_model(model, model_store)
