"""A CT series from its files to a volume in HU: read_ct_series, exact in geometry or Rejected."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from twin_scanner.dicom.read.ct_stack import CtStack, read_instance, stack_of
from twin_scanner.dicom.read.dicom_files import find_dicom_files, quiet_pydicom, read_dataset, read_header
from twin_scanner.dicom.read.gantry_tilt import GantryTilt, upright_slice
from twin_scanner.dicom.read.hounsfield import hounsfield_frames, hounsfield_slice
from twin_scanner.dicom.read.preference import Preference
from twin_scanner.dicom.read.series_choice import chosen_series
from twin_scanner.dicom.read.slice_headers import ImageSlice, lossy_remark, naming_series, optional_integer
from twin_scanner.dicom.read.stored_pixels import confirmed_repeats
from twin_scanner.imaging.volume import FloatArray, Geometry, Volume


@dataclass(frozen=True, eq=False)
class CtSeries:
    """A CT series: HU float32 (D, H, W), D along the stack's normal (row x column), padding and below-air AIR_HU.

    ``header`` is the first slice's data set (of a multi-frame object, its top level and shared groups) without pixels,
    nothing in it decoded yet. ``sop_instance_uids`` are in stack order, each once, and
    ``instance_numbers`` the InstanceNumber of each, None where it has none. ``set_aside`` are sentences: what was left
    out and why, and what a reader should know of the images. ``derivation`` is a sentence on how the volume
    was resampled from the slices; empty where its voxels are theirs.
    """

    volume: Volume
    header: Dataset
    sop_instance_uids: tuple[str, ...]
    sop_class_uid: str
    set_aside: tuple[str, ...]
    lossy: bool = False
    derivation: str = ""
    instance_numbers: tuple[int | None, ...] = ()

    def without_voxels(self) -> "CtSeries":
        """The series for whoever needs its geometry and headers alone: the volume is 0 and takes no memory."""
        empty = np.broadcast_to(np.float32(0.0), self.volume.geometry.shape)
        return replace(self, volume=Volume(empty, self.volume.geometry))


def read_ct_series(
    files: Path | Sequence[Path],
    *,
    preference: Preference = Preference(),  # noqa: B008
    accept_synthetic: bool = False,
    gantry_tilt: GantryTilt = "reject",
) -> CtSeries:
    """Read one CT series from a folder (searched to the bottom) or a list of its files.

    Of several series, or phases of one, the one that ``preference`` chooses is read, the others are named in
    ``set_aside``; its minimum coverage does not count, for whoever names the files wants them read. With
    ``gantry_tilt`` "resample" a stack sheared by a tilted gantry is put upright, and ``derivation`` says so.
    Raises Rejected, with one sentence that names the slice and the attribute or position, for everything that is not
    one regular, axial, upright stack of HU slices with its identity; Transient where the disk fails.
    """
    with quiet_pydicom():
        found = find_dicom_files(files)
        instances = [read_instance(file) for file in found.dicom]
        wanted = replace(preference, minimum_coverage_mm=0.0)
        series, skipped = chosen_series(instances, wanted, accept_synthetic=accept_synthetic, gantry_tilt=gantry_tilt)
        stack = stack_of(series, preference=wanted, accept_synthetic=accept_synthetic, gantry_tilt=gantry_tilt)
        return _read_stack(stack, (*found.set_aside, *skipped))


@dataclass(frozen=True, eq=False)
class ChosenSeries:
    """The CT series among many files that ``read_ct_series`` would be given alone, and what it would read of them."""

    files: tuple[Path, ...]
    series: CtSeries


def read_chosen_series(
    files: Sequence[Path],
    *,
    preference: Preference,
    accept_synthetic: bool,
    gantry_tilt: GantryTilt,
    has_room: Callable[[Geometry, Iterable[str]], bool],
) -> ChosenSeries | None:
    """Choose a CT series among a study's files as the service does, and read it as if its files had been alone.

    ``has_room`` is asked before pixels are decoded, with the grid and the transfer syntaxes of the series; None where
    it says no. Raises as ``read_ct_series`` does, also where the study has one such series in each of several frames
    of reference.
    """
    how: dict[str, Any] = {"accept_synthetic": accept_synthetic, "gantry_tilt": gantry_tilt}
    with quiet_pydicom():
        instances = [read_instance(file) for file in find_dicom_files(files).dicom]
        series, _ = chosen_series(instances, preference, **how)
        stack = stack_of(series, preference=replace(preference, minimum_coverage_mm=0.0), **how)
        syntaxes = {str(instance.header.file_meta.get("TransferSyntaxUID", "")) for instance in series}
        if not has_room(stack.geometry, syntaxes):
            return None
        return ChosenSeries(tuple(instance.file for instance in series), _read_stack(stack, ()))


def _read_stack(stack: CtStack, set_aside: Sequence[str]) -> CtSeries:
    """The series that a stack of slices is; ``set_aside`` says what was left out before it."""
    with naming_series(stack.slices[0].header):
        array = _hounsfield(stack)
        repeats = confirmed_repeats(stack.repeated, _slice_hounsfield)
    header = _first_header(stack.slices[0])
    remarks = lossy_remark(stack.slices, "HU")
    derivation = stack.tilt.sentence() if stack.tilt else ""
    headers = {image.sop_instance_uid: image.header for image in stack.slices}
    return CtSeries(
        volume=Volume(array, stack.geometry),
        header=header,
        sop_instance_uids=tuple(headers),
        sop_class_uid=stack.slices[0].sop_class_uid,
        set_aside=(*set_aside, *stack.set_aside, *repeats, *remarks, *filter(None, [derivation])),
        lossy=bool(remarks),
        derivation=derivation,
        instance_numbers=tuple(optional_integer(header, "InstanceNumber") for header in headers.values()),
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
            array[place] = upright_slice(hounsfield, stack.tilt, place) if stack.tilt else hounsfield
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
