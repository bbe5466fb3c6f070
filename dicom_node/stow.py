"""A DICOMweb server (PS3.18): instances are stored by STOW-RS, and counted by QIDO-RS; the only HTTP of this package.

No patient's data is in an address: instances are posted to ``/studies``, and series are asked for by their UIDs.
"""

import json
import logging
import ssl
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NoReturn

import httpx

from dicom_node.associations import PROCESSING_FAILURE, SUCCESS
from dicom_node.refusal import SOP_CLASS_NOT_SUPPORTED
from dicom_node.store_scu import (
    DUPLICATE,
    NO_ANSWER,
    Instance,
    InstanceStatus,
    NotStored,
    SendingStopped,
    SendReport,
    Unreadable,
    instance_of,
)
from twin_scanner.errors import Held, Misconfigured, Unavailable

DICOM_JSON: Final = "application/dicom+json"
MOST_BYTES: Final = 32 * 2**20
MOST_INSTANCES: Final = 64
"""A request holds no more than this, or one instance: a server's limit on a request is a few times as large."""
LARGEST_ANSWER_BYTES: Final = 64 * 2**20
PAGE: Final = 500
"""Instances per answer to a question."""
ALREADY_THERE: Final = frozenset({DUPLICATE, 0xB00E})
"""Failure reasons that say so: of DIMSE (PS3.7 C.5.1), and of Azure's DICOM service (45070)."""
_OF_THIS_RESULT: Final = frozenset({400, 406, 409, 413, 415, 422})
"""HTTP answers to what was sent, and not to who sent it or when."""
_ADVICE: Final[Mapping[int, str]] = {
    401: "check the token in token_file",
    403: "check the rights of the token in token_file",
    404: "check the destination's url",
    405: "check the destination's url",
    407: "check the proxy before it",
}
_FAILED, _REFERENCED = "00081198", "00081199"
_INSTANCE, _FAILURE, _WARNING = "00081155", "00081197", "00081196"
_SOP_INSTANCE_UID = "00080018"


class StowService:
    """One DICOMweb server; thread-safe; to be closed.

    ``auth`` and ``trusted`` (the authorities) are those of whoever wires it. ``name`` is the destination's, which
    sentences use instead of the address.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        auth: httpx.Auth | None = None,
        trusted: ssl.SSLContext | None = None,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._name = name
        self._url = _checked(name, url)
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._client = httpx.Client(
            headers={"Accept": DICOM_JSON},
            auth=auth,
            timeout=timeout_s,
            verify=trusted or True,
            transport=transport,
            follow_redirects=False,
        )

    def __str__(self) -> str:
        return f"The DICOMweb server of destination '{self._name}'"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(
        self,
        files: Sequence[Path],
        *,
        where_taken: Sequence[Path] = (),
        skip: Collection[str] = (),
        on_answer: Callable[[InstanceStatus], None] | None = None,
        check_stop: Callable[[], bool] | None = None,
    ) -> SendReport:
        """Store the files as ``store_scu.send`` does, with the same statuses; an instance that is there is stored.

        Raises Unavailable where the server serves nobody, Held where it refuses a whole request, NotStored, Unreadable
        and SendingStopped.
        """
        wanted = [_Part.of(instance_of(file), optional) for file, optional in _marked(files, where_taken)]
        parts = [part for part in wanted if part.uid not in skip]
        answers: list[InstanceStatus] = []
        not_taken: set[str] = set()
        for batch in _batches(parts):
            if check_stop is not None and check_stop():
                report = SendReport(
                    (*answers, *(InstanceStatus(part.uid, NO_ANSWER) for part in parts[len(answers) :]))
                )
                raise SendingStopped(f"Not all was sent to {self}, for this program was asked to stop.", report)
            for part, answer in zip(batch, self._stored(batch), strict=True):
                if part.optional and answer.status == SOP_CLASS_NOT_SUPPORTED:
                    not_taken.add(part.sop_class_uid)
                    continue
                answers.append(answer)
                if on_answer is not None:
                    on_answer(answer)
        report = SendReport(tuple(answers), tuple(sorted(not_taken)))
        if report.not_stored:
            first = report.not_stored[0]
            raise NotStored(
                f"{self} did not store {len(report.not_stored)} of {len(answers)} instances, the first "
                f"({first.sop_instance_uid}) with reason 0x{first.status:04X}: look into its log.",
                report,
            )
        return report

    def instances(self, study_uid: str, series_uid: str) -> frozenset[str]:
        """The SOP Instance UIDs of a series; none where the server does not know it. Raises Unavailable."""
        found: set[str] = set()
        path = f"studies/{study_uid}/series/{series_uid}/instances"
        while True:
            status, document = self._answer("GET", path, params={"limit": PAGE, "offset": len(found)})
            if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND):
                return frozenset(found)
            if status != HTTPStatus.OK or not isinstance(document, list):
                self._refuse(status)
            page = {uid for item in document if (uid := _text(item, _SOP_INSTANCE_UID))}
            if page <= found:
                return frozenset(found)
            found |= page
            if len(document) < PAGE:
                return frozenset(found)

    def matches(self, path: str, params: Mapping[str, str]) -> list[Any]:
        """What a question (QIDO-RS) finds; raises Unavailable where the server does not say."""
        status, document = self._answer("GET", path, params=params)
        if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND):
            return []
        if status != HTTPStatus.OK or not isinstance(document, list):
            raise Unavailable(f"{self} does not answer QIDO-RS (status {status}): look into its log.")
        return document

    def check(self) -> None:
        """Ask for one study; raises Unavailable where the server does not answer as a DICOMweb server does."""
        status, _ = self._answer("GET", "studies", params={"limit": 1, "includefield": "0020000D"})
        if status not in (HTTPStatus.OK, HTTPStatus.NO_CONTENT):
            self._refuse(status)

    def _stored(self, batch: "Sequence[_Part]") -> list[InstanceStatus]:
        """One request, and what became of each of its instances (PS3.18 10.5.3)."""
        body = _Multipart(batch)
        headers = {"Content-Type": body.content_type, "Content-Length": str(body.length)}
        status, document = self._answer("POST", "studies", content=body, headers=headers)
        failed, stored = _by_uid(document, _FAILED, _FAILURE), _by_uid(document, _REFERENCED, _WARNING)
        if status not in (HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.CONFLICT) and not failed:
            self._refuse(status)
        # A 409 that names no reason says that what we send is there already; a count by QIDO-RS shows whether it is.
        otherwise = DUPLICATE if status == HTTPStatus.CONFLICT else SUCCESS
        return [_status(part.uid, failed, stored, otherwise) for part in batch]

    def _answer(self, method: str, path: str, **request: Any) -> tuple[int, Any]:
        """Status and JSON document (None where it is none) of one request; raises Unavailable."""
        try:
            with self._client.stream(method, f"{self._url}/{path}", **request) as response:
                content = bytearray()
                for part in response.iter_bytes():
                    content += part
                    if len(content) > LARGEST_ANSWER_BYTES:
                        raise Unavailable(f"{self} does not end its answer: check any proxy before it.")
        except httpx.TimeoutException:
            raise Unavailable(f"{self} did not answer in time; it is asked again later.") from None
        except httpx.HTTPError as error:
            raise Unavailable(
                f"{self} cannot be reached ({type(error).__name__}): check its url, its certificate and that it runs."
            ) from None
        status = response.status_code
        if status >= 300 and status not in _OF_THIS_RESULT and not (status == 404 and method == "GET"):
            self._refuse(status, response.headers.get("Retry-After", ""))
        try:
            return status, json.loads(content)
        except (ValueError, RecursionError):
            return status, None

    def _refuse(self, status: int, retry_after: str = "") -> NoReturn:
        if status in _OF_THIS_RESULT:
            raise Held(f"{self} refuses this result (status {status}): look into its log, then release the job.")
        advice = _ADVICE.get(status, "it is asked again later" if status >= 500 else "check the destination's url")
        failure = Unavailable(f"{self} takes nothing at the moment (status {status}): {advice}.")
        if retry_after.isascii() and retry_after.isdecimal() and len(retry_after) < 10:
            failure.retry_after_s = float(retry_after)
        raise failure


@dataclass(frozen=True)
class _Part:
    file: Path
    uid: str
    sop_class_uid: str
    bytes: int
    optional: bool

    @classmethod
    def of(cls, instance: Instance, optional: bool) -> "_Part":
        return cls(instance.file, instance.uid, instance.sop_class_uid, instance.file.stat().st_size, optional)


class _Multipart:
    """The body of a request (RFC 2387); it may be read again, for a token that was renewed meanwhile."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts
        boundary = uuid.uuid4().hex
        self._head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._tail = f"--{boundary}--\r\n".encode()
        self.content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
        self.length = sum(len(self._head) + part.bytes + 2 for part in parts) + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            yield self._head
            try:
                yield part.file.read_bytes()
            except OSError as error:
                raise Unreadable(f"{part.file.name} cannot be read ({error.strerror}): check the disk.") from error
            yield b"\r\n"
        yield self._tail


