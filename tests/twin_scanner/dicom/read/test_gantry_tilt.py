"""A CT sheared by a tilted gantry: refused, or put upright by one resampling that is named; oracles: formula, ITK."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from tests.samples import ct_files
from tests.samples.ct_files import COLUMNS, ROWS, SPACING_MM, write_series
from twin_scanner.dicom.read.ct_headers import ct_slice
from twin_scanner.dicom.read.ct_series import CtSeries, read_ct_series
from twin_scanner.dicom.read.gantry_tilt import upright_slice
from twin_scanner.dicom.read.hounsfield import hounsfield_slice
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.dicom.read.series_choice import choose_series
from twin_scanner.dicom.read.slice_grid import stacked
from twin_scanner.errors import Rejected
from twin_scanner.imaging.volume import AIR_HU, Geometry, to_sitk

pytestmark = pytest.mark.unit

SLOPE = 0.05
"""HU a step: the formula's values survive as stored integers."""
Axes = tuple[tuple[float, float, float], tuple[float, float, float]]
Positions = Callable[[int], npt.NDArray[np.float64]]


def turned(degrees: float) -> Axes:
    """Rows along x, columns leaning about x as those of a tilted gantry do."""
    angle = math.radians(degrees)
    return (1.0, 0.0, 0.0), (0.0, math.cos(angle), -math.sin(angle))


def table(step_mm: float) -> Positions:
    """The table moves along z, whatever the gantry's tilt: so GE, Siemens and Philips write it."""
    return lambda index: np.array([-100.0, -120.0, 50.0 + index * step_mm])


def sheared(degrees: float, sideways: float = 0.0) -> Positions:
    """Level slices, each shifted within its plane."""
    slant = 3.0 * math.tan(math.radians(degrees))
    return lambda index: np.array([-100.0 + sideways * index, -120.0 + slant * index, 50.0 + 3.0 * index])


OBLIQUE = np.linalg.qr(np.array([[1.0, 0.2, -0.1], [-0.15, 1.0, 0.25], [0.1, -0.2, 1.0]]))[0]
OBLIQUE *= np.sign(np.diag(OBLIQUE))[None, :]


def oblique(index: int) -> npt.NDArray[np.float64]:
    """A head that was angled, and a shear along rows and columns: no axis of it is the patient's."""
    row, column, _ = OBLIQUE.T
    return np.array([-100.0, -120.0, 50.0]) + index * (3.0 * np.cross(row, column) + 0.5 * row - 0.8 * column)


SERIES: dict[str, tuple[Axes, Positions, float]] = {
    "the gantry leans back": (turned(15.0), table(3.0), 15.0),
    "the gantry leans forward": (turned(-15.0), table(3.0), 15.0),
    "level slices shifted to the back": (ct_files.AXES, sheared(12.0), 12.0),
    "level slices shifted to the front": (ct_files.AXES, sheared(-12.0), 12.0),
    "level slices shifted to the front and aside": (
        ct_files.AXES,
        sheared(-12.0, sideways=0.4),
        math.degrees(math.atan(math.hypot(math.tan(math.radians(12)), 0.4 / 3.0))),
    ),
    "oblique planes": (
        (tuple(OBLIQUE.T[0]), tuple(OBLIQUE.T[1])),
        oblique,
        math.degrees(math.atan(math.hypot(0.5, 0.8) / 3.0)),
    ),
}


def anatomy(points_lps_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """HU that rise evenly through the patient, so that linear interpolation between any points is exact."""
    return points_lps_mm @ np.array([0.7, -1.3, 0.9]) + 20.0


def tilted(name: str, values: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]) -> ct_files.Change:
    """Slices of one of SERIES that show ``values`` of their pixels' places."""
    (row, column), place, _ = SERIES[name]

    def change(image: Dataset, index: int) -> None:
        rows, columns = np.mgrid[:ROWS, :COLUMNS]
        points = (
            place(index)
            + rows[..., None] * SPACING_MM[1] * np.asarray(column)
            + columns[..., None] * SPACING_MM[2] * np.asarray(row)
        )
        image.ImageOrientationPatient = [f"{value:.10f}" for value in (*row, *column)]
        image.ImagePositionPatient = [f"{value:.6f}" for value in place(index)]
        image.RescaleSlope = SLOPE
        image.PixelData = np.rint(values(points) / SLOPE).astype(np.int16).tobytes()

    return change


def read(folder: Path) -> CtSeries:
    """The series, its tilt resampled."""
    return read_ct_series(folder, gantry_tilt="resample")


def places(geometry: Geometry) -> npt.NDArray[np.float64]:
    """Where the voxels lie, (D, H, W, 3) in LPS mm, by the affine of PS3.3 C.7.6.2.1.1."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in geometry.shape), indexing="ij"), axis=-1)
    return np.asarray(index @ geometry.affine[:3, :3].T + geometry.affine[:3, 3])


@pytest.mark.parametrize("name", SERIES)
def test_every_voxel_of_the_upright_grid_shows_what_lies_there_in_the_patient(tmp_path: Path, name: str) -> None:
    """Oracle: the formula of the anatomy at the voxel's own place."""
    write_series(tmp_path, 20, tilted(name, anatomy))
    volume = read(tmp_path).volume
    seen = volume.array > AIR_HU
    assert seen.sum() >= 20 * (ROWS - 1) * (COLUMNS - 1)
    wrong = np.abs(volume.array - anatomy(places(volume.geometry)))[seen]
    assert wrong.max() < SLOPE


