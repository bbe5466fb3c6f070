"""A CT series from its files to a volume in HU: read_ct_series, exact in geometry or Rejected."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from twin_scanner.dicom.read.ct_stack import CtStack, read_instance, stack_of
from twin_scanner.dicom.read.dicom_files import find_dicom_files, quiet_pydicom, read_dataset, read_header
from twin_scanner.dicom.read.hounsfield import hounsfield_frames, hounsfield_slice
from twin_scanner.dicom.read.series_choice import Preference, chosen_series
from twin_scanner.dicom.read.slice_headers import ImageSlice, lossy_remark, naming_series
from twin_scanner.dicom.read.stored_pixels import confirmed_repeats
from twin_scanner.imaging.volume import FloatArray, Volume

ANY_COVERAGE: Final = Preference(minimum_coverage_mm=0.0)
"""Whoever names the files wants them read, however little of the body they show."""


@dataclass(frozen=True, eq=False)
class CtSeries:
    """A CT series: HU float32 (D, H, W), D along the stack's normal (row x column), padding and below-air AIR_HU.

    ``header`` is the first slice's data set (of a multi-frame object, its top level and shared groups) without pixels,
    nothing in it decoded yet. ``sop_instance_uids`` are in stack order, each once. ``set_aside`` are sentences: what
    was left out and why, and what a reader should know of the images.
    """

    volume: Volume
    header: Dataset
    sop_instance_uids: tuple[str, ...]
    sop_class_uid: str
    set_aside: tuple[str, ...]
    lossy: bool = False


def read_ct_series(files: Path | Sequence[Path], *, accept_synthetic: bool = False) -> CtSeries:
    """Read one CT series from a folder (searched to the bottom) or a list of its files.

    Of several series the one that the default Preference chooses (at any coverage) is read, the others are named in
    ``set_aside``.
    Raises Rejected, with one sentence that names the slice and the attribute or position, for everything that is not
    one regular, axial, upright stack of HU slices with its identity; Transient where the disk fails.
    """
    with quiet_pydicom():
        found = find_dicom_files(files)
        instances = [read_instance(file) for file in found.dicom]
        series, skipped = chosen_series(instances, ANY_COVERAGE, accept_synthetic=accept_synthetic)
        stack = stack_of(series, accept_synthetic=accept_synthetic)
        with naming_series(stack.slices[0].header):
            array = _hounsfield(stack)
            repeats = confirmed_repeats(stack.repeated, _slice_hounsfield)
        header = _first_header(stack.slices[0])
    remarks = lossy_remark(stack.slices, "HU")
    return CtSeries(
        volume=Volume(array, stack.geometry),
        header=header,
        sop_instance_uids=tuple(dict.fromkeys(image.sop_instance_uid for image in stack.slices)),
        sop_class_uid=stack.slices[0].sop_class_uid,
        set_aside=(*found.set_aside, *skipped, *stack.set_aside, *repeats, *remarks),
        lossy=bool(remarks),
    )


def _hounsfield(stack: CtStack) -> FloatArray:
    """All slices, one after another into an array that is allocated once: no second copy of the volume is ever held.

    No threads: none of the codecs gives up Python's lock while it decodes (measured, two threads took as long as one).
    """
    array = np.empty(stack.geometry.shape, dtype=np.float32)
    by_file: dict[Path, list[tuple[int, ImageSlice]]] = {}
    for place, image in enumerate(stack.slices):
        by_file.setdefault(image.file, []).append((place, image))
    for file, images in by_file.items():
        for (place, _), hounsfield in zip(images, _file_hounsfield(file, images), strict=True):
            array[place] = hounsfield
    return array


def _file_hounsfield(file: Path, images: Sequence[tuple[int, ImageSlice]]) -> Iterator[FloatArray]:
    dataset = read_dataset(file)
    if images[0][1].frame is None:
        return iter([hounsfield_slice(dataset)])
    return hounsfield_frames(dataset, [(image.frame or 0, image.header) for _, image in images])


def _slice_hounsfield(image: ImageSlice) -> FloatArray:
    return next(_file_hounsfield(image.file, [(0, image)]))


def _first_header(image: ImageSlice) -> Dataset:
    header = read_header(image.file)
    if image.frame is not None:
        del header.PerFrameFunctionalGroupsSequence
    return header
