"""What must hold before a patient is served: `serve` refuses to start where it does not, and `doctor` says the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twin_scanner.districts.choice import SegmenterChoice, missing
from twin_scanner.errors import Misconfigured, Rejected
from twin_scanner.models.card import Card, check_serves_patients, read_card
from twin_scanner.models.store import ModelStore, check_files


def whole_model(store: Path, name: str) -> Card:
    """The card of the configured model, whose files are whole. Raises Misconfigured."""
    with _configuration_at_fault():
        folder = ModelStore(store).resolve(name)
        check_files(folder)
        return read_card(folder)


def check_model(store: Path, name: str, *, accept_phantom_only: bool) -> Card:
    """The card of the configured model; its files are whole and it may serve patients. Raises Misconfigured."""
    card = whole_model(store, name)
    check_serves_patients(card, accept_phantom_only=accept_phantom_only)
    return card


def check_segmenter(choice: SegmenterChoice, card: Card, *, allow_other: bool) -> None:
    """The configured segmenter can run, and the model was trained on its districts. Raises Misconfigured."""
    with _configuration_at_fault():
        sentence = missing(choice)
    if sentence is not None:
        raise Misconfigured(sentence)
    other = other_segmenter(card, choice.name)
    if other is not None and not allow_other:
        raise Misconfigured(other)


def other_segmenter(card: Card, configured: str) -> str | None:
    """What is wrong where the model was trained on the districts of another segmenter than the configured one."""
    if card.partition.whole_volume or card.segmenter == configured:
        return None
    return (
        f"The model was trained on districts by '{card.segmenter}', configured is '{configured}': set "
        f"districts.segmenter to '{card.segmenter}', or set model.allow_other_segmenter."
    )


def unusable(error: OSError) -> str:
    """The sentence for a file that the system does not let us use."""
    what = Path(error.filename).name if isinstance(error.filename, str) else "What it needs"
    return f"{what} cannot be used ({error.strerror}): check its rights and the disk."


@contextmanager
def _configuration_at_fault() -> Iterator[None]:
    """Before the first patient whatever is rejected is the configuration's."""
    try:
        yield
    except Misconfigured:
        raise
    except Rejected as error:
        raise Misconfigured(str(error)) from error
    except OSError as error:
        raise Misconfigured(unusable(error)) from error
