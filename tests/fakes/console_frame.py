"""The console's frame without the console: a template with a bare page around it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import ChoiceLoader, DictLoader, Environment, FileSystemLoader, StrictUndefined

from twin_scanner import console

BASE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{% block title %}{% endblock %}</title>'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
    "{% block head %}{% endblock %}</head>"
    "<body><main>{% block heading %}{% endblock %}{% block content %}{% endblock %}</main></body></html>"
)
FOLDER = Path(console.__file__).parent


def bare_frame(request: Request, template: str, content: Mapping[str, Any]) -> Response:
    """The page."""
    loader = ChoiceLoader([DictLoader({"base.html": BASE}), FileSystemLoader(FOLDER / "templates")])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return HTMLResponse(environment.get_template(template).render(**content))
