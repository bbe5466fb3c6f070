"""The overview: what runs, arrives, waits and needs a person, now; kept live where the browser runs scripts."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from twin_scanner.console.access.roles import Role, needs
from twin_scanner.console.frame import Frame
from twin_scanner.console.live import Live
from twin_scanner.console.site import Site

SHOWN: Final = 20
RECENT: Final = timedelta(days=1)


def router(site: Site, frame: Frame) -> APIRouter:
    """``/`` and ``/live``, the same part of it as events."""
    routes = APIRouter(dependencies=[Depends(needs(Role.VIEWER))], tags=["overview"])
    live = Live(lambda: frame.part("live.html", _seen(site)))

    @routes.get("/", include_in_schema=False)
    def overview(request: Request) -> Response:
        return frame(request, "overview.html", {"live": live.now()})

    @routes.get("/live", response_class=StreamingResponse)
    async def events(request: Request) -> StreamingResponse:
        """The overview's live part as server-sent events, whenever it has changed."""
        changes: AsyncIterator[str] = live.changes(request.is_disconnected)
        return StreamingResponse(changes, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    return routes


def _seen(site: Site) -> dict[str, Any]:
    now, look = datetime.now(UTC), site.ledger.overview
    nodes = [(node, node.is_alive(now)) for node in look.nodes()]
    counts = {state.value: count for state, count in look.counts(now - RECENT).items()}
    return {
        "nodes": nodes,
        "counts": counts,
        "parts": {
            "Running": look.running(),
            "Arriving": look.arriving(SHOWN),
            "Waiting": look.waiting(SHOWN),
            "Held": look.held(SHOWN),
            "Failed": look.failed(SHOWN),
        },
    }
