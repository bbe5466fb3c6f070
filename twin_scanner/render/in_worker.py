"""A render as a worker process runs it: torch is imported there, and never by whoever asks for it."""

from twin_scanner.render.report import RenderReport
from twin_scanner.render.request import RenderRequest


def render_in_worker(request: RenderRequest) -> RenderReport:
    """The report of ``render.render``; this function can be named, and so sent to another process, without torch."""
    from twin_scanner.render.render import render

    return render(request)
