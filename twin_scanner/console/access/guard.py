"""Puts the door before an application: headers, access control, and the pages of the login."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from fastapi import FastAPI
from fastapi.templating import Jinja2Templates

from twin_scanner.console.access.control import AccessControl, Door
from twin_scanner.console.access.headers import SecurityHeaders
from twin_scanner.console.access.limits import LoginLimits
from twin_scanner.console.access.login import Logins, login_routes
from twin_scanner.console.access.oidc import Oidc, Provider
from twin_scanner.console.access.passwords import Passwords
from twin_scanner.console.access.sessions import Lifetime, Sessions
from twin_scanner.console.access.tokens import Machines
from twin_scanner.service.ledger import Ledger, utc_now


@dataclass(frozen=True)
class AccessRules:
    """Who may come in, and from where; the defaults are those of a console on loopback."""

    local_only: bool = True
    lifetime: Lifetime = field(default_factory=Lifetime)
    machines: Machines = field(default_factory=Machines)
    provider: Provider | None = None


def guard(
    app: FastAPI,
    ledger: Ledger,
    rules: AccessRules,
    templates: Jinja2Templates,
    *,
    passwords: Passwords | None = None,
    now: Callable[[], datetime] = utc_now,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> None:
    """Let the application be reached through the door alone; call it after every other middleware was added."""
    oidc = None if rules.provider is None else Oidc(rules.provider)
    sessions = Sessions(ledger, rules.lifetime, now)
    limits = LoginLimits(monotonic_s)
    app.include_router(login_routes(Logins(ledger, sessions, passwords or Passwords(), limits, templates, oidc)))

    def needs_login() -> bool:
        return not rules.local_only or oidc is not None or ledger.users.exist()

    app.add_middleware(AccessControl, door=Door(sessions, rules.machines, needs_login, rules.local_only))
    app.add_middleware(SecurityHeaders)
