"""Where training studies come from (autoPET, DICOM, phantoms): what each is called, whose it is, how it loads."""

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from training.data.dicom_pairing import DicomStudy, dicom_studies, files_below
from training.data.study import CtOrigin, StudyReference, TrainingStudy
from training.phantom.files import METADATA_FILE, PHANTOM_STUDY
from training.phantom.organ_labels import organ_labels
from training.phantom.phantom import make_phantom, sample_options
from training.phantom.tissues import World
from twin_scanner.errors import Rejected, Transient
from twin_scanner.imaging.volume import LabelArray, Triple, Volume, read_nifti, read_nifti_ct, read_nifti_labels
from twin_scanner.progress import Progress

__all__ = [
    "AutoPetStudy",
    "DicomStudy",
    "PhantomStudy",
    "autopet_studies",
    "dicom_studies",
    "find_studies",
    "phantom_studies",
]

SUV_IMAGE: Final = "SUV"
LESION_IMAGE: Final = "SEG"
ORGAN_IMAGE: Final = "ORGANS"
"""Beside a phantom's images alone."""
CT_IMAGES: Final[tuple[CtOrigin, ...]] = ("CT", "CTres")
"""In order of preference: CTres was resampled to the PET's grid by its publishers, with a spline."""
NIFTI: Final = (".nii.gz", ".nii")
"""What autoPET's files end in, and what is left of it where they were unpacked."""
AUTOPET_SUBJECT: Final = re.compile(r"PETCT_[0-9a-f]{10}")
"""autoPET's published pseudonyms; any other folder's name may be a patient's, so it is hashed."""
AUTOPET_STUDY: Final = re.compile(r"\d\d-\d\d-\d{4}-NA-.*-(\d{5})")
"""Shifted date, description, last five digits of the study's UID."""
TABLE_AT_MOST_ABOVE: Final = 3
"""Folders: a study's own has its patient's, the collection's and the table's above it."""
AIR_HU_AT_MOST: Final = -500.0
"""A CT in HU has air somewhere; where nothing is thinner than this, the values are another scale."""

_COLUMNS: Final = ("Subject ID", "Study UID", "File Location", "diagnosis")
_IMAGES: Final = frozenset(name + ending for name in (SUV_IMAGE, *CT_IMAGES) for ending in NIFTI)
"""A folder with one of these is a study, whole or not."""
_SUV_FILES: Final = frozenset(SUV_IMAGE + ending for ending in NIFTI)


