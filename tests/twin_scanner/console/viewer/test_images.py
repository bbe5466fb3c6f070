"""What a finished job has to show, and what it says of what was cleared."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.samples.viewed_job import CT_GRID, JOB_ID, hounsfield, suv, write_viewed_job
from twin_scanner.console.viewer import images as module
from twin_scanner.console.viewer.images import job_files, read_images
from twin_scanner.console.viewer.memory import ImageMemory
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.unit
ENOUGH = 1 << 30


def test_the_voxels_of_a_job_are_those_of_its_files(tmp_path: Path) -> None:
    write_viewed_job(tmp_path)
    images = read_images(job_files(tmp_path, JOB_ID), ENOUGH)
    assert images.ct is not None
    assert images.ct.geometry.same_grid(CT_GRID)
    assert images.ct.array.dtype == np.int16
    assert np.array_equal(images.ct.array, hounsfield())
    assert np.allclose(images.pet.array, suv())
    assert images.names == {1: "head", 2: "trunk"}
    assert images.remarks == ()


def test_a_cleared_ct_is_named_and_the_pet_is_shown(tmp_path: Path) -> None:
    shutil.rmtree(write_viewed_job(tmp_path) / "ct")
    images = read_images(job_files(tmp_path, JOB_ID), ENOUGH)
    assert images.ct is None
    assert images.remarks == (module.CT_CLEARED,)
    assert images.base is images.pet.geometry


def test_a_ct_that_is_larger_than_the_memory_is_left_out(tmp_path: Path) -> None:
    write_viewed_job(tmp_path)
    images = read_images(job_files(tmp_path, JOB_ID), 4 * CT_GRID.shape[0] * CT_GRID.shape[1] * CT_GRID.shape[2] - 1)
    assert images.remarks == (module.CT_TOO_LARGE,)


def test_a_damaged_ct_is_named_and_the_pet_is_shown(tmp_path: Path) -> None:
    next((write_viewed_job(tmp_path) / "ct").rglob("010.dcm")).write_bytes(b"no DICOM")
    assert read_images(job_files(tmp_path, JOB_ID), ENOUGH).remarks == (module.NO_CT_FILES,)


@pytest.mark.parametrize(
    "job_id", ["..", "../0123456789abcdef0123456789abcde", "", "a" * 33, "A" * 32, "a" * 31 + "\n"]
)
def test_what_is_no_jobs_id_leads_nowhere(tmp_path: Path, job_id: str) -> None:
    with pytest.raises(Rejected):
        job_files(tmp_path, job_id)


def test_images_are_read_once_and_no_more_than_the_bound_is_kept(tmp_path: Path) -> None:
    ids = [f"{number:032x}" for number in range(3)]
    write_viewed_job(tmp_path, ids[0])
    for job_id in ids[1:]:
        shutil.copytree(tmp_path / ids[0], tmp_path / job_id)
    one = read_images(job_files(tmp_path, ids[0]), ENOUGH).size_bytes
    memory = ImageMemory(most_bytes=2 * one + 1)
    first = memory.images(job_files(tmp_path, ids[0]))
    assert memory.images(job_files(tmp_path, ids[0])) is first
    for job_id in ids[1:]:
        memory.images(job_files(tmp_path, job_id))
    assert memory.size_bytes == 2 * one
    assert memory.images(job_files(tmp_path, ids[0])) is not first


def test_what_was_cleared_is_not_given_from_memory(tmp_path: Path) -> None:
    folder = write_viewed_job(tmp_path)
    memory, files = ImageMemory(), job_files(tmp_path, JOB_ID)
    assert memory.images(files).ct is not None
    shutil.rmtree(folder / "ct")
    assert memory.images(files).ct is None
    shutil.rmtree(folder)
    with pytest.raises(Rejected, match="cleared by retention"):
        memory.images(files)
    assert memory.size_bytes == 0
