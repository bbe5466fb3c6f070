"""Partitions: the paper's districts, its competitors, and configured ones."""

import pytest

from twin_scanner.errors import Rejected
from twin_scanner.partition import DISTRICTS, PARTITIONS, WHOLE_BODY, WHOLE_VOLUME, partition

pytestmark = pytest.mark.unit


def test_the_four_districts_have_the_papers_order() -> None:
    assert dict(DISTRICTS.networks) == {
        "head": (1,),
        "trunk": (2,),
        "arms": (3,),
        "legs": (4,),
    }


def test_the_competitors_cover_the_body_or_the_whole_volume() -> None:
    assert WHOLE_BODY.labels == {1, 2, 3, 4}
    assert not WHOLE_BODY.whole_volume
    assert WHOLE_VOLUME.whole_volume
    assert set(PARTITIONS) == {"districts", "whole-body", "whole-volume"}


def test_a_label_of_two_networks_is_rejected() -> None:
    with pytest.raises(Rejected, match="gives one label to two networks"):
        partition("mine", {"a": [1, 2], "b": [2]})


def test_the_card_form_makes_the_same_partition_again() -> None:
    finer = partition("organs", {"liver": [5], "rest": [1, 2, 3, 4]})
    again = finer.as_json()
    assert partition(str(again["name"]), again["networks"]) == finer  # type: ignore[arg-type]
