"""Reading DICOM Segmentations. Oracles: the arrays that highdicom was given, highdicom's own reader, a real export."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.seg import segread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from tests.samples.labelled_body import GRID, body, four_districts, oblique, seven_organs
from tests.samples.segmentation_files import FRAME_OF_REFERENCE_UID, SERIES_UID, reordered, write_seg
from tests.twin_scanner.dicom.write.test_pet_series import SYNTHESIS, _ct, _write
from twin_scanner.dicom.read.segmentation import is_dicom_file, read_segmentation, segmentation_labels
from twin_scanner.dicom.write.segmentation import write_segmentation
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Geometry, LabelArray, resample_labels

pytestmark = pytest.mark.unit

NAMES = {number: f"organ {number}" for number in range(1, 8)}
IDENTITY = {number: number for number in NAMES}


def labels_on(path: Path, grid: Geometry) -> LabelArray:
    """The file's labels on a grid, by world coordinates."""
    segmentation = read_segmentation(path)
    return resample_labels(segmentation_labels(segmentation, IDENTITY), segmentation.geometry, grid)


@pytest.mark.parametrize("omit_empty_frames", [True, False])
@pytest.mark.parametrize("grid", [GRID, oblique()], ids=["upright", "oblique"])
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_every_voxel_comes_back_where_it_was(
    tmp_path: Path, kind: str, grid: Geometry, omit_empty_frames: bool
) -> None:
    labels = seven_organs(body())
    path = write_seg(tmp_path / "s.dcm", labels, grid, NAMES, kind, omit_empty_frames=omit_empty_frames)
    assert np.array_equal(labels_on(path, grid), labels)


def test_frames_are_placed_by_their_positions_and_not_by_their_order(tmp_path: Path) -> None:
    labels = seven_organs(body())
    path = write_seg(tmp_path / "s.dcm", labels, GRID, NAMES)
    count = pydicom.dcmread(path).NumberOfFrames
    order = np.random.default_rng(1).permutation(count)
    write_seg(tmp_path / "t.dcm", labels, GRID, NAMES, change=reordered([int(index) for index in order]))
    assert np.array_equal(labels_on(tmp_path / "t.dcm", GRID), labels)


def test_slices_without_a_frame_between_others_stay_empty(tmp_path: Path) -> None:
    """Every second and third slice is empty: only the declared spacing tells that slices lie between."""
    labels = four_districts(body())
    labels[1::3] = labels[2::3] = 0
    path = write_seg(tmp_path / "s.dcm", labels, GRID, NAMES)
    assert read_segmentation(path).geometry.spacing_mm[0] == pytest.approx(GRID.spacing_mm[0])
    assert np.array_equal(labels_on(path, GRID), labels)


def test_the_geometry_is_the_one_that_highdicom_reads(tmp_path: Path) -> None:
    path = write_seg(tmp_path / "s.dcm", seven_organs(body()), oblique(), NAMES)
    theirs = segread(path).get_volume_geometry()
    ours = read_segmentation(path).geometry
    index = np.array([[0, 0, 0], [ours.shape[0] - 1, 7, 11]])
    expected = theirs.map_indices_to_reference(index if _same_way(theirs.affine, ours) else _from_the_end(index, ours))
    assert np.allclose([ours.position_lps_mm(tuple(i)) for i in index.tolist()], expected, atol=1e-3)


def _same_way(affine: np.ndarray, ours: Geometry) -> bool:
    return float(affine[:3, 0] @ np.asarray(ours.direction[0])) > 0


def _from_the_end(index: np.ndarray, ours: Geometry) -> np.ndarray:
    return np.column_stack([ours.shape[0] - 1 - index[:, 0], index[:, 1:]])


def test_a_declared_spacing_that_the_positions_do_not_follow_does_not_count(tmp_path: Path) -> None:
    """Some programs declare the slice thickness of the CT."""

    def change(dataset: Dataset) -> None:
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 10.0

    labels = four_districts(body())
    path = write_seg(tmp_path / "s.dcm", labels, GRID, NAMES, change=change)
    assert np.array_equal(labels_on(path, GRID), labels)


