"""The console as one application: every router, the static files, and what stands before all of them."""

import logging
from functools import partial
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from twin_scanner.console.access.guard import AccessRules, guard
from twin_scanner.console.fhir_api import router as fhir
from twin_scanner.console.frame import Frame, make_frame
from twin_scanner.console.looks import LookLog
from twin_scanner.console.pages import arriving, destinations, drift, job, jobs, models, overview, retraining, twin
from twin_scanner.console.site import Site
from twin_scanner.console.viewer import router as viewer
from twin_scanner.errors import Transient, TwinScannerError

LOG = logging.getLogger("twin_scanner.console")
STATIC: Final = Path(__file__).parent / "static"
PAGES: Final = (overview, jobs, arriving, destinations, models, retraining, drift, twin)


def create_application(site: Site, rules: AccessRules) -> FastAPI:
    """The console of a site; ``rules`` say who may come in."""
    frame = make_frame(site.name)
    application = FastAPI(title="twin-scanner console", docs_url=None, redoc_url=None)
    looks = LookLog(partial(site.ledger.saw, "jobs"))
    for page in PAGES:
        application.include_router(page.router(site, frame))
    application.include_router(job.router(site, frame, looks))
    application.include_router(viewer.router(site.jobs_folder, frame, looks))
    application.include_router(fhir.router(site.ledger, site.records))
    for router in site.operation:
        application.include_router(router)
    application.mount("/static", StaticFiles(directory=STATIC), name="static")
    _answer_errors(application, frame)
    guard(application, site.ledger, rules, frame.templates)
    return application


def _answer_errors(application: FastAPI, frame: Frame) -> None:
    """A known error is one sentence: on a page for a person, as JSON for a program."""

    def answer(request: Request, status: int, sentence: str) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return frame(request, "error.html", {"sentence": sentence}, status)
        return JSONResponse({"detail": sentence}, status)

    @application.exception_handler(TwinScannerError)
    def known(request: Request, error: TwinScannerError) -> Response:
        return answer(request, 503 if isinstance(error, Transient) else 409, str(error))

    @application.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        sentence = "There is no such page." if error.detail == "Not Found" else str(error.detail)
        return answer(request, error.status_code, sentence)

    @application.exception_handler(Exception)
    def defect(request: Request, error: Exception) -> Response:
        LOG.error("the console failed", exc_info=error)
        return answer(request, 500, "This page has failed by a fault of the program: its log says where.")

    @application.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return answer(request, 422, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}.")
