"""The landmark segmenter on real CTs; the oracle is anatomy: lungs and bones that this test finds on its own."""

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from scipy import ndimage

from benchmarks import segmentation as benchmark
from tests.samples.cases import quick_and_long
from training.phantom.phantom import FieldOfView, PhantomOptions, make_phantom
from training.phantom.variations import sample_variation
from twin_scanner.dicom.read.ct_series import read_ct_series
from twin_scanner.districts.district_map import DistrictMap
from twin_scanner.districts.landmarks import arms
from twin_scanner.districts.landmarks.segmenter import LandmarkSegmenter
from twin_scanner.districts.morphology import BoolArray
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import Geometry, LabelArray, Volume, geometry_of, read_nifti, to_sitk

pytestmark = pytest.mark.unit

HEAD, TRUNK, ARMS, LEGS = 1, 2, 3, 4
LARGEST_ABSENT_VOXELS = 1000


@cache
def thorax(data: Path) -> tuple[Volume, DistrictMap]:
    """Lower jaw to upper abdomen, arms up."""
    ct = read_ct_series(data / "thorax_petct" / "ct").volume
    return ct, LandmarkSegmenter().segment(ct)


@cache
def pelvis(data: Path) -> tuple[Volume, DistrictMap]:
    """Abdomen down to the ischia, a hip screw, the table close to the back."""
    ct = read_nifti(data / "pelvis_ct.nii.gz").canonical()
    return ct, LandmarkSegmenter().segment(ct)


@cache
def head(data: Path) -> tuple[Volume, DistrictMap]:
    """Nose to vertex: the tilted stack put upright along its gantry, linear between slices."""
    files = [pydicom.dcmread(path) for path in (data / "head_gantry_tilt").glob("*.dcm")]
    files.sort(key=lambda one: float(one.ImagePositionPatient[2]))
    rows, columns = np.split(np.asarray(files[0].ImageOrientationPatient, float), 2)
    normal = np.cross(rows, columns)
    places = np.asarray([one.ImagePositionPatient for one in files], float)
    pixel_mm = float(files[0].PixelSpacing[0])
    down = (places - places[0]) @ columns / pixel_mm
    images = [np.maximum(one.pixel_array.astype(np.float32) + float(one.RescaleIntercept), -1024.0) for one in files]
    margin = int(np.ceil(np.abs(down).max()))
    padded = [np.pad(image, ((margin, margin), (0, 0)), constant_values=-1024.0) for image in images]
    level = np.stack([ndimage.shift(i, (s, 0.0), order=1, cval=-1024.0) for i, s in zip(padded, down, strict=True)])
    heights = (places - places[0]) @ normal
    wanted = np.arange(0.0, heights[-1], 3.0)
    after = np.clip(np.searchsorted(heights, wanted, side="right"), 1, len(heights) - 1)
    part = ((wanted - heights[after - 1]) / (heights[after] - heights[after - 1])).astype(np.float32)[:, None, None]
    array = (1 - part) * level[after - 1] + part * level[after]
    axes = tuple(tuple(float(c) for c in axis) for axis in (normal, columns, rows))
    geometry = Geometry(array.shape, (3.0, pixel_mm, pixel_mm), tuple(places[0] - margin * pixel_mm * columns), axes)  # type: ignore[arg-type]
    ct = Volume(array, geometry)
    return ct, LandmarkSegmenter().segment(ct)


@cache
def patient(ct: Volume) -> BoolArray:
    """The largest piece of tissue and what its axial sections enclose, without opening or landmarks."""
    tissue = ndimage.binary_erosion(ct.array > -200.0, np.ones((1, 3, 3), np.bool_))
    labels, _ = ndimage.label(tissue)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    grown = ndimage.binary_dilation(largest, np.ones((1, 3, 3), np.bool_))
    return np.stack([ndimage.binary_fill_holes(section) for section in grown])


