"""FHIR R4 over HTTP from the embedded store, read only: read, search, and what the interface can do.

A search may be sent as POST to ``_search``, so that an identifier stands in no address. Everything else that would
write is answered 405.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Depends, HTTPException, Request, Response, params
from fastapi.concurrency import run_in_threadpool

from twin_record.reading import RecordPage, RecordQuery
from twin_scanner.console.access.roles import Role, needs
from twin_scanner.console.fhir_api.capabilities import TYPES, capability_statement, search_parameters
from twin_scanner.console.fhir_api.outcome import FhirRoute, fhir_response, outcome
from twin_scanner.console.fhir_api.parameters import Search, Unsearchable, is_id, parsed_search
from twin_scanner.service.ledger import Ledger

PREFIX: Final = "/fhir"
FORMATS: Final = ("application/fhir+json", "application/json", "json", "*/*", "application/*", "text/json")
LONGEST_BODY: Final = 16_384
ELSEWHERE: Final = "This node keeps no twin records of its own: ask the FHIR server that it writes to."
_WRITES: Final = ["POST", "PUT", "PATCH", "DELETE"]


class RecordReader(Protocol):
    """The store, to whoever only reads."""

    def read(self, kind: str, resource_id: str) -> dict[str, Any] | None:
        """The current version of one resource."""
        ...

    def search(self, query: RecordQuery, count: int, after: str = "") -> RecordPage:
        """Some of the current versions that a query asks for."""
        ...


def router(ledger: Ledger, store: RecordReader | None) -> APIRouter:
    """The records for who may see, each read and each match of a search in the ledger's events."""

    def seen(request: Request, what: str, references: Sequence[str]) -> None:
        ledger.saw_each("fhir", references, what)

    return fhir_router(store, seen, [Depends(needs(Role.VIEWER))])


def fhir_router(
    store: RecordReader | None,
    seen: Callable[[Request, str, Sequence[str]], None],
    dependencies: Sequence[params.Depends] = (),
) -> APIRouter:
    """The routes; ``seen`` notes in the audit an interaction and the resources (as Type/id) that it gave.

    ``store`` is None where the records lie on another server.
    """
    router = APIRouter(prefix=PREFIX, route_class=FhirRoute, tags=["fhir"], dependencies=list(dependencies))

    def searched(request: Request, kind: str, parameters: Sequence[tuple[str, str]]) -> Response:
        known = _reader(store, kind)
        _check_format(request, parameters)
        try:
            search = parsed_search(kind, parameters)
        except Unsearchable as error:
            return outcome(400, str(error))
        if search.query.identifiers and "identifier" not in search_parameters(kind):
            return outcome(400, "A search parameter is not supported for this type: see /fhir/metadata.")
        page = known.search(search.query, search.count, search.after)
        seen(request, "search", [f"{kind}/{resource['id']}" for resource in page.resources])
        return fhir_response(_bundle(_base(request), kind, parameters, search, page))

    @router.get("/metadata", response_class=Response)
    def metadata(request: Request) -> Response:
        """The CapabilityStatement."""
        _check_format(request, request.query_params.multi_items())
        return fhir_response(capability_statement(_base(request)))

    @router.get("/{kind}", response_class=Response)
    def search(request: Request, kind: str) -> Response:
        """Search a type by identifier, patient and _lastUpdated, page by page."""
        return searched(request, kind, request.query_params.multi_items())

    @router.post("/{kind}/_search", response_class=Response)
    async def search_by_form(request: Request, kind: str) -> Response:
        """The same search with its parameters in the body."""
        if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return outcome(415, "Send the parameters of a search as application/x-www-form-urlencoded.")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LONGEST_BODY:
                return outcome(413, f"The parameters of a search take at most {LONGEST_BODY} bytes.")
        sent = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
        asked = [*request.query_params.multi_items(), *sent]
        return await run_in_threadpool(searched, request, kind, asked)

    @router.get("/{kind}/{resource_id}", response_class=Response)
    def read(request: Request, kind: str, resource_id: str) -> Response:
        """Read one resource; If-None-Match and If-Modified-Since are answered 304 where nothing changed."""
        known = _reader(store, kind)
        _check_format(request, request.query_params.multi_items())
        resource = known.read(kind, resource_id) if is_id(resource_id) else None
        if resource is None:
            raise HTTPException(404, "There is no such resource.")
        seen(request, "read", [f"{kind}/{resource_id}"])
        changed_at = datetime.fromisoformat(resource["meta"]["lastUpdated"]).astimezone(UTC)
        headers = {
            "ETag": f'W/"{resource["meta"]["versionId"]}"',
            "Last-Modified": format_datetime(changed_at, usegmt=True),
        }
        if _is_known(request, headers["ETag"], changed_at):
            return Response(status_code=304, headers=headers)
        return fhir_response(resource, headers=headers)

    @router.api_route("{rest:path}", methods=["GET", *_WRITES], include_in_schema=False, response_class=Response)
    def anything_else(request: Request, rest: str) -> Response:
        if request.method == "GET":
            return outcome(404, "There is nothing at this address: see /fhir/metadata.")
        return outcome(405, "The twin records are read only here.", {"Allow": "GET"})

    return router


def _reader(store: RecordReader | None, kind: str) -> RecordReader:
    """The store, if it has such resources; raises 404."""
    if store is None:
        raise HTTPException(404, ELSEWHERE)
    if kind not in TYPES:
        raise HTTPException(404, "There are no resources of this type: see /fhir/metadata.")
    return store


def _base(request: Request) -> str:
    return f"{str(request.base_url).rstrip('/')}{PREFIX}"


def _check_format(request: Request, parameters: Sequence[tuple[str, str]]) -> None:
    """Raise 406 for whoever takes no JSON; ``_format`` goes before Accept (R4 http, 3.1.0.1.11)."""
    wanted = [value for name, value in parameters if name == "_format"] or [request.headers.get("accept", "*/*")]
    named = [part.partition(";")[0].strip().lower() for value in wanted for part in value.split(",")]
    if not any(part in FORMATS or part == "" for part in named):
        raise HTTPException(406, "The records are given as application/fhir+json alone.")


def _is_known(request: Request, etag: str, changed_at: datetime) -> bool:
    """Whether the asker has this version; an ETag goes before a date (RFC 9110 13.2.2)."""
    if (known := request.headers.get("if-none-match")) is not None:
        return known.strip() == "*" or etag in [part.strip() for part in known.split(",")]
    try:
        since = parsedate_to_datetime(request.headers.get("if-modified-since", ""))
    except (ValueError, OverflowError):
        return False
    return since.tzinfo is not None and changed_at.replace(microsecond=0) <= since


def _bundle(
    base: str, kind: str, parameters: Sequence[tuple[str, str]], search: Search, page: RecordPage
) -> dict[str, Any]:
    """The searchset of one page, with the links to itself and to the next one."""
    asked = [(name, value) for name, value in parameters if name not in ("_count", "_after", "_format")]

    def link(relation: str, after: str) -> dict[str, str]:
        beginning = [("_after", after)] if after else []
        query = urlencode([*asked, ("_count", str(search.count)), *beginning])
        return {"relation": relation, "url": f"{base}/{kind}?{query}"}

    links = [link("self", search.after)]
    if page.following and page.resources:
        links.append(link("next", page.resources[-1]["id"]))
    entries = [
        {"fullUrl": f"{base}/{kind}/{resource['id']}", "resource": resource, "search": {"mode": "match"}}
        for resource in page.resources
    ]
    bundle = {"resourceType": "Bundle", "type": "searchset", "total": page.total, "link": links}
    return {**bundle, "entry": entries} if entries else bundle
