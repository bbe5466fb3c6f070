"""Which CT series of a study becomes a PET: one for each frame of reference, by a stated preference, from headers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from pydicom.dataset import Dataset

from twin_scanner.dicom.equipment import valid_uid
from twin_scanner.dicom.read.ct_headers import HEADER_KEYWORDS, is_ct
from twin_scanner.dicom.read.ct_stack import MINIMUM_SLICES, CtStack, Instance, read_instance, stack_of
from twin_scanner.dicom.read.dicom_files import DIRECTORY_CLASS, quiet_pydicom
from twin_scanner.dicom.read.gantry_tilt import GantryTilt
from twin_scanner.dicom.read.preference import Merits, Preference, merits_of, ranked
from twin_scanner.dicom.read.slice_headers import image_type, shown_uid, text
from twin_scanner.dicom.read.source_digest import IDENTITY_KEYWORDS, source_digest
from twin_scanner.errors import Rejected

_KEYWORDS: Final = tuple(dict.fromkeys((*HEADER_KEYWORDS, *IDENTITY_KEYWORDS)))
_FRAMES_DIGITS: Final = 9
"""A NumberOfFrames with more digits is not counted: it stands in damaged headers only."""
_Read: TypeAlias = Callable[[Sequence[Instance]], CtStack]


@dataclass(frozen=True)
class Choice:
    """The series chosen for one study and frame of reference, its files, and why each other series was skipped.

    Without an acceptable series ``series_uid`` is None and ``files`` empty; ``skipped`` says why: (series_uid, reason).
    ``source_digest`` is that of the chosen files, ``synthetic`` says whether one of them is so marked, and
    ``requested_priority`` is their RequestedProcedurePriority. ``real_pet`` is a PET series among the study's files
    that is not marked as synthetic.
    """

    study_uid: str
    frame_of_reference_uid: str
    series_uid: str | None
    files: tuple[Path, ...]
    skipped: tuple[tuple[str, str], ...]
    source_digest: str = ""
    synthetic: bool = False
    requested_priority: str = ""
    real_pet: str = ""


@dataclass(frozen=True)
class _Series:
    """One series as all its headers tell it: its merits, or the reason why it cannot be read.

    ``axial_images`` counts CT images that are no scouts: with a stack's worth of them somebody expects a PET of it.
    """

    frame_of_reference_uid: str
    series_uid: str
    files: tuple[Path, ...]
    axial_images: int
    merits: Merits | None
    reason: str
    synthetic: bool
    requested_priority: str
    is_pet: bool


def choose_series(
    files: Sequence[Path],
    preference: Preference,
    *,
    accept_synthetic: bool = False,
    gantry_tilt: GantryTilt = "reject",
) -> list[Choice]:
    """Choose one CT series for each study and frame of reference that holds axial CT; reads all headers, no pixels.

    A study without any gives one Choice that says so. The outcome depends on the files' content alone, not on their
    order or names. Raises Rejected, naming the file, where one cannot be read: it could be a slice of any series.
    Paths in, texts out: it may run in another process.
    """
    with quiet_pydicom():
        instances = [read_instance(file, _KEYWORDS) for file in files]
        choices = _choices(instances, preference, _reader(preference, accept_synthetic, gantry_tilt))
    headers = {instance.file: instance.header for instance in instances}
    return [
        replace(choice, source_digest=source_digest(headers[file] for file in choice.files) if choice.files else "")
        for choice in choices
    ]


def chosen_series(
    instances: Sequence[Instance],
    preference: Preference,
    *,
    accept_synthetic: bool = False,
    gantry_tilt: GantryTilt = "reject",
) -> tuple[tuple[Instance, ...], tuple[str, ...]]:
    """The instances of the one series to read, and a sentence for each other one.

    A single series is returned unjudged: reading it says what is wrong. Raises Rejected where there is none, or where
    two frames of reference or studies have one each.
    """
    images = [instance for instance in instances if text(instance.header, "SOPClassUID") != DIRECTORY_CLASS]
    if not images:
        raise Rejected("There is no DICOM image: give the folder of a CT series.")
    if len({text(instance.header, "SeriesInstanceUID") for instance in images}) == 1:
        return tuple(images), ()
    choices = _choices(images, preference, _reader(preference, accept_synthetic, gantry_tilt))
    acceptable = [choice for choice in choices if choice.series_uid is not None]
    if len(acceptable) > 1:
        raise Rejected(
            f"The files hold {len(acceptable)} CT series of different studies or frames of reference: "
            "give one at a time."
        )
    reasons = tuple(
        f"Series {shown_uid(uid)} was set aside: {reason}" for choice in choices for uid, reason in choice.skipped
    )
    if not acceptable:
        first = next(reason for choice in choices for _, reason in choice.skipped)
        raise Rejected(f"None of the {len(reasons)} series can be read, such as: {first}")
    chosen = set(acceptable[0].files)
    return tuple(instance for instance in images if instance.file in chosen), reasons


def _reader(preference: Preference, accept_synthetic: bool, gantry_tilt: GantryTilt) -> _Read:
    return partial(stack_of, preference=preference, accept_synthetic=accept_synthetic, gantry_tilt=gantry_tilt)


def _choices(instances: Sequence[Instance], preference: Preference, read: _Read) -> list[Choice]:
    studies: dict[str, dict[str, list[Instance]]] = {}
    for instance in instances:
        series = studies.setdefault(text(instance.header, "StudyInstanceUID"), {})
        series.setdefault(text(instance.header, "SeriesInstanceUID"), []).append(instance)
    return [
        choice
        for study_uid, members in sorted(studies.items())
        for choice in _study_choices(
            study_uid, [_judged(uid, members[uid], read) for uid in sorted(members)], preference
        )
    ]


def _judged(series_uid: str, instances: Iterable[Instance], read: _Read) -> _Series:
    members = sorted(instances, key=lambda instance: (text(instance.header, "SOPInstanceUID"), str(instance.file)))
    frames = (text(member.header, "FrameOfReferenceUID") for member in members)
    frame_of_reference_uid = min(frame if valid_uid(frame) else "" for frame in frames)
    merits, reason = None, ""
    try:
        stack = read(members)
        frame_of_reference_uid = stack.slices[0].frame_of_reference_uid
        merits = merits_of(stack)
    except Rejected as error:
        reason = str(error)
    headers = [member.header for member in members]
    return _Series(
        frame_of_reference_uid,
        series_uid,
        files=tuple(member.file for member in members),
        axial_images=sum(map(_axial_images, headers)),
        merits=merits,
        reason=reason,
        synthetic=any(text(header, "SyntheticData") == "YES" for header in headers),
        requested_priority=text(headers[0], "RequestedProcedurePriority"),
        is_pet=any(text(header, "Modality") == "PT" for header in headers),
    )


def _axial_images(header: Dataset) -> int:
    if not is_ct(header) or "LOCALIZER" in image_type(header):
        return 0
    frames = text(header, "NumberOfFrames")
    return int(frames) if frames.isdecimal() and len(frames) <= _FRAMES_DIGITS else 1


def _study_choices(study_uid: str, series: Sequence[_Series], preference: Preference) -> list[Choice]:
    """A choice for every frame of reference in which a PET may be expected; the rest is reported with the first.

    Scouts, dose reports, other modalities and a few monitoring slices often have a frame of reference of their own, or
    none: they open no choice unless the study holds nothing better.
    """
    expected = [one for one in series if one.axial_images >= MINIMUM_SLICES]
    expected = expected or [one for one in series if one.axial_images] or list(series)
    frames = sorted({one.frame_of_reference_uid for one in expected})
    groups: dict[str, list[_Series]] = {frame: [] for frame in frames}
    real_pet = next((one.series_uid for one in series if one.is_pet and not one.synthetic), "")
    for one in series:
        groups[one.frame_of_reference_uid if one.frame_of_reference_uid in groups else frames[0]].append(one)
    choices = (_choice(study_uid, frame, group, preference) for frame, group in groups.items())
    return [replace(choice, real_pet=real_pet) for choice in choices]


def _choice(study_uid: str, frame_of_reference_uid: str, group: Sequence[_Series], preference: Preference) -> Choice:
    candidates = [
        (one, one.merits)
        for one in sorted(group, key=lambda one: one.series_uid)
        if one.merits and one.merits.coverage_mm >= preference.minimum_coverage_mm
    ]
    skipped: dict[str, str] = {}
    for one in group:
        if one.merits is None:
            skipped[one.series_uid] = one.reason
        elif one.merits.coverage_mm < preference.minimum_coverage_mm:
            skipped[one.series_uid] = (
                f"Series {shown_uid(one.series_uid)} covers {one.merits.coverage_mm:.0f} mm, less than the minimum of "
                f"{preference.minimum_coverage_mm:g} mm."
            )
    if not candidates:
        return Choice(study_uid, frame_of_reference_uid, None, (), tuple(sorted(skipped.items())))
    (best, _), *others = ranked(candidates, preference, alike="its UID comes first")
    for one, why in others:
        skipped[one.series_uid] = f"Series {shown_uid(best.series_uid)} was preferred: {why}."
    return Choice(
        study_uid,
        frame_of_reference_uid,
        best.series_uid,
        best.files,
        tuple(sorted(skipped.items())),
        synthetic=best.synthetic,
        requested_priority=best.requested_priority,
    )
