"""Drift: what the newest CTs look like beside those before them."""

from fastapi import APIRouter, Depends, Request, Response

from twin_scanner.console.access.roles import Role, needs
from twin_scanner.console.frame import Frame
from twin_scanner.console.site import Site
from twin_scanner.service.drift import FEWEST, drift_of


def router(site: Site, frame: Frame) -> APIRouter:
    """``/drift``."""
    routes = APIRouter(dependencies=[Depends(needs(Role.VIEWER))], tags=["models"])

    @routes.get("/drift", include_in_schema=False)
    def drift(request: Request) -> Response:
        return frame(request, "drift.html", {"drift": drift_of(site.ledger), "fewest": FEWEST})

    return routes
