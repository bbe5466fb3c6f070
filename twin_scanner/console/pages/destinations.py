"""The destinations, with the twin record: whether each serves now, its last success, what waits, a C-ECHO by hand."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from twin_scanner.console.access.roles import Role, needs
from twin_scanner.console.frame import Frame
from twin_scanner.console.site import DestinationState, Site
from twin_scanner.errors import TwinScannerError

NAME_LENGTH: Final = 32


def router(site: Site, frame: Frame) -> APIRouter:
    """``/destinations``."""
    routes = APIRouter(dependencies=[Depends(needs(Role.VIEWER))], tags=["destinations"])

    @routes.get("/destinations", include_in_schema=False)
    def destinations(request: Request) -> Response:
        return _page(request, {})

    @routes.post("/destinations/echo", dependencies=[Depends(needs(Role.OPERATOR))], include_in_schema=False)
    def echo(request: Request, destination: Annotated[str, Form(max_length=NAME_LENGTH)]) -> Response:
        known = {one.name: one for one in site.destinations()}
        if destination not in known or not known[destination].takes_echo:
            raise HTTPException(404, "The configuration has no such destination that is asked by C-ECHO.")
        try:
            site.echo(destination)
        except TwinScannerError as error:
            return _page(request, {destination: str(error)})
        return RedirectResponse("/destinations?said=answered", 303)

    def _page(request: Request, faults: dict[str, str]) -> Response:
        traffic = site.ledger.overview.traffic()
        rows: list[tuple[DestinationState, object]] = [(one, traffic.get(one.name)) for one in site.destinations()]
        return frame(request, "destinations.html", {"rows": rows, "faults": faults})

    return routes
