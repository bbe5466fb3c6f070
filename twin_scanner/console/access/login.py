"""The pages by which a person comes in and goes: by a password of ours, or by the hospital's identity provider."""

import logging
import re
import secrets
from dataclasses import astuple, dataclass, field
from http import HTTPStatus
from math import ceil
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.templating import Jinja2Templates
from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.responses import Response

from twin_scanner.console.access.control import BROWSER, SESSION
from twin_scanner.console.access.csrf import csrf_token
from twin_scanner.console.access.limits import LoginLimits
from twin_scanner.console.access.oidc import Flow, Oidc
from twin_scanner.console.access.passwords import Passwords
from twin_scanner.console.access.roles import Role
from twin_scanner.console.access.sessions import Sessions, delete_cookie, read_cookie, set_cookie
from twin_scanner.errors import Misconfigured, Rejected, Transient
from twin_scanner.service.ledger import Ledger

LOG = logging.getLogger("twin_scanner.console.access")
OIDC_FLOW: Final = "twin-scanner-oidc"
FLOW_S: Final = 600
"""How long a person may take at the identity provider."""
USER_NAME: Final = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_INSIDE: Final = re.compile(r"/(?![/\\])[^\\\x00-\x1f]*")
"""A path of ours: one that begins with two slashes is another host to a browser."""
WRONG: Final = "The name or the password is wrong."


@dataclass(frozen=True)
class Logins:
    """What the login goes by."""

    ledger: Ledger
    sessions: Sessions
    passwords: Passwords
    limits: LoginLimits
    templates: Jinja2Templates
    oidc: Oidc | None = None
    flows: URLSafeTimedSerializer = field(
        default_factory=lambda: URLSafeTimedSerializer(secrets.token_bytes(32), salt="oidc flow")
    )

    def user_with(self, name: str, password: str) -> str | None:
        """The local user's name where the password is theirs; as much work is done where there is no such user."""
        account = self.ledger.users.find(name) if USER_NAME.fullmatch(name) else None
        if not self.passwords.fits(password, account.password_hash if account else None):
            self.ledger.sessions.refused(account.name if account else "unknown")
            return None
        assert account is not None
        if self.passwords.is_outdated(account.password_hash):
            self.ledger.users.rehash(account.name, self.passwords.hash(password, account.name))
        return account.name

    def page(self, request: Request, sentence: str = "", next_path: str = "/", status: int = 200) -> HTMLResponse:
        """The login page, with what went wrong."""
        shown: dict[str, Any] = {
            "sentence": sentence,
            "next_path": _inside(next_path),
            "has_oidc": self.oidc is not None,
        }
        return self.templates.TemplateResponse(
            request, "login.html", {**shown, "csrf_token": csrf_token(request)}, status_code=status
        )

    def enter(self, request: Request, user_name: str, role: Role | None, next_path: str) -> Response:
        """Begin a session under a new id: one that somebody gave the browser before is worth nothing."""
        if request.state.session_id:
            self.sessions.end(request.state.session_id)
        response = RedirectResponse(_inside(next_path), HTTPStatus.SEE_OTHER)
        set_cookie(request, response, SESSION, self.sessions.begin(user_name, role))
        delete_cookie(request, response, BROWSER)
        return response


def login_routes(logins: Logins) -> APIRouter:
    """The routes; they are open to whoever asks."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/login", response_class=HTMLResponse)
    def login_page(request: Request, next: str = "/") -> Response:
        """Ask for a name and a password."""
        return logins.page(request, next_path=next)

    @routes.post("/login", response_class=HTMLResponse)
    def log_in(
        request: Request,
        name: Annotated[str, Form()] = "",
        password: Annotated[str, Form()] = "",
        next: Annotated[str, Form()] = "/",
    ) -> Response:
        """Let a local user in."""
        address = request.client.host if request.client else ""
        wait_s = logins.limits.begin(name[:64], address)
        if wait_s > 0.0:
            LOG.warning("Logins are tried too often.", extra={"address": address, "wait_s": round(wait_s, 1)})
            sentence = f"There were too many tries: wait {ceil(wait_s)} seconds."
            refusal = logins.page(request, sentence, next, HTTPStatus.TOO_MANY_REQUESTS)
            refusal.headers["retry-after"] = str(ceil(wait_s))
            return refusal
        user_name = logins.user_with(name, password)
        if user_name is None:
            return logins.page(request, WRONG, next, HTTPStatus.UNAUTHORIZED)
        logins.limits.succeeded(name, address)
        return logins.enter(request, user_name, None, next)

    @routes.post("/logout")
    def log_out(request: Request) -> Response:
        """End the session."""
        if request.state.session_id:
            logins.sessions.end(request.state.session_id)
        response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
        delete_cookie(request, response, SESSION)
        return response

    if logins.oidc is not None:
        _add_oidc(routes, logins, logins.oidc)
    return routes


def _add_oidc(routes: APIRouter, logins: Logins, oidc: Oidc) -> None:
    @routes.get("/login/oidc")
    def to_provider(request: Request, next: str = "/") -> Response:
        """Send the browser to the identity provider."""
        try:
            address, flow = oidc.begin()
        except (Transient, Rejected) as error:
            return _failed(logins, request, error)
        response = RedirectResponse(address, HTTPStatus.SEE_OTHER)
        set_cookie(request, response, OIDC_FLOW, logins.flows.dumps([*astuple(flow), _inside(next)]))
        return response

    @routes.get("/login/oidc/callback")
    def from_provider(request: Request) -> Response:
        """Let in whom the provider names."""
        try:
            *parts, next_path = logins.flows.loads(read_cookie(request, OIDC_FLOW), max_age=FLOW_S)
            identity = oidc.finish(Flow(*parts), dict(request.query_params))
        except BadSignature:
            refused = Rejected("This login was begun elsewhere or long ago: begin it again.")
            return _failed(logins, request, refused)
        except (Transient, Rejected) as error:
            return _failed(logins, request, error)
        response = logins.enter(request, identity.name, identity.role, next_path)
        delete_cookie(request, response, OIDC_FLOW)
        return response


def _failed(logins: Logins, request: Request, error: Transient | Rejected) -> Response:
    """The login page with a sentence; only where the provider had its say is it a refusal."""
    if isinstance(error, Transient | Misconfigured):
        LOG.warning("The login by the identity provider failed.", extra={"reason": str(error)})
        return logins.page(request, str(error), status=HTTPStatus.SERVICE_UNAVAILABLE)
    logins.ledger.sessions.refused("unknown")
    return logins.page(request, str(error), status=HTTPStatus.FORBIDDEN)


def _inside(path: str) -> str:
    """The path, where it is one of ours; else the first page."""
    return path if _INSIDE.fullmatch(path) else "/"