def test_a_rounded_spacing_is_fitted_to_the_positions(tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 5.99

    labels = four_districts(body())
    path = write_seg(tmp_path / "s.dcm", labels, GRID, NAMES, change=change)
    assert read_segmentation(path).geometry.spacing_mm[0] == pytest.approx(6.0, abs=1e-6)


def test_a_compressed_label_map_with_more_than_255_segment_numbers_is_read(tmp_path: Path) -> None:
    labels = four_districts(body()).astype(np.uint16)
    numbers = np.array([0, 900, 2, 300, 40], np.uint16)
    names = {2: "trunk", 40: "legs", 300: "arms", 900: "head"}
    path = write_seg(tmp_path / "s.dcm", numbers[labels], GRID, names, "LABELMAP", transfer_syntax_uid=RLELossless)
    segmentation = read_segmentation(path)
    found = segmentation_labels(segmentation, {2: 2, 40: 4, 300: 3, 900: 1})
    assert np.array_equal(resample_labels(found, segmentation.geometry, GRID), labels)


def test_a_single_slice_by_another_program_is_read(tmp_path: Path) -> None:
    """A liver drawn in 3D Slicer, as it comes with pydicom, cut to one frame; the oracle is pydicom's own array."""
    path = tmp_path / "liver.dcm"
    dataset = pydicom.dcmread(str(get_testdata_file("liver_1frame.dcm")))
    del dataset.PerFrameFunctionalGroupsSequence[1:]
    dataset.save_as(path)
    segmentation = read_segmentation(path)
    assert [(segment.number, segment.label) for segment in segmentation.segments] == [(1, "Liver")]
    assert segmentation.geometry.spacing_mm == pytest.approx((1.0, 0.810547, 0.810547))
    assert np.array_equal(segmentation_labels(segmentation, {1: 5})[0], 5 * pydicom.dcmread(path).pixel_array)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_our_own_segmentation_comes_back(tmp_path: Path, kind: str) -> None:
    ct = _ct()
    pet, _ = _write(tmp_path / "pet", ct, SYNTHESIS)
    grid = ct.volume.geometry
    labels = np.zeros(grid.shape, np.uint8)
    labels[2:8, 3:15, 4:18], labels[8:17, 3:17, 5:16] = 4, 2
    written = write_segmentation(labels, grid, {2: "trunk", 4: "legs"}, ct, pet, SYNTHESIS, tmp_path, kind)  # type: ignore[arg-type]
    segmentation = read_segmentation(written.file)
    number = {segment.label: segment.number for segment in segmentation.segments}
    found = segmentation_labels(segmentation, {number["trunk"]: 2, number["legs"]: 4})
    assert np.array_equal(resample_labels(found, segmentation.geometry, grid), labels)


def test_it_says_which_ct_it_was_drawn_on(tmp_path: Path) -> None:
    segmentation = read_segmentation(write_seg(tmp_path / "s.dcm", four_districts(body()), GRID, NAMES))
    assert segmentation.frame_of_reference_uid == FRAME_OF_REFERENCE_UID
    assert segmentation.referenced_series_uids == (SERIES_UID,)
    assert is_dicom_file(segmentation.file)


def two_masks(shift: int, size: int = 10) -> np.ndarray:
    """Two boxes as masks (D, H, W, 2), the second one ``shift`` rows below the first."""
    masks = np.zeros((*GRID.shape, 2), np.uint8)
    masks[5 : 5 + size, 10 : 10 + size, 10 : 10 + size, 0] = 1
    masks[5 : 5 + size, 10 + shift : 10 + shift + size, 10 : 10 + size, 1] = 1
    return masks


def test_in_a_rim_where_two_segments_overlap_the_lower_number_has_the_voxel(tmp_path: Path) -> None:
    masks = two_masks(shift=8)
    path = write_seg(tmp_path / "s.dcm", masks, GRID, {1: "a", 2: "b"})
    expected = np.where(masks[..., 0] > 0, 1, 2 * masks[..., 1])
    assert np.array_equal(labels_on(path, GRID), expected)
    count = pydicom.dcmread(path).NumberOfFrames
    write_seg(tmp_path / "t.dcm", masks, GRID, {1: "a", 2: "b"}, change=reordered(range(count - 1, -1, -1)))
    assert np.array_equal(labels_on(tmp_path / "t.dcm", GRID), expected)


@pytest.mark.parametrize(("shift", "size"), [(5, 10), (0, 2), (0, 10)], ids=["thick", "thin but whole", "whole"])
def test_segments_that_overlap_in_more_than_a_rim_are_rejected_by_name(tmp_path: Path, shift: int, size: int) -> None:
    path = write_seg(tmp_path / "s.dcm", two_masks(shift, size), GRID, {1: "Liver", 2: "Spleen"})
    with pytest.raises(Rejected, match=r"overlap in more than a rim \('Liver' and 'Spleen'\)"):
        segmentation_labels(read_segmentation(path), IDENTITY)


def test_segments_that_become_one_label_may_overlap(tmp_path: Path) -> None:
    masks = two_masks(shift=5)
    segmentation = read_segmentation(write_seg(tmp_path / "s.dcm", masks, GRID, {1: "a", 2: "b"}))
    found = resample_labels(segmentation_labels(segmentation, {1: 6, 2: 6}), segmentation.geometry, GRID)
    assert np.array_equal(found, 6 * masks.max(axis=3))


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_segment_that_the_table_lacks_is_rejected_by_name_and_an_ignored_one_is_not(
    tmp_path: Path, kind: str
) -> None:
    labels = four_districts(body())
    segmentation = read_segmentation(write_seg(tmp_path / "s.dcm", labels, GRID, NAMES, kind))
    with pytest.raises(Rejected, match=r"does not list \(3 'organ 3', 4 'organ 4'\)"):
        segmentation_labels(segmentation, {1: 1, 2: 2})
    found = segmentation_labels(segmentation, {1: 1, 2: 2, 3: 0, 4: 0})
    expected = np.where(labels < 3, labels, 0)
    assert np.array_equal(resample_labels(found, segmentation.geometry, GRID), expected)


def _measures(dataset: Dataset) -> Dataset:
    return dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]


