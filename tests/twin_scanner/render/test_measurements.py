"""What is measured in each district, on arrays whose volumes and SUV are known."""

from dataclasses import replace

import numpy as np
import pytest

from twin_scanner.dicom.body_parts import BODY_PARTS
from twin_scanner.districts.district_map import DistrictMap, PartQuality
from twin_scanner.imaging.suv import region_suv
from twin_scanner.imaging.volume import Geometry, Volume
from twin_scanner.render.measurements import district_values, measurements, shown_body_part
from twin_scanner.synthesis.pipeline import SyntheticPet

pytestmark = pytest.mark.unit

CT_GRID = Geometry((8, 10, 10), (5.0, 10.0, 10.0), (0.0, 0.0, 0.0))
HEAD = PartQuality("head", "whole", "found", 0.9)
LEFT_ARM = PartQuality("left arm", "cut", "found", 0.8)


def pet(missing: tuple[str, ...] = ()) -> SyntheticPet:
    """Head above (SUV 3), trunk below (SUV 1), on one grid: each has 400 voxels of 0.5 ml."""
    labels = np.full(CT_GRID.shape, 2, np.uint8)
    labels[4:] = 1
    suv = np.where(labels == 1, np.float32(3), np.float32(1))
    ct = Volume(np.zeros(CT_GRID.shape, np.float32), CT_GRID)
    districts = DistrictMap(labels, CT_GRID, "known", "0" * 64, quality=(HEAD, LEFT_ARM))
    return SyntheticPet(Volume(suv, CT_GRID), ct, labels, districts, missing, "uniform")


def test_each_district_has_its_volume_and_its_suv() -> None:
    made = pet()
    values = district_values(made, region_suv(made.suv, made.districts))
    assert {name: (one["volume_ml"], one["suv_mean"], one["suv_max"]) for name, one in values.items()} == {
        "head": (200.0, 3.0, 3.0),
        "trunk": (200.0, 1.0, 1.0),
    }


def test_a_district_that_was_not_synthesised_has_its_volume_alone() -> None:
    made = pet(missing=("head",))
    values = district_values(made, region_suv(made.suv, made.districts))
    assert values["head"] == {"volume_ml": 200.0} and values["trunk"]["suv_mean"] == 1.0


def test_the_trunk_bears_all_remarks_beside_one_of_its_own() -> None:
    lungs = PartQuality("trunk", "cut", "found", 0.8, "A lung is cut.")
    plain = pet()
    made = replace(plain, district_map=replace(plain.district_map, quality=(lungs, HEAD)))
    remarks = {one.name: one.remark for one in measurements(made, region_suv(made.suv, made.districts))}
    assert remarks == {"head": HEAD.sentence(), "trunk": f"{lungs.sentence()} {HEAD.sentence()}"}


def test_a_district_bears_the_remarks_of_its_own_parts_and_the_trunk_those_of_all() -> None:
    made = pet()
    remarks = {one.name: one.remark for one in measurements(made, region_suv(made.suv, made.districts))}
    assert remarks == {"head": HEAD.sentence(), "trunk": f"{HEAD.sentence()} {LEFT_ARM.sentence()}"}


def shown(rows: str, own: str = "", slice_mm: float = 50.0) -> str:
    """What a CT shows whose slices, from the feet up, hold these districts: h(ead), t(runk), a(rms), l(egs)."""
    grid = Geometry((len(rows), 2, 2), (slice_mm, 10.0, 10.0), (0.0, 0.0, 0.0))
    labels = np.zeros(grid.shape, np.uint8)
    for place, row in enumerate(rows):
        labels[place] = " htal".index(row)
    return shown_body_part(DistrictMap(labels, grid, "known", "0" * 64), own)


@pytest.mark.parametrize(
    ("rows", "own", "part"),
    [
        (" lllltttttttttttttthhh ", "CHEST", "WHOLEBODY"),
        ("lllltttttttttttttthh", "CHEST", "NECKCHESTABDPELV"),
        ("ltttttttttttttt", "", "CHESTABDPELVIS"),
        ("lttttttttt", "", "ABDOMENPELVIS"),
        ("ltttttt", "", "PELVIS"),
        ("ttttttttttttthh", "", "NECKCHESTABDOMEN"),
        ("ttttttttthh", "", "NECKCHEST"),
        ("tthhh", "", "HEADNECK"),
        ("hhh", "WHOLEBODY", "HEAD"),
        ("lll", "KNEE", "EXTREMITY"),
        ("tttttttttttt", "", "CHESTABDPELVIS"),
        ("ttttttt", "ABDOMEN", "ABDOMEN"),
        ("ttttttt", "HEAD", ""),
    ],
)
def test_the_body_part_is_what_the_ct_shows_and_no_more(rows: str, own: str, part: str) -> None:
    assert shown(rows, own) == part
    assert part == "" or part in BODY_PARTS


def test_finer_regions_leave_the_headers_word() -> None:
    grid = Geometry((2, 2, 2), (50.0, 10.0, 10.0), (0.0, 0.0, 0.0))
    districts = DistrictMap(np.ones(grid.shape, np.uint8), grid, "organs", "0" * 64, names={1: "liver"})
    assert shown_body_part(districts, "ABDOMEN") == "ABDOMEN"


def test_the_volume_has_the_digits_of_the_measurement_report() -> None:
    made = pet()
    grid = replace(CT_GRID, spacing_mm=(5.0, 10.0, 10.0012))
    made = replace(made, district_map=replace(made.district_map, geometry=grid))
    assert district_values(made, region_suv(made.suv, made.districts))["head"]["volume_ml"] == 200.024
