"""The twin of a patient as a timeline; its address names a job of the patient, never the patient."""

from functools import partial

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from twin_scanner.console.access.roles import Role, needs
from twin_scanner.console.frame import Frame
from twin_scanner.console.job_id import JobId
from twin_scanner.console.looks import LookLog
from twin_scanner.console.site import Site


def router(site: Site, frame: Frame) -> APIRouter:
    """``/twin/{job_id}``."""
    looks = LookLog(partial(site.ledger.saw, "twin"))
    routes = APIRouter(dependencies=[Depends(needs(Role.VIEWER))], tags=["twin"])

    @routes.get("/twin/{job_id}", include_in_schema=False)
    def twin(request: Request, job_id: JobId) -> Response:
        update = site.ledger.updates.of_job(job_id)
        if update is None:
            raise HTTPException(404, "Nothing of this job is kept for a twin record.")
        looks(request, job_id)
        return frame(request, "twin.html", {"timeline": site.twin_of(update), "job_id": job_id})

    return routes