def pieces(mask: BoolArray, least_voxels: int) -> list[BoolArray]:
    """Connected pieces of a mask, the largest first."""
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return [labels == i + 1 for i in np.argsort(-sizes) if sizes[i] >= least_voxels]


def share(mask: BoolArray, labels: LabelArray, district: int) -> float:
    """How much of the mask lies in the district."""
    return float((labels[mask] == district).mean())


def assert_body(ct: Volume, found: DistrictMap) -> None:
    """Covered at least 97 %, labelled outside at most 1 % of the body."""
    body = patient(ct)
    assert float((found.labels[body] > 0).mean()) >= 0.97
    assert float((found.labels[~body] > 0).sum()) <= 0.01 * float(body.sum())


def voxels(found: DistrictMap) -> list[int]:
    """Voxels of head, trunk, arms and legs."""
    return [int((found.labels == district).sum()) for district in (HEAD, TRUNK, ARMS, LEGS)]


def islands(found: DistrictMap) -> list[tuple[int, float]]:
    """Pieces of a district under 1 ml that lie apart from it: (district, ml)."""
    small = []
    for district in (HEAD, TRUNK, ARMS, LEGS):
        labels, _ = ndimage.label(found.labels == district)
        volumes_ml = np.sort(np.bincount(labels.ravel())[1:])[:-1] * found.geometry.voxel_ml
        small += [(district, float(ml)) for ml in volumes_ml if ml < 1.0]
    return small


def test_the_body_of_a_thorax_is_covered_and_the_table_is_not(shared_data: Path) -> None:
    assert_body(*thorax(shared_data))


def test_the_lungs_are_in_the_trunk(shared_data: Path) -> None:
    ct, found = thorax(shared_data)
    gas = (ct.array > -950.0) & (ct.array < -600.0) & patient(ct)
    lungs = pieces(gas, least_voxels=200_000)
    assert lungs
    assert all(share(lung, found.labels, TRUNK) >= 0.99 for lung in lungs)


def test_arms_held_up_beside_the_head_are_arms(shared_data: Path) -> None:
    ct, found = thorax(shared_data)
    upright = ct.canonical()
    labels = sitk.GetArrayFromImage(sitk.DICOMOrient(to_sitk(found.labels, ct.geometry), "LPS"))
    shafts = np.zeros(labels.shape, np.bool_)
    shafts[127:, 100:330] = upright.array[127:, 100:330] > 400.0
    middle = labels.shape[2] // 2
    shafts[:, :, middle - 100 : middle + 100] = False
    for side in (slice(0, middle), slice(middle, None)):
        humerus = pieces(shafts[:, :, side], least_voxels=500)[0]
        assert share(humerus, labels[:, :, side], ARMS) >= 0.98


def test_no_legs_are_found_in_a_thorax_and_only_the_chin_is_head(shared_data: Path) -> None:
    ct, found = thorax(shared_data)
    head_ml, _, _, legs = (count * ct.geometry.voxel_ml for count in voxels(found))
    assert voxels(found)[3] < LARGEST_ABSENT_VOXELS
    assert legs == 0
    assert 20.0 < head_ml < 200.0


def test_the_mandible_is_in_the_head_and_the_spine_in_the_trunk(shared_data: Path) -> None:
    ct, found = thorax(shared_data)
    upright = ct.canonical().array
    labels = sitk.GetArrayFromImage(sitk.DICOMOrient(to_sitk(found.labels, ct.geometry), "LPS"))
    neck = (slice(124, None), slice(None), slice(200, 350))
    bones = pieces(upright[neck] > 300.0, least_voxels=1000)
    in_front = min(bones, key=lambda bone: float(np.nonzero(bone)[1].mean()))
    behind = max(bones, key=lambda bone: float(np.nonzero(bone)[1].mean()))
    assert share(in_front, labels[neck], HEAD) >= 0.9
    assert share(behind, labels[neck], TRUNK) >= 0.99


