"""Who is logged in: sessions in the ledger, behind a cookie that says nothing; they end by idleness and by age."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from twin_scanner.console.access.roles import Role, User
from twin_scanner.service.ledger import Ledger

SEEN_EVERY: Final = timedelta(seconds=60)
"""That a person is still there is written so often, not with each request."""


@dataclass(frozen=True)
class Lifetime:
    """How long a session lasts: without a request, and at all."""

    idle: timedelta = timedelta(minutes=30)
    absolute: timedelta = timedelta(hours=12)


class Sessions:
    """The sessions of all browsers."""

    def __init__(self, ledger: Ledger, lifetime: Lifetime, now: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._lifetime = lifetime
        self._now = now

    def begin(self, user_name: str, role: Role | None) -> str:
        """A new session with a new id; without a role it is that of a local user, whose row has it."""
        now = self._now()
        self._ledger.sessions.clear(now - self._lifetime.idle, now - self._lifetime.absolute)
        session_id = new_secret()
        self._ledger.sessions.begin(session_id, user_name, None if role is None else role.value)
        return session_id

    def user(self, session_id: str) -> User | None:
        """Whose session it is; None where it is over, or its user was removed meanwhile."""
        session = self._ledger.sessions.find(session_id)
        if session is None:
            return None
        now = self._now()
        idle, age = now - session.seen_at, now - session.created_at
        if idle > self._lifetime.idle or age > self._lifetime.absolute:
            return None
        role = session.role
        if role is None:
            account = self._ledger.users.find(session.user_name)
            if account is None:
                return None
            role = account.role
        if idle > SEEN_EVERY:
            self._ledger.sessions.seen(session)
        return User(session.user_name, Role(role))

    def end(self, session_id: str) -> None:
        """Log out."""
        self._ledger.sessions.end(session_id)


def new_secret() -> str:
    """What nobody guesses: 256 bits."""
    return secrets.token_urlsafe(32)


def cookie_name(scheme: str, name: str) -> str:
    """The prefix forbids, by the browser's own hand, to set it from another host or without TLS (RFC 6265bis 4.1.3)."""
    return f"__Host-{name}" if scheme == "https" else name


def read_cookie(request: Request, name: str) -> str:
    """The cookie's value, empty where it is not there."""
    return request.cookies.get(cookie_name(request.url.scheme, name), "")


def set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    """A cookie of this host that no script reads; Lax: a redirect by an identity provider would lose a Strict one."""
    response.set_cookie(
        cookie_name(request.url.scheme, name),
        value,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def delete_cookie(request: Request, response: Response, name: str) -> None:
    """Make the browser forget it."""
    secure = request.url.scheme == "https"
    response.delete_cookie(cookie_name(request.url.scheme, name), secure=secure, httponly=True)
