"""Organ label maps beside the studies: their names, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.evaluation.organs import organ_maps
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Geometry, write_nifti

pytestmark = pytest.mark.unit

GRID = Geometry((4, 5, 6), (3.0, 1.1, 0.9), (1.0, 2.0, 3.0))


def named(folder: Path, text: str) -> Path:
    (folder / "names.json").write_text(text, "utf-8")
    return folder


def test_names_are_sorted_by_label_and_the_map_is_the_studys(tmp_path: Path) -> None:
    maps = organ_maps(named(tmp_path, '{"255": "liver", "1": "spleen "}'))
    assert maps.names == ((1, "spleen"), (255, "liver"))
    labels = np.arange(120, dtype=np.uint8).reshape(GRID.shape)
    write_nifti(tmp_path / "study-1.nii.gz", labels, GRID)
    found, grid = maps.of("study-1")
    np.testing.assert_array_equal(found, labels)
    assert grid.same_grid(GRID)
    with pytest.raises(Rejected, match=r"none of study-2: add study-2\.nii\.gz"):
        maps.of("study-2")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ("[1]", "cannot be read"),
        ('{"liver": "5"}', "cannot be read"),
        ('{"5": null}', "cannot be read"),
        ("{}", "names no label from 1 to 255"),
        ('{"0": "air", "5": "liver"}', "names no label from 1 to 255"),
        ('{"256": "liver"}', "names no label from 1 to 255"),
        ('{"5": " "}', "a name that is empty"),
        ('{"5": "li\\nver"}', "not in one line"),
        ('{"5": "liver", "6": "liver"}', "gives two labels one name"),
        ('{"5": "liver", "05": "spleen"}', "or a label two"),
    ],
)
def test_names_that_say_not_which_organ_is_which_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(Rejected, match=sentence) as refused:
        organ_maps(named(tmp_path, text))
    assert str(refused.value).count(". ") == 0


def test_a_folder_without_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="cannot be read"):
        organ_maps(tmp_path)


def test_other_names_or_another_map_are_another_stamp(tmp_path: Path) -> None:
    """What was measured with the old ones must not be read for the new ones."""
    stamps = []
    for names, value in (({"5": "liver"}, 5), ({"5": "spleen"}, 5), ({"5": "spleen"}, 6)):
        named(tmp_path, json.dumps(names))
        write_nifti(tmp_path / "s.nii.gz", np.full(GRID.shape, value, np.uint8), GRID)
        stamps.append(organ_maps(tmp_path).stamp("s"))
        assert organ_maps(tmp_path).stamp("s") == stamps[-1]
    stamps.append(organ_maps(tmp_path).stamp("not-there"))
    assert len(set(stamps)) == 4
