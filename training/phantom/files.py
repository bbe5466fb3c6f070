"""Phantoms on disk: folders and metadata table in the layout of autoPET's FDG-PET-CT-Lesions, and beside it DICOM."""

import csv
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from training.phantom.dicom_series import PHANTOM_MANUFACTURER, Examination, write_ct_dicom, write_pet_dicom
from training.phantom.organ_labels import organ_labels
from training.phantom.phantom import Phantom, PhantomOptions, make_phantom, sample_options
from training.phantom.tissues import World
from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.durable_file import whole_folder
from twin_scanner.files.writable import check_writable, disk_fault
from twin_scanner.imaging.volume import Triple, write_nifti
from twin_scanner.progress import Progress

__all__ = ["COLLECTION", "METADATA_COLUMNS", "write_ct_dicom", "write_pet_dicom", "write_studies", "write_study"]

COLLECTION: Final = "FDG-PET-CT-Lesions"
METADATA_FILE: Final = "fdg_metadata.csv"
METADATA_COLUMNS: Final = (
    "Series UID", "Collection", "3rd Party Analysis", "Data Description URI", "Subject ID", "Study UID",
    "Study Description", "Study Date", "Series Description", "Manufacturer", "Modality", "SOP Class Name",
    "SOP Class UID", "Number of Images", "File Size", "File Location", "Download Timestamp", "diagnosis", "age", "sex",
)  # fmt: skip
"""TCIA's download table with the three clinical columns that autoPET's authors added; a row a series."""
MOST_STUDIES: Final = 10_000
"""A seed of ``write_studies`` stands for so many patients; the next seed's are others."""
PHANTOM_STUDY: Final = "-NA-PET-CT phantom"
"""In the name of a phantom's study folder, where autoPET has the study's description."""
DOWNLOADED: Final = "2020-01-01T00:00:00"
_DESCRIPTIONS: Final = {"CT": "CT phantom", "PT": "PET phantom"}
_SERIES: Final = {
    "CT": ("CT Image Storage", "1.2.840.10008.5.1.4.1.1.2"),
    "PT": ("Positron Emission Tomography Image Storage", "1.2.840.10008.5.1.4.1.1.128"),
}


def write_studies(
    out: Path,
    count: int,
    seed: int,
    *,
    world: World = "district-dependent",
    spacing_mm: Triple = (3.0, 2.04, 2.04),
    dicom: bool = False,
    options_of: Callable[[int], PhantomOptions] | None = None,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Write ``count`` patients, each with a body, pose, field of view and disease of its own; returns their folders.

    Patient i has seed ``seed`` * 10,000 + i. ``options_of`` replaces sample_options. Raises Rejected where ``out``
    already holds studies, Transient where the disk fails.
    """
    if (out / METADATA_FILE).exists() or (out / COLLECTION).exists():
        raise Rejected(f"{out} already holds studies: give a new folder, nothing is overwritten.")
    if not 1 <= count <= MOST_STUDIES:
        raise Rejected(f"Between 1 and {MOST_STUDIES} phantoms can be written at once, not {count}.")
    check_writable(out)
    folders, rows = list[Path](), list[dict[str, str]]()
    try:
        for number in range(count):
            patient = seed * MOST_STUDIES + number
            options = (
                options_of(patient)
                if options_of is not None
                else sample_options(patient, world=world, spacing_mm=spacing_mm)
            )
            phantom = make_phantom(patient, options)
            folders.append(write_study(out, phantom, dicom=dicom))
            rows += _metadata_rows(phantom)
            if progress is not None:
                progress(number + 1, count)
    except KeyboardInterrupt as stop:
        _write_table(out / METADATA_FILE, rows)
        raise Transient(
            f"The phantoms were stopped: {out} holds {len(folders)} of {count} whole, with their table; give another "
            "folder to begin again."
        ) from stop
    _write_table(out / METADATA_FILE, rows)
    return tuple(folders)


def write_study(out: Path, phantom: Phantom, *, dicom: bool = False) -> Path:
    """Write one study in autoPET's layout, whole or not at all, districts and organs beside it; returns its folder.

    ``dicom`` writes it as DICOM too, into ``out``/dicom. Raises Transient where the disk fails.
    """
    folder = out / study_folder(phantom)
    examination = Examination(phantom.seed, phantom.options)
    hounsfield = np.rint(phantom.ct.array).astype(np.int16)
    activity = phantom.pet.array * np.float32(examination.bqml_per_suv)
    try:
        with whole_folder(folder) as scratch:
            write_nifti(scratch / "CTres.nii.gz", hounsfield, phantom.geometry)
            shutil.copyfile(scratch / "CTres.nii.gz", scratch / "CT.nii.gz")
            write_nifti(scratch / "SUV.nii.gz", phantom.pet.array, phantom.geometry)
            write_nifti(scratch / "PET.nii.gz", activity, phantom.geometry)
            write_nifti(scratch / "SEG.nii.gz", phantom.lesions, phantom.geometry)
            write_nifti(scratch / "DISTRICTS.nii.gz", phantom.districts, phantom.geometry)
            write_nifti(scratch / "ORGANS.nii.gz", organ_labels(phantom.tissues), phantom.geometry)
    except OSError as error:
        raise disk_fault(folder, error) from error
    if dicom:
        place = out / "dicom" / folder.parent.name
        write_ct_dicom(phantom.ct, place / "CT", seed=phantom.seed, options=phantom.options)
        write_pet_dicom(phantom, place / "PT")
    return folder


def study_folder(phantom: Phantom) -> Path:
    """FDG-PET-CT-Lesions/PETCT_<10 hex digits>/<month-day-year>-NA-<description>-<last five of the study UID>."""
    examination = Examination(phantom.seed, phantom.options)
    study_uid = examination.uid("study")
    name = f"{phantom.options.study_date:%m-%d-%Y}{PHANTOM_STUDY}-{study_uid[-5:]}"
    return Path(COLLECTION) / subject_id(phantom.seed) / name


def subject_id(seed: int) -> str:
    """autoPET's pseudonym form, from the seed."""
    return f"PETCT_{hashlib.sha256(f'phantom {seed}'.encode()).hexdigest()[:10]}"


def _metadata_rows(phantom: Phantom) -> list[dict[str, str]]:
    """A row for the CT and one for the PET."""
    examination = Examination(phantom.seed, phantom.options)
    options = phantom.options
    rows = []
    for modality, (sop_class, sop_class_uid) in _SERIES.items():
        values = (
            examination.uid("series", modality), COLLECTION, "NO", "", subject_id(phantom.seed),
            examination.uid("study"), "PET-CT of a phantom", f"{options.study_date:%m-%d-%Y}", _DESCRIPTIONS[modality],
            PHANTOM_MANUFACTURER, modality, sop_class, sop_class_uid, str(phantom.geometry.shape[0]), "",
            f"./{study_folder(phantom).as_posix()}/{modality}", DOWNLOADED, options.diagnosis, f"{options.age:03d}Y",
            options.sex,
        )  # fmt: skip
        rows.append(dict(zip(METADATA_COLUMNS, values, strict=True)))
    return rows


def _write_table(path: Path, rows: list[dict[str, str]]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, METADATA_COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
    except OSError as error:
        raise disk_fault(path, error) from error
