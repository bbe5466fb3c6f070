"""The label map segmenter; the oracle is the map that the test itself wrote."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from twin_scanner.districts.labelmap import MOOSE_TABLE, LabelmapSegmenter
from twin_scanner.errors import Rejected
from twin_scanner.volume import Geometry, LabelArray, Volume, geometry_of, resample_labels, to_sitk, write_nifti

pytestmark = pytest.mark.unit

GRID = Geometry((30, 40, 50), (3.0, 0.9, 1.1), (-20.0, 10.0, 100.0))


def labels_of_four() -> LabelArray:
    """Four districts on top of each other, air around."""
    labels = np.zeros(GRID.shape, np.uint8)
    for district in (1, 2, 3, 4):
        labels[30 - 7 * district : 37 - 7 * district, 5:35, 8:40] = district
    return labels


def ct_of(labels: LabelArray, geometry: Geometry = GRID) -> Volume:
    """Soft tissue where there is a label."""
    return Volume(np.where(labels > 0, np.float32(40.0), np.float32(-1000.0)), geometry)


def test_a_map_on_the_grid_of_the_ct_comes_back_as_it_is(tmp_path: Path) -> None:
    labels = labels_of_four()
    write_nifti(tmp_path / "map.nii.gz", labels, GRID)
    found = LabelmapSegmenter(tmp_path / "map.nii.gz").segment(ct_of(labels))
    assert np.array_equal(found.labels, labels)
    assert found.geometry == GRID
    assert (found.segmenter, len(found.segmenter_hash)) == ("labelmap", 64)


def test_a_map_in_another_orientation_is_turned_to_the_ct(tmp_path: Path) -> None:
    labels = labels_of_four()
    labels[:, :12] = 0
    turned = sitk.DICOMOrient(to_sitk(labels, GRID), "SAR")
    write_nifti(tmp_path / "map.nii", sitk.GetArrayFromImage(turned), geometry_of(turned))
    found = LabelmapSegmenter(tmp_path / "map.nii").segment(ct_of(labels))
    assert np.array_equal(found.labels, labels)


def test_the_table_of_moose_gives_the_order_of_the_paper(tmp_path: Path) -> None:
    labels = labels_of_four()
    moose = np.array([0, 3, 2, 4, 1], np.uint8)[labels]
    write_nifti(tmp_path / "map.nii.gz", moose, GRID)
    found = LabelmapSegmenter(tmp_path / "map.nii.gz", MOOSE_TABLE).segment(ct_of(labels))
    assert np.array_equal(found.labels, labels)


def test_a_coarse_map_is_brought_to_the_ct_by_nearest_neighbour_and_reaches_its_rim(tmp_path: Path) -> None:
    labels = np.full(GRID.shape, 2, np.uint8)
    labels[15:] = 1
    coarse = GRID.with_spacing((5.0, 5.0, 5.0))
    write_nifti(tmp_path / "map.nii.gz", resample_labels(labels, GRID, coarse), coarse)
    found = LabelmapSegmenter(tmp_path / "map.nii.gz").segment(ct_of(labels))
    assert (found.labels > 0).all()
    assert float((found.labels == labels).mean()) > 0.95


def test_a_label_that_is_no_district_is_rejected_by_its_number(tmp_path: Path) -> None:
    labels = labels_of_four()
    labels[0, 0, 0] = 9
    write_nifti(tmp_path / "map.nii.gz", labels, GRID)
    with pytest.raises(Rejected, match=r"map\.nii\.gz holds labels \[9\].*table"):
        LabelmapSegmenter(tmp_path / "map.nii.gz").segment(ct_of(labels))


def test_a_table_that_leads_to_no_district_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"\[7\]"):
        LabelmapSegmenter(tmp_path / "map.nii.gz", {1: 7})


def test_a_map_that_ends_inside_the_ct_is_rejected(tmp_path: Path) -> None:
    labels = labels_of_four()
    box = (slice(5, 30), slice(0, 40), slice(0, 50))
    write_nifti(tmp_path / "map.nii.gz", labels[box], GRID.cropped(box))
    with pytest.raises(Rejected, match="does not cover"):
        LabelmapSegmenter(tmp_path / "map.nii.gz").segment(ct_of(labels))


def test_a_map_that_lies_in_air_is_rejected(tmp_path: Path) -> None:
    labels = labels_of_four()
    write_nifti(tmp_path / "map.nii.gz", labels, GRID)
    ct = Volume(-1040.0 - ct_of(labels).array + 80.0, GRID)
    with pytest.raises(Rejected, match="mostly air"):
        LabelmapSegmenter(tmp_path / "map.nii.gz").segment(ct)


def test_an_empty_map_is_rejected(tmp_path: Path) -> None:
    write_nifti(tmp_path / "map.nii.gz", np.zeros(GRID.shape, np.uint8), GRID)
    with pytest.raises(Rejected, match="labels nothing"):
        LabelmapSegmenter(tmp_path / "map.nii.gz").segment(ct_of(labels_of_four()))


def test_a_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="does not exist"):
        LabelmapSegmenter(tmp_path / "none.nii.gz").segment(ct_of(labels_of_four()))


def test_the_hash_is_of_file_and_table(tmp_path: Path) -> None:
    path = tmp_path / "map.nii.gz"
    write_nifti(path, labels_of_four(), GRID)
    plain = LabelmapSegmenter(path).segmenter_hash
    assert plain == LabelmapSegmenter(path).segmenter_hash
    assert plain != LabelmapSegmenter(path, MOOSE_TABLE).segmenter_hash
    write_nifti(path, (labels_of_four() > 0).astype(np.uint8), GRID)
    assert plain != LabelmapSegmenter(path).segmenter_hash
