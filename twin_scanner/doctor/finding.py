"""What a check says: findings, and how an error that a check meets becomes one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from twin_scanner.errors import TwinScannerError
from twin_scanner.preconditions import unusable
from twin_scanner.settings import Settings

FindingState: TypeAlias = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``sentence`` says how it is and, where it is not well, what to do."""

    name: str
    state: FindingState
    sentence: str


Check: TypeAlias = Callable[[Settings], Iterable[Finding]]


def findings_of(name: str, check: Check, settings: Settings) -> Iterator[Finding]:
    """The findings of one check; an error that it meets is one more."""
    try:
        yield from check(settings)
    except TwinScannerError as error:
        yield Finding(name, "fault", one_sentence(str(error)))
    except OSError as error:
        yield Finding(name, "fault", unusable(error))
    except UnicodeError:
        yield Finding(name, "fault", "A file or value that it needs is not plain text: look into the configuration.")


def one_sentence(text: str) -> str:
    """The text on one line."""
    return " ".join(text.split())
