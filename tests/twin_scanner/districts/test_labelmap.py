"""The label map segmenter; the oracle is the map that the test itself wrote, on a body that is a formula."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference
from pydicom.sr.codedict import codes

from tests.samples.labelled_body import GRID, ORGANS, body, ct_of, four_districts, oblique, saved, seven_organs, turned
from tests.samples.segmentation_files import FRAME_OF_REFERENCE_UID, write_seg
from twin_scanner.districts.label_table import MOOSE_TABLE, LabelTable, read_label_table
from twin_scanner.districts.labelmap import LabelmapSegmenter, find_labelmap
from twin_scanner.errors import Rejected
from twin_scanner.imaging.district_labels import DISTRICT_NAMES
from twin_scanner.imaging.volume import Geometry, LabelArray, Volume, resample_labels
from twin_scanner.models.card import Architecture
from twin_scanner.models.package import ModelPackage, build_network, load_package, save_package
from twin_scanner.models.partition import partition
from twin_scanner.models.plan import Plan, ct_to_model, model_to_suv
from twin_scanner.synthesis.pipeline import PipelineOptions, translate_ct

pytestmark = pytest.mark.unit

INSIDE = body()
LABELS = four_districts(INSIDE)
CT = ct_of(INSIDE)
ORGAN_TABLE = LabelTable(
    {**{organ: f"organ {organ}" for organ in range(1, ORGANS + 1)}, 9: "other"},
    {organ: organ for organ in range(1, ORGANS + 1)},
    rest=9,
    codes={"organ 1": codes.SCT.Liver},
)


def agreement(found: LabelArray, expected: LabelArray) -> float:
    """Share of the body with the expected label."""
    return float((found == expected)[INSIDE].mean())


def test_a_map_on_the_grid_of_the_ct_comes_back_as_it_is(tmp_path: Path) -> None:
    found = LabelmapSegmenter(saved(tmp_path / "map.nii.gz", LABELS, GRID)).segment(CT)
    assert np.array_equal(found.labels[INSIDE], LABELS[INSIDE])
    assert found.geometry == GRID
    assert (found.segmenter, len(found.segmenter_hash), found.names) == ("labelmap", 64, DISTRICT_NAMES)


@pytest.mark.parametrize("orientation", ["SAR", "RAI", "PSL"])
def test_map_and_ct_may_each_have_their_own_axis_order(tmp_path: Path, orientation: str) -> None:
    path = saved(tmp_path / "map.nii", *turned(LABELS, GRID, orientation))
    assert np.array_equal(LabelmapSegmenter(path).segment(CT).labels[INSIDE], LABELS[INSIDE])
    hu, grid = turned(CT.array, GRID, orientation)
    found = LabelmapSegmenter(path).segment(Volume(hu.astype(np.float32), grid))
    assert np.array_equal(turned(found.labels, grid, "LPS")[0][INSIDE], LABELS[INSIDE])


def test_a_coarse_map_is_brought_to_the_ct_by_nearest_neighbour_and_reaches_its_rim(tmp_path: Path) -> None:
    coarse = GRID.with_spacing((10.0, 10.0, 10.0))
    path = saved(tmp_path / "map.nii.gz", resample_labels(LABELS, GRID, coarse), coarse)
    found = LabelmapSegmenter(path).segment(CT)
    assert (found.labels[INSIDE] > 0).all()
    assert agreement(found.labels, LABELS) > 0.93


def test_what_is_left_over_goes_to_the_nearest_district_and_what_lies_outside_is_dropped(tmp_path: Path) -> None:
    holes = LABELS.copy()
    holes[::4] = 0
    holes[:, 0, :30] = 2
    found = LabelmapSegmenter(saved(tmp_path / "map.nii.gz", holes, GRID)).segment(CT).labels
    assert (found[INSIDE] > 0).all()
    assert (found[:, 0] == 0).all()
    assert agreement(found, LABELS) > 0.97


def test_what_is_left_over_goes_to_the_rest_where_the_table_names_one(tmp_path: Path) -> None:
    organs = seven_organs(INSIDE)
    found = LabelmapSegmenter(saved(tmp_path / "map.nii.gz", organs, GRID), ORGAN_TABLE).segment(CT)
    assert np.array_equal(found.labels[INSIDE], np.where(organs > 0, organs, 9)[INSIDE])
    assert found.names[9] == "other"
    assert set(found.volumes_ml()) == set(ORGAN_TABLE.names.values())
    assert found.codes == ORGAN_TABLE.codes


def test_the_table_of_moose_gives_the_order_of_the_paper(tmp_path: Path) -> None:
    moose = np.array([0, 3, 2, 4, 1], np.uint8)[LABELS]
    found = LabelmapSegmenter(saved(tmp_path / "map.nii.gz", moose, GRID), MOOSE_TABLE).segment(CT)
    assert np.array_equal(found.labels[INSIDE], LABELS[INSIDE])


@pytest.mark.parametrize("stored_as", [np.int16, np.int32, np.uint16, np.float32, np.float64])
def test_numbers_in_the_thousands_are_read_from_any_type(tmp_path: Path, stored_as: type[np.number]) -> None:
    numbers = np.array([0, 1001, 17, 14175, 300])[LABELS].astype(stored_as)
    table = LabelTable(DISTRICT_NAMES, {1001: 1, 17: 2, 14175: 3, 300: 4})
    found = LabelmapSegmenter(saved(tmp_path / "map.nii.gz", numbers, GRID), table).segment(CT)
    assert np.array_equal(found.labels[INSIDE], LABELS[INSIDE])


@pytest.mark.parametrize("value", [-1.0, 0.5, 70000.0])
def test_what_is_no_label_is_rejected(tmp_path: Path, value: float) -> None:
    values = LABELS.astype(np.float32)
    values[20, 20, 20] = value
    with pytest.raises(Rejected, match=r"map\.nii is not a label map"):
        LabelmapSegmenter(saved(tmp_path / "map.nii", values, GRID)).segment(CT)


def test_labels_that_the_table_lacks_are_rejected_by_their_numbers_or_left_out_by_its_word(tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[20, 20, 20:22], labels[0, 0, 0] = 9, 77
    path = saved(tmp_path / "map.nii.gz", labels, GRID)
    with pytest.raises(Rejected, match=r"map\.nii\.gz holds labels that the label table does not list \(9, 77\)"):
        LabelmapSegmenter(path).segment(CT)
    table = LabelTable(DISTRICT_NAMES, {n: n for n in DISTRICT_NAMES}, ignore_unlisted=True)
    assert np.array_equal(LabelmapSegmenter(path, table).segment(CT).labels[INSIDE], LABELS[INSIDE])


@pytest.mark.parametrize(
    "cut", [(slice(9, 40), slice(0, 50), slice(0, 60)), (slice(0, 40), slice(0, 50), slice(12, 60))]
)
def test_a_map_that_ends_inside_the_body_is_rejected(tmp_path: Path, cut: tuple[slice, slice, slice]) -> None:
    path = saved(tmp_path / "map.nii.gz", LABELS[cut], GRID.cropped(cut))
    with pytest.raises(Rejected, match="does not cover the body"):
        LabelmapSegmenter(path).segment(CT)


def test_a_map_that_is_cut_to_the_body_is_enough(tmp_path: Path) -> None:
    box = (slice(2, 38), slice(5, 45), slice(4, 58))
    path = saved(tmp_path / "map.nii.gz", LABELS[box], GRID.cropped(box))
    assert np.array_equal(LabelmapSegmenter(path).segment(CT).labels[INSIDE], LABELS[INSIDE])


def test_a_map_of_another_place_is_rejected(tmp_path: Path) -> None:
    """The labels of the air around the body, as a map of another patient or a flipped one may hold them."""
    path = saved(tmp_path / "map.nii.gz", np.where(INSIDE, 0, 2).astype(np.uint8), GRID)
    with pytest.raises(Rejected, match=r"lies outside the body by 100%"):
        LabelmapSegmenter(path).segment(CT)


def test_the_nearest_label_is_not_asked_to_invent_most_of_the_body(tmp_path: Path) -> None:
    path = saved(tmp_path / "map.nii.gz", seven_organs(INSIDE), GRID)
    table = replace(ORGAN_TABLE, rest=None)
    with pytest.raises(Rejected, match=r"labels only \d+% of the body: .* name a rest"):
        LabelmapSegmenter(path, table).segment(CT)


@pytest.mark.parametrize("table", [LabelTable({5: "lungs", 9: "other"}, {1: 5}, rest=9)])
def test_a_map_of_the_lungs_alone_is_no_map_of_air(tmp_path: Path, table: LabelTable) -> None:
    """Labels are compared with the body, gas included, and not with dense tissue."""
    lungs = np.zeros(GRID.shape, np.uint8)
    lungs[20:28, 15:25, 15:45] = 1
    ct = Volume(np.where(lungs > 0, np.float32(-850.0), CT.array), GRID)
    found = LabelmapSegmenter(saved(tmp_path / "map.nii.gz", lungs, GRID), table).segment(ct)
    assert (found.labels[lungs > 0] == 5).all()


def test_an_empty_map_is_rejected(tmp_path: Path) -> None:
    path = saved(tmp_path / "map.nii.gz", np.zeros(GRID.shape, np.uint8), GRID)
    with pytest.raises(Rejected, match="labels nothing"):
        LabelmapSegmenter(path).segment(CT)


def test_a_ct_without_a_body_is_rejected(tmp_path: Path) -> None:
    path = saved(tmp_path / "map.nii.gz", LABELS, GRID)
    with pytest.raises(Rejected, match="no human body"):
        LabelmapSegmenter(path).segment(Volume(np.full(GRID.shape, -1000.0, np.float32), GRID))


def test_a_missing_file_a_folder_and_a_file_of_another_kind_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="does not exist"):
        LabelmapSegmenter(tmp_path / "none.nii.gz").segment(CT)
    with pytest.raises(Rejected, match="is a folder"):
        LabelmapSegmenter(tmp_path).segment(CT)
    (tmp_path / "map.nii").write_bytes(b"no image")
    with pytest.raises(Rejected, match="cannot be read as NIfTI"):
        LabelmapSegmenter(tmp_path / "map.nii").segment(CT)


def test_the_hash_is_of_file_and_table(tmp_path: Path) -> None:
    path = saved(tmp_path / "map.nii.gz", LABELS, GRID)
    plain = LabelmapSegmenter(path).segmenter_hash
    assert plain == LabelmapSegmenter(path).segmenter_hash
    assert plain != LabelmapSegmenter(path, MOOSE_TABLE).segmenter_hash
    saved(path, (LABELS > 0).astype(np.uint8), GRID)
    assert plain != LabelmapSegmenter(path).segmenter_hash


NAMES = {1: "Head", 2: "Trunk", 3: "Arms", 4: "Legs"}


@pytest.mark.parametrize("grid", [GRID, oblique()], ids=["upright", "oblique"])
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_dicom_segmentation_lies_on_the_ct_by_world_coordinates(tmp_path: Path, kind: str, grid: Geometry) -> None:
    """Empty frames at both ends are left out; the body that lies there none the less is not."""
    path = write_seg(tmp_path / "s.dcm", LABELS, grid, NAMES, kind)
    found = LabelmapSegmenter(path, frame_of_reference_uid=FRAME_OF_REFERENCE_UID).segment(ct_of(INSIDE, grid))
    assert np.array_equal(found.labels[INSIDE], LABELS[INSIDE])


def test_segments_are_told_by_name_whatever_their_numbers(tmp_path: Path) -> None:
    renumbered = np.array([0, 3, 1, 4, 2], np.uint8)[LABELS]
    names = {1: "trunk", 2: "legs", 3: "head", 4: "arms"}
    found = LabelmapSegmenter(write_seg(tmp_path / "s.dcm", renumbered, GRID, names)).segment(CT)
    assert np.array_equal(found.labels[INSIDE], LABELS[INSIDE])


def test_a_segmentation_of_another_frame_of_reference_is_rejected(tmp_path: Path) -> None:
    path = write_seg(tmp_path / "s.dcm", LABELS, GRID, NAMES)
    with pytest.raises(Rejected, match=r"s\.dcm lies in another frame of reference than the CT"):
        LabelmapSegmenter(path, frame_of_reference_uid="1.2.3.8").segment(CT)


def test_a_segmentation_of_a_part_of_the_body_needs_a_rest(tmp_path: Path) -> None:
    """A frame that is left out may be empty or was never looked at: only the table can say."""
    upper = LABELS.copy()
    upper[:8] = 0
    path = write_seg(tmp_path / "s.dcm", upper, GRID, NAMES)
    with pytest.raises(Rejected, match="does not cover the body"):
        LabelmapSegmenter(path).segment(CT)
    table = LabelTable({**DISTRICT_NAMES, 9: "other"}, {"head": 1, "trunk": 2, "arms": 3, "legs": 4}, rest=9)
    found = LabelmapSegmenter(path, table).segment(CT).labels
    assert np.array_equal(found[INSIDE], np.where(upper > 0, upper, 9)[INSIDE])


def test_a_map_is_found_by_the_series_first_and_by_the_study_then(tmp_path: Path) -> None:
    (tmp_path / "1.2.3.dcm").touch()
    assert find_labelmap(tmp_path, "1.2.3.4", "1.2.3").name == "1.2.3.dcm"
    (tmp_path / "1.2.3.4.nii.gz").touch()
    assert find_labelmap(tmp_path, "1.2.3.4", "1.2.3").name == "1.2.3.4.nii.gz"


def test_no_map_two_maps_and_no_folder_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"no label map for series 1\.2\.3\.4: put 1\.2\.3\.4\.nii\.gz"):
        find_labelmap(tmp_path, "1.2.3.4", "1.2.3")
    for suffix in ("nii", "dcm"):
        (tmp_path / f"1.2.3.4.{suffix}").touch()
    with pytest.raises(Rejected, match=r"holds 1\.2\.3\.4\.nii and 1\.2\.3\.4\.dcm"):
        find_labelmap(tmp_path, "1.2.3.4", "1.2.3")
    with pytest.raises(Rejected, match="does not exist"):
        find_labelmap(tmp_path / "none", "1.2.3.4", "1.2.3")


@pytest.mark.parametrize("uid", ["", "../1.2", "1/2", "1..2", "1.2.", "01.2", "1.2\n", "*", "1" * 65, "a"])
def test_what_is_no_uid_never_becomes_a_path(tmp_path: Path, uid: str) -> None:
    for series_uid, study_uid in ((uid, "1.2"), ("1.2", uid)):
        with pytest.raises(Rejected, match="is no UID"):
            find_labelmap(tmp_path, series_uid, study_uid)


SEVEN_ORGANS = """
rest = "other"
[labels]
liver = { label = 11, from = [1], segments = ["Liver"] }
lungs = { label = 12, from = [2, 3] }
heart = { label = 13, from = [4] }
kidneys = { label = 14, from = [5, 6] }
brain = { label = 15, from = [7] }
other = { label = 16 }
"""
FIVE_NETWORKS = {"liver": [11], "chest": [12, 13], "kidneys": [14], "brain": [15], "rest": [16]}


def five_networks(folder: Path, networks: Mapping[str, list[int]] = MappingProxyType(FIVE_NETWORKS)) -> ModelPackage:
    """A package of untrained networks for a partition that no code knows."""
    torch.manual_seed(0)
    covered = partition("five", networks)
    architecture = Architecture("unet", 2)
    save_package(
        folder,
        name="five",
        plan=Plan(spacing_mm=(6.0, 5.0, 4.5)),
        partition=covered,
        architecture=architecture,
        networks={name: build_network(architecture) for name in covered.networks},
        segmenter="labelmap",
        about={},
    )
    return load_package(folder)


def test_a_finer_partition_needs_a_label_map_a_table_and_a_package_and_no_code(tmp_path: Path) -> None:
    """Seven organs, five networks. Oracle: MONAI's sliding window over the CT of each network's labels alone."""
    (tmp_path / "organs.toml").write_text(SEVEN_ORGANS, "utf-8")
    organs = seven_organs(INSIDE)
    path = saved(tmp_path / "map.nii.gz", organs.astype(np.int16), GRID)
    segmenter = LabelmapSegmenter(path, read_label_table(tmp_path / "organs.toml"))
    package = five_networks(tmp_path / "package")
    pet = translate_ct(CT, package, segmenter, PipelineOptions())
    expected = np.array([16, 11, 12, 12, 13, 14, 14, 15], np.uint8)[organs]
    assert np.array_equal(pet.district_map.labels[INSIDE], expected[INSIDE])
    assert np.isfinite(pet.suv.array).all()
    assert (pet.suv.array[pet.districts == 0] == 0).all()
    ct = torch.from_numpy(ct_to_model(pet.ct.array, package.plan))[None, None]
    for name, labels in FIVE_NETWORKS.items():
        mask = np.isin(pet.districts, labels)
        with torch.inference_mode():
            alone = sliding_window_inference(
                ct * torch.from_numpy(mask), (32, 32, 32), 4, package.networks[name], overlap=0.5
            )
        suv = model_to_suv(alone[0, 0].numpy(), package.plan)
        assert mask.any()
        assert np.allclose(pet.suv.array[mask], suv[mask], atol=1e-3)


def test_an_organ_without_a_network_is_refused_by_the_name_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "organs.toml").write_text(SEVEN_ORGANS, "utf-8")
    path = saved(tmp_path / "map.nii.gz", seven_organs(INSIDE), GRID)
    segmenter = LabelmapSegmenter(path, read_label_table(tmp_path / "organs.toml"))
    without_heart = five_networks(tmp_path / "package", {**FIVE_NETWORKS, "chest": [12]})
    with pytest.raises(Rejected, match="The CT shows heart, which model 'five' cannot synthesise"):
        translate_ct(CT, without_heart, segmenter, PipelineOptions())
