"""Proof that a change of state comes from a page of ours: a token that only the browser's own secret cookie yields."""

import hashlib
import hmac
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

FIELD: Final = "csrf_token"
HEADER: Final = "x-csrf-token"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def csrf_token(request: Request) -> str:
    """The token for the forms of the page that answers this request."""
    return token_of(request.state.browser_secret)


def token_of(secret: str) -> str:
    """Whoever knows the session's id, or before the login the browser's secret, can compute it; nobody else."""
    return hmac.new(secret.encode(), b"csrf", hashlib.sha256).hexdigest()


def fits(secret: str, token: str) -> bool:
    """Whether the token is the secret's."""
    return hmac.compare_digest(token_of(secret).encode(), token.encode())


def comes_from_here(request: Request) -> bool:
    """Whether the browser does not say that another site made the request (Origin, Sec-Fetch-Site)."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == request.headers.get("host", "")
    except ValueError:
        return False
