"""The twin record on a FHIR R4 server: HTTP, and its faults as our errors; what is sent is bundle's affair.

Every request is a POST of a Bundle to the base address (but for what the server can do), so no patient identifier is
ever in a URL, and neither bodies nor addresses are logged.
"""

import json
import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from twin_record.refusals import failure, private_words
from twin_record.resources import Resource, patient_key
from twin_record.transaction import TwinReceipt, read_record, record_update
from twin_record.update import TwinSite, TwinUpdate
from twin_scanner.errors import Rejected, Transient

FHIR_JSON = "application/fhir+json"
DEFAULT_TIMEOUT_S = 30.0
DEFAULT_ATTEMPTS = 5


class FhirServer:
    """A TwinTarget on any FHIR R4 server that takes batches and transactions.

    Thread-safe; close it, or use it as a context manager. `ca_file` adds the hospital's own authority to check the
    server's certificate by; there is no way to leave the check out.
    """

    def __init__(
        self,
        base_url: str,
        site: TwinSite,
        *,
        token: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        ca_file: Path | None = None,
        attempts: int = DEFAULT_ATTEMPTS,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raise Rejected for an address or a ca_file that cannot be used; nothing is sent yet."""
        self._url = _checked_url(base_url)
        self._site = site
        self._attempts = attempts
        self._sleep = sleep
        # httpx logs each request's address at INFO; ours hold no patient, yet the address is the hospital's affair.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        headers = {"Accept": FHIR_JSON, "Content-Type": FHIR_JSON, "Cache-Control": "no-cache"}
        if token:
            headers["Authorization"] = f"Bearer {token.strip()}"
        self._client = httpx.Client(
            headers=headers, timeout=timeout_s, verify=_tls(ca_file), transport=transport, follow_redirects=False
        )

    def record(self, update: TwinUpdate) -> TwinReceipt:
        """Record one update in one transaction; a second time it writes nothing.

        Raises Transient where a later attempt may succeed, Rejected where the patient is doubtful or the server
        refuses the content.
        """
        return record_update(update, self._site, self, self._attempts, self._sleep)

    def patient_record(self, patient_id: str, issuer: str | None) -> Resource:
        """The patient's whole record as a Bundle of type collection; Rejected where there is none."""
        return read_record(patient_key(patient_id, issuer, self._site), self)

    def exchange(self, bundle: Resource) -> Resource:
        """POST one Bundle to the base address and return the Bundle that answers it."""
        body = json.dumps(bundle, ensure_ascii=False).encode("utf-8")
        response = self._answer("POST", self._url, body)
        document = _document(response)
        if not response.is_success:
            raise failure(response.status_code, document, private_words(bundle))
        if document is None or document.get("resourceType") != "Bundle":
            raise Transient("The FHIR server's answer is no FHIR Bundle; check its base URL and any proxy before it.")
        return document

    def capability(self) -> Resource:
        """The server's CapabilityStatement (R4 3.1.0.1.8); no patient is asked for.

        Raises Transient where nothing answers, Rejected where what answers there is no FHIR server.
        """
        response = self._answer("GET", httpx.URL(f"{self._url}/metadata"), None)
        document = _document(response)
        if response.is_success and document is not None and document.get("resourceType") == "CapabilityStatement":
            return document
        raise Rejected(
            f"What answers at the FHIR server's base URL shows no CapabilityStatement (status {response.status_code}); "
            "correct twin.url and any proxy before it."
        )

    def _answer(self, method: str, url: httpx.URL, body: bytes | None) -> httpx.Response:
        try:
            response = self._client.request(method, url, content=body)
        except httpx.TimeoutException:
            raise Transient("The FHIR server did not answer in time; try again.") from None
        except httpx.HTTPError as error:
            kind = type(error).__name__
            raise Transient(
                f"The FHIR server cannot be reached ({kind}); check that it runs, then try again."
            ) from None
        if response.is_redirect:
            raise Rejected("The FHIR server redirects to another address; configure that address as its base URL.")
        return response

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()


def _checked_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url.rstrip("/"))
    except httpx.InvalidURL:
        raise Rejected("The FHIR server's base URL cannot be read; write it as https://host/fhir.") from None
    if url.scheme not in ("http", "https") or not url.host or url.query or url.userinfo:
        raise Rejected("The FHIR server's base URL must look like https://host/fhir, without a password or a query.")
    return url


def _tls(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=ca_file)
    except OSError as error:
        raise Rejected(
            f"The certificate file {ca_file} cannot be used: {error.strerror or 'no certificate'}."
        ) from None
    return context


def _document(response: httpx.Response) -> dict[str, Any] | None:
    try:
        document = response.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
