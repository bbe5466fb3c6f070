"""HTTP to a FHIR R4 server: what travels, and its faults as our errors; what is said in a record is not known here.

Bundles are POSTed to the base address, so no patient identifier is ever in a URL; where a server takes no Bundles a
search is a POST too, and a conditional create has its identifier in a header, as R4 wants it. Neither bodies nor
addresses are logged.
"""

import json
import logging
import ssl
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from twin_record.bounds import LARGEST_ANSWER_BYTES, Bounds
from twin_record.refusals import (
    CONFLICTS,
    LATER,
    MISSING,
    OF_THIS_RECORD,
    answer_failure,
    private_words,
    refused_record,
    retry_after_s,
)
from twin_record.resources.content import Resource
from twin_scanner.errors import Misconfigured, TwinScannerError, Unavailable

FHIR_JSON = "application/fhir+json"
FORM = "application/x-www-form-urlencoded"
CONDITIONS = {"ifNoneExist": "If-None-Exist", "ifMatch": "If-Match"}
"""The header for each condition of a Bundle's entry."""


class NoCapabilityStatement(Unavailable):
    """What answers at the base URL does not say what it can do: no FHIR server, or one that keeps it to itself."""


class FhirConnection:
    """The wire to one server: a Bundle at once, or an entry at a time. Thread-safe; to be closed.

    `ca_file` adds the hospital's own authority to those that the system trusts; there is no way to leave the check of
    the server's certificate out.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth: httpx.Auth | None,
        timeout_s: float,
        ca_file: Path | None,
        transport: httpx.BaseTransport | None,
        clock: Callable[[], float],
    ) -> None:
        """Raise Misconfigured for an address or a ca_file that cannot be used; nothing is sent yet.

        `timeout_s` bounds connecting, the silence before an answer, and the time in which an answer must be whole.
        """
        self._url = checked_url(base_url)
        # httpx logs each request's address at INFO; ours hold no patient, yet the address is the hospital's affair.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._client = httpx.Client(
            headers={"Accept": FHIR_JSON, "Cache-Control": "no-cache"},
            auth=auth,
            timeout=timeout_s,
            verify=trusted_authorities(ca_file),
            transport=transport,
            follow_redirects=False,
            event_hooks={"response": [Bounds(timeout_s, clock)]},
        )

    def exchange(self, bundle: Resource) -> Resource:
        """POST one Bundle to the base address and return the Bundle that answers it."""
        sent = self._addressed(bundle)
        answer = self._answer("POST", "", json.dumps(sent, ensure_ascii=False).encode("utf-8"), {})
        document = answer.document()
        if answer.is_success and document.get("resourceType") == "Bundle":
            return document
        private = private_words(bundle)
        # Before a transaction its batch was answered at the same address: what is then found wrong, or missing by a
        # FHIR server, is the record. What finds a batch of searches wrong finds our address wrong.
        writes = bundle["type"] == "transaction"
        if answer.status in MISSING and writes and document.get("resourceType") == "OperationOutcome":
            raise refused_record(answer.status, document, private)
        if answer.is_success or (answer.status == httpx.codes.BAD_REQUEST and not writes):
            raise no_fhir(answer.status)
        raise _failure(answer, document, private)

    def exchange_entry(self, entry: Resource) -> Resource:
        """One entry of a Bundle as a request of its own; a search travels in the body.

        A query without a type is a page that the server keeps under a name of its own.
        """
        request, resource = entry["request"], entry.get("resource")
        method, (path, _, query) = request["method"], request["url"].partition("?")
        if query and not path:
            answer = self._answer("GET", f"?{query}", None, {})
        elif query:
            answer = self._answer("POST", f"/{path}/_search", query.encode("ascii"), {"Content-Type": FORM})
        else:
            body = None if resource is None else json.dumps(resource, ensure_ascii=False).encode("utf-8")
            headers = {name: request[field] for field, name in CONDITIONS.items() if field in request}
            answer = self._answer(method, f"/{path}", body, headers)
        document = answer.document()
        is_outcome = document.get("resourceType") == "OperationOutcome"
        is_read = method == "GET" and not query
        if query and (answer.is_success or answer.status in MISSING) and document.get("resourceType") != "Bundle":
            raise no_fhir(answer.status)
        if answer.is_success or (answer.status in MISSING and (is_outcome or is_read)) or answer.status in CONFLICTS:
            return answer.as_entry(document)
        if answer.status in OF_THIS_RECORD:
            return answer.as_entry(document)
        raise _failure(answer, document, private_words(resource))

    def capability(self) -> Resource:
        """The server's CapabilityStatement (R4 3.1.0.1.8); no patient is asked for.

        Raises Unavailable where nothing answers, NoCapabilityStatement where something else does.
        """
        answer = self._answer("GET", "/metadata", None, {})
        document = answer.document()
        if answer.is_success and document.get("resourceType") == "CapabilityStatement":
            return document
        if answer.status in LATER:
            raise _failure(answer, document, frozenset())
        raise NoCapabilityStatement(
            f"What answers at the FHIR server's base URL shows no CapabilityStatement (status {answer.status}); "
            "correct twin.url and any proxy before it."
        )

    def server_time(self) -> datetime | None:
        """What time it is at the server (HTTP Date, whole seconds); None where it does not say.

        Raises Unavailable where nothing answers.
        """
        try:
            return parsedate_to_datetime(self._answer("GET", "/metadata", None, {}).headers["Date"])
        except (KeyError, ValueError):
            return None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _addressed(self, bundle: Resource) -> Resource:
        """With the address of each resource that a transaction puts (R4 Bundle.entry.fullUrl)."""
        if bundle["type"] != "transaction":
            return bundle
        entries = [
            entry
            if entry["request"]["method"] != "PUT"
            else {"fullUrl": f"{self._url}/{entry['request']['url']}"} | entry
            for entry in bundle["entry"]
        ]
        return {**bundle, "entry": entries}

    def _answer(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> "_Answer":
        url = httpx.URL(f"{self._url}{path}")
        content_type = {} if body is None else {"Content-Type": FHIR_JSON}
        try:
            with self._client.stream(method, url, content=body, headers={**content_type, **headers}) as response:
                return _Answer(response.status_code, self._content(response), response.headers)
        except httpx.TimeoutException as error:
            place, _ = _place(error, url)
            raise Unavailable(f"{place} did not answer in time; it is asked again later.") from None
        except httpx.HTTPError as error:
            place, setting = _place(error, url)
            if fault := _certificate_fault(error):
                raise Unavailable(
                    f"{place}'s certificate is not trusted ({fault}); correct it there, or twin.ca_file here."
                ) from None
            kind = type(error).__name__
            raise Unavailable(f"{place} cannot be reached ({kind}); check {setting} and that it runs.") from None

    def _content(self, response: httpx.Response) -> bytes:
        """The whole body, unpacked no larger than an answer may be."""
        content = bytearray()
        for part in response.iter_bytes():
            content += part
            if len(content) > LARGEST_ANSWER_BYTES:
                raise Unavailable("The FHIR server's answer does not end; check any proxy before it.")
        return bytes(content)


@dataclass(frozen=True)
class _Answer:
    """What came back over HTTP."""

    status: int
    content: bytes
    headers: httpx.Headers

    @property
    def is_success(self) -> bool:
        return httpx.codes.is_success(self.status)

    def document(self) -> dict[str, Any]:
        """The body as a JSON object; an empty one where it is none."""
        try:
            document = json.loads(self.content, object_pairs_hook=_without_nulls)
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}

    def as_entry(self, document: Resource) -> Resource:
        """As a Bundle would hold it."""
        response: Resource = {"status": str(self.status)}
        response |= {field: self.headers[field] for field in ("location", "etag") if field in self.headers}
        if document.get("resourceType") == "OperationOutcome":
            return {"response": {**response, "outcome": document}}
        return {"response": response, **({"resource": document} if document else {})}

    @property
    def retry_after_s(self) -> float:
        """For how long the server asks to be left alone."""
        return retry_after_s(self.status, self.headers.get("Retry-After", ""))


def _place(error: httpx.HTTPError, url: httpx.URL) -> tuple[str, str]:
    """Who failed, and the setting that names it: a request may be preceded by one for a token."""
    asked = error.request.url if isinstance(error, httpx.RequestError) else url
    return ("The FHIR server", "twin.url") if asked == url else ("The token endpoint", "twin.token_url")


def _failure(answer: _Answer, document: Resource, private: Collection[str]) -> TwinScannerError:
    failure = answer_failure(answer.status, document, private)
    if isinstance(failure, Unavailable):
        failure.retry_after_s = answer.retry_after_s
    return failure


def no_fhir(status: int) -> Unavailable:
    """The error where something else than a FHIR server answers."""
    return Unavailable(
        f"What answers at the FHIR server's base URL sends no FHIR Bundle (status {status}); check twin.url and any "
        "proxy before it."
    )


def _without_nulls(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as FHIR has it: what is null is not there."""
    return {name: value for name, value in members if value is not None}


def checked_url(base_url: str) -> httpx.URL:
    """The base address without a slash at its end; Misconfigured where it can be none."""
    try:
        url = httpx.URL(base_url.rstrip("/"))
        url.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError):
        raise Misconfigured("The FHIR server's base URL cannot be read; write it as https://host/fhir.") from None
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment or url.userinfo:
        raise Misconfigured(
            "The FHIR server's base URL must look like https://host/fhir, without a password or a query."
        )
    return url


def trusted_authorities(ca_file: Path | None) -> ssl.SSLContext:
    """The authorities of httpx, of the system and of ``ca_file``."""
    context = httpx.create_ssl_context()
    context.load_default_certs()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            raise Misconfigured(
                f"The certificate file {ca_file} cannot be used: {error.strerror or 'no certificate'}."
            ) from None
    return context


def _certificate_fault(error: BaseException) -> str | None:
    """Why the server's certificate was refused, None where it was not."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__cause__ or cause.__context__
    return None
