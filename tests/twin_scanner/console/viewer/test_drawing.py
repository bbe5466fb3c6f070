"""The pixels of a slice: windows, scales, fusion, borders, and the words that it bears."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.samples.viewed_job import HOT_SUV, JOB_ID, write_viewed_job
from twin_scanner.console.viewer.drawing import Format, Look, Shown, Window, draw, encode
from twin_scanner.console.viewer.images import JobImages, job_files, read_images
from twin_scanner.console.viewer.planes import Plane, Sight, nearest_value

pytestmark = pytest.mark.unit
HEAD_COLOUR, TRUNK_COLOUR = (0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> JobImages:
    jobs = tmp_path_factory.mktemp("jobs")
    write_viewed_job(jobs)
    return read_images(job_files(jobs, JOB_ID), 1 << 30)


def _pixels(images: JobImages, look: Look, plane: Plane = Plane.AXIAL, place: int = 17) -> np.ndarray:
    return np.asarray(draw(images, Sight(plane, images.base), place, look))


def test_a_window_runs_from_black_to_white(images: JobImages) -> None:
    """PS3.3 C.11.2.1.2, linear exact: water is in the middle of a window around 0 HU, air below it, bone above."""
    pixels = _pixels(images, Look(Shown.CT, Window(0, 400)))
    sight = Sight(Plane.AXIAL, images.base)
    hu: dict[int, list[np.ndarray]] = {value: [] for value in (-1000, 0, 1000)}
    for row, column in ((100, 20), (100, 96), (100, 300)):
        hu[int(nearest_value(images.ct, sight.position_lps_mm(17, row, column)))].append(pixels[row, column])
    assert all(hu.values())
    assert all(tuple(p) == (0, 0, 0) for p in hu[-1000])
    assert all(abs(int(p[0]) - 127) <= 1 for p in hu[0])
    assert all(tuple(p) == (255, 255, 255) for p in hu[1000])


def test_a_hot_voxel_is_black_in_the_pet_and_coloured_in_the_fusion(images: JobImages) -> None:
    row, column = 100, 300
    assert nearest_value(images.pet, Sight(Plane.AXIAL, images.base).position_lps_mm(17, row, column)) == HOT_SUV
    assert tuple(_pixels(images, Look(Shown.PET, suv_max=HOT_SUV))[row, column]) == (0, 0, 0)
    fused = _pixels(images, Look(Shown.FUSED, suv_max=2 * HOT_SUV, opacity=1.0))[row, column]
    assert fused[0] > fused[1] > fused[2]
    without = _pixels(images, Look(Shown.FUSED, opacity=0.0))
    ct = _pixels(images, Look(Shown.CT))
    assert np.array_equal(without[:320], ct[:320])  # above the words, which say what is shown


def test_borders_have_the_colours_of_their_districts(images: JobImages) -> None:
    plain, bordered = (_pixels(images, Look(Shown.CT, borders=on), Plane.CORONAL, 12) for on in (False, True))
    changed = {tuple(int(part) for part in pixel) for pixel in bordered[(plain != bordered).any(axis=-1)]}
    assert changed == {HEAD_COLOUR, TRUNK_COLOUR}
    head = np.nonzero((bordered == HEAD_COLOUR).all(axis=-1))[0]
    trunk = np.nonzero((bordered == TRUNK_COLOUR).all(axis=-1))[0]
    assert head.mean() < trunk.mean()  # the head is up


def test_every_picture_bears_the_warning(images: JobImages) -> None:
    """The words are drawn in their own colour: no pixel of a grey picture has it otherwise."""
    for shown, ink in ((Shown.PET, (130, 0, 0)), (Shown.FUSED, (255, 214, 102)), (Shown.CT, (255, 214, 102))):
        pixels = _pixels(images, Look(shown, opacity=0.0))
        rows = np.nonzero((pixels == ink).all(axis=-1))[0]
        assert (rows > pixels.shape[0] - 16).sum() > 300


def test_what_was_trained_on_phantoms_says_so(images: JobImages) -> None:
    phantom = replace(images, phantom_only=True)
    assert not np.array_equal(_pixels(images, Look(Shown.PET))[-16:], _pixels(phantom, Look(Shown.PET))[-16:])


def test_without_a_ct_the_pet_is_shown(images: JobImages) -> None:
    cleared = replace(images, ct=None)
    assert np.array_equal(_pixels(cleared, Look(Shown.FUSED)), _pixels(cleared, Look(Shown.PET)))


def test_png_keeps_every_pixel_and_jpeg_is_a_jpeg(images: JobImages) -> None:
    picture = draw(images, Sight(Plane.AXIAL, images.base), 17, Look())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode(picture, Format.PNG)))), np.asarray(picture))
    assert Image.open(io.BytesIO(encode(picture, Format.JPEG))).format == "JPEG"


def test_a_window_of_any_width_and_scale_gives_pixels(images: JobImages, tmp_path: Path) -> None:
    for look in (Look(window=Window(-2000, 1)), Look(suv_max=0.1), Look(Shown.PET, suv_max=100)):
        assert _pixels(images, look).shape[2] == 3
