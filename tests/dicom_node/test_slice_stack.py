"""Stacks without a gap. Oracles: rows of numbers, and real series of which a slice is left out."""

import random
from pathlib import Path

import pytest

from dicom_node.slice_stack import SlicePlaces, is_gap_free, read_place
from tests.samples import instances

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "along_mm, whole",
    [
        ([0.0, 3.0, 6.0, 9.0], True),
        ([9.0, 0.0, 6.0, 3.0], True),
        ([0.0, 3.0, 9.0, 12.0], False),
        ([0.0, 2.98, 6.02, 9.0], True),
        ([0.0, 0.0, 3.0, 3.0, 6.0, 6.0], True),
        ([0.0], True),
        ([], True),
    ],
)
def test_a_step_of_two_slices_is_a_gap(along_mm: list[float], whole: bool) -> None:
    assert is_gap_free(along_mm) is whole


def _series(folder: Path, positions: list[float], cosines: list[float], series_uid: str = "1.2.3.1") -> list[Path]:
    return [
        instances.write(
            instances.instance(
                number,
                series_uid=series_uid,
                ImagePositionPatient=[1.0, position, 2.0],
                ImageOrientationPatient=cosines,
            ),
            folder / series_uid / f"{series_uid}.{number}.dcm",
        )
        for number, position in enumerate(positions, start=1)
    ]


CORONAL = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]


def test_positions_count_along_the_normal_whatever_the_orientation(tmp_path: Path) -> None:
    positions = [2.5 * number for number in range(20)]
    files = _series(tmp_path, positions, CORONAL)
    assert SlicePlaces().gap_free("1.2.3", files)
    assert not SlicePlaces().gap_free("1.2.3", files[:9] + files[10:])


def test_fewer_slices_than_a_stack_has_are_no_evidence(tmp_path: Path) -> None:
    files = _series(tmp_path, [2.5 * number for number in range(20)], CORONAL)
    assert not SlicePlaces().gap_free("1.2.3", files[:15])
    assert SlicePlaces().gap_free("1.2.3", files[:16])


def test_a_gap_in_one_of_two_series_is_found(tmp_path: Path) -> None:
    whole = _series(tmp_path, [2.5 * number for number in range(20)], CORONAL)
    broken = _series(tmp_path, [5.0 * number for number in range(20) if number != 7], CORONAL, "1.2.3.2")
    assert not SlicePlaces().gap_free("1.2.3", whole + broken)


def test_files_that_came_since_are_read_and_the_others_are_not_read_again(tmp_path: Path) -> None:
    files = _series(tmp_path, [2.5 * number for number in range(20)], CORONAL)
    places = SlicePlaces()
    assert not places.gap_free("1.2.3", files[:7] + files[8:])
    for file in files[8:]:
        file.write_bytes(b"")
    assert places.gap_free("1.2.3", files)
    places.keep_only([])
    assert not places.gap_free("1.2.3", files)


def test_an_instance_of_many_frames_is_a_stack_by_itself(tmp_path: Path) -> None:
    multi_frame = instances.instance(1, sop_class_uid="1.2.840.10008.5.1.4.1.1.2.1")
    assert SlicePlaces().gap_free("1.2.3", [instances.write(multi_frame, tmp_path / "1.2.3.1" / "1.dcm")])


@pytest.mark.parametrize("position", [None, ["0", "0"], ["nan", "0", "0"]])
def test_a_slice_that_does_not_say_where_it_lies_has_no_place(tmp_path: Path, position: list[str] | None) -> None:
    dataset = instances.instance(1, ImageOrientationPatient=CORONAL)
    if position is not None:
        dataset.add_new(0x00200032, "LO", position)
    assert read_place(instances.write(dataset, tmp_path / "a.dcm")) is None


@pytest.mark.filterwarnings("ignore:Unknown encoding")
def test_a_damaged_file_has_no_place_and_a_random_one_raises_nothing(tmp_path: Path) -> None:
    file = instances.write(instances.instance(1), tmp_path / "a.dcm")
    content = file.read_bytes()
    chance = random.Random(4)
    for _ in range(100):
        damaged = bytearray(content[: chance.randrange(140, len(content))])
        for _ in range(4):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        file.write_bytes(damaged)
        read_place(file)


def test_the_thorax_ct_has_no_gap_and_lacks_a_slice_that_is_left_out(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "thorax_petct" / "ct").glob("*"))
    assert SlicePlaces().gap_free("1.2", files)
    assert not SlicePlaces().gap_free("1.2", files[:60] + files[61:])
