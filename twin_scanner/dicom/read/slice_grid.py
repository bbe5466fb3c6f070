"""Slices to a regular grid: one study, place and spacing for all, in which order; headers only, nothing repaired."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from twin_scanner.dicom.read.gantry_tilt import LARGEST_TILT_DEGREES, TILT_TOLERANCE_DEGREES, GantryTilt, Tilt, upright
from twin_scanner.dicom.read.slice_headers import ImageSlice, Plane, SliceKind, numbers, shown, sop_class_name, text
from twin_scanner.errors import Rejected
from twin_scanner.imaging.bounds import LONGEST_MM, SPACING_MM, WIDEST_MM, voxels_fault
from twin_scanner.imaging.volume import Geometry

POSITION_TOLERANCE_MM: Final = 0.1
"""How far a slice may lie from its place on the regular grid, along the normal and across it.

Positions in real files jitter by hundredths of a millimetre (thorax_petct: 0.02), and some scanners round them to
tenths (0.05 off at either end and in between). It is a twentieth of a PET voxel.
"""
SAME_POSITION_MM: Final = 0.05
"""Slices closer than this are at the same place: the finest increment reconstructed is 0.1 mm."""
GAP_TOLERANCE: Final = 0.2
"""A step that is a whole number of usual ones, within this part of one, lacks slices; any other is uneven spacing."""
COSINE_TOLERANCE: Final = 1e-4
"""Direction cosines of one series agree within the rounding of 4 to 6 digits."""
PIXEL_SPACING_TOLERANCE_MM: Final = 1e-4
"""Pixel spacings of one series agree within the rounding of a decimal string."""


@dataclass(frozen=True)
class SliceStack:
    """Slices in stack order (along row x column) on their grid.

    ``repeated`` pairs a slice with another file's of the same SOPInstanceUID and place, which is left out:
    the pixels must prove it the same. ``tilt`` says how slices of a tilted gantry come to lie on ``geometry``.
    """

    slices: tuple[ImageSlice, ...]
    geometry: Geometry
    repeated: tuple[tuple[ImageSlice, ImageSlice], ...]
    tilt: Tilt | None


def stacked(slices: Sequence[ImageSlice], minimum: int, gantry_tilt: GantryTilt | None = None) -> SliceStack:
    """The regular, upright stack that axial slices of one series form; any order of ``slices``.

    ``gantry_tilt`` is what becomes of a sheared stack; None where no gantry tilts (PET). Raises Rejected, with one
    sentence that names the slice and the attribute or position, where they form none, or are fewer than ``minimum``.
    """
    check_one_of_each(slices)
    kept, repeated = _without_repeats(slices)
    ordered = _ordered(kept)
    spacing_mm, tilt_degrees = _line(ordered, gantry_tilt)
    if len(ordered) < minimum:
        raise Rejected(
            f"The series has {len(ordered)} axial slice{'s' * (len(ordered) > 1)}, fewer than {minimum}: "
            "send the whole series."
        )
    _check_frame_of_reference(ordered)
    geometry = _geometry(ordered, spacing_mm)
    if tilt_degrees is None:
        return SliceStack(tuple(ordered), _checked(geometry), repeated, None)
    tilt = upright(_offsets(ordered), geometry, tilt_degrees)
    return SliceStack(tuple(ordered), _checked(tilt.geometry), repeated, tilt)


def axial_slices(
    images: Sequence[ImageSlice], others: Sequence[Dataset], modality: str, sop_classes: Collection[str]
) -> tuple[list[ImageSlice], tuple[str, ...]]:
    """The axial slices among a series' images, in the files' order, and sentences on what is set aside.

    ``others`` are the headers of what is no image of the ``modality`` ("CT"), though some may be of its
    ``sop_classes``. Raises Rejected where no slice is left.
    """
    ordered = sorted(images, key=lambda image: (str(image.file), image.frame or 0))
    slices = [image for image in ordered if image.kind is SliceKind.SLICE]
    if not slices:
        raise Rejected(_nothing_left(ordered, others, modality, sop_classes))
    return slices, _set_aside(ordered, others, modality)


def _set_aside(images: Sequence[ImageSlice], others: Sequence[Dataset], modality: str) -> tuple[str, ...]:
    scouts = [image.name for image in images if image.kind is SliceKind.SCOUT]
    tilted = [image.name for image in images if image.kind is SliceKind.NOT_AXIAL]
    sentences = [
        f"{_count(scouts, 'scout')} in the series set aside (ImageType LOCALIZER): {_listed(scouts)}."
        if scouts
        else "",
        f"{_count(tilted, 'image')} in the series set aside, as the plane is not axial: {_listed(tilted)}."
        if tilted
        else "",
    ]
    for name, number in sorted(Counter(sop_class_name(header) for header in others).items()):
        sentences.append(
            f"{number} object{'s' * (number > 1)} in the series set aside, as no {modality} image: {name}."
        )
    return tuple(sentence for sentence in sentences if sentence)


def _count(names: Sequence[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' * (len(names) > 1)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _nothing_left(
    images: Sequence[ImageSlice], others: Sequence[Dataset], modality: str, sop_classes: Collection[str]
) -> str:
    if not images:
        own = [header for header in others if text(header, "SOPClassUID") in sop_classes]
        if own:
            said = shown(text(own[0], "Modality"))
            return f"Modality of its {modality} images is {said}, not {modality}: send a {modality} series."
        names = ", ".join(sorted({_class_and_modality(header) for header in others})[:3])
        return f"The series holds no {modality} images but {names}: send a {modality} series."
    if all(image.kind is SliceKind.SCOUT for image in images):
        return "The series holds only scouts (ImageType LOCALIZER): send the axial series."
    return (
        f"The planes of the series are not axial (ImageOrientationPatient of {images[0].name}): send the axial series."
    )


def _class_and_modality(header: Dataset) -> str:
    modality = shown(text(header, "Modality")) or "missing"
    return f"{sop_class_name(header) or 'objects without SOPClassUID'} (Modality {modality})"


def check_one_of_each(slices: Sequence[ImageSlice]) -> None:
    """One study, series, patient, frame of reference, matrix, pixel spacing and orientation in all slices."""
    checks: tuple[tuple[str, Callable[[ImageSlice], object]], ...] = (
        ("StudyInstanceUID", lambda image: image.study_uid),
        ("SeriesInstanceUID", lambda image: image.series_uid),
        ("PatientID", lambda image: image.patient),
        ("FrameOfReferenceUID", lambda image: image.frame_of_reference_uid),
        ("Rows or Columns", lambda image: _plane(image).shape),
    )
    first = slices[0]
    for image in slices[1:]:
        for keyword, value in checks:
            if value(image) != value(first):
                raise Rejected(f"{keyword} of {image.name} is not that of {first.name}: send each series by itself.")
        if not np.allclose(
            _plane(image).pixel_spacing_mm, _plane(first).pixel_spacing_mm, rtol=0, atol=PIXEL_SPACING_TOLERANCE_MM
        ):
            raise Rejected(f"PixelSpacing of {image.name} is not that of {first.name}: send each series by itself.")
        if not np.allclose(_axes(image), _axes(first), rtol=0, atol=COSINE_TOLERANCE):
            raise Rejected(
                f"ImageOrientationPatient of {image.name} is not that of {first.name}: send each series by itself."
            )
    _check_one_person(slices)


def _check_one_person(slices: Sequence[ImageSlice]) -> None:
    """Under one PatientID one birth date and sex, where slices give them; names are spelled in several ways."""
    for keyword in ("PatientBirthDate", "PatientSex"):
        given = [image for image in slices if text(image.header, keyword)]
        for image in given:
            if text(image.header, keyword) != text(given[0].header, keyword):
                raise Rejected(
                    f"{keyword} of {image.name} is not that of {given[0].name}, under one PatientID: correct the "
                    "patient and send the series again."
                )


def _plane(image: ImageSlice) -> Plane:
    if image.plane is None:
        raise ValueError(f"{image.name} has no plane")
    return image.plane


def _axes(image: ImageSlice) -> npt.NDArray[np.float64]:
    return np.array([_plane(image).row_direction, _plane(image).column_direction])


def _without_repeats(
    slices: Sequence[ImageSlice],
) -> tuple[list[ImageSlice], tuple[tuple[ImageSlice, ImageSlice], ...]]:
    """Each SOPInstanceUID (and frame) once; what came twice lies at the same place or is two images with one name."""
    kept: dict[tuple[str, int | None], ImageSlice] = {}
    repeated = []
    for image in slices:
        earlier = kept.setdefault((image.sop_instance_uid, image.frame), image)
        if earlier is image:
            continue
        if earlier.plane != image.plane:
            raise Rejected(
                f"SOPInstanceUID of {image.name} and of {earlier.name} is the same, but they are different images: "
                "correct the sender."
            )
        repeated.append((earlier, image))
    return list(kept.values()), tuple(repeated)


def _positions(slices: Sequence[ImageSlice]) -> npt.NDArray[np.float64]:
    return np.array([_plane(image).position_lps_mm for image in slices])


def _ordered(slices: Sequence[ImageSlice]) -> list[ImageSlice]:
    along = _positions(slices) @ np.array(_plane(slices[0]).normal)
    return [slices[index] for index in np.argsort(along, kind="stable")]


def _offsets(ordered: Sequence[ImageSlice]) -> npt.NDArray[np.float64]:
    return _positions(ordered) - _positions(ordered)[0]


def _line(ordered: Sequence[ImageSlice], gantry_tilt: GantryTilt | None) -> tuple[float, float | None]:
    """The spacing of slices on one regular line along the normal, and by how many degrees a gantry's tilt sheared it.

    None: the line is straight. Raises Rejected for any other stack, and for a tilt that is not to be resampled.
    """
    if len(ordered) < 2:
        return 1.0, None
    normal = np.array(_plane(ordered[0]).normal)
    offsets = _offsets(ordered)
    along = offsets @ normal
    steps = np.diff(along)
    _check_positions_differ(ordered, steps)
    tilt_degrees = _tilt_degrees(ordered, along, offsets - np.outer(along, normal))
    if tilt_degrees is not None:
        _check_tilt(ordered, tilt_degrees, gantry_tilt)
    _check_regular(ordered, along, steps)
    spacing_mm = float(along[-1] / (len(ordered) - 1))
    low, high = SPACING_MM
    if not low <= spacing_mm <= high:
        raise Rejected(
            f"The slices lie {spacing_mm:g} mm apart, outside {low:g} to {high:g} (ImagePositionPatient of "
            f"{ordered[0].name} to {ordered[-1].name}): correct the sender."
        )
    return spacing_mm, tilt_degrees


def _check_positions_differ(ordered: Sequence[ImageSlice], steps: npt.NDArray[np.float64]) -> None:
    same = np.flatnonzero(steps < SAME_POSITION_MM)
    if len(same):
        first, second = ordered[same[0]], ordered[same[0] + 1]
        raise Rejected(
            f"ImagePositionPatient of {first.name} and of {second.name} is the same ({_place(first)}), as of "
            f"{len(same)} pairs in all: two phases or reconstructions share the series, so send each by itself."
        )


def _tilt_degrees(
    ordered: Sequence[ImageSlice], along: npt.NDArray[np.float64], across: npt.NDArray[np.float64]
) -> float | None:
    """None where every slice lies straight above the first; the angle where each lies on one slant.

    Raises Rejected where slices were shifted in their plane.
    """
    away = np.linalg.norm(across, axis=1)
    if away.max() <= POSITION_TOLERANCE_MM:
        return None
    off_the_slant = np.linalg.norm(across - across[-1] / along[-1] * along[:, None], axis=1)
    if off_the_slant.max() <= POSITION_TOLERANCE_MM:
        return math.degrees(math.atan2(away[-1], along[-1]))
    away = min(away, off_the_slant, key=np.max)
    worst = ordered[int(away.argmax())]
    raise Rejected(
        f"ImagePositionPatient of {worst.name} lies {away.max():.1f} mm beside the stack's line ({_place(worst)}): "
        "send one stack of aligned slices."
    )


def _check_tilt(ordered: Sequence[ImageSlice], degrees: float, gantry_tilt: GantryTilt | None) -> None:
    """Whether the shear is a gantry's tilt, as far as the header says, and is to be resampled."""
    sheared = (
        f"The stack is sheared by {degrees:.1f} degrees (ImagePositionPatient of {ordered[0].name} to "
        f"{ordered[-1].name})"
    )
    upright_series = "send a series without tilt, or resampled to upright slices"
    if gantry_tilt != "resample":
        option = ', or set reading.gantry_tilt to "resample"' if gantry_tilt else ""
        raise Rejected(f"{sheared}, a tilted gantry: {upright_series}{option}.")
    if degrees > LARGEST_TILT_DEGREES:
        raise Rejected(f"{sheared}, more than a gantry tilts ({LARGEST_TILT_DEGREES:g}): {upright_series}.")
    for image in ordered:
        if text(image.header, "GantryDetectorTilt"):
            (said,) = numbers(image.header, "GantryDetectorTilt", 1)
            if said and abs(abs(said) - degrees) > TILT_TOLERANCE_DEGREES:
                raise Rejected(f"{sheared}, but GantryDetectorTilt of {image.name} is {said:g}: correct the sender.")


