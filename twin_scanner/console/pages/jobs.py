"""The jobs, newest first, by state and day; a page begins where the one before it ended."""

from datetime import UTC, date, datetime, time
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from twin_scanner.console.access.roles import Role, needs
from twin_scanner.console.frame import Frame
from twin_scanner.console.site import Site
from twin_scanner.service.ledger import State, Work

PAGE: Final = 50


def _in_utc(at: datetime | None) -> datetime | None:
    """A moment with the zone of the ledger's; raises ValueError where there is none: the calendar ends before."""
    if at is None:
        return None
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("there is no such moment") from error


class JobsQuery(BaseModel):
    """Which jobs; ``before`` and ``before_job`` are the moment and the id of the last one of the page before."""

    model_config = ConfigDict(extra="ignore")

    state: State | Literal[""] = ""
    since: date | Literal[""] = ""
    before: Annotated[datetime | None, AfterValidator(_in_utc)] = None
    before_job: str = Field("", pattern="^[0-9a-f]{0,32}$")


class JobRow(BaseModel):
    """One job as a program reads it; nothing of the patient."""

    job_id: str
    state: State
    standing: str
    step: str
    study_date: str | None
    accession_number: str | None
    made_at: datetime
    updated_at: datetime
    reason: str


def router(site: Site, frame: Frame) -> APIRouter:
    """``/jobs``, and ``/api/jobs`` for programs."""
    routes = APIRouter(dependencies=[Depends(needs(Role.VIEWER))], tags=["jobs"])

    @routes.get("/jobs", include_in_schema=False)
    def jobs(request: Request, query: Annotated[JobsQuery, Query()]) -> Response:
        works = _page(site, query)
        content = {"works": works, "states": list(State), "query": query, "older": _older(works, query)}
        return frame(request, "jobs.html", content)

    @routes.get("/api/jobs")
    def jobs_as_json(query: Annotated[JobsQuery, Query()]) -> list[JobRow]:
        """A page of the newest jobs."""
        return [_row(work) for work in _page(site, query)]

    return routes


def _page(site: Site, query: JobsQuery) -> list[Work]:
    since = datetime.combine(query.since, time(), UTC) if query.since else None
    before = None if query.before is None else (query.before, query.before_job)
    return site.ledger.overview.jobs(PAGE, since=since, state=query.state or None, before=before)


def _older(works: list[Work], query: JobsQuery) -> str:
    """The address of the next page; empty on the last."""
    last = works[-1].job if len(works) == PAGE else None
    if last is None:
        return ""
    place = {"before": last.made_at.isoformat(), "before_job": last.job_id}
    return "/jobs?" + urlencode({"state": query.state, "since": query.since, **place})


def _row(work: Work) -> JobRow:
    job, study = work.job, work.study
    assert job is not None
    return JobRow(
        job_id=job.job_id,
        state=job.state,
        standing=work.standing.value,
        step=work.step,
        study_date=None if study is None else study.study_date,
        accession_number=None if study is None else study.accession_number,
        made_at=job.made_at,
        updated_at=job.updated_at,
        reason=work.reason,
    )
