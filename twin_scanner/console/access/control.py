"""The door of the console: who asks, whether that path is open to them, and whether a change comes from our own page.

It stands before every route: a route that forgets to state its role is still closed to whoever is not logged in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicom_node.addresses import is_loopback
from twin_scanner.console.access.csrf import FIELD, HEADER, SAFE_METHODS, comes_from_here, fits
from twin_scanner.console.access.roles import Role, User
from twin_scanner.console.access.sessions import Sessions, new_secret, read_cookie, set_cookie
from twin_scanner.console.access.tokens import Machines, Purpose, purpose_of
from twin_scanner.console.fhir_api.outcome import outcome
from twin_scanner.errors import Misconfigured, Transient
from twin_scanner.service.ledger import acting_as

SESSION: Final = "twin-scanner-session"
BROWSER: Final = "twin-scanner-browser"
"""A secret of the browser before it has logged in, for the token in the login form."""
OPEN_PATHS: Final = ("/login", "/static")
"""What is shown to whoever asks: nothing in it is about a patient."""
LARGEST_BODY: Final = 1 << 20
"""Bytes; forms alone are sent to us."""
LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
ON_THIS_MACHINE: Final = User("this machine", Role.ADMIN)
"""Who asks where nobody logs in: the console listens on loopback alone, and has no users."""


@dataclass(frozen=True)
class Door:
    """What the door goes by."""

    sessions: Sessions
    machines: Machines
    needs_login: Callable[[], bool]
    local_only: bool
    """It listens on loopback: another name in the Host header is a page elsewhere that was pointed at this machine."""


def check_may_listen(host: str, *, has_tls: bool, has_login: bool) -> None:
    """Raise Misconfigured where the console would be reachable from elsewhere without TLS or without a login."""
    if is_loopback(host):
        return
    if not has_tls:
        raise Misconfigured(
            f"The console listens on {host}, which is not loopback, without TLS: set console.certificate and "
            "console.key, or console.host = '127.0.0.1'."
        )
    if not has_login:
        raise Misconfigured(
            f"The console listens on {host}, which is not loopback, and nobody can log in: run 'twin-scanner users "
            "add', or set oidc.issuer, or set console.host = '127.0.0.1'."
        )


class AccessControl:
    """The door itself, before the application."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it here; FHIR takes no changes, so its POST of a search needs no form."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            await run_in_threadpool(self._recognise, request)
        except Transient as error:
            await _refusal(503, str(error))(scope, receive, send)
            return
        refusal = self._refused(request)
        if refusal is None and request.method not in SAFE_METHODS and purpose_of(request.url.path) != Purpose.FHIR:
            receive, refusal = await _checked_change(request)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        user: User | None = request.state.user
        with acting_as(user.name if user else "nobody"):
            await self._app(scope, receive, _with_browser_cookie(request, send))

    def _recognise(self, request: Request) -> None:
        """Find out who asks: by session, by token or address, or because nobody needs to log in."""
        session_id = read_cookie(request, SESSION)
        user = self._door.sessions.user(session_id) if session_id else None
        kept = read_cookie(request, BROWSER)
        request.state.is_new_browser = user is None and not kept
        request.state.browser_secret = session_id if user is not None else kept or new_secret()
        request.state.session_id = session_id if user is not None else ""
        purpose = purpose_of(request.url.path)
        if user is None and purpose is not None:
            name = self._door.machines.name_of(request, purpose)
            user = None if name is None else User(name, Role.VIEWER)
        if user is None and not self._door.needs_login():
            user = ON_THIS_MACHINE
        request.state.user = user

    def _refused(self, request: Request) -> Response | None:
        """The answer to whoever may not come in."""
        if self._door.local_only and _host_name(request) not in LOCAL_NAMES:
            return _refusal(421, "The console answers to the names of this machine alone.")
        path = request.url.path
        is_open = any(path == known or path.startswith(f"{known}/") for known in OPEN_PATHS)
        if request.state.user is not None or is_open:
            return None
        if (purpose := purpose_of(path)) is not None:
            answer = outcome if purpose == Purpose.FHIR else _refusal
            return answer(401, "Give a token, or ask from an address that is listed.", {"www-authenticate": "Bearer"})
        if request.method in SAFE_METHODS and "text/html" in request.headers.get("accept", ""):
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse(f"/login?next={quote(path + query, safe='')}", HTTPStatus.SEE_OTHER)
        return _refusal(401, "Log in before.")


def _host_name(request: Request) -> str:
    host = request.headers.get("host", "")
    return host.lower() if host.endswith("]") else host.lower().rpartition(":")[0] or host.lower()


async def _checked_change(request: Request) -> tuple[Receive, Response | None]:
    """What gives the body once more, and the refusal of a change that does not come from a page of ours."""
    body = await _read_body(request)
    if body is None:
        return request.receive, _refusal(413, f"A body has at most {LARGEST_BODY} bytes.")

    async def once_more() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    token = request.headers.get(HEADER)
    if token is None:
        try:
            async with Request(request.scope, once_more).form() as form:
                field = form.get(FIELD)
        except HTTPException:
            return once_more, _refusal(400, "The form cannot be read.")
        token = "" if field is None or isinstance(field, UploadFile) else field
    if not comes_from_here(request) or not fits(request.state.browser_secret, token):
        return once_more, _refusal(403, "This page is no longer valid: load it again, and repeat what you did.")
    return _replayed(body, request.receive), None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body, and afterwards what the server says, such as that the browser has gone."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _read_body(request: Request) -> bytes | None:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            return None
    return bytes(body)


def _with_browser_cookie(request: Request, send: Send) -> Send:
    """A browser that is new gets its secret, so that the first form it fills in is known as its own."""
    if not request.state.is_new_browser or request.method != "GET":
        return send

    async def send_with_cookie(message: Message) -> None:
        if message["type"] == "http.response.start":
            made = Response()
            set_cookie(request, made, BROWSER, request.state.browser_secret)
            MutableHeaders(scope=message).append("set-cookie", made.headers["set-cookie"])
        await send(message)

    return send_with_cookie


def _refusal(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status, headers)