def _check_regular(
    ordered: Sequence[ImageSlice], along: npt.NDArray[np.float64], steps: npt.NDArray[np.float64]
) -> None:
    """Every slice lies at its place between the first and the last; the worst step is named where one does not."""
    regular = np.linspace(0.0, along[-1], len(along))
    if np.abs(along - regular).max() <= POSITION_TOLERANCE_MM:
        return
    usual = float(np.median(steps))
    worst = int(np.abs(steps - usual).argmax())
    first, second = ordered[worst], ordered[worst + 1]
    between = f"{steps[worst]:.2f} mm from {first.name} ({_place(first)}) to {second.name}, elsewhere {usual:.2f} mm"
    lost = round(steps[worst] / usual) - 1
    if lost > 0 and abs(steps[worst] / usual - 1 - lost) < GAP_TOLERANCE:
        raise Rejected(
            f"The stack has a gap, {lost} slice{'s' * (lost > 1)} missing: {between}; send the whole series."
        )
    raise Rejected(f"The slices are unevenly spaced: {between}; send one stack of even spacing.")


def _place(image: ImageSlice) -> str:
    x, y, z = _plane(image).position_lps_mm
    return f"{x:.2f}\\{y:.2f}\\{z:.2f} mm"


def _check_frame_of_reference(ordered: Sequence[ImageSlice]) -> None:
    if not ordered[0].frame_of_reference_uid:
        raise Rejected(
            f"FrameOfReferenceUID of {ordered[0].name} is missing: without it no PET can be laid on a CT; "
            "the sender must send it."
        )


