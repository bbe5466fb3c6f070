"""A real FHIR server that speaks otherwise of itself: its CapabilityStatement, and what it then refuses."""

from collections.abc import Callable, Collection
from typing import Any

import httpx

from twin_record.capabilities import RECORDED

Answer = Callable[[httpx.Request], httpx.Response | None]


class OtherServer(httpx.BaseTransport):
    """Carries requests to the real server, but for those that ``answer`` answers itself; keeps what was asked.

    ``statement`` is what GET /metadata shows. What may happen between two requests happens in ``before``.
    """

    def __init__(
        self,
        statement: dict[str, Any] | None,
        answer: Answer = lambda _request: None,
        before: Callable[[httpx.Request], None] = lambda _request: None,
    ) -> None:
        self.statement = statement
        self.answer = answer
        self.before = before
        self.seen: list[httpx.Request] = []
        self._real = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/metadata"):
            return httpx.Response(404 if self.statement is None else 200, json=self.statement or {})
        self.seen.append(request)
        self.before(request)
        return self.answer(request) or self._real.handle_request(request)

    def close(self) -> None:
        self._real.close()

    def asked(self) -> list[str]:
        """Method and path of each request, without the base path."""
        return [f"{request.method} {request.url.path.removeprefix('/fhir')}".strip() for request in self.seen]


def statement(
    *,
    interactions: Collection[str] = ("transaction", "batch"),
    without: Collection[str] = (),
    parameters: Collection[str] = ("identifier", "subject"),
    **said: Any,
) -> dict[str, Any]:
    """A CapabilityStatement that says the same of every type of a record, but for those that it forgets."""
    listed = [{"name": name, "type": "token"} for name in parameters]
    resources = [{"type": kind, "searchParam": listed, **said} for kind in RECORDED if kind not in without]
    rest = {"mode": "server", "resource": resources, "interaction": [{"code": code} for code in interactions]}
    return {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": [rest]}
