"""What a finished job has to show: its CT, its PET and its districts in one axis order, and what was cleared."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom import dcmread

from twin_scanner.console.job_id import is_job_id
from twin_scanner.dicom.read.ct_series import read_ct_series
from twin_scanner.errors import Rejected, Transient
from twin_scanner.imaging.district_labels import DISTRICT_NAMES
from twin_scanner.imaging.volume import Geometry, Volume, canonical_labels, label_counts, read_nifti, read_nifti_labels
from twin_scanner.imaging.volume import resample as resampled
from twin_scanner.render.report import REPORT, RenderReport, read_report

PET_FILE: Final = "pet.nii.gz"
DISTRICTS_FILE: Final = "districts.nii.gz"
CLEARED: Final = "The images of this job were cleared by retention: its report and its record remain."
CT_CLEARED: Final = "The CT was cleared by retention: the PET and the districts remain."
CT_TOO_LARGE: Final = "The CT is larger than the viewer's memory: the PET and the districts are shown without it."
NO_CT_FILES: Final = "The CT cannot be read any more: the PET and the districts are shown without it."
SAME_AXIS: Final = 1e-3
"""Cosines within it are one axis: over a metre, two grids then part by a millimetre, less than a voxel of the PET."""


@dataclass(frozen=True, eq=False)
class Voxels:
    """An image (D, H, W) of any type of number on its grid, in canonical axes: to the head, the back and the left."""

    array: npt.NDArray[np.generic]
    geometry: Geometry


@dataclass(frozen=True)
class JobFiles:
    """Where a job's images lie: ``result`` has the PET's and the districts' files, ``ct`` the CT series' folder."""

    result: Path
    ct: Path

    def stamp(self) -> tuple[int, bool] | None:
        """What changes where files were cleared or made again; None where there is no result (any more)."""
        try:
            written = (self.result / REPORT).stat().st_mtime_ns
            (self.result / PET_FILE).stat()
        except OSError:
            return None
        return written, self.ct.is_dir()


@dataclass(frozen=True, eq=False)
class JobImages:
    """The images of one job; ``ct`` in HU is None where it was cleared, ``pet`` is SUV (g/ml), ``districts`` labels.

    All have the same axes. ``remarks`` are sentences on what is not shown, and why.
    """

    pet: Voxels
    districts: Voxels
    ct: Voxels | None
    names: Mapping[int, str]
    phantom_only: bool
    remarks: tuple[str, ...]

    @property
    def base(self) -> Geometry:
        """The grid whose slices are shown: the CT's while there is one."""
        return (self.ct or self.pet).geometry

    @property
    def size_bytes(self) -> int:
        """How much memory the voxels take."""
        return sum(image.array.nbytes for image in (self.pet, self.districts, self.ct) if image is not None)


def job_files(jobs_folder: Path, job_id: str) -> JobFiles:
    """The files of a job; raises Rejected for what is no job's id, so that no address leads out of the folder."""
    if not is_job_id(job_id):
        raise Rejected("There is no such job.")
    folder = jobs_folder / job_id
    return JobFiles(folder / "result", folder / "ct")


def read_images(files: JobFiles, most_bytes: int) -> JobImages:
    """Read all images of a job; a CT that alone needs more memory than ``most_bytes`` is left out.

    Raises Rejected where the PET was cleared or cannot be read.
    """
    if files.stamp() is None:
        raise Rejected(CLEARED)
    report = read_report(files.result)
    pet = read_nifti(files.result / PET_FILE).canonical()
    labels, geometry = read_nifti_labels(files.result / DISTRICTS_FILE)
    districts = Voxels(canonical_labels(labels, geometry), pet.geometry)
    ct, remark = _read_ct(files.ct, pet.geometry, most_bytes)
    return JobImages(
        pet=Voxels(pet.array, pet.geometry),
        districts=districts,
        ct=ct,
        names=_names(report, labels),
        phantom_only=report.phantom_only,
        remarks=(remark,) if remark else (),
    )


def _read_ct(folder: Path, pet: Geometry, most_bytes: int) -> tuple[Voxels | None, str]:
    """The CT, or a sentence on why there is none."""
    try:
        series = next(entry for entry in (*folder.iterdir(), folder) if entry.is_dir())
        instances = sorted(series.iterdir())
        if _bytes_to_read(instances) > most_bytes:
            return None, CT_TOO_LARGE
        volume = read_ct_series(series, accept_synthetic=True, gantry_tilt="resample").volume.canonical()
    except FileNotFoundError:
        return None, CT_CLEARED
    except (Rejected, Transient, OSError):
        return None, NO_CT_FILES
    if not np.allclose(volume.geometry.direction, pet.direction, rtol=0, atol=SAME_AXIS):
        volume = resampled(volume, pet, outside=float(volume.array.min()))
    return Voxels(_compact(volume), volume.geometry), ""


def _bytes_to_read(instances: list[Path]) -> int:
    """What the CT takes as float32, from the header of one instance; 0 where there is none, or nothing in it says."""
    if not instances:
        raise FileNotFoundError("no instance")
    tags = ["Rows", "Columns", "NumberOfFrames"]
    header = dcmread(instances[0], stop_before_pixels=True, specific_tags=tags, force=True)
    voxels = int(header.get("Rows", 0)) * int(header.get("Columns", 0)) * int(header.get("NumberOfFrames") or 1)
    return 4 * voxels * len(instances)


def _compact(volume: Volume) -> npt.NDArray[np.generic]:
    """HU as int16 where they are whole numbers, as of most scanners: half the memory, the same values."""
    whole = np.empty(volume.array.shape, np.int16)
    for place, plane in enumerate(volume.array):
        whole[place] = np.clip(plane, -32768, 32767).astype(np.int16)
        if not np.array_equal(whole[place], plane):
            return volume.array
    return whole


def _names(report: RenderReport, labels: npt.NDArray[np.uint8]) -> Mapping[int, str]:
    """The name of each label: the report lists the districts that are there in the order of their labels."""
    present = [int(label) for label in np.flatnonzero(label_counts(labels)) if label]
    if len(present) != len(report.districts):
        return DISTRICT_NAMES
    return dict(zip(present, report.districts, strict=True))
