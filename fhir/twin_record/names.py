"""Whether two names are one person's: spelling, order and completeness vary, the words do not."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

from twin_record.resources.content import Resource

LETTERS: Final = str.maketrans({"ø": "o", "æ": "a", "œ": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})
"""Letters that Unicode does not decompose, as name systems without them write them."""
PLACEHOLDERS: Final = frozenset(
    {"anonymous", "anonymized", "anonymised", "anon", "deidentified", "unknown", "patient", "name", "no", "removed"}
)
"""Words, plain, of which a name consists that a de-identification has put in the place of the person's."""


def names_agree(first: Sequence[Resource], second: Sequence[Resource], patient_ids: Iterable[str]) -> bool | None:
    """Whether one of the first HumanNames is one of the second; None where no two of them can be compared.

    Compared are family and given names as sets of words, without case, accents and signs; an umlaut is its letter
    with or without an e. One name may leave words out or give initials. Names in different scripts cannot be compared,
    and one that repeats a patient id, or says that it was removed, is none.
    """
    removed = PLACEHOLDERS.union(*map(_words, patient_ids))
    compared = [
        _agree(ours, theirs)
        for ours in _spoken(first, removed)
        for theirs in _spoken(second, removed)
        if _script(ours) == _script(theirs)
    ]
    return any(compared) if compared else None


def _spoken(names: Sequence[Resource], removed: frozenset[str]) -> list[tuple[str, ...]]:
    texts = (" ".join([name.get("family", ""), *filter(None, name.get("given", ()))]) for name in names)
    words = [_words(text.strip() or name.get("text", "")) for text, name in zip(texts, names, strict=True)]
    return [spoken for spoken in words if not set(spoken) <= removed and any(map(str.isalpha, "".join(spoken)))]


def _words(text: str) -> tuple[str, ...]:
    letters = unicodedata.normalize("NFKD", text.casefold().translate(LETTERS))
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    for umlaut, letter in (("ae", "a"), ("oe", "o"), ("ue", "u")):
        plain = plain.replace(umlaut, letter)
    return tuple(re.findall(r"\w+", plain.replace("_", " ")))


def _agree(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    fewer, more = sorted((first, second), key=len)
    return "".join(first) == "".join(second) or all(any(_is_word(one, other) for other in more) for one in fewer)


def _is_word(first: str, second: str) -> bool:
    shorter, longer = sorted((first, second), key=len)
    return first == second or (len(shorter) == 1 and longer.startswith(shorter))


def _script(words: tuple[str, ...]) -> str:
    """Such as LATIN, CJK, KATAKANA: how Unicode calls the first letter's."""
    letter = next(letter for letter in "".join(words) if letter.isalpha())
    return unicodedata.name(letter, "").partition(" ")[0]