@dataclass(frozen=True)
class AutoPetStudy:
    """A study in autoPET's NIfTI layout: a folder with SUV.nii.gz and CT.nii.gz or CTres.nii.gz, perhaps SEG.nii.gz.

    The files may be unpacked (.nii).
    """

    folder: Path
    name: str
    patient: str
    diagnosis: str = ""

    @property
    def place(self) -> Path:
        """Where its files lie; for whoever owns them, as the path may name a patient."""
        return self.folder

    def load(self) -> TrainingStudy:
        """CT in HU, PET in SUV, and the lesions; raises Rejected, naming the file, where one is missing or wrong."""
        suv = self._file(SUV_IMAGE)
        if suv is None:
            raise Rejected(f"{self.name} has a CT but no {SUV_IMAGE}.nii.gz: complete the study.")
        pet = read_nifti(suv)
        file, origin = self._ct_file()
        ct = read_nifti_ct(file)
        if ct.array.min() > AIR_HU_AT_MOST:
            raise Rejected(f"{file.name} of {self.name} holds no air ({ct.array.min():g} or more): give a CT in HU.")
        is_phantom = self.folder.name.rpartition("-")[0].endswith(PHANTOM_STUDY)
        organs = self._organs(ct) if is_phantom else None
        return TrainingStudy(ct, pet, origin, self._lesions(pet), is_phantom=is_phantom, organs=organs)

    def _file(self, image: str) -> Path | None:
        """An image's file, None where there is none; raises Rejected for two of them, and for a link to nothing."""
        found = [path for ending in NIFTI if os.path.lexists(path := self.folder / f"{image}{ending}")]
        if len(found) > 1:
            raise Rejected(f"{self.name} has {found[0].name} and {found[1].name}: remove one of them.")
        if found and not found[0].is_file():
            raise Rejected(f"{found[0].name} of {self.name} is no file, or a link to one that is not there: copy it.")
        return found[0] if found else None

    def _ct_file(self) -> tuple[Path, CtOrigin]:
        for origin in CT_IMAGES:
            if (file := self._file(origin)) is not None:
                return file, origin
        raise Rejected(f"{self.name} has {SUV_IMAGE}.nii.gz but neither CT.nii.gz nor CTres.nii.gz: complete it.")

    def _organs(self, ct: Volume) -> LabelArray | None:
        """A phantom's own; phantoms that were written by an earlier version have none."""
        return self._labels(ORGAN_IMAGE, ct, "its CT: write the phantoms again")

    def _lesions(self, pet: Volume) -> LabelArray | None:
        labels = self._labels(LESION_IMAGE, pet, f"{SUV_IMAGE}.nii.gz: export it again")
        return None if labels is None else (labels > 0).astype(np.uint8)

    def _labels(self, image: str, volume: Volume, grid_of: str) -> LabelArray | None:
        """A label map on the volume's grid, None where the study has none; ``grid_of`` ends the refusal's sentence."""
        file = self._file(image)
        if file is None:
            return None
        labels, geometry = read_nifti_labels(file)
        if not geometry.same_grid(volume.geometry):
            raise Rejected(f"{file.name} of {self.name} does not lie on the grid of {grid_of}.")
        return labels


@dataclass(frozen=True)
class PhantomStudy:
    """A generated patient: its seed stands for body, pose, field of view and disease."""

    seed: int
    world: World
    spacing_mm: Triple
    diagnosis: str

    @property
    def name(self) -> str:
        """The study's name; a phantom is examined once."""
        return f"phantom-{self.world}-{self.seed}"

    @property
    def patient(self) -> str:
        """The same seed is the same patient, in either world."""
        return f"phantom-{self.seed}"

    def load(self) -> TrainingStudy:
        """Generate it, with its true districts and lesions."""
        options = sample_options(self.seed, world=self.world, spacing_mm=self.spacing_mm)
        phantom = make_phantom(self.seed, options)
        return TrainingStudy(
            phantom.ct,
            phantom.pet,
            "phantom",
            phantom.lesions,
            phantom.districts,
            is_phantom=True,
            organs=organ_labels(phantom.tissues),
        )


def find_studies(
    source: Path, *, accept_synthetic: bool = False, progress: Progress | None = None
) -> list[StudyReference]:
    """The studies in a folder: autoPET's layout where any SUV.nii.gz is in it, DICOM otherwise.

    Arguments as of ``dicom_studies``. Raises Rejected where the folder does not exist or holds neither.
    """
    if not source.is_dir():
        raise Rejected(f"{source} does not exist: give a folder of studies in autoPET's layout or in DICOM.")
    files = files_below(source)
    if any(file.name in _SUV_FILES for file in files):
        return autopet_studies(source)
    try:
        return dicom_studies(source, accept_synthetic=accept_synthetic, progress=progress)
    except Rejected as nothing:
        if not any(file.name.endswith(NIFTI) for file in files):
            raise
        raise Rejected(
            f"{source} holds NIfTI files, but none is called {SUV_IMAGE}.nii.gz: give each study a folder with "
            f"{SUV_IMAGE}.nii.gz and CT.nii.gz, in a folder of its patient."
        ) from nothing