@pytest.mark.parametrize("name", SERIES)
def test_the_resampling_is_that_of_simpleitk_under_a_shear(tmp_path: Path, name: str) -> None:
    """Oracle: SimpleITK, linear, with an affine transform, on noise in which every error of a place shows."""
    rng = np.random.default_rng(5)
    write_series(tmp_path, 20, tilted(name, lambda points: rng.uniform(-900.0, 900.0, points.shape[:-1])))
    volume = read(tmp_path).volume
    files = [pydicom.dcmread(file) for file in sorted(tmp_path.iterdir())]
    files.sort(key=lambda image: float(np.dot(image.ImagePositionPatient, volume.geometry.direction[0])))
    array = np.stack([image.pixel_array * np.float32(SLOPE) for image in files]).astype(np.float32)
    first, last = (np.asarray(files[k].ImagePositionPatient, float) for k in (0, -1))
    normal = np.asarray(volume.geometry.direction[0])
    length = float((last - first) @ normal)
    slant = (last - first) / length - normal
    straight = Geometry(
        array.shape, (length / 19, *volume.geometry.spacing_mm[1:]), tuple(first), volume.geometry.direction
    )
    shear = sitk.AffineTransform(3)
    shear.SetMatrix((np.eye(3) - np.outer(slant, normal)).ravel().tolist())
    shear.SetTranslation((slant * (normal @ first)).tolist())
    image = sitk.Resample(
        to_sitk(array, straight), to_sitk(volume.array, volume.geometry), shear, sitk.sitkLinear, AIR_HU
    )
    expected = sitk.GetArrayFromImage(image)
    seen = (volume.array > AIR_HU) & (expected > AIR_HU)
    assert seen.sum() >= 20 * (ROWS - 1) * (COLUMNS - 1)
    assert np.abs(volume.array - expected)[seen].max() < 0.1


@pytest.mark.parametrize("name", SERIES)
def test_the_upright_grid_keeps_planes_spacing_and_frame_and_holds_every_pixel(tmp_path: Path, name: str) -> None:
    write_series(tmp_path, 20, tilted(name, anatomy))
    series = read(tmp_path)
    (row, column), place, _ = SERIES[name]
    geometry = series.volume.geometry
    assert np.allclose(geometry.direction, [np.cross(row, column), column, row], atol=1e-6)
    assert geometry.spacing_mm[1:] == SPACING_MM[1:]
    normal = np.cross(row, column)
    assert geometry.spacing_mm[0] == pytest.approx(abs((place(1) - place(0)) @ normal), abs=1e-5)
    assert str(series.header.FrameOfReferenceUID) == ct_files.FRAME_OF_REFERENCE_UID
    inverse = np.linalg.inv(geometry.affine)
    for index in (0, 19):
        corners = [
            place(index) + r * 1.1 * np.asarray(column) + c * 0.9 * np.asarray(row) for r in (0, 11) for c in (0, 9)
        ]
        found = np.array([(inverse @ [*corner, 1.0])[:3] for corner in corners])
        assert np.allclose(found[:, 0], index, atol=1e-4), "a slice stays in its plane, and its instance in its place"
        assert (found > -1e-4).all() and (found < np.array(geometry.shape) - 1 + 1e-4).all()
    assert series.sop_instance_uids == tuple(f"{ct_files.SERIES_UID}.{index + 1}" for index in range(20))


@pytest.mark.parametrize("name", SERIES)
def test_what_was_done_is_said_with_the_angle_and_the_grid(tmp_path: Path, name: str) -> None:
    write_series(tmp_path, 20, tilted(name, anatomy))
    series = read(tmp_path)
    slices, rows, columns = series.volume.geometry.shape
    assert f"tilted by {SERIES[name][2]:.1f} degrees: the CT was resampled (linear)" in series.derivation
    assert f"upright grid of {slices} x {rows} x {columns} voxels" in series.derivation
    assert series.set_aside == (series.derivation,)


@pytest.mark.parametrize("name", SERIES)
def test_a_tilt_is_rejected_unless_the_option_is_set_and_the_sentence_names_it(tmp_path: Path, name: str) -> None:
    write_series(tmp_path, 20, tilted(name, anatomy))
    with pytest.raises(Rejected, match=r'sheared by .* tilted gantry: .*, or set reading\.gantry_tilt to "resample"\.'):
        read_ct_series(tmp_path)


def test_the_order_of_the_files_and_of_the_scan_changes_nothing(tmp_path: Path) -> None:
    change = tilted("the gantry leans back", anatomy)
    write_series(tmp_path / "up", 20, change)
    write_series(tmp_path / "down", 20, lambda image, index: change(image, 19 - index))
    up, down = read(tmp_path / "up"), read(tmp_path / "down")
    assert up.volume.geometry.same_grid(down.volume.geometry)
    assert (up.volume.array == down.volume.array).all()


