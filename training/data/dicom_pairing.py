"""DICOM PET/CT studies as training studies: which CT and which PET of a folder belong together, or why none do."""

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pydicom.dataset import Dataset

from training.data.study import StudyReference, TrainingStudy
from twin_scanner.dicom.read.ct_headers import is_ct
from twin_scanner.dicom.read.ct_series import read_ct_series
from twin_scanner.dicom.read.ct_stack import Instance
from twin_scanner.dicom.read.dicom_files import quiet_pydicom, read_header, should_be_dicom
from twin_scanner.dicom.read.pet_headers import ENHANCED_PET, PET_KEYWORDS, is_pet
from twin_scanner.dicom.read.pet_series import PetStack, pet_stack_of, read_pet_series
from twin_scanner.dicom.read.preference import COVERAGE_TOLERANCE, Preference
from twin_scanner.dicom.read.series_choice import choose_series
from twin_scanner.dicom.read.slice_headers import sequence_items, text
from twin_scanner.errors import Rejected
from twin_scanner.models.ranges import age_of
from twin_scanner.progress import Progress

Kind: TypeAlias = Literal["CT", "PET", "enhanced PET"]

FLUORINE_18_HALF_LIFE_S: Final = 6586.2
HALF_LIFE_TOLERANCE: Final = 0.01
"""Scanners write 6586.2 to 6588; gallium-68 (4062.6) and the others are far away."""
FDG: Final = re.compile(r"FDG|D[EI]S*O(X[YI]|SSI).{0,12}GLU[CK]O")
"""In letters and digits alone, in the languages that scanners speak: fluorodeoxyglucose, Fluordesoxyglukose,
2-deoxy-2-(18F)fluoro-D-glucose."""
FDG_CODES: Final = frozenset({("SRT", "C-B1031"), ("SCT", "35321007")})
"""Fluorodeoxyglucose F^18^ in SNOMED, by scheme and value (PS3.16 CID 4021)."""
REASONS_AT_MOST: Final = 3
UNNAMED_TRACER: Final = re.compile(r"|SOLUTION|UNKNOWN|OTHER|UNSPECIFIED|ISOTOPE|(18)?F(LUOR(INE)?)?(18)?")
"""What scanners write where nobody chose a tracer, letters and digits alone; fluorine-18 is FDG then, as mostly."""

_SCAN_KEYWORDS: Final = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "IssuerOfPatientID",
)


@dataclass(frozen=True)
class DicomStudy:
    """CT and PET images of one study and frame of reference, of which ``load`` chooses a series each.

    ``refusal`` is the reason, known beforehand, why it cannot be trained on; empty otherwise.
    """

    name: str
    patient: str
    ct_files: tuple[Path, ...]
    pet_files: tuple[Path, ...]
    diagnosis: str = ""
    accept_synthetic: bool = False
    refusal: str = ""

    @property
    def place(self) -> Path:
        """The folder below which its files lie; for whoever owns them, as the path may name a patient."""
        return Path(os.path.commonpath([file.parent for file in (*self.ct_files, *self.pet_files)]))

    def load(self) -> TrainingStudy:
        """Choose the CT as the service does and the best PET of FDG, and read both; no lesions are known.

        Raises Rejected, with the reason, where no series of the one or the other kind can be trained on.
        """
        if self.refusal:
            raise Rejected(self.refusal)
        with _named("PET"):
            pet = read_pet_series(self._chosen_pet(), accept_synthetic=self.accept_synthetic)
        with _named("CT"):
            ct = read_ct_series(self._chosen_ct(), accept_synthetic=self.accept_synthetic)
        is_phantom = any(text(series.header, "SyntheticData").upper() == "YES" for series in (ct, pet))
        return TrainingStudy(
            ct=ct.volume, pet=pet.suv, ct_origin="DICOM", is_phantom=is_phantom, age_years=age_of(ct.header)
        )

    def _chosen_ct(self) -> tuple[Path, ...]:
        choices = choose_series(self.ct_files, Preference(), accept_synthetic=self.accept_synthetic)
        for choice in choices:
            if choice.series_uid is not None:
                return choice.files
        reasons = [reason for choice in choices for _, reason in choice.skipped]
        raise Rejected(_none_of(reasons))

    def _chosen_pet(self) -> tuple[Path, ...]:
        series: dict[str, list[Instance]] = {}
        with quiet_pydicom():
            for file in self.pet_files:
                header = read_header(file, PET_KEYWORDS)
                series.setdefault(text(header, "SeriesInstanceUID"), []).append(Instance(file, header))
        candidates: list[tuple[str, PetStack]] = []
        reasons = []
        for series_uid, instances in sorted(series.items()):
            try:
                with quiet_pydicom():
                    stack = pet_stack_of(instances, accept_synthetic=self.accept_synthetic)
                    _check_tracer(stack)
                candidates.append((series_uid, stack))
            except Rejected as error:
                reasons.append(str(error))
        if not candidates:
            raise Rejected(_none_of(reasons))
        chosen = _best(candidates)
        return tuple(instance.file for instance in series[chosen])


