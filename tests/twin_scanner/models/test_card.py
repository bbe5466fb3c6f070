"""The card of a package: whether its networks have seen patients, and that others may not serve any unasked."""

import pytest

from twin_scanner.errors import Misconfigured
from twin_scanner.models.card import Architecture, Card, check_serves_patients, read_card
from twin_scanner.models.partition import DISTRICTS
from twin_scanner.models.plan import Plan
from twin_scanner.models.store import DEMONSTRATION_FOLDER

pytestmark = pytest.mark.unit


def card_of(training_data: dict[str, object]) -> Card:
    """A card that says this of its training data."""
    about = {"training_data": training_data}
    return Card("ours", "ab" * 32, Plan(), DISTRICTS, Architecture("unet", 4), about=about)


@pytest.mark.parametrize(
    ("training_data", "phantom_only"),
    [
        ({"kind": "phantoms", "pairs": 40}, True),
        ({"kind": "store", "pairs": 26, "phantoms": 26}, True),
        ({"kind": "store", "pairs": 26, "phantoms": 25}, False),
        ({"kind": "store", "pairs": 26, "phantoms": 0}, False),
        ({"kind": "store", "pairs": 0, "phantoms": 0}, False),
        ({}, False),
    ],
)
def test_a_card_says_whether_its_networks_have_seen_phantoms_only(
    training_data: dict[str, object], phantom_only: bool
) -> None:
    assert card_of(training_data).phantom_only is phantom_only


def test_the_demonstration_has_seen_phantoms_only() -> None:
    assert read_card(DEMONSTRATION_FOLDER).phantom_only


def test_a_model_of_phantoms_serves_patients_only_where_that_is_accepted() -> None:
    phantoms, patients = card_of({"kind": "phantoms"}), card_of({"kind": "store", "pairs": 9, "phantoms": 1})
    check_serves_patients(patients, accept_phantom_only=False)
    check_serves_patients(phantoms, accept_phantom_only=True)
    with pytest.raises(Misconfigured, match=r"'ours' \(abababababab\) .*model\.accept_phantom_only") as fault:
        check_serves_patients(phantoms, accept_phantom_only=False)
    assert "\n" not in str(fault.value)
