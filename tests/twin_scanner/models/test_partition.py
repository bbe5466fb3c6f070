"""Partitions: the paper's districts, its competitors, and configured ones."""

from typing import Any

import pytest

from twin_scanner.errors import Rejected
from twin_scanner.models.partition import DISTRICTS, PARTITIONS, WHOLE_BODY, WHOLE_VOLUME, partition

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


@pytest.mark.parametrize("networks", [{"a": [1, 2], "b": [2]}, {"a": [2, 2]}])
def test_a_label_that_is_given_twice_is_rejected(networks: dict[str, list[int]]) -> None:
    with pytest.raises(Rejected, match=r"gives one label to two networks.*which 2 does not"):
        partition("mine", networks)


@pytest.mark.parametrize("label", [0, -1, 255, 1000, True, 1.0, "1", None])
def test_a_label_that_no_label_map_can_hold_is_rejected(label: Any) -> None:
    with pytest.raises(Rejected, match=f"network 'liver' covers {label!r}, labels are whole numbers from 1 to 254"):
        partition("mine", {"liver": [label]})


@pytest.mark.parametrize("name", ["", " ", "Liver", "../liver", "a/b", "a.b", "-a", "a" * 65, "l\n", "größe"])
def test_a_network_whose_name_is_no_file_name_everywhere_is_rejected(name: str) -> None:
    with pytest.raises(Rejected, match="names a file") as error:
        partition("mine", {name: [1]})
    assert str(error.value).count("Partition") == 1


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(Rejected) as error:
        partition(" ", {"A": [1], "b": [0], "c": []})
    for fault in ("it has no name", "'A' names a file", "'b' covers 0", "'c' has no labels"):
        assert fault in str(error.value)
    with pytest.raises(Rejected, match="it has no network"):
        partition("mine", {})


def test_the_card_form_makes_the_same_partition_again() -> None:
    finer = partition("organs", {"liver": [5], "rest": [1, 2, 3, 4], "last": [254]})
    again = finer.as_json()
    assert partition(str(again["name"]), again["networks"]) == finer  # type: ignore[arg-type]
