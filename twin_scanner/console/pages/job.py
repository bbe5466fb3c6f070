"""A job's page: its pictures, districts, evidence, provenance, deliveries and timeline, and what a person may do."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from twin_scanner.console.access.roles import Role, needs
from twin_scanner.console.frame import Frame
from twin_scanner.console.job_id import JobId
from twin_scanner.console.looks import LookLog
from twin_scanner.console.site import Site
from twin_scanner.errors import Rejected
from twin_scanner.service.ledger import DeliveryState, ResendReason, State, Work

REASONS: Final = {
    ResendReason.LOST: "The destination does not have it any more",
    ResendReason.RESTORED: "The destination was restored or replaced",
    ResendReason.INCOMPLETE: "A part is missing there",
    ResendReason.DAMAGED: "What is there cannot be read or was altered",
    ResendReason.REQUESTED: "Whoever runs the destination asks for it",
}
PREVIEW: Final = "preview.png"
PROVENANCE: Final = {
    "model_name": "Model",
    "model_hash": "Model hash",
    "plan_hash": "Plan hash",
    "segmenter": "Segmenter",
    "segmenter_hash": "Segmenter hash",
    "software_version": "Software version",
    "made_at": "Translated at",
    "revision": "Revision",
    "source_series_uid": "CT series",
    "source_derivation": "CT resampled",
    "pet_series_uid": "PET series",
    "stitching": "Stitching",
    "intended_use": "Intended use",
}


def router(site: Site, frame: Frame, looks: LookLog) -> APIRouter:
    """``/jobs/{job_id}`` and the forms on it; ``looks`` notes who sees a job or its picture."""
    routes = APIRouter(prefix="/jobs/{job_id}", dependencies=[Depends(needs(Role.VIEWER))], tags=["jobs"])
    operator = [Depends(needs(Role.OPERATOR))]

    @routes.get("", include_in_schema=False)
    def job(request: Request, job_id: JobId) -> Response:
        work = _found(site, job_id)
        looks(request, job_id)
        return frame(request, "job.html", _content(site, work))

    @routes.get("/preview.png", response_class=FileResponse)
    def preview(request: Request, job_id: JobId) -> FileResponse:
        """The projections of CT, districts and PET, as the render wrote them."""
        _found(site, job_id)
        file = site.jobs_folder / job_id / "result" / PREVIEW
        if not file.is_file():
            raise HTTPException(404, "The pictures of this job were cleared.")
        looks(request, job_id)
        return FileResponse(file, media_type="image/png", headers={"Cache-Control": "no-store"})

    @routes.post("/retry", dependencies=operator, include_in_schema=False)
    def retry(job_id: JobId) -> Response:
        _found(site, job_id)
        site.ledger.retry(job_id)
        return _back(job_id, "retried")

    @routes.post("/release", dependencies=operator, include_in_schema=False)
    def release(job_id: JobId, without: Annotated[str, Form(max_length=32)] = "") -> Response:
        _found(site, job_id)
        if without:
            site.ledger.release_without(job_id, without)
        else:
            site.ledger.release(job_id)
        return _back(job_id, "released")

    @routes.post("/resend", dependencies=operator, include_in_schema=False)
    def resend(
        job_id: JobId, destination: Annotated[str, Form(max_length=32)], reason: Annotated[ResendReason, Form()]
    ) -> Response:
        _found(site, job_id)
        if destination not in {one.name for one in site.destinations()}:
            raise Rejected("The configuration has no such destination: nobody would serve it.")
        site.ledger.resend(job_id, destination, reason)
        return _back(job_id, "resend asked")

    return routes


def _found(site: Site, job_id: str) -> Work:
    try:
        found = site.ledger.jobs.find(job_id)
    except Rejected as error:
        raise HTTPException(404, str(error)) from error
    return site.ledger.overview.of([found])[0]


def _back(job_id: str, said: str) -> Response:
    return RedirectResponse(f"/jobs/{job_id}?said={said}", 303)


def _resendable(site: Site, work: Work) -> list[str]:
    """The destinations that have confirmed the job's images, while its files are kept."""
    if work.job is None or work.job.cleared_at is not None:
        return []
    known = {one.name for one in site.destinations()}
    images = [one for one in work.deliveries if not one.after_required and one.destination in known]
    return [one.destination for one in images if one.state == DeliveryState.CONFIRMED and one.was_confirmed]


def _content(site: Site, work: Work) -> dict[str, Any]:
    job = work.job
    assert job is not None
    result = site.ledger.results.of_job(job.job_id)
    report: dict[str, Any] = {} if result is None else result.report
    states = {delivery.state for delivery in work.deliveries}
    stuck = [d.destination for d in work.deliveries if d.state in (DeliveryState.HELD, DeliveryState.FAILED)]
    return {
        "work": work,
        "job": job,
        "study": work.study,
        "report": report,
        "districts": sorted(report.get("districts", {}).items()),
        "provenance": [(said, report[key]) for key, said in PROVENANCE.items() if report.get(key)],
        "has_pictures": (site.jobs_folder / job.job_id / "result" / PREVIEW).is_file(),
        "has_twin": site.ledger.updates.of_job(job.job_id) is not None,
        "events": site.ledger.overview.timeline(work),
        "can_retry": job.state in (State.FAILED, State.REJECTED) or DeliveryState.FAILED in states,
        "can_release": job.state == State.HELD or DeliveryState.HELD in states,
        "stuck": stuck,
        "resendable": _resendable(site, work),
        "reasons": REASONS,
    }
