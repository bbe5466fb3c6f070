"""Which CT series of a study becomes a PET: one for each frame of reference, by a stated preference, from headers."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Final, Literal

from pydicom.dataset import Dataset

from twin_scanner.dicom.equipment import valid_uid
from twin_scanner.dicom.read.ct_headers import is_ct
from twin_scanner.dicom.read.ct_stack import MINIMUM_SLICES, CtStack, Instance, read_instance, stack_of
from twin_scanner.dicom.read.dicom_files import DIRECTORY_CLASS, quiet_pydicom
from twin_scanner.dicom.read.slice_headers import image_type, shown_uid, text
from twin_scanner.dicom.read.source_digest import source_digest
from twin_scanner.errors import Rejected
from twin_scanner.imaging.bounds import SPACING_MM


class Kernel(IntEnum):
    """What a reconstruction kernel is made for; smaller is better for a network that has seen soft tissue."""

    SOFT = 0
    UNKNOWN = 1
    SHARP = 2


SHARP_KERNELS: Final = re.compile(
    r"LUNG|BONE|EDGE|ULTRA|SHARP|INNER.?EAR"
    r"|^FC(?:3|5|8|9)\d"
    r"|^[BDHIJQTU][A-Z]?[5-9]\d"
    r"|^(?:D|E|EA|EB|EC|ED|L|YA|YB|YC|YD)$"
)
"""Kernels for lung, bone and ear: GE and others by words, Canon FC30-39, 50-59 and 80-99, Siemens by number (B70f,
Br59, I50f: 50 and more), Philips by letters."""
SOFT_KERNELS: Final = re.compile(
    r"^STANDARD|^STND|^STD|SOFT|SMOOTH|ROUTINE"
    r"|^FC(?:0|1|2|4|6|7)\d"
    r"|^[BDHIJQTU][A-Z]?[0-4]\d"
    r"|^(?:A|B|C|UA|UB|UC)$"
)
"""Kernels for soft tissue and brain, likewise; what neither names (GE DETAIL, CHST) ranks between."""
_KERNEL_LENGTH: Final = 16
"""ConvolutionKernel is an SH and holds no more characters (PS3.5 6.2)."""
_FRAMES_DIGITS: Final = 9
"""A NumberOfFrames with more digits is not counted: it stands in damaged headers only."""
COVERAGE_TOLERANCE: Final = 0.1
"""Series within this part of the longest cover the same: reconstructions of one scan differ by a few slices."""


@dataclass(frozen=True)
class Preference:
    """What makes one CT of a study better than another: coverage, then kernel, thickness, contrast, in this order.

    ``minimum_coverage_mm`` along the stack's normal: a shorter series is never chosen. ``target_thickness_mm``: the
    slice thickness nearest to it wins. ``contrast``: which phase wins; ``any`` takes no side.
    """

    minimum_coverage_mm: float = 100.0
    target_thickness_mm: float = 3.0
    contrast: Literal["any", "without", "with"] = "any"


@dataclass(frozen=True)
class Choice:
    """The series chosen for one study and frame of reference, its files, and why each other series was skipped.

    Without an acceptable series ``series_uid`` is None and ``files`` empty; ``skipped`` says why: (series_uid, reason).
    ``source_digest`` is that of the chosen files.
    """

    study_uid: str
    frame_of_reference_uid: str
    series_uid: str | None
    files: tuple[Path, ...]
    skipped: tuple[tuple[str, str], ...]
    source_digest: str = ""


@dataclass(frozen=True)
class _Merits:
    """What the preference weighs in a series that is a proper stack."""

    coverage_mm: float
    kernel: str
    thickness_mm: float
    contrast: bool


@dataclass(frozen=True)
class _Series:
    """One series as all its headers tell it: its merits, or the reason why it cannot be read.

    ``axial_images`` counts CT images that are no scouts: with a stack's worth of them somebody expects a PET of it.
    """

    frame_of_reference_uid: str
    series_uid: str
    files: tuple[Path, ...]
    axial_images: int
    merits: _Merits | None
    reason: str


def choose_series(files: Sequence[Path], preference: Preference, *, accept_synthetic: bool = False) -> list[Choice]:
    """Choose one CT series for each study and frame of reference that holds axial CT; reads all headers, no pixels.

    A study without any gives one Choice that says so. The outcome depends on the files' content alone, not on their
    order or names. Raises Rejected, naming the file, where one cannot be read: it could be a slice of any series.
    Paths in, texts out: it may run in another process.
    """
    with quiet_pydicom():
        instances = [read_instance(file) for file in files]
        choices = _choices(instances, preference, accept_synthetic)
    return [replace(choice, source_digest=source_digest(choice.files) if choice.files else "") for choice in choices]


def chosen_series(
    instances: Sequence[Instance], preference: Preference, *, accept_synthetic: bool = False
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
    choices = _choices(images, preference, accept_synthetic)
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


def _choices(instances: Sequence[Instance], preference: Preference, accept_synthetic: bool) -> list[Choice]:
    studies: dict[str, dict[str, list[Instance]]] = {}
    for instance in instances:
        series = studies.setdefault(text(instance.header, "StudyInstanceUID"), {})
        series.setdefault(text(instance.header, "SeriesInstanceUID"), []).append(instance)
    return [
        choice
        for study_uid, members in sorted(studies.items())
        for choice in _study_choices(
            study_uid, [_judged(uid, members[uid], accept_synthetic) for uid in sorted(members)], preference
        )
    ]


def _judged(series_uid: str, instances: Iterable[Instance], accept_synthetic: bool) -> _Series:
    members = sorted(instances, key=lambda instance: (text(instance.header, "SOPInstanceUID"), str(instance.file)))
    frames = (text(member.header, "FrameOfReferenceUID") for member in members)
    frame_of_reference_uid = min(frame if valid_uid(frame) else "" for frame in frames)
    merits, reason = None, ""
    try:
        stack = stack_of(members, accept_synthetic=accept_synthetic)
        frame_of_reference_uid = stack.slices[0].frame_of_reference_uid
        merits = _merits(stack)
    except Rejected as error:
        reason = str(error)
    files = tuple(member.file for member in members)
    axial = sum(_axial_images(member.header) for member in members)
    return _Series(frame_of_reference_uid, series_uid, files, axial, merits, reason)


def _merits(stack: CtStack) -> _Merits:
    header = stack.slices[0].header
    try:
        thickness_mm = float(text(header, "SliceThickness"))
    except ValueError:
        thickness_mm = math.nan
    if not 0 < thickness_mm <= SPACING_MM[1]:
        thickness_mm = round(stack.geometry.spacing_mm[0], 3)
    contrast = bool(text(header, "ContrastBolusAgent")) or "ContrastBolusAgentSequence" in header
    return _Merits(
        stack.geometry.extent_mm[0], text(header, "ConvolutionKernel")[:_KERNEL_LENGTH], thickness_mm, contrast
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
    for one in series:
        groups[one.frame_of_reference_uid if one.frame_of_reference_uid in groups else frames[0]].append(one)
    return [_choice(study_uid, frame, group, preference) for frame, group in groups.items()]


def _choice(study_uid: str, frame_of_reference_uid: str, group: Sequence[_Series], preference: Preference) -> Choice:
    candidates = [
        (one, one.merits) for one in group if one.merits and one.merits.coverage_mm >= preference.minimum_coverage_mm
    ]
    longest_mm = max((merits.coverage_mm for _, merits in candidates), default=0.0)
    ranked = sorted(candidates, key=lambda pair: (_rank(pair[1], longest_mm, preference), pair[0].series_uid))
    skipped: dict[str, str] = {}
    for one in group:
        if one.merits is None:
            skipped[one.series_uid] = one.reason
        elif one.merits.coverage_mm < preference.minimum_coverage_mm:
            skipped[one.series_uid] = (
                f"Series {shown_uid(one.series_uid)} covers {one.merits.coverage_mm:.0f} mm, less than the minimum of "
                f"{preference.minimum_coverage_mm:g} mm."
            )
    if not ranked:
        return Choice(study_uid, frame_of_reference_uid, None, (), tuple(sorted(skipped.items())))
    best, its_merits = ranked[0]
    for one, merits in ranked[1:]:
        why = _why_second(merits, its_merits, longest_mm, preference)
        skipped[one.series_uid] = f"Series {shown_uid(best.series_uid)} was preferred: {why}."
    return Choice(study_uid, frame_of_reference_uid, best.series_uid, best.files, tuple(sorted(skipped.items())))


def _rank(merits: _Merits, longest_mm: float, preference: Preference) -> tuple[bool, int, float, bool, int]:
    """Smaller is better, and the first difference decides; ``_why_second`` follows the same order."""
    return (
        merits.coverage_mm < (1.0 - COVERAGE_TOLERANCE) * longest_mm,
        int(kernel_of(merits.kernel)),
        round(abs(merits.thickness_mm - preference.target_thickness_mm), 2),
        preference.contrast != "any" and merits.contrast != (preference.contrast == "with"),
        -round(merits.coverage_mm),
    )


def _why_second(second: _Merits, best: _Merits, longest_mm: float, preference: Preference) -> str:
    ranks = zip(_rank(second, longest_mm, preference), _rank(best, longest_mm, preference), strict=True)
    place = next((place for place, (mine, its) in enumerate(ranks) if mine != its), None)
    coverage = f"it covers {best.coverage_mm:.0f} mm, this one {second.coverage_mm:.0f} mm"
    reasons = {
        0: coverage,
        1: f"its kernel is {best.kernel or 'not given'}, this one's {second.kernel or 'not given'}",
        2: f"its slices are {best.thickness_mm:g} mm thick, this one's {second.thickness_mm:g} mm",
        3: f"it is {'with' if best.contrast else 'without'} contrast medium, this one is not",
        4: coverage,
        None: "both are alike, and its UID comes first",
    }
    return reasons[place]


def kernel_of(name: str) -> Kernel:
    """The class of a ConvolutionKernel by its first value (Siemens' second is the strength of iteration)."""
    first = name.split("\\")[0].strip().upper()
    if SHARP_KERNELS.search(first):
        return Kernel.SHARP
    return Kernel.SOFT if SOFT_KERNELS.search(first) else Kernel.UNKNOWN