def autopet_studies(folder: Path) -> list[StudyReference]:
    """Every folder below ``folder`` with SUV.nii.gz or a CT, in the order of their names.

    The patient is the folder above the study's. The diagnosis comes from fdg_metadata.csv in ``folder`` or up to three
    folders above; without it, or without a row of the study, it is unknown. Raises Rejected where there is no study,
    or the table is none or, lying in ``folder``, fits none of them.
    """
    folder = folder.resolve() if ".." in folder.parts else folder.absolute()
    found = sorted({path.parent for path in files_below(folder) if path.name in _IMAGES})
    if not found:
        raise Rejected(f"{folder} holds no study with {SUV_IMAGE}.nii.gz: give a folder in autoPET's layout.")
    diagnoses = _diagnoses_of(found, folder)
    patients = [_pseudonym(study.parent.name) for study in found]
    names = [_study_name(patient, study) for patient, study in zip(patients, found, strict=True)]
    twice = {name for name, number in Counter(names).items() if number > 1}
    return [
        AutoPetStudy(
            folder=study,
            name=f"{name}_{_hashed(study.relative_to(folder).as_posix())[:8]}" if name in twice else name,
            patient=patient,
            diagnosis=diagnosis,
        )
        for name, patient, study, diagnosis in zip(names, patients, found, diagnoses, strict=True)
    ]


def phantom_studies(
    count: int, seed: int, world: World = "district-dependent", spacing_mm: Triple = (3.0, 2.04, 2.04)
) -> list[StudyReference]:
    """Phantoms of the seeds from ``seed`` on, each a patient of its own; nothing is generated before ``load``."""
    return [
        PhantomStudy(one, world, spacing_mm, sample_options(one, world=world, spacing_mm=spacing_mm).diagnosis)
        for one in range(seed, seed + count)
    ]


def _pseudonym(folder: str) -> str:
    return folder if AUTOPET_SUBJECT.fullmatch(folder) else f"patient-{_hashed(folder)}"


def _study_name(patient: str, study: Path) -> str:
    match = AUTOPET_STUDY.fullmatch(study.name)
    return f"{patient}_{match[1] if match else _hashed(study.name)[:8]}"


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _diagnoses_of(studies: Sequence[Path], folder: Path) -> list[str]:
    """By a study's folder as the table names it, else by the digits of the study's UID at its end; else empty."""
    tables = (place / METADATA_FILE for place in (folder, *folder.parents[:TABLE_AT_MOST_ABOVE]))
    table = next((file for file in tables if file.is_file()), None)
    known = {} if table is None else _diagnoses(table)
    keys = [[(study.parent.name, study.name), (study.parent.name, study.name[-5:])] for study in studies]
    if known and table == folder / METADATA_FILE and not any(key in known for both in keys for key in both):
        raise Rejected(
            f"{table} has a row for none of the {len(studies)} studies beside it: correct 'Subject ID' and 'File "
            "Location', which name their folders, or take it away."
        )
    return [known.get(exact, known.get(by_digits, "")) for exact, by_digits in keys]


def _diagnoses(table: Path) -> dict[tuple[str, str], str]:
    """The diagnosis of (subject, study's folder) and of (subject, last five digits of the study's UID)."""
    found: dict[tuple[str, str], str] = {}
    for row in _rows(table):
        subject, diagnosis = row["Subject ID"].strip(), row["diagnosis"].strip()
        parts = row["File Location"].replace("\\", "/").split("/")
        if subject in parts[:-1]:
            found[subject, parts[parts.index(subject) + 1]] = diagnosis
        found[subject, row["Study UID"].strip()[-5:]] = diagnosis
    return found


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, restval=""))
    except OSError as error:
        raise Transient(f"{table} cannot be read ({error.strerror}): check the disk.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise Rejected(f"{table} is no table in UTF-8 with commas: download it again.") from error
    missing = [column for column in _COLUMNS if rows and column not in rows[0]]
    if missing:
        needed = ", ".join(f"'{column}'" for column in _COLUMNS)
        raise Rejected(f"{table} has no column '{missing[0]}': give a table in UTF-8 with commas and {needed}.")
    return rows