def dicom_studies(
    folder: Path, *, accept_synthetic: bool = False, progress: Progress | None = None
) -> list[StudyReference]:
    """A study for every StudyInstanceUID and FrameOfReferenceUID below ``folder`` that has both CT and PET images.

    Reads a few attributes of every file; what is no DICOM is passed over, ``progress`` receives (files read, files in
    all). A study without such a pair gives one that is refused with the reason; so is one without PatientID, and one
    beside whose files lies a damaged file, which may be a slice of it. ``accept_synthetic`` lets phantoms in, never
    what this program synthesised. Raises Rejected where the folder does not exist or holds no CT or PET image.
    """
    if not folder.is_dir():
        raise Rejected(f"{folder} does not exist: give a folder of DICOM studies.")
    images, damaged = _scanned(folder, progress)
    studies: dict[str, list[_Image]] = {}
    for image in images:
        studies.setdefault(image.study_uid, []).append(image)
    if not studies:
        raise Rejected(f"{folder} holds no DICOM image of CT or PET: give a folder of PET/CT studies.")
    return [
        study
        for study_uid, members in sorted(studies.items())
        for study in _pairs(study_uid, members, damaged, accept_synthetic)
    ]


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted, links to folders followed, each folder once.

    A link to nothing counts as a file, for it stands for one that is not here; pipes and devices do not.
    """
    seen = {os.path.realpath(folder)}
    files: list[Path] = []
    for place, inner, names in os.walk(folder, followlinks=True):
        real = {name: os.path.realpath(Path(place, name)) for name in sorted(inner)}
        inner[:] = [name for name, path in real.items() if path not in seen]
        seen.update(real.values())
        files += [path for name in names if (path := Path(place, name)).is_file() or not path.exists()]
    return sorted(files)


@dataclass(frozen=True)
class _Image:
    """What tells an image to a study; ``patient`` (issuer, id) never leaves this module but as a hash."""

    file: Path
    kind: Kind
    study_uid: str
    frame_of_reference_uid: str
    patient: tuple[str, str] = field(repr=False)


def _scanned(folder: Path, progress: Progress | None) -> tuple[list[_Image], dict[Path, str]]:
    """The CT and PET images below a folder, and by folder the name of a file that should be an image and is not."""
    files = files_below(folder)
    images: list[_Image] = []
    damaged: dict[Path, str] = {}
    with quiet_pydicom():
        for number, file in enumerate(files, start=1):
            try:
                if should_be_dicom(file):
                    images += _image(file, read_header(file, _SCAN_KEYWORDS))
            except Rejected:
                damaged.setdefault(file.parent, file.name)
            if progress is not None:
                progress(number, len(files))
    return images, damaged


def _image(file: Path, header: Dataset) -> list[_Image]:
    kind = _kind(header)
    if kind is None:
        return []
    return [
        _Image(
            file=file,
            kind=kind,
            study_uid=text(header, "StudyInstanceUID"),
            frame_of_reference_uid=text(header, "FrameOfReferenceUID"),
            patient=(text(header, "IssuerOfPatientID"), text(header, "PatientID")),
        )
    ]


def _kind(header: Dataset) -> Kind | None:
    if is_ct(header):
        return "CT"
    if is_pet(header):
        return "PET"
    return "enhanced PET" if text(header, "SOPClassUID") in ENHANCED_PET else None


def _pairs(
    study_uid: str, images: Sequence[_Image], damaged: dict[Path, str], accept_synthetic: bool
) -> Iterable[DicomStudy]:
    frames = [
        [image for image in images if image.frame_of_reference_uid == frame]
        for frame in sorted({image.frame_of_reference_uid for image in images})
    ]
    pairs = [frame for frame in frames if {"CT", "PET"} <= {image.kind for image in frame}]
    for members in pairs or [list(images)]:
        frame_uid = members[0].frame_of_reference_uid if pairs else ""
        issuer, patient_id = members[0].patient
        pet: Kind = "PET" if any(image.kind == "PET" for image in members) else "enhanced PET"
        yield DicomStudy(
            name=f"study-{_hashed(study_uid, frame_uid)}",
            patient=f"patient-{_hashed(issuer, patient_id)}",
            ct_files=tuple(image.file for image in members if image.kind == "CT"),
            pet_files=tuple(image.file for image in members if image.kind == pet),
            accept_synthetic=accept_synthetic,
            refusal=_refusal(members, damaged, paired=bool(pairs)),
        )


def _refusal(images: Sequence[_Image], damaged: dict[Path, str], *, paired: bool) -> str:
    """Why images of a study make no pair, as far as a scan can tell; empty where they may."""
    kinds = {image.kind for image in images}
    if not images[0].study_uid:
        return "StudyInstanceUID of the images is missing, so CT and PET cannot be paired: correct the sender."
    if "enhanced PET" in kinds and "PET" not in kinds:
        return "The study's PET is a multi-frame object, which is not read: send it as PET images of one slice each."
    if kinds == {"CT"}:
        return "The study has CT but no PET image: send its PET series too."
    if "CT" not in kinds:
        return "The study has PET but no CT image: send its CT series too."
    if not paired:
        return "FrameOfReferenceUID of the study's CT is not that of its PET, so they cannot be laid on one another."
    if not images[0].frame_of_reference_uid:
        return "FrameOfReferenceUID of CT and PET is missing, so they cannot be laid on one another."
    if len({image.patient for image in images}) > 1:
        return "PatientID (with IssuerOfPatientID) of the study's CT is not that of its PET: correct the study."
    if not images[0].patient[1]:
        return "PatientID of the study is missing, so its part of the split is unknown: add a pseudonym."
    lost = next((damaged[image.file.parent] for image in images if image.file.parent in damaged), None)
    if lost is not None:
        return f"{lost} beside the study's images is damaged and may be one of them: send it again, or remove it."
    return ""


def _best(candidates: Sequence[tuple[str, PetStack]]) -> str:
    """The series that covers most of the body (within COVERAGE_TOLERANCE), then the most corrected, the finest."""
    longest_mm = max(stack.geometry.extent_mm[0] for _, stack in candidates)

    def rank(candidate: tuple[str, PetStack]) -> tuple[bool, int, float, str]:
        series_uid, stack = candidate
        return (
            stack.geometry.extent_mm[0] < (1.0 - COVERAGE_TOLERANCE) * longest_mm,
            -len(set(stack.attributes.corrected_image)),
            round(stack.geometry.voxel_ml, 6),
            series_uid,
        )

    return min(candidates, key=rank)[0]


@contextmanager
def _named(modality: str) -> Iterator[None]:
    """Why a series cannot be read names a slice by its number, which the CT and the PET of a study both have."""
    try:
        yield
    except Rejected as reason:
        raise Rejected(f"The study's {modality} cannot be used: {reason}") from reason


def _none_of(reasons: Sequence[str]) -> str:
    """One sentence of all reasons: which of a study's series was meant, and so which to mend, is unknown here."""
    said = list(dict.fromkeys(reason.removesuffix(".") for reason in reasons))
    if len(reasons) == 1:
        return reasons[0]
    more = f"; and {len(said) - REASONS_AT_MOST} more" if len(said) > REASONS_AT_MOST else ""
    return f"none of its {len(reasons)} series is fit; {'; '.join(said[:REASONS_AT_MOST])}{more}."


