"""What a FHIR server's refusal means for us, said in one sentence that holds nothing of the patient.

A server that serves nobody stops everything that is meant for it (Unavailable). One that refuses this record holds
this record alone until a person has looked (Held). Nothing that a server says makes the CT wrong.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from twin_scanner.errors import Held, Transient, TwinScannerError, Unavailable

LONGEST_DETAIL = 160
SPOKEN_TYPES = frozenset({"Bundle", "Device", "ImagingStudy", "List", "Patient", "Provenance", "Reference"})
PRIVATE_FIELDS = frozenset({"name", "identifier", "birthDate", "description", "address", "telecom"})

CONFLICTS = frozenset({HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED})
MISSING = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
OF_THIS_RECORD = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
)
"""Answers to what was sent, and not to who sent it or when."""
LATER = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
"""Answers with which a server may say when to come again."""
LONGEST_SECONDS = 9
"""Digits of a number of seconds that are read: more are no time that anybody waits."""
ADVICE: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "check the token in twin.token_file, or the client in twin.client_id",
    HTTPStatus.FORBIDDEN: "check the rights of the token in twin.token_file, or of the client and its twin.scope",
    HTTPStatus.NOT_FOUND: "check twin.url and any proxy before it",
    HTTPStatus.GONE: "check twin.url and any proxy before it",
    HTTPStatus.METHOD_NOT_ALLOWED: "check that twin.url is its base URL and that it takes transactions",
    HTTPStatus.NOT_IMPLEMENTED: "check that twin.url is its base URL and that it takes transactions",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "check the proxy before it",
    HTTPStatus.TOO_MANY_REQUESTS: "it is asked again later",
}
"""What the operator can do about a server that serves nobody."""


class Conflict(Transient):
    """Somebody wrote the same resource between our read and our write: read again and redo."""


class TooLarge(Held):
    """The server takes no request of this size: in parts, or with less in it, it may."""


def answer_failure(status: int, outcome: Any, private: Collection[str]) -> TwinScannerError:
    """The error for the HTTP status of a whole answer and its OperationOutcome, if any."""
    if status in CONFLICTS:
        return Conflict("The twin record changed on the FHIR server while it was being written; try again.")
    if status in OF_THIS_RECORD:
        return refused_record(status, outcome, private)
    if 300 <= status < 400:
        return Unavailable(f"The FHIR server redirects to another address (status {status}); set twin.url to that one.")
    advice = ADVICE.get(status, "it is asked again later" if status >= 500 else "check any proxy before it")
    return Unavailable(f"The FHIR server takes no twin record at the moment (status {status}); {advice}.")


def entry_failure(status: int, outcome: Any, private: Collection[str]) -> TwinScannerError:
    """The error for the status of one entry inside an answered Bundle: a missing resource or a fault is its own."""
    if status in MISSING:
        return refused_record(status, outcome, private)
    if status >= 500:
        return Transient(f"The FHIR server failed on a part of the twin record (status {status}); it is asked again.")
    return answer_failure(status, outcome, private)


def refused_record(status: int, outcome: Any, private: Collection[str]) -> Held:
    """The error for a record that the server refuses, with as much of its reason as names no patient."""
    detail = harmless_detail(outcome, private)
    said = f", saying: {detail}" if detail else ""
    kind = TooLarge if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else Held
    return kind(
        f"The FHIR server refuses this twin record (status {status}{said}); correct what it names there, then release "
        "the job."
    )


def retry_after_s(status: int, value: str) -> float:
    """What the header Retry-After asks for (RFC 9110, 10.2.3): seconds, or a date; 0 where it says nothing."""
    if status not in LATER:
        return 0.0
    if value.isascii() and value.isdecimal():
        return float(value[:LONGEST_SECONDS])
    try:
        asked = parsedate_to_datetime(value)
        return max(0.0, (asked - datetime.now(asked.tzinfo)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def harmless_detail(outcome: Any, private: Collection[str]) -> str:
    """What an OperationOutcome says, without anything that may name a patient.

    Dropped are: quoted text, words with a digit, words that are not ASCII, the `private` words (casefolded), and
    words with a capital, as names have, but for the resource types of the record.
    """
    issues = outcome.get("issue") if isinstance(outcome, Mapping) else None
    details = [_issue_text(issue) for issue in issues if isinstance(issue, Mapping)] if isinstance(issues, list) else []
    unquoted = re.sub(r"\"[^\"]*\"|'[^']*'|“[^”]*”|`[^`]*`", " ", " ".join(details))
    words = [word for word in unquoted.split() if _is_harmless(word, private)]
    return " ".join(words)[:LONGEST_DETAIL].strip(" .;:,")


def _issue_text(issue: Mapping[str, Any]) -> str:
    details = issue.get("details")
    text = details.get("text") if isinstance(details, Mapping) else None
    places = issue.get("expression")
    return " ".join(
        [str(issue.get("code", "")), str(text or issue.get("diagnostics") or "")]
        + ([str(place) for place in places] if isinstance(places, list) else [])
    )


def _is_harmless(word: str, private: Collection[str]) -> bool:
    if not word.isascii() or any(character.isdigit() for character in word):
        return False
    letters = re.sub(r"^[^A-Za-z]+", "", word)
    first = re.split(r"[^A-Za-z]", letters, maxsplit=1)[0]
    if not letters or (first != first.lower() and first not in SPOKEN_TYPES):
        return False
    return not any(part in private for part in _words(word))


def _words(text: str) -> list[str]:
    return [part for part in re.split(r"[\W_]+", text.casefold()) if len(part) > 1]


def private_words(bundle: Any) -> frozenset[str]:
    """Every word in a Bundle's names, identifiers, birth dates and descriptions, casefolded."""
    return frozenset(word for text in _private_texts(bundle, False) for word in _words(text))


def _private_texts(value: Any, private: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _private_texts(part, private or key in PRIVATE_FIELDS)
    elif isinstance(value, list):
        for item in value:
            yield from _private_texts(item, private)
    elif private and isinstance(value, str):
        yield value
