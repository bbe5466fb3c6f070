"""The studies that arrive, that wait for intake, and that are held before there is a job."""

from typing import Final

from fastapi import APIRouter, Depends, Request, Response

from twin_scanner.console.access.roles import Role, needs
from twin_scanner.console.frame import Frame
from twin_scanner.console.site import Site

SHOWN: Final = 100


def router(site: Site, frame: Frame) -> APIRouter:
    """``/arriving``."""
    routes = APIRouter(dependencies=[Depends(needs(Role.VIEWER))], tags=["studies"])

    @routes.get("/arriving", include_in_schema=False)
    def arriving(request: Request) -> Response:
        look = site.ledger.overview
        content = {
            "arriving": look.arriving(SHOWN),
            "held": look.held_studies(SHOWN),
            "apart": look.apart(SHOWN),
        }
        return frame(request, "arriving.html", content)

    return routes