def test_an_abdomen_down_to_the_ischia_is_all_trunk_with_its_hip_screw(shared_data: Path) -> None:
    ct, found = pelvis(shared_data)
    assert_body(ct, found)
    counts = voxels(found)
    assert [counts[0], counts[2], counts[3]] == [0, 0, 0]
    assert share(ct.array > 300.0, found.labels, TRUNK) >= 0.95


@pytest.mark.parametrize("orientation", quick_and_long(["PIR"], ["RAS", "SLA", "LPI"]))
def test_the_labels_come_back_on_the_grid_of_the_ct_whatever_its_axes(shared_data: Path, orientation: str) -> None:
    ct, found = pelvis(shared_data)
    turned = sitk.DICOMOrient(to_sitk(ct.array, ct.geometry), orientation)
    other = Volume(sitk.GetArrayFromImage(turned), geometry_of(turned))
    again = LandmarkSegmenter().segment(other)
    assert again.geometry == other.geometry
    back = sitk.DICOMOrient(to_sitk(again.labels, again.geometry), "LPS")
    assert float((sitk.GetArrayFromImage(back) == found.labels).mean()) > 0.999


def test_a_head_alone_is_all_head(shared_data: Path) -> None:
    ct, found = head(shared_data)
    assert_body(ct, found)
    counts = voxels(found)
    assert counts[1:] == [0, 0, 0]
    skull = pieces(ct.array > 300.0, least_voxels=10_000)[0]
    assert share(skull, found.labels, HEAD) >= 0.99


@cache
def drawn(arms_held: Literal["up", "down"], field_of_view: FieldOfView) -> tuple[Volume, LabelArray]:
    """A phantom on a coarse CT grid, and its districts as they were drawn."""
    options = PhantomOptions((4.0, 3.0, 3.0), arms=arms_held, field_of_view=field_of_view, diagnosis="NEGATIVE")
    phantom = make_phantom(3, options)
    return phantom.ct, phantom.districts


def dice(found: LabelArray, truth: LabelArray) -> list[float]:
    """Of the districts that either map holds."""
    present = np.union1d(np.unique(found), np.unique(truth))
    overlaps = [
        (2.0 * ((found == k) & (truth == k)).sum(), (found == k).sum() + (truth == k).sum()) for k in present if k
    ]
    return [float(both / total) for both, total in overlaps]


@pytest.mark.parametrize(
    ("arms_held", "field_of_view"),
    quick_and_long(
        [],
        [
            ("up", "skull-base-to-mid-thigh"),
            ("down", "skull-base-to-mid-thigh"),
            ("up", "head-to-toe"),
            ("down", "head-to-toe"),
        ],
    ),
)
def test_the_districts_of_a_phantom_are_those_it_was_drawn_with(
    arms_held: Literal["up", "down"], field_of_view: FieldOfView
) -> None:
    ct, truth = drawn(arms_held, field_of_view)
    made = LandmarkSegmenter().segment(ct)
    assert islands(made) == []
    found = dice(made.labels, truth)
    assert len(found) == 4
    assert np.median(found) >= 0.95
    assert min(found) >= 0.9


@pytest.mark.parametrize(
    ("first", "last"),
    quick_and_long([(0.05, 0.15), (0.3, 0.55), (0.8, 1.0)], [(0.0, 0.3), (0.5, 0.75), (0.62, 0.85)]),
)
@pytest.mark.parametrize("arms_held", quick_and_long(["up"], ["down"]))
def test_a_field_of_view_that_starts_and_ends_anywhere_shows_no_district_that_it_lacks(
    arms_held: Literal["up", "down"], first: float, last: float
) -> None:
    ct, truth = drawn(arms_held, "head-to-toe")
    slices = slice(int(first * len(truth)), int(last * len(truth)))
    box = (slices, slice(0, truth.shape[1]), slice(0, truth.shape[2]))
    part = ct.cropped(box)
    found = LandmarkSegmenter().segment(Volume(np.ascontiguousarray(part.array), part.geometry)).labels
    absent = [district for district in (HEAD, TRUNK, ARMS, LEGS) if not (truth[box] == district).any()]
    assert all((found == district).sum() < LARGEST_ABSENT_VOXELS for district in absent)
    assert float((found == truth[box])[truth[box] > 0].mean()) >= 0.95


