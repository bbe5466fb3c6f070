"""The model: its package is whole, and was trained on the districts of the configured segmenter."""

from collections.abc import Iterator

from twin_scanner import preconditions
from twin_scanner.doctor.finding import Finding
from twin_scanner.models.card import Card
from twin_scanner.settings import Settings


def check_model(settings: Settings) -> Iterator[Finding]:
    """Check the model that the configuration names: its files, what it was trained on, and its segmenter."""
    accept_phantom_only = settings.model.accept_phantom_only
    card = preconditions.check_model(settings.model_store, settings.model.name, accept_phantom_only=accept_phantom_only)
    whole = f"Model '{card.name}' ({card.model_hash[:12]}) is whole"
    if card.phantom_only:
        yield Finding("model", "warning", f"{whole}, but it was trained on phantoms only, which is accepted.")
    else:
        yield Finding("model", "ok", f"{whole}.")
    yield _segmenter_of(card, settings)


def _segmenter_of(card: Card, settings: Settings) -> Finding:
    name = "model's segmenter"
    if card.partition.whole_volume:
        return Finding(name, "ok", "The model needs no districts.")
    trained, configured = card.segmenter, settings.districts.segmenter
    fault = preconditions.other_segmenter(card, configured)
    if fault is None:
        return Finding(name, "ok", f"The model was trained on districts by '{trained}', which are configured.")
    if settings.model.allow_other_segmenter:
        fact = f"The model was trained on districts by '{trained}', configured is '{configured}'"
        return Finding(name, "warning", f"{fact}: compare its results before relying on model.allow_other_segmenter.")
    return Finding(name, "fault", fault)