def _geometry(ordered: Sequence[ImageSlice], spacing_mm: float) -> Geometry:
    """The grid of slices that lie straight above the first."""
    plane = _plane(ordered[0])
    rows, columns = plane.shape
    return Geometry(
        (len(ordered), rows, columns),
        (spacing_mm, *plane.pixel_spacing_mm),
        plane.position_lps_mm,
        (plane.normal, plane.column_direction, plane.row_direction),
    )


def _checked(geometry: Geometry) -> Geometry:
    """The grid, where a scan of a person can have it; raises Rejected where not."""
    if fault := voxels_fault(geometry.shape):
        raise Rejected(f"The series has {fault} (slices, Rows, Columns), more than can be read: split it.")
    length_mm, height_mm, width_mm = geometry.extent_mm
    if length_mm > LONGEST_MM or max(height_mm, width_mm) > WIDEST_MM:
        raise Rejected(
            f"The series is {length_mm:.0f} mm long and its slices {height_mm:.0f} x {width_mm:.0f} mm large, which no "
            f"scan of a person is (at most {LONGEST_MM:g} mm and {WIDEST_MM:g} mm): correct PixelSpacing and "
            "ImagePositionPatient at the sender."
        )
    return geometry


def by_place(slices: Sequence[ImageSlice]) -> list[tuple[ImageSlice, ...]]:
    """The slices, each SOPInstanceUID once, by their place along the stack's normal: those that share one together."""
    ordered = _ordered(list({(image.sop_instance_uid, image.frame): image for image in slices}.values()))
    along = _positions(ordered) @ np.array(_plane(ordered[0]).normal)
    starts = np.flatnonzero(np.diff(along, prepend=-np.inf) >= SAME_POSITION_MM)
    return [tuple(ordered[start:stop]) for start, stop in zip(starts, [*starts[1:], len(ordered)], strict=True)]