@pytest.mark.parametrize("seed", quick_and_long([4], [16, 5, 13, 22, 27, 30, 37]))
def test_a_drawn_examination_meets_the_goals_of_the_benchmark(seed: int) -> None:
    row = next(benchmark.measure(seed, 1))
    assert benchmark.is_good(row), (row.words, row.dice, row.wrong_voxels)


def turned(ct: Volume, found: LabelArray, degrees: float, axes: tuple[int, int]) -> tuple[Volume, LabelArray]:
    """A canonical CT on blocks of its voxels, and masks with it, turned about its middle in the plane of two axes."""
    spin = np.eye(3)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    spin[axes[0], axes[0]], spin[axes[0], axes[1]], spin[axes[1], axes[0]], spin[axes[1], axes[1]] = c, -s, s, c
    spacing = np.asarray(ct.geometry.spacing_mm)
    matrix = np.diag(1.0 / spacing) @ spin @ np.diag(spacing)
    middle = (np.asarray(ct.array.shape) - 1) / 2.0
    offset = middle - matrix @ middle
    array = ndimage.affine_transform(ct.array, matrix, offset, order=1, cval=-1024.0)
    masks = ndimage.affine_transform(found, matrix, offset, order=0, cval=0)
    return Volume(array, ct.geometry), masks


@cache
def small_thorax(data: Path) -> tuple[Volume, LabelArray]:
    """The thorax on every second pixel; 1 the lungs and 2 the body, found by thresholds."""
    ct = thorax(data)[0].canonical()
    thin = Volume(
        np.ascontiguousarray(ct.array[:, ::2, ::2]),
        Geometry((135, 256, 256), (3.27, 1.953125, 1.953125), (0.0, 0.0, 0.0)),
    )
    body = patient(thin)
    gas = (thin.array > -950.0) & (thin.array < -600.0) & body
    lungs = np.any(pieces(gas, least_voxels=50_000), axis=0)
    return thin, np.where(lungs, np.uint8(1), np.where(body, np.uint8(2), np.uint8(0)))


@pytest.mark.parametrize(
    ("degrees", "axes"),
    quick_and_long([], [(20.0, (1, 2)), (-20.0, (1, 2)), (10.0, (0, 1)), (-10.0, (0, 1)), (12.0, (0, 2))]),
)
def test_lungs_and_body_of_a_turned_thorax_obey_the_same_rules(
    shared_data: Path, degrees: float, axes: tuple[int, int]
) -> None:
    ct, masks = turned(*small_thorax(shared_data), degrees, axes)
    found = LandmarkSegmenter().segment(ct).labels
    assert share(masks == 1, found, TRUNK) >= 0.99
    assert float((found[masks > 0] > 0).mean()) >= 0.97
    assert float((found[masks == 0] > 0).sum()) <= 0.01 * float((masks > 0).sum())


@pytest.mark.parametrize("change", quick_and_long(["noise"], ["brighter", "mirrored table", "circle"]))
def test_noise_table_and_field_of_view_do_not_change_the_rules_for_a_thorax(shared_data: Path, change: str) -> None:
    ct, masks = small_thorax(shared_data)
    array = ct.array.copy()
    if change == "noise":
        array += np.random.default_rng(0).normal(0.0, 60.0, array.shape).astype(np.float32)
    elif change == "brighter":
        array[array > -1000.0] += 30.0
    elif change == "mirrored table":
        near = ndimage.binary_dilation(masks > 0, np.ones((1, 5, 5), np.bool_))
        array = np.maximum(np.where(near, array, -1024.0), np.where(near, -1024.0, array)[:, ::-1])
    else:
        rows, columns = np.indices(array.shape[1:]) - 127.5
        outside = rows**2 + columns**2 > 115.0**2
        array[:, outside] = -1024.0
        masks = np.where(outside, np.uint8(0), masks)
    found = LandmarkSegmenter().segment(Volume(array.astype(np.float32), ct.geometry)).labels
    assert share(masks == 1, found, TRUNK) >= 0.99
    assert float((found[masks > 0] > 0).mean()) >= 0.97
    assert int((found == LEGS).sum()) < LARGEST_ABSENT_VOXELS