def _checked(name: str, url: str) -> str:
    try:
        parsed = httpx.URL(url.rstrip("/"))
        parsed.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError):
        raise Misconfigured(
            f"The url of destination '{name}' cannot be read: write it as https://host/dicom-web."
        ) from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment or parsed.userinfo:
        raise Misconfigured(
            f"The url of destination '{name}' must look like https://host/dicom-web, without a password or a query."
        )
    return str(parsed)


def _marked(files: Sequence[Path], where_taken: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    yield from ((file, False) for file in files)
    yield from ((file, True) for file in where_taken)


def _batches(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    batch: list[_Part] = []
    for part in parts:
        if batch and (len(batch) == MOST_INSTANCES or sum(one.bytes for one in batch) + part.bytes > MOST_BYTES):
            yield batch
            batch = []
        batch.append(part)
    if batch:
        yield batch


def _status(
    uid: str, failed: Mapping[str, int | None], stored: Mapping[str, int | None], otherwise: int
) -> InstanceStatus:
    if uid in failed:
        reason = failed[uid]
        if reason in ALREADY_THERE:
            return InstanceStatus(uid, DUPLICATE)
        return InstanceStatus(
            uid, (PROCESSING_FAILURE if otherwise == SUCCESS else DUPLICATE) if reason is None else reason
        )
    if uid in stored:
        return InstanceStatus(uid, stored[uid] or SUCCESS)
    return InstanceStatus(uid, otherwise)


def _by_uid(document: Any, sequence: str, reason: str) -> dict[str, int | None]:
    """The instances of a sequence of the answer (PS3.18 10.5.3.3 and annex F), and the number beside each."""
    values = document.get(sequence, {}).get("Value", ()) if isinstance(document, dict) else ()
    found: dict[str, int | None] = {}
    for item in values if isinstance(values, list) else ():
        number = _first(item, reason)
        if uid := _text(item, _INSTANCE):
            found[uid] = number if isinstance(number, int) else None
    return found


def _text(item: Any, tag: str) -> str:
    value = _first(item, tag)
    return value if isinstance(value, str) else ""


def _first(item: Any, tag: str) -> Any:
    element = item.get(tag) if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None
