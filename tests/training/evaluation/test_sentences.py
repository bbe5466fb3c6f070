"""What an evaluation says in words about uptake and organs."""

from collections.abc import Mapping

import pytest

from training.evaluation.case import Row
from training.evaluation.rows_table import table_of
from training.evaluation.sentences import organ_sentences
from training.evaluation.statistics import Scores

pytestmark = pytest.mark.unit


def scores_of(ratios: Mapping[tuple[str, str], tuple[float, ...]]) -> Scores:
    """One value a study for each (region, metric)."""
    rows = [
        Row("near", f"s{number}", f"p{number}", "", region, 0, metric, "", value, 9)
        for (region, metric), values in ratios.items()
        for number, value in enumerate(values)
    ]
    return Scores(table_of([*rows, Row("near", "s0", "p0", "", "body", 0, "mae", "", 0.1, 9)]))


def test_an_organ_is_found_where_half_of_its_uptake_is_synthesised() -> None:
    """By hand: means of two studies; both kidneys are one organ, the gall bladder is no bladder."""
    hot, organ = "hot_ratio", "suv_mean_ratio"
    found = scores_of({
        ("trunk", hot): (0.5, 0.7), ("body", hot): (0.8, 0.8),
        ("organ:liver", organ): (0.9, 1.1), ("organ:myocardium", organ): (0.4, 0.6),
        ("organ:kidney_left", organ): (0.6, 0.6), ("organ:kidney_right", organ): (0.3, 0.3),
        ("organ:gall_bladder", organ): (1.0, 1.0), ("organ:gallbladder", organ): (1.0,),
        ("organ:urinary bladder", organ): (0.1, 0.2),
    })  # fmt: skip
    uptake, organs = organ_sentences(found, ["near"])
    assert uptake == "near: synthesised / real mean above SUV 4 (1 is right): trunk 0.60, whole body 0.80."
    assert organs == (
        "near: an organ is found where its synthesised mean is at least half of the real one; found: heart 0.50, "
        "liver 1.00; not found: kidneys 0.45, bladder 0.15; without a mask: brain."
    )


def test_without_organ_masks_it_says_that_it_cannot_say() -> None:
    uptake, organs = organ_sentences(scores_of({}), ["near"])
    assert uptake.endswith("no real voxel is above SUV 4.")
    assert organs == (
        "near: without organ masks it cannot be said whether brain, heart, liver, kidneys and bladder are found: give "
        "them with --organs."
    )
