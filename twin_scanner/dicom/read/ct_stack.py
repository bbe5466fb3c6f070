"""CT images to a stack: which are slices of the series, and that they are one acquisition; headers only."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from twin_scanner.dicom.read.ct_headers import CT_IMAGE, ENHANCED_CT, HEADER_KEYWORDS, ct_slice, is_ct
from twin_scanner.dicom.read.dicom_files import read_header
from twin_scanner.dicom.read.enhanced_ct import frame_headers, is_enhanced
from twin_scanner.dicom.read.gantry_tilt import GantryTilt
from twin_scanner.dicom.read.phases import one_phase
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.dicom.read.slice_grid import SliceStack, axial_slices, stacked
from twin_scanner.dicom.read.slice_headers import ImageSlice, naming_series, text
from twin_scanner.errors import Rejected

MINIMUM_SLICES: Final = 16
"""Fewer cannot fill half a network window of 32 slices; dose-monitoring and biopsy series have fewer."""


@dataclass(frozen=True)
class Instance:
    """A DICOM file and its header (read with HEADER_KEYWORDS or more)."""

    file: Path
    header: Dataset


def read_instance(file: Path, keywords: Sequence[str] = HEADER_KEYWORDS) -> Instance:
    """One file's header; raises Rejected, naming the file, for a CT image that cannot even be told to a series."""
    header = read_header(file, keywords)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        if is_ct(header) and not text(header, keyword):
            raise Rejected(f"{keyword} of {file.name} is missing, so it is damaged or cut short: send it again.")
    return Instance(file, header)


@dataclass(frozen=True)
class CtStack(SliceStack):
    """The stack of a CT series, and sentences on what else was in it."""

    set_aside: tuple[str, ...]


def stack_of(
    instances: Sequence[Instance],
    *,
    preference: Preference = Preference(),  # noqa: B008
    accept_synthetic: bool = False,
    gantry_tilt: GantryTilt = "reject",
) -> CtStack:
    """The stack that the CT images of one series form; of several phases the one that the preference chooses.

    Scouts and planes that are not axial are set aside where a stack remains. Raises Rejected, with one sentence that
    names the slice and the attribute or position, for everything that is not one regular stack of HU slices.
    """
    with naming_series(instances[0].header):
        images = [
            image for instance in instances if is_ct(instance.header) for image in _images(instance, accept_synthetic)
        ]
        others = [instance.header for instance in instances if not is_ct(instance.header)]
        slices, set_aside = axial_slices(images, others, "CT", {CT_IMAGE, *ENHANCED_CT})
        stack, left_out = one_phase(slices, partial(_one_acquisition, gantry_tilt), preference)
    return CtStack(stack.slices, stack.geometry, stack.repeated, stack.tilt, (*set_aside, *left_out))


def _one_acquisition(gantry_tilt: GantryTilt, slices: Sequence[ImageSlice]) -> SliceStack:
    stack = stacked(slices, MINIMUM_SLICES, gantry_tilt)
    _check_one_object(stack.slices)
    _check_one_acquisition(stack.slices)
    return stack


def _images(instance: Instance, accept_synthetic: bool) -> list[ImageSlice]:
    if not is_enhanced(instance.header):
        return [ct_slice(instance.header, instance.file, accept_synthetic=accept_synthetic)]
    return [
        ct_slice(frame, instance.file, index, accept_synthetic=accept_synthetic)
        for index, frame in enumerate(frame_headers(instance.header))
    ]


def _check_one_object(ordered: Sequence[ImageSlice]) -> None:
    """Either each slice is an instance or all are frames of one: what is written names the CT in these two ways alone.

    A concatenation (PS3.3 C.7.6.16.2.2.4) is neither.
    """
    count = len({image.sop_instance_uid for image in ordered})
    if 1 < count < len(ordered):
        raise Rejected(
            f"The {len(ordered)} slices of the stack are frames of {count} multi-frame objects, and only one can be "
            "read: send them as one object or as single images."
        )


def _check_one_acquisition(ordered: Sequence[ImageSlice]) -> None:
    """Two phases that lie half a step apart make a regular stack, but take turns along it.

    Step and shoot gives many numbers too, each for slices that lie together.
    """
    for keyword in ("AcquisitionNumber", "ConvolutionKernel"):
        values = [text(image.header, keyword) for image in ordered]
        starts = [place for place in range(len(values)) if place == 0 or values[place] != values[place - 1]]
        if len(starts) > len(set(values)):
            first, second = ordered[starts[1] - 1], ordered[starts[1]]
            raise Rejected(
                f"{keyword} takes turns along the stack ({first.name} and {second.name} differ): two phases or "
                "reconstructions share the series, so send each by itself."
            )
