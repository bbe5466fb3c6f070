"""The twin record on a FHIR R4 server: an HTTP client, and its faults as our errors; what is sent is transaction's.

Every request is a POST of a Bundle to the base address (but for what the server can do), so no patient identifier is
ever in a URL, and neither bodies nor addresses are logged.
"""

import json
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from twin_record.auth import TokenFile
from twin_record.refusals import MISSING, answer_failure, private_words, refused_record
from twin_record.resources.content import Resource
from twin_record.resources.patient import patient_key
from twin_record.search import read_record
from twin_record.target import TwinReceipt
from twin_record.transaction import DEFAULT_ATTEMPTS, record_update
from twin_record.update import TwinSite, TwinUpdate
from twin_scanner.errors import Misconfigured, Unavailable

FHIR_JSON = "application/fhir+json"
DEFAULT_TIMEOUT_S = 30.0
LARGEST_ANSWER_BYTES = 256 * 2**20
"""More than any patient's record needs; a broken proxy may send without end."""


LATER = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE})
"""Answers with which a server may say when to come again."""
LONGEST_SECONDS = 9
"""Digits of a number of seconds that are read: more are no time that anybody waits."""


class NoCapabilityStatement(Unavailable):
    """What answers at the base URL does not say what it can do: no FHIR server, or one that keeps it to itself."""


class FhirClient:
    """A TwinTarget on any FHIR R4 server that takes batches and transactions.

    Thread-safe; to be closed. `ca_file` adds the hospital's own authority to those that the system trusts; there is no
    way to leave the check of the server's certificate out.
    """

    def __init__(
        self,
        base_url: str,
        site: TwinSite,
        *,
        token_file: Path | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        ca_file: Path | None = None,
        attempts: int = DEFAULT_ATTEMPTS,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raise Misconfigured for an address or a ca_file that cannot be used; nothing is sent yet.

        `timeout_s` bounds connecting, the silence before an answer, and the time in which an answer must be whole.
        """
        self._url = _checked_url(base_url)
        self._site = site
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._sleep = sleep
        self._clock = clock
        # httpx logs each request's address at INFO; ours hold no patient, yet the address is the hospital's affair.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._client = httpx.Client(
            headers={"Accept": FHIR_JSON, "Content-Type": FHIR_JSON, "Cache-Control": "no-cache"},
            auth=None if token_file is None else TokenFile(token_file),
            timeout=timeout_s,
            verify=trusted_authorities(ca_file),
            transport=transport,
            follow_redirects=False,
        )

    def record(self, update: TwinUpdate) -> TwinReceipt:
        """Record one update in one transaction; see TwinTarget."""
        return record_update(update, self._site, self, self._attempts, self._sleep)

    def patient_record(self, patient_id: str, issuer: str | None) -> Resource:
        """The patient's whole record as a Bundle of type collection; Rejected where there is none."""
        return read_record(patient_key(patient_id, issuer, self._site), self)

    def exchange(self, bundle: Resource) -> Resource:
        """POST one Bundle to the base address and return the Bundle that answers it."""
        answer = self._answer("POST", self._url, json.dumps(bundle, ensure_ascii=False).encode("utf-8"))
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
            raise Unavailable(
                f"What answers at the FHIR server's base URL sends no FHIR Bundle (status {answer.status}); "
                "check twin.url and any proxy before it."
            )
        failure = answer_failure(answer.status, document, private)
        if isinstance(failure, Unavailable):
            failure.retry_after_s = answer.retry_after_s
        raise failure

    def capability(self) -> Resource:
        """The server's CapabilityStatement (R4 3.1.0.1.8); no patient is asked for.

        Raises Unavailable where nothing answers, NoCapabilityStatement where something else does.
        """
        answer = self._answer("GET", httpx.URL(f"{self._url}/metadata"), None)
        document = answer.document()
        if answer.is_success and document.get("resourceType") == "CapabilityStatement":
            return document
        raise NoCapabilityStatement(
            f"What answers at the FHIR server's base URL shows no CapabilityStatement (status {answer.status}); "
            "correct twin.url and any proxy before it."
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _answer(self, method: str, url: httpx.URL, body: bytes | None) -> "_Answer":
        try:
            with self._client.stream(method, url, content=body) as response:
                asked_s = _retry_after_s(response) if response.status_code in LATER else 0.0
                return _Answer(response.status_code, self._content(response), asked_s)
        except httpx.TimeoutException:
            raise Unavailable("The FHIR server did not answer in time; it is asked again later.") from None
        except httpx.HTTPError as error:
            if fault := _certificate_fault(error):
                raise Unavailable(
                    f"The FHIR server's certificate is not trusted ({fault}); correct it there, or twin.ca_file here."
                ) from None
            kind = type(error).__name__
            raise Unavailable(f"The FHIR server cannot be reached ({kind}); check twin.url and that it runs.") from None

    def _content(self, response: httpx.Response) -> bytes:
        """The whole body, in the time and size that an answer may have."""
        content = bytearray()
        deadline = self._clock() + self._timeout_s
        for part in response.iter_bytes():
            content += part
            if len(content) > LARGEST_ANSWER_BYTES:
                raise Unavailable("The FHIR server's answer does not end; check any proxy before it.")
            if self._clock() > deadline:
                raise Unavailable("The FHIR server's answer was not whole in time; it is asked again later.")
        return bytes(content)


@dataclass(frozen=True)
class _Answer:
    """What came back over HTTP."""

    status: int
    content: bytes
    retry_after_s: float

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


def _retry_after_s(response: httpx.Response) -> float:
    """What the header Retry-After asks for (RFC 9110, 10.2.3): seconds, or a date; 0 where it says nothing."""
    value = response.headers.get("Retry-After", "")
    if value.isascii() and value.isdecimal():
        return float(value[:LONGEST_SECONDS])
    try:
        asked = parsedate_to_datetime(value)
        return max(0.0, (asked - datetime.now(asked.tzinfo)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _without_nulls(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as FHIR has it: what is null is not there."""
    return {name: value for name, value in members if value is not None}


def _checked_url(base_url: str) -> httpx.URL:
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
