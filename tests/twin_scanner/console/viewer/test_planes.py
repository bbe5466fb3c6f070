"""Planes of an asymmetric phantom: how they are seen, how long a millimetre is, which voxel lies under a pixel."""

from dataclasses import replace

import numpy as np
import pytest

from tests.samples.viewed_job import AIR, BONE_HU, CT_GRID, HOT_SUV, JOB_ID, PET_GRID, write_viewed_job
from twin_scanner.console.viewer.images import JobImages, Voxels, job_files, read_images
from twin_scanner.console.viewer.planes import LARGEST_EDGE_PX, SMALLEST_EDGE_PX, Edges, Plane, Sight, nearest_value

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module", params=["supine", "prone"])
def images(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> JobImages:
    jobs = tmp_path_factory.mktemp("jobs")
    write_viewed_job(jobs, prone=request.param == "prone")
    return read_images(job_files(jobs, JOB_ID), 1 << 30)


def _centre(mask: np.ndarray) -> tuple[float, float]:
    """Where a part of a picture lies, 0 to 1 from its top and from its left."""
    row, column = (np.mean(place) for place in np.nonzero(mask))
    return float(row / mask.shape[0]), float(column / mask.shape[1])


def test_the_patients_right_is_on_the_left_of_axial_and_coronal_pictures(images: JobImages) -> None:
    for plane in (Plane.AXIAL, Plane.CORONAL):
        sight = Sight(plane, images.base)
        bone = sight.nearest(images.ct, sight.count // 2) == BONE_HU
        assert _centre(bone)[1] < 0.25
        assert (sight.edges.left, sight.edges.right) == ("R", "L")


def test_the_front_is_up_in_axial_and_left_in_sagittal_pictures(images: JobImages) -> None:
    place = CT_GRID.shape[0] * 7 // 8
    axial, sagittal = Sight(Plane.AXIAL, images.base), Sight(Plane.SAGITTAL, images.base)
    assert _centre(axial.nearest(images.pet, place) == HOT_SUV)[0] < 0.5
    assert (axial.edges.top, axial.edges.bottom) == ("A", "P")
    assert _centre(sagittal.nearest(images.pet, sagittal.count * 5 // 8) == HOT_SUV)[1] < 0.5
    assert (sagittal.edges.left, sagittal.edges.right) == ("A", "P")


def test_the_head_is_up_in_coronal_and_sagittal_pictures(images: JobImages) -> None:
    for plane, part in ((Plane.CORONAL, 0.4), (Plane.SAGITTAL, 0.625)):
        sight = Sight(plane, images.base)
        assert _centre(sight.nearest(images.pet, int(sight.count * part)) == HOT_SUV)[0] < 0.3
        assert (sight.edges.top, sight.edges.bottom) == ("H", "F")


def test_a_slanted_axis_has_the_letters_of_both_directions() -> None:
    tilt = np.deg2rad(20)
    row, column = (np.cos(tilt), np.sin(tilt), 0.0), (-np.sin(tilt), np.cos(tilt), 0.0)
    grid = replace(CT_GRID, direction=((0.0, 0.0, 1.0), column, row))
    assert Sight(Plane.AXIAL, grid).edges == Edges("RA", "LP", "AL", "PR")


def test_pixels_are_square_and_a_picture_is_as_long_as_the_patient() -> None:
    for plane, (rows_mm, columns_mm) in {
        Plane.AXIAL: (48.0, 72.0),
        Plane.CORONAL: (60.0, 72.0),
        Plane.SAGITTAL: (60.0, 48.0),
    }.items():
        sight = Sight(plane, CT_GRID)
        rows, columns = sight.size_px
        assert (rows * sight.pixel_mm, columns * sight.pixel_mm) == pytest.approx((rows_mm, columns_mm), abs=0.1)
        assert max(rows, columns) == SMALLEST_EDGE_PX
    long = replace(CT_GRID, shape=(3000, 24, 48))
    assert max(Sight(Plane.CORONAL, long).size_px) == LARGEST_EDGE_PX


def test_an_axial_slice_in_its_own_pixels_has_the_values_of_the_file() -> None:
    square = replace(CT_GRID, shape=(9, 40, 512), spacing_mm=(3.0, 0.9, 0.9))
    values = np.arange(np.prod(square.shape), dtype=np.int16).reshape(square.shape)
    assert Sight(Plane.AXIAL, square).size_px == (40, 512)
    sight = Sight(Plane.AXIAL, square)
    assert np.array_equal(sight.linear(Voxels(values, square), 7, outside=AIR), values[7])


def test_the_pet_lies_over_the_ct_where_it_was_measured(images: JobImages) -> None:
    """The oracle is the position in the patient: each pixel's own, by Geometry alone."""
    for plane in Plane:
        sight = Sight(plane, images.base)
        place = sight.count * 5 // 8
        picture = sight.nearest(images.pet, place)
        rows, columns = sight.size_px
        for row in range(2, rows, 61):
            for column in range(1, columns, 47):
                position = sight.position_lps_mm(place, row, column)
                index = np.linalg.inv(PET_GRID.affine) @ [*position, 1.0]
                if np.abs(index[:3] % 1 - 0.5).min() < 1e-6:
                    continue  # on the border of two voxels
                assert picture[row, column] == nearest_value(images.pet, position)


def test_a_linear_pet_is_interpolated_exactly_and_ends_where_it_ends() -> None:
    d, h, w = np.indices(PET_GRID.shape, dtype=np.float32)
    sight = Sight(Plane.AXIAL, CT_GRID)
    ramp = Voxels(d + 2 * h + 3 * w, PET_GRID)
    picture = sight.linear(ramp, 10, outside=-1.0)
    rows, columns = sight.size_px
    for row, column in ((60, 60), (rows - 60, columns - 60), (90, 200)):
        index = np.linalg.inv(PET_GRID.affine) @ [*sight.position_lps_mm(10, row, column), 1.0]
        assert picture[row, column] == pytest.approx(float(index[:3] @ [1, 2, 3]), abs=1e-3)
    small = Voxels(ramp.array[:, :, :8].copy(), replace(PET_GRID, shape=(*PET_GRID.shape[:2], 8)))
    picture = sight.linear(small, 10, outside=-1.0)
    assert (picture[:, columns // 2 :] == -1.0).all()
    assert (picture[:, : columns // 3] >= 0).all()


def test_no_voxel_lies_outside_of_an_image() -> None:
    pet = Voxels(np.ones(PET_GRID.shape, np.float32), PET_GRID)
    assert nearest_value(pet, PET_GRID.origin_lps_mm) == 1.0
    assert nearest_value(pet, (-500.0, 0.0, 120.0)) is None
