"""What pydantic finds wrong with the configuration, in plain words: the key, what it must be, and the nearest name."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Sections = Mapping[str, type[BaseModel]]

NEEDED: Final = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "bool": "true or false",
    "string_type": "text in quotes",
    "path": "a path in quotes",
    "tuple": "a list in brackets",
    "list": "a list in brackets",
    "dict": "a table",
    "model": "a section with its keys",
    "literal": "{expected}",
    "enum": "{expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}
"""What a key must be, by the beginning of pydantic's error type; the longest one that fits is meant."""
LONGEST_VALUE: Final = 40
"""A longer value is not repeated: it says nothing more, and may be a mistaken paste."""
KINDS_WITHOUT_VALUE: Final = ("value_error", "string_pattern_mismatch", "string_too")
"""Texts of a form of their own, such as addresses, may hold a password and are not repeated."""


REMOVED: Final = {
    "node.allowed_calling_ae": "write a [[peers]] table for each caller, with its ae_title and its addresses",
}
"""Keys of earlier versions, and what to do instead."""


def fault_sentences(error: ValidationError, sections: Sections, variables: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each fault; ``variables`` are the environment's, by the dotted key that each stands for."""
    for detail in error.errors():
        where = _keys(detail["loc"])
        variable = variables.get(".".join(where[:2])) or variables.get(where[0] if where else "")
        if detail["type"] == "extra_forbidden":
            yield unknown_name(where, sections, variable)
        else:
            yield _ended(f"{variable or '.'.join(where)}{_wrong_value(detail)}".removeprefix(": "))


def unknown_name(where: Sequence[str], sections: Sections, variable: str | None = None) -> str:
    """What is said of a section or key that does not exist; ``variable`` is the environment's that names it."""
    section, key = where[0].lower().split("[")[0], where[1].lower() if len(where) > 1 else ""
    if f"{section}.{key}" in REMOVED:
        return f"{variable or f'{section}.{key}'} is no longer a key: {REMOVED[f'{section}.{key}']}."
    if section not in sections:
        known, nearest = list(sections), get_close_matches(section, sections, 1)
        kind, choice = "section", f"the sections are {', '.join(known)}."
    else:
        known = list(sections[section].model_fields)
        nearest = get_close_matches(key, known, 1)
        kind, choice = "key", f"the keys of {section} are {', '.join(known)}."
        elsewhere = [f"{name}.{key}" for name, model in sections.items() if key in model.model_fields]
        nearest = nearest or elsewhere
    if nearest and variable:
        nearest = [_variable_of(variable, section, nearest[0], kind)]
    return f"unknown {kind} {variable or '.'.join(where)}: " + (f"did you mean {nearest[0]}?" if nearest else choice)


def _keys(location: Sequence[int | str]) -> list[str]:
    """The dotted parts of a key; a table of a list is numbered from 1, as a person counts them in the file."""
    keys: list[str] = []
    for part in location:
        if isinstance(part, int) and keys:
            keys[-1] += f"[{part + 1}]"
        else:
            keys.append(str(part))
    return keys


def _variable_of(variable: str, section: str, nearest: str, kind: str) -> str:
    """The variable that was meant: a dotted name has a section of its own."""
    prefix = variable[: variable.upper().index("__") + 2]
    words = [nearest] if kind == "section" else nearest.split(".") if "." in nearest else [section, nearest]
    return prefix + "__".join(words).upper()


def _wrong_value(detail: ErrorDetails) -> str:
    """What is wrong with a value, and the value itself where it can be shown."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "value_error":
        return f": {context['error']}"
    needed = next((NEEDED[name] for name in sorted(NEEDED, key=len, reverse=True) if kind.startswith(name)), None)
    if needed is None:
        return f": {detail['msg'][0].lower()}{detail['msg'][1:]}"
    must = f": it must be {needed.format(**context)}"
    return must if kind.startswith(KINDS_WITHOUT_VALUE) else f"{_shown(detail['input'])}{must}"


def _shown(value: Any) -> str:
    text = repr(value)
    return f" is {text}" if len(text) <= LONGEST_VALUE else ""


def _ended(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."
