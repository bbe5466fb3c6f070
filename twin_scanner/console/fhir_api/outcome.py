"""Errors as FHIR states them: an OperationOutcome for each, and the route class that makes it of every one."""

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException

from twin_scanner.errors import TwinScannerError

FHIR_JSON: Final = "application/fhir+json"
ISSUE_TYPES: Final = {
    400: "invalid", 401: "login", 403: "forbidden", 404: "not-found", 405: "not-supported", 406: "not-supported",
    429: "throttled", 500: "exception", 503: "transient",
}  # fmt: skip
"""Of each status its code in the value set issue-type (R4)."""


def fhir_response(resource: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A resource as the body of an answer that no cache keeps."""
    content = json.dumps(resource, ensure_ascii=False).encode()
    kept = {"Cache-Control": "no-store", **(headers or {})}
    return Response(content, status, kept, media_type=f"{FHIR_JSON}; charset=utf-8")


def outcome(status: int, words: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error's answer."""
    issue = {"severity": "error", "code": ISSUE_TYPES.get(status, "processing"), "diagnostics": words}
    return fhir_response({"resourceType": "OperationOutcome", "issue": [issue]}, status, headers)


class FhirRoute(APIRoute):
    """A route whose errors, those of its login included, are OperationOutcomes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the route with its errors translated."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError:
                return outcome(400, "A parameter is not of the form that FHIR gives it: see /fhir/metadata.")
            except (HTTPException, StarletteHTTPException) as error:
                return outcome(error.status_code, str(error.detail), error.headers)
            except TwinScannerError as error:
                return outcome(503, str(error))

        return handled
