"""The segmenters: the configured one is ready, and what each of the others would need."""

from collections.abc import Iterator
from dataclasses import replace

from twin_scanner.app import segmenter_choice
from twin_scanner.districts.choice import SEGMENTERS, SegmenterChoice, missing
from twin_scanner.doctor.finding import Check, Finding, findings_of, one_sentence
from twin_scanner.settings import Settings


def check_segmenters(settings: Settings) -> Iterator[Finding]:
    """The configured segmenter must be ready; the others only say what they would need."""
    configured = segmenter_choice(settings)
    for name in sorted(SEGMENTERS, key=lambda name: name != configured.name):
        yield from findings_of(
            f"segmenter {name}", _one_segmenter(replace(configured, name=name), configured.name), settings
        )


def _one_segmenter(choice: SegmenterChoice, configured: str) -> Check:
    def check(_: Settings) -> list[Finding]:
        title, in_use = f"segmenter {choice.name}", choice.name == configured
        sentence = missing(choice)
        if sentence is None:
            return [Finding(title, "ok", f"'{choice.name}' is ready{'' if in_use else ', not in use'}.")]
        fact = one_sentence(sentence)
        return [
            Finding(title, "fault", fact)
            if in_use
            else Finding(title, "ok", f"Not in use; {fact[0].lower()}{fact[1:]}")
        ]

    return check