def test_a_straight_stack_is_left_as_it_is_with_the_option_too(tmp_path: Path) -> None:
    write_series(tmp_path, 20)
    plain, with_option = read_ct_series(tmp_path), read(tmp_path)
    assert (plain.volume.array == with_option.volume.array).all()
    assert plain.volume.geometry == with_option.volume.geometry
    assert (with_option.derivation, with_option.set_aside) == ("", ())


def _steep(image: Dataset, index: int) -> None:
    image.ImagePositionPatient = [-100.0, -120.0 + 2.6 * index, 50.0 + 3.0 * index]


def _contradicted(image: Dataset, index: int) -> None:
    tilted("the gantry leans back", anatomy)(image, index)
    image.GantryDetectorTilt = "-5"


def _shifted(image: Dataset, index: int) -> None:
    x, y, z = sheared(12.0)(index)
    image.ImagePositionPatient = [x, y + 2.0 * (index == 7), z]


def _uneven(image: Dataset, index: int) -> None:
    image.ImagePositionPatient = list(sheared(12.0)(index + (index > 9)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_steep, r"sheared by 40\.9 degrees .*, more than a gantry tilts \(35\)"),
        (_contradicted, r"sheared by 15\.0 degrees .*, but GantryDetectorTilt of .*InstanceNumber 1 is -5: correct"),
        (_shifted, r"InstanceNumber 8 lies .* mm beside the stack's line"),
        (_uneven, r"gap, 1 slice missing: 6\.00 mm from .*InstanceNumber 10 .*InstanceNumber 11"),
    ],
)
def test_what_is_no_gantrys_tilt_is_rejected_with_the_option_too(
    tmp_path: Path, change: ct_files.Change, sentence: str
) -> None:
    write_series(tmp_path, 20, change)
    with pytest.raises(Rejected, match=sentence):
        read(tmp_path)


@pytest.mark.parametrize("said", ["15", "-15", "14.5", "0", ""])
def test_a_header_that_names_the_angle_with_either_sign_or_not_at_all_is_believed(tmp_path: Path, said: str) -> None:
    change = tilted("the gantry leans back", anatomy)

    def with_header(image: Dataset, index: int) -> None:
        change(image, index)
        image.GantryDetectorTilt = said

    write_series(tmp_path, 20, with_header)
    assert read(tmp_path).derivation


def test_a_tilted_series_can_be_chosen_only_with_the_option_and_after_a_straight_one(tmp_path: Path) -> None:
    change = tilted("level slices shifted to the back", anatomy)
    write_series(tmp_path, 20, change, name="tilted", SeriesInstanceUID="2.25.10")
    files, preference = list(tmp_path.iterdir()), Preference(minimum_coverage_mm=40.0)
    assert choose_series(files, preference)[0].series_uid is None
    assert choose_series(files, preference, gantry_tilt="resample")[0].series_uid == "2.25.10"
    write_series(tmp_path, 20, name="straight", SeriesInstanceUID="2.25.20")
    (choice,) = choose_series(list(tmp_path.iterdir()), preference, gantry_tilt="resample")
    assert choice.series_uid == "2.25.20"
    assert choice.skipped == (("2.25.10", "Series 2.25.20 was preferred: its gantry was not tilted, this one's was."),)


def test_the_first_half_of_a_real_tilted_head_becomes_upright(shared_data: Path) -> None:
    """Oracle: SimpleITK slice by slice. Its other half has another spacing, so the whole stays rejected."""
    with pytest.raises(Rejected, match="unevenly spaced"):
        read(shared_data / "head_gantry_tilt")
    files = sorted((shared_data / "head_gantry_tilt").iterdir())[:14:6]
    headers = [pydicom.dcmread(file) for file in files]
    stack = stacked([ct_slice(header, file) for header, file in zip(headers, files, strict=True)], 1, "resample")
    assert stack.tilt is not None and re.search(r"tilted by 18\.5 degrees", stack.tilt.sentence())
    whole = to_sitk(np.zeros(stack.geometry.shape, np.float32), stack.geometry)
    for place, header in enumerate(headers):
        hounsfield = hounsfield_slice(header)
        made = upright_slice(hounsfield, stack.tilt, place)
        row, column = np.split(np.asarray(header.ImageOrientationPatient, float), 2)
        axes = tuple(tuple(axis) for axis in (np.cross(row, column), column, row))
        spacing = (1.0, *(float(mm) for mm in header.PixelSpacing))
        own = Geometry((1, *hounsfield.shape), spacing, tuple(float(x) for x in header.ImagePositionPatient), axes)  # type: ignore[arg-type]
        theirs = sitk.Resample(
            to_sitk(hounsfield[None], own), whole[:, :, place : place + 1], sitk.Transform(), sitk.sitkLinear, AIR_HU
        )
        expected = sitk.GetArrayFromImage(theirs)[0]
        inside = made > AIR_HU
        assert np.abs(made - expected)[inside].max() < 0.5
        assert inside.sum() > 0.2 * inside.size
