"""The model: its package is whole, and was trained on the districts of the configured segmenter."""

from collections.abc import Iterator

from twin_scanner import preconditions
from twin_scanner.doctor.finding import Finding
from twin_scanner.errors import Misconfigured
from twin_scanner.models.card import Card, check_serves_patients
from twin_scanner.settings import Settings


def check_model(settings: Settings) -> Iterator[Finding]:
    """Check the model that the configuration names: its files, what it was trained on, and its segmenter."""
    card = preconditions.whole_model(settings.model_store, settings.model.name)
    yield _training_data_of(card, settings)
    yield _segmenter_of(card, settings)


def _training_data_of(card: Card, settings: Settings) -> Finding:
    whole = f"Model '{card.name}' ({card.model_hash[:12]}) is whole"
    try:
        check_serves_patients(card, accept_phantom_only=settings.model.accept_phantom_only)
    except Misconfigured as fault:
        return Finding("model", "fault", str(fault))
    if card.phantom_only:
        return Finding("model", "warning", f"{whole}, but it was trained on phantoms only, which is accepted.")
    return Finding("model", "ok", f"{whole}.")


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
