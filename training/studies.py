"""Where training studies come from (autoPET, DICOM, phantoms): what each is called, whose it is, how it loads."""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from training.dicom_pairing import DicomStudy, Progress, dicom_studies
from training.phantom import draw_options, make_phantom
from training.phantom_files import DRAWN_STUDY, METADATA_FILE
from training.phantom_tissues import World
from training.study import CtOrigin, Study, StudyReference
from twin_scanner.errors import Rejected, Transient
from twin_scanner.volume import LabelArray, Triple, Volume, read_nifti, read_nifti_labels

__all__ = [
    "AutoPetStudy",
    "DicomStudy",
    "PhantomStudy",
    "autopet_studies",
    "dicom_studies",
    "find_studies",
    "phantom_studies",
]

SUV_FILE: Final = "SUV.nii.gz"
LESION_FILE: Final = "SEG.nii.gz"
CT_FILES: Final[tuple[tuple[str, CtOrigin], ...]] = (("CT.nii.gz", "CT"), ("CTres.nii.gz", "CTres"))
"""In order of preference: CTres was resampled to the PET's grid by its publishers, with a spline."""
AUTOPET_SUBJECT: Final = re.compile(r"PETCT_[0-9a-f]{10}")
"""autoPET's published pseudonyms; any other folder's name may be a patient's, so it is hashed."""
AUTOPET_STUDY: Final = re.compile(r"\d\d-\d\d-\d{4}-NA-.*-(\d{5})")
"""Shifted date, description, last five digits of the study's UID."""
AIR_HU_AT_MOST: Final = -500.0
"""A CT in HU has air somewhere; where nothing is thinner than this, the values are another scale."""

_COLUMNS: Final = ("Subject ID", "Study UID", "File Location", "diagnosis")


@dataclass(frozen=True)
class AutoPetStudy:
    """A study in autoPET's NIfTI layout: a folder with SUV.nii.gz and CT.nii.gz or CTres.nii.gz, perhaps SEG.nii.gz."""

    folder: Path
    name: str
    patient: str
    diagnosis: str = ""

    def load(self) -> Study:
        """CT in HU, PET in SUV, and the lesions; raises Rejected, naming the file, where one is missing or wrong."""
        pet = read_nifti(self.folder / SUV_FILE)
        file, origin = self._ct_file()
        ct = read_nifti(file)
        if ct.array.min() > AIR_HU_AT_MOST:
            raise Rejected(f"{file.name} of {self.name} holds no air ({ct.array.min():g} or more): give a CT in HU.")
        drawn = self.folder.name.rpartition("-")[0].endswith(DRAWN_STUDY)
        return Study(ct=ct, pet=pet, ct_origin=origin, lesions=self._lesions(pet), drawn=drawn)

    def _ct_file(self) -> tuple[Path, CtOrigin]:
        for name, origin in CT_FILES:
            if (self.folder / name).is_file():
                return self.folder / name, origin
        raise Rejected(f"{self.name} has {SUV_FILE} but neither CT.nii.gz nor CTres.nii.gz: complete the study.")

    def _lesions(self, pet: Volume) -> LabelArray | None:
        if not (self.folder / LESION_FILE).is_file():
            return None
        labels, geometry = read_nifti_labels(self.folder / LESION_FILE)
        if not geometry.same_grid(pet.geometry):
            raise Rejected(f"{LESION_FILE} of {self.name} does not lie on the grid of {SUV_FILE}: export it again.")
        return (labels > 0).astype(np.uint8)


@dataclass(frozen=True)
class PhantomStudy:
    """A drawn patient: its seed stands for body, pose, field of view and disease."""

    seed: int
    world: World
    spacing_mm: Triple
    diagnosis: str

    @property
    def name(self) -> str:
        """Of the study; a phantom is examined once."""
        return f"phantom-{self.world}-{self.seed}"

    @property
    def patient(self) -> str:
        """The same seed is the same patient, in either world."""
        return f"phantom-{self.seed}"

    def load(self) -> Study:
        """Draw it, with its true districts and lesions."""
        options = draw_options(self.seed, world=self.world, spacing_mm=self.spacing_mm)
        phantom = make_phantom(self.seed, options)
        return Study(phantom.ct, phantom.pet, "phantom", phantom.lesions, phantom.districts, drawn=True)


def find_studies(
    source: Path, *, accept_synthetic: bool = False, progress: Progress | None = None
) -> list[StudyReference]:
    """The studies in a folder: autoPET's layout where any SUV.nii.gz is in it, DICOM otherwise.

    Arguments as of ``dicom_studies``. Raises Rejected where the folder does not exist or holds neither.
    """
    if not source.is_dir():
        raise Rejected(f"{source} does not exist: give a folder of studies in autoPET's layout or in DICOM.")
    if next(source.rglob(SUV_FILE), None) is not None:
        return autopet_studies(source)
    return dicom_studies(source, accept_synthetic=accept_synthetic, progress=progress)


def autopet_studies(folder: Path) -> list[StudyReference]:
    """Every folder below ``folder`` with SUV.nii.gz, in the order of their names.

    Patient and diagnosis come from fdg_metadata.csv in ``folder`` or beside it; without it the patient is the folder
    above the study's, and the diagnosis unknown. Raises Rejected where there is no study, or the table is none.
    """
    found = sorted(path.parent for path in folder.rglob(SUV_FILE))
    if not found:
        raise Rejected(f"{folder} holds no study with {SUV_FILE}: give a folder in autoPET's layout.")
    diagnoses = _diagnoses(folder)
    patients = [_pseudonym(study.parent.name) for study in found]
    names = [_study_name(patient, study) for patient, study in zip(patients, found, strict=True)]
    twice = {name for name, number in Counter(names).items() if number > 1}
    return [
        AutoPetStudy(
            folder=study,
            name=f"{name}_{_hashed(study.relative_to(folder).as_posix())[:8]}" if name in twice else name,
            patient=patient,
            diagnosis=_diagnosis_of(study, diagnoses),
        )
        for name, patient, study in zip(names, patients, found, strict=True)
    ]


def phantom_studies(
    count: int, seed: int, world: World = "district-dependent", spacing_mm: Triple = (3.0, 2.04, 2.04)
) -> list[StudyReference]:
    """Phantoms of the seeds from ``seed`` on, each a patient of its own; nothing is drawn before ``load``."""
    return [
        PhantomStudy(one, world, spacing_mm, draw_options(one, world=world, spacing_mm=spacing_mm).diagnosis)
        for one in range(seed, seed + count)
    ]


def _pseudonym(folder: str) -> str:
    return folder if AUTOPET_SUBJECT.fullmatch(folder) else f"patient-{_hashed(folder)}"


def _study_name(patient: str, study: Path) -> str:
    match = AUTOPET_STUDY.fullmatch(study.name)
    return f"{patient}_{match[1] if match else _hashed(study.name)[:8]}"


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _diagnosis_of(study: Path, diagnoses: Mapping[tuple[str, str], str]) -> str:
    """By the study's folder as the table names it, else by the digits of the study's UID at its end."""
    subject = study.parent.name
    return diagnoses.get((subject, study.name), diagnoses.get((subject, study.name[-5:]), ""))


def _diagnoses(folder: Path) -> dict[tuple[str, str], str]:
    """The diagnosis of (subject, study's folder) and of (subject, last five digits of the study's UID)."""
    table = next(
        (place / METADATA_FILE for place in (folder, folder.parent) if (place / METADATA_FILE).is_file()), None
    )
    if table is None:
        return {}
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
        raise Rejected(f"{table} has no column '{missing[0]}': download it again.")
    return rows