def _check_tracer(pet: PetStack) -> None:
    """The networks are trained on FDG: a PET that names another tracer is refused, one that names none is not."""
    half_life_s = pet.attributes.half_life_s
    if half_life_s is not None and abs(half_life_s / FLUORINE_18_HALF_LIFE_S - 1.0) > HALF_LIFE_TOLERANCE:
        raise Rejected(f"RadionuclideHalfLife of the PET is {half_life_s:g} s, not fluorine-18's: give PET of FDG.")
    first = pet.slices[0]
    isotope = next(iter(sequence_items(first.header, "RadiopharmaceuticalInformationSequence", first.name)), Dataset())
    code = next(iter(sequence_items(isotope, "RadiopharmaceuticalCodeSequence", first.name)), Dataset())
    if (text(code, "CodingSchemeDesignator"), text(code, "CodeValue")) in FDG_CODES:
        return
    named = [text(code, "CodeMeaning"), text(isotope, "Radiopharmaceutical")]
    plain = [_plain(name) for name in named]
    if any(FDG.search(name) for name in plain) or all(UNNAMED_TRACER.fullmatch(name) for name in plain):
        return
    shown = next(name for name, short in zip(named, plain, strict=True) if not UNNAMED_TRACER.fullmatch(short))
    raise Rejected(f"Radiopharmaceutical of the PET is '{shown}', not FDG: give PET of FDG.")


def _plain(name: str) -> str:
    """Capitals and digits alone, without accents."""
    return re.sub(r"[^A-Z0-9]", "", unicodedata.normalize("NFKD", name.upper()))


def _hashed(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
