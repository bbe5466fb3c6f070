"""What a FHIR server's refusal means for us, said in one sentence that holds nothing of the patient."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from twin_scanner.errors import Rejected, Transient, TwinScannerError

LONGEST_DETAIL = 160
SPOKEN_TYPES = frozenset({"Bundle", "Device", "ImagingStudy", "List", "Patient", "Provenance", "Reference"})
PRIVATE_FIELDS = frozenset({"name", "identifier", "birthDate", "description", "address", "telecom"})
CONFLICTS = (409, 412)
TEMPORARY = (401, 408, 425, 429)
"""Answers after which a later attempt may succeed; 401 among them because tokens expire and are renewed."""


class Conflict(Transient):
    """Somebody wrote the same resource between our read and our write: read again and redo."""


def failure(status: int, outcome: Any, private: Collection[str]) -> TwinScannerError:
    """The error for an HTTP status (of an answer or of one entry in it) and its OperationOutcome, if any."""
    if status in CONFLICTS:
        return Conflict("The twin record changed on the FHIR server while it was being written; try again.")
    if status in TEMPORARY or status >= 500:
        advice = "check the token" if status == 401 else "try again"
        return Transient(f"The FHIR server cannot take the twin record at the moment (status {status}); {advice}.")
    detail = harmless_detail(outcome, private)
    said = f", saying: {detail}" if detail else ""
    return Rejected(
        f"The FHIR server refuses the twin record (status {status}{said}); correct the input or the server."
    )


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
