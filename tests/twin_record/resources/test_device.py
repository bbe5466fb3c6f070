"""The Device is a model version."""

import pytest

from tests.samples.twin_updates import an_update
from twin_record.resources.device import new_device

pytestmark = pytest.mark.unit


def test_the_device_says_only_what_belongs_to_the_model() -> None:
    """One Device a model version: another node, segmenter or release must not change it."""
    update = an_update()
    other = an_update(model_name=update.model_name, model_hash=update.model_hash, plan_hash=update.plan_hash)
    assert new_device(update) == new_device(other)


@pytest.mark.parametrize("phantom_only", [False, True])
def test_the_device_of_a_model_of_phantoms_says_so(phantom_only: bool) -> None:
    notes = [note["text"] for note in new_device(an_update(phantom_only=phantom_only))["note"]]
    assert any("trained on phantoms only" in note for note in notes) is phantom_only