def test_what_the_segmenter_says_of_each_part_is_what_the_image_shows(shared_data: Path) -> None:
    said = {part.part: part for part in thorax(shared_data)[1].quality}
    assert set(said) == {"head", "right arm", "left arm", "legs"}
    assert (said["head"].extent, said["head"].border) == ("cut", "estimated")
    assert (said["left arm"].extent, said["left arm"].border) == ("cut", "found")
    assert "cut at the side" in said["left arm"].remark
    assert said["legs"].extent == "absent"


@pytest.mark.long
def test_a_part_that_is_found_badly_is_not_said_to_be_sure() -> None:
    sure, unsure = (make_phantom(seed, sample_variation(seed)) for seed in (16, 37))
    worse = {part.part: part for part in LandmarkSegmenter().segment(unsure.ct).quality}["left arm"]
    better = {part.part: part for part in LandmarkSegmenter().segment(sure.ct).quality}["left arm"]
    assert worse.confidence < 0.5 < better.confidence


NARROW = {"from the left": (0.45, 1.0), "from the right": (0.0, 0.58), "around the heart": (0.25, 0.75)}
"""Part of the image's width that a narrow field of view shows."""


def narrowed(ct: Volume, part: tuple[float, float]) -> tuple[Volume, tuple[slice, slice, slice]]:
    """Part of the columns of a CT."""
    depth, height, width = ct.array.shape
    box = slice(0, depth), slice(0, height), slice(int(part[0] * width), int(part[1] * width))
    cut = ct.cropped(box)
    return Volume(np.ascontiguousarray(cut.array), cut.geometry), box


@pytest.mark.parametrize("name", NARROW)
def test_a_lung_that_the_side_of_the_image_cuts_is_body_and_that_is_said(shared_data: Path, name: str) -> None:
    """Oracle: lungs and body that thresholds find in the whole image."""
    whole, masks = small_thorax(shared_data)
    ct, box = narrowed(whole, NARROW[name])
    found = LandmarkSegmenter().segment(ct)
    assert share(masks[box] == 1, found.labels, TRUNK) >= 0.97
    assert float((found.labels[masks[box] > 0] > 0).mean()) >= 0.97
    assert float((found.labels[masks[box] == 0] > 0).sum()) <= 0.01 * float((masks[box] > 0).sum())
    (trunk,) = (part for part in found.quality if part.part == "trunk")
    assert trunk.sentence().endswith("A lung is cut at the side of the image: what is seen of it counts as body.")


def test_nothing_is_said_of_the_lungs_where_the_image_shows_them_whole(shared_data: Path) -> None:
    assert not [part for part in thorax(shared_data)[1].quality if part.part == "trunk"]


def test_no_district_of_a_real_ct_has_an_island(shared_data: Path) -> None:
    assert islands(thorax(shared_data)[1]) == []
    assert islands(pelvis(shared_data)[1]) == []


def test_what_is_no_human_body_is_rejected() -> None:
    air = Volume(np.full((40, 64, 64), -1000.0, np.float32), Geometry((40, 64, 64), (3.0, 5.0, 5.0), (0.0, 0.0, 0.0)))
    with pytest.raises(Rejected, match="no human body"):
        LandmarkSegmenter().segment(air)


def test_the_hash_is_of_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    before = LandmarkSegmenter().segmenter_hash
    assert before == LandmarkSegmenter().segmenter_hash
    assert len(before) == 64
    monkeypatch.setattr(arms, "HEAD_MM", arms.HEAD_MM + 1.0)
    assert LandmarkSegmenter().segmenter_hash != before
