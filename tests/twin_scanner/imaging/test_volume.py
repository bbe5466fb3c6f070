"""Geometry and resampling; the oracles are SimpleITK, nibabel's convention by hand, and round trips."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import (
    FEW_LABELS,
    Geometry,
    Volume,
    geometry_of,
    label_counts,
    read_nifti,
    read_nifti_labels,
    resample,
    resample_labels,
    to_sitk,
    write_nifti,
)

pytestmark = pytest.mark.unit

ANGLE = np.deg2rad(12.0)
OBLIQUE = (
    (0.0, -float(np.sin(ANGLE)), float(np.cos(ANGLE))),
    (0.0, float(np.cos(ANGLE)), float(np.sin(ANGLE))),
    (1.0, 0.0, 0.0),
)
GRID = Geometry((20, 24, 28), (3.0, 0.9, 1.1), (-12.5, 7.25, 100.0), OBLIQUE)


def gradient(geometry: Geometry) -> Volume:
    """A field that is linear in LPS, which trilinear resampling must reproduce exactly."""
    index = np.stack([*np.indices(geometry.shape), np.ones(geometry.shape)])
    x, y, z = np.tensordot(geometry.affine, index, axes=1)[:3]
    return Volume((2 * x - 3 * y + 0.5 * z).astype(np.float32), geometry)


def test_the_affine_is_the_one_that_simpleitk_has() -> None:
    image = to_sitk(np.zeros(GRID.shape, np.float32), GRID)
    for index in ((0, 0, 0), (3, 5, 7), (19, 23, 27)):
        expected = image.TransformContinuousIndexToPhysicalPoint([float(i) for i in reversed(index)])
        assert GRID.position_lps_mm((float(index[0]), float(index[1]), float(index[2]))) == pytest.approx(expected)
    assert geometry_of(image).same_grid(GRID)


def test_another_spacing_keeps_the_centre_and_the_field_of_view_within_half_a_voxel() -> None:
    other = GRID.with_spacing((3.0, 2.04, 2.04))
    assert other.shape == (20, 11, 15)
    centres = [g.position_lps_mm(tuple((n - 1) / 2 for n in g.shape)) for g in (GRID, other)]  # type: ignore[arg-type]
    assert centres[0] == pytest.approx(centres[1])
    for old, new, spacing in zip(GRID.extent_mm, other.extent_mm, other.spacing_mm, strict=True):
        assert abs(old - new) <= spacing / 2


def test_resampling_a_linear_field_gives_the_field_on_the_new_grid() -> None:
    other = GRID.with_spacing((2.5, 1.3, 1.7)).cropped((slice(2, 20), slice(2, 14), slice(2, 15)))
    got = resample(gradient(GRID), other, outside=-1024.0)
    assert np.abs(got.array - gradient(other).array).max() < 1e-2


def test_a_grid_is_continued_by_its_own_voxels_over_another_field_of_view() -> None:
    """Oracle: every voxel of a far larger lattice, kept where its centre lies in the other's extent."""
    other = Geometry((9, 14, 11), (2.3, 1.1, 1.7), (-3.0, 4.0, 7.0), GRID.direction)
    lattice = Geometry((4, 5, 6), (1.5, 2.5, 1.25), (-1.0, 2.5, 9.0), GRID.direction)
    continued = lattice.continued_over(other)
    wide = np.stack(np.meshgrid(*[np.arange(-30, 30)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = np.c_[wide, np.ones(len(wide))] @ (np.linalg.inv(other.affine) @ lattice.affine).T
    inside = wide[((positions[:, :3] >= -0.5) & (positions[:, :3] <= np.array(other.shape) - 0.5)).all(axis=1)]
    low, high = inside.min(axis=0), inside.max(axis=0)
    assert continued.shape == tuple(high - low + 1) and len(inside) == np.prod(continued.shape)
    assert continued.spacing_mm == lattice.spacing_mm
    assert continued.position_lps_mm((0, 0, 0)) == pytest.approx(lattice.position_lps_mm(tuple(low)))
    assert GRID.continued_over(GRID).same_grid(GRID)
    assert GRID.cropped((slice(3, 5), slice(2, 4), slice(1, 7))).continued_over(GRID).same_grid(GRID)


def test_nearest_neighbours_on_the_own_lattice_are_the_voxels_themselves() -> None:
    random = np.random.default_rng(0)
    volume = Volume(random.normal(size=GRID.shape).astype(np.float32), GRID)
    shifted = GRID.cropped((slice(2, 20), slice(5, 10), slice(0, 7)))
    np.testing.assert_array_equal(resample(volume, shifted, 0.0, "nearest").array, volume.array[2:20, 5:10, 0:7])
    around = replace(GRID, shape=(GRID.shape[0] + 3, *GRID.shape[1:]), origin_lps_mm=GRID.position_lps_mm((-1, 0, 0)))
    wider = resample(volume, around, float("nan"), "nearest").array
    assert np.isnan(wider[0]).all() and np.isnan(wider[-2:]).all()
    np.testing.assert_array_equal(wider[1:-2], volume.array)


def test_what_lies_outside_the_field_of_view_gets_the_given_value() -> None:
    beside = Geometry((4, 4, 4), (1.0, 1.0, 1.0), (5000.0, 0.0, 0.0))
    assert (resample(gradient(GRID), beside, outside=-1024.0).array == -1024.0).all()
    assert (resample_labels(np.ones(GRID.shape, np.uint8), GRID, beside) == 0).all()


def test_the_same_grid_is_handed_on_untouched() -> None:
    volume = gradient(GRID)
    assert resample(volume, GRID, outside=0.0).array is volume.array


@pytest.mark.parametrize("order", ["LPS", "RAS", "RPI", "PIL", "SAR"])
def test_canonical_axes_hold_the_same_voxels_at_the_same_places(order: str) -> None:
    volume = gradient(GRID)
    turned = sitk.DICOMOrient(to_sitk(volume.array, GRID), order)
    upright = Volume(sitk.GetArrayFromImage(turned), geometry_of(turned)).canonical()
    assert upright.geometry.same_grid(GRID)
    assert np.array_equal(upright.array, volume.array)


def test_cropping_moves_the_origin_with_the_voxels() -> None:
    box = (slice(3, 9), slice(1, 20), slice(5, 6))
    part = gradient(GRID).cropped(box)
    assert np.allclose(part.array, gradient(part.geometry).array, atol=1e-3)


def test_nifti_round_trip_keeps_values_and_places(tmp_path: Path) -> None:
    volume = gradient(GRID)
    write_nifti(tmp_path / "a" / "x.nii.gz", volume.array, GRID)
    back = read_nifti(tmp_path / "a" / "x.nii.gz")
    assert np.array_equal(back.array, volume.array)
    assert back.geometry.same_grid(GRID)


def test_a_label_map_with_other_values_is_rejected(tmp_path: Path) -> None:
    write_nifti(tmp_path / "l.nii.gz", np.full((3, 3, 3), 1.5, np.float32), Geometry((3, 3, 3), (1, 1, 1), (0, 0, 0)))
    with pytest.raises(Rejected, match=r"l.nii.gz is not a label map"):
        read_nifti_labels(tmp_path / "l.nii.gz")


def test_a_file_that_is_no_nifti_is_rejected_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.nii.gz").write_bytes(b"no image")
    with pytest.raises(Rejected, match=r"x.nii.gz cannot be read as NIfTI"):
        read_nifti(tmp_path / "x.nii.gz")
    with pytest.raises(Rejected, match="does not exist"):
        read_nifti(tmp_path / "y.nii.gz")


def test_axes_that_are_not_at_right_angles_are_rejected() -> None:
    with pytest.raises(Rejected, match="right angles"):
        Geometry((2, 2, 2), (1, 1, 1), (0, 0, 0), ((0.0, 0.3, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)))


def test_a_volume_refuses_another_shape_or_type() -> None:
    with pytest.raises(ValueError, match="does not lie on the grid"):
        Volume(np.zeros((1, 2, 3), np.float32), GRID)
    with pytest.raises(ValueError, match="float32"):
        Volume(np.zeros(GRID.shape), GRID)  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(*[st.floats(0.4, 8.0)] * 3),
    st.tuples(*[st.floats(0.4, 8.0)] * 3),
)
def test_any_two_spacings_share_their_centre(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], other: tuple[float, float, float]
) -> None:
    grid = Geometry(shape, spacing, (1.0, -2.0, 3.0), OBLIQUE)
    new = grid.with_spacing(other)
    centres = [g.position_lps_mm(tuple((n - 1) / 2 for n in g.shape)) for g in (grid, new)]  # type: ignore[arg-type]
    assert centres[0] == pytest.approx(centres[1], abs=1e-6)


@pytest.mark.parametrize("highest", [0, 1, FEW_LABELS, FEW_LABELS + 1, 255])
def test_labels_are_counted_as_bincount_counts_them(highest: int) -> None:
    labels = np.random.default_rng(highest).integers(0, highest + 1, (3, 16, 17)).astype(np.uint8)
    labels[0] = 0
    assert (label_counts(labels) == np.bincount(labels.ravel(), minlength=256)).all()