def _position(dataset: Dataset, frame: int) -> Dataset:
    return dataset.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence[0]


def _moved(axis: int, by_mm: float) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        position = [float(value) for value in _position(dataset, 3).ImagePositionPatient]
        position[axis] += by_mm
        _position(dataset, 3).ImagePositionPatient = position

    return change


def _same_place_twice(dataset: Dataset) -> None:
    _position(dataset, 1).ImagePositionPatient = _position(dataset, 0).ImagePositionPatient
    numbers = [frame.SegmentIdentificationSequence[0] for frame in dataset.PerFrameFunctionalGroupsSequence]
    numbers[1].ReferencedSegmentNumber = numbers[0].ReferencedSegmentNumber


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d.update({"SegmentationType": "FRACTIONAL"}), "is a FRACTIONAL segmentation"),
        (lambda d: d.update({"SegmentationType": "CONTOUR"}), "SegmentationType of s.dcm is 'CONTOUR'"),
        (lambda d: d.update({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}), "no Segmentation"),
        (lambda d: d.update({"FrameOfReferenceUID": ""}), "FrameOfReferenceUID of s.dcm is missing"),
        (lambda d: d.PerFrameFunctionalGroupsSequence.pop(), "PerFrameFunctionalGroupsSequence of s.dcm has"),
        (lambda d: _measures(d).clear(), "PixelSpacing of s.dcm is missing"),
        (lambda d: d.PerFrameFunctionalGroupsSequence[2].clear(), "ImagePositionPatient of s.dcm is missing"),
        (_moved(0, 3.0), "do not lie straight above each other"),
        (_moved(2, 2.0), "unevenly spaced"),
        (_same_place_twice, "two frames of one segment at one place"),
        (lambda d: d.update({"PixelData": d.PixelData[:100]}), "pixels of s.dcm are damaged"),
        (lambda d: d.pop("Rows"), "is damaged"),
        (lambda d: d.pop("SegmentSequence"), "is damaged"),
    ],
)
def test_what_is_not_one_regular_segmentation_is_rejected_with_one_sentence(
    tmp_path: Path, change: Callable[[Dataset], None], sentence: str
) -> None:
    path = write_seg(tmp_path / "s.dcm", four_districts(body()), GRID, NAMES, change=change)
    with pytest.raises(Rejected, match=sentence) as error:
        segmentation_labels(read_segmentation(path), IDENTITY)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("length", [0, 200, 2000, 20_000])
def test_a_file_that_is_cut_short_is_rejected(tmp_path: Path, length: int) -> None:
    path = write_seg(tmp_path / "s.dcm", four_districts(body()), GRID, NAMES)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(Rejected):
        segmentation_labels(read_segmentation(path), IDENTITY)
