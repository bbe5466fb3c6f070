"""Renders a template with the console's frame around it: who asks, where one is, and how moments are written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from twin_scanner.console.access.csrf import csrf_token
from twin_scanner.console.access.roles import Role, User

TEMPLATES: Final = Path(__file__).parent / "templates"
MENU: Final = (
    ("/", "Overview"),
    ("/jobs", "Jobs"),
    ("/arriving", "Arriving"),
    ("/destinations", "Destinations"),
    ("/models", "Models"),
    ("/retraining", "Retraining"),
    ("/drift", "Drift"),
)
SAID: Final = re.compile(r"[a-z -]{1,16}")
"""What a page repeats of its address as done: a word of ours, too short for a sentence that somebody else sends."""
NO_LONGER: Final = "-"
"""Where there is no value."""


@dataclass(frozen=True)
class Frame:
    """Every page of one console."""

    site_name: str
    templates: Jinja2Templates

    def __call__(self, request: Request, template: str, content: Mapping[str, Any], status: int = 200) -> Response:
        """The page."""
        user: User | None = getattr(request.state, "user", None)
        said = request.query_params.get("said", "")
        around = {
            "site_name": self.site_name,
            "menu": MENU,
            "here": request.url.path,
            "user": user,
            "may_operate": user is not None and user.role.includes(Role.OPERATOR),
            "may_administer": user is not None and user.role.includes(Role.ADMIN),
            "csrf_token": csrf_token(request),
            "may_log_out": bool(getattr(request.state, "session_id", "")),
            "said": said if SAID.fullmatch(said) else "",
        }
        return self.templates.TemplateResponse(request, template, {**around, **content}, status_code=status)

    def part(self, template: str, content: Mapping[str, Any]) -> str:
        """A part of a page, as it is sent again when it has changed."""
        return self.templates.get_template(template).render(**content)


def make_frame(site_name: str) -> Frame:
    """A frame over the templates that come with the program."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {"moment": moment, "da": date_of, "seconds": duration, "path": lambda text: quote(text, "")}
    return Frame(site_name, Jinja2Templates(env=environment))


def moment(at: datetime | None) -> str:
    """A moment for a person, in UTC."""
    return NO_LONGER if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def date_of(study_date: str | None) -> str:
    """A DA (PS3.5 6.2) as a date of ISO 8601."""
    return f"{study_date[:4]}-{study_date[4:6]}-{study_date[6:]}" if study_date else NO_LONGER


def duration(begun_at: datetime | None) -> str:
    """How long ago that was."""
    if begun_at is None:
        return NO_LONGER
    seconds = max(0, int((datetime.now(UTC) - begun_at).total_seconds()))
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
