"""Reading a DICOM Segmentation: its segments and the grid on which its frames lie, wherever in the patient."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels
from scipy import ndimage

from twin_scanner.dicom.read.dicom_files import MALFORMED, quiet_pydicom, read_dataset, read_header
from twin_scanner.dicom.read.slice_grid import COSINE_TOLERANCE, POSITION_TOLERANCE_MM
from twin_scanner.dicom.read.slice_headers import text
from twin_scanner.errors import Rejected
from twin_scanner.imaging.bounds import extent_fault, voxels_fault
from twin_scanner.imaging.volume import Geometry, LabelArray, Triple

Frame: TypeAlias = npt.NDArray[np.unsignedinteger]

SEGMENTATION_CLASSES: Final = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage (BINARY, FRACTIONAL) and Label Map Segmentation Storage (PS3.4 B.5)."""
LARGEST_SHARED: Final = 0.5
"""The share of a segment; where more of it lies in another one, the border between them says nothing."""
UNLISTED: Final = -1
"""In a lookup table of segment numbers."""
POSITION: Final = ("PlanePositionSequence", "ImagePositionPatient", 3)
ORIENTATION: Final = ("PlaneOrientationSequence", "ImageOrientationPatient", 6)
SPACING: Final = ("PixelMeasuresSequence", "PixelSpacing", 2)
"""Sequence, attribute and number of its values, among the functional groups (PS3.3 C.7.6.16.2)."""


@dataclass(frozen=True)
class StoredSegment:
    """One segment: its number and SegmentLabel (PS3.3 C.8.20.4)."""

    number: int
    label: str


@dataclass(frozen=True, eq=False)
class SegmentationFile:
    """A DICOM Segmentation with its frames still encoded: BINARY or LABELMAP.

    ``geometry`` spans the frames that are there: D along the normal (row x column), H down the columns, W along the
    rows. Frames without a labelled pixel may be missing anywhere in it and beyond it (PS3.3 C.8.20.2), so its end
    along D says nothing. ``places`` holds each frame's index along D, ``owners`` its segment number (0: a label map).
    """

    file: Path
    dataset: Dataset
    geometry: Geometry
    segments: tuple[StoredSegment, ...]
    places: tuple[int, ...]
    owners: tuple[int, ...]
    frame_of_reference_uid: str
    referenced_series_uids: tuple[str, ...]

    @property
    def is_label_map(self) -> bool:
        """Whether pixels are segment numbers."""
        return text(self.dataset, "SegmentationType") == "LABELMAP"


def is_dicom_file(path: Path) -> bool:
    """Whether a file begins as PS3.10 7.1 says; raises Rejected where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError as error:
        raise Rejected(f"{path} cannot be read: give a NIfTI or a DICOM Segmentation file.") from error


def read_segmentation(file: Path) -> SegmentationFile:
    """Read segments and geometry of a DICOM Segmentation in patient coordinates.

    Raises Rejected, naming the attribute, for other objects, for FRACTIONAL (the standard gives no threshold that
    would make one label of it), and where the frames do not lie on one regular grid; Transient where the disk fails.
    """
    with quiet_pydicom():
        if text(read_header(file, ("SOPClassUID",)), "SOPClassUID") not in SEGMENTATION_CLASSES:
            raise Rejected(f"{file.name} is a DICOM object but no Segmentation: give the SEG of this CT.")
        dataset = read_dataset(file)
        try:
            _check_kind(dataset, file)
            return _with_geometry(dataset, file)
        except MALFORMED as error:
            raise Rejected(f"{file.name} is damaged and cannot be read as a segmentation: export it again.") from error


def segmentation_labels(segmentation: SegmentationFile, label_of: Mapping[int, int]) -> LabelArray:
    """The labels (D, H, W) on ``segmentation.geometry``: ``label_of`` gives each segment number its label, or 0.

    Where segments of different labels overlap in a rim, the lower segment number has the voxel. Raises Rejected where
    they overlap in more than a rim, and for a segment that is there and not in ``label_of``.
    """
    with quiet_pydicom():
        try:
            if segmentation.is_label_map:
                return _from_label_map(segmentation, label_of)
            return _from_binary(segmentation, label_of)
        except MALFORMED as error:
            name = segmentation.file.name
            raise Rejected(f"The pixels of {name} are damaged and cannot be decoded: export it again.") from error


def _check_kind(dataset: Dataset, file: Path) -> None:
    kind = text(dataset, "SegmentationType")
    if kind == "FRACTIONAL":
        raise Rejected(
            f"{file.name} is a FRACTIONAL segmentation, which has no one label a voxel: export it as BINARY."
        )
    if kind not in ("BINARY", "LABELMAP"):
        raise Rejected(f"SegmentationType of {file.name} is '{kind}': export it as BINARY or LABELMAP.")
    if not text(dataset, "FrameOfReferenceUID"):
        raise Rejected(f"FrameOfReferenceUID of {file.name} is missing, so it lies on no CT: export it again.")


def _with_geometry(dataset: Dataset, file: Path) -> SegmentationFile:
    shared, frames = _functional_groups(dataset, file)
    positions = np.array([_numbers(file, frame, shared, *POSITION) for frame in frames])
    axes = _same_in_all(file, [_numbers(file, frame, shared, *ORIENTATION) for frame in frames], "orientation")
    spacing = _same_in_all(file, [_numbers(file, frame, shared, *SPACING) for frame in frames], "spacing")
    row, column = axes[:3], axes[3:]
    normal = np.cross(row, column)
    along = (positions - positions[0]) @ normal
    across = positions - positions[0] - np.outer(along, normal)
    if np.abs(across).max() > POSITION_TOLERANCE_MM:
        raise Rejected(
            f"The frames of {file.name} do not lie straight above each other: resample it to upright slices."
        )
    step_mm = _step_mm(file, along, _declared_step_mm(frames[0], shared))
    places = np.rint((along - along.min()) / step_mm).astype(np.int64)
    shape = (int(places.max()) + 1, int(dataset.Rows), int(dataset.Columns))
    grid_mm = (step_mm, float(spacing[0]), float(spacing[1]))
    if fault := voxels_fault(shape) or extent_fault(shape, grid_mm):
        raise Rejected(f"{file.name} spans {fault}, more than can be read: check its positions and PixelSpacing.")
    x, y, z = positions[int(along.argmin())]
    return SegmentationFile(
        file=file,
        dataset=dataset,
        geometry=Geometry(
            shape,
            grid_mm,
            (float(x), float(y), float(z)),
            (_triple(normal), _triple(column), _triple(row)),
        ),
        segments=tuple(StoredSegment(int(s.SegmentNumber), text(s, "SegmentLabel")) for s in dataset.SegmentSequence),
        places=tuple(int(place) for place in places),
        owners=tuple(_owners(dataset, file, frames, shared)),
        frame_of_reference_uid=text(dataset, "FrameOfReferenceUID"),
        referenced_series_uids=tuple(text(s, "SeriesInstanceUID") for s in dataset.get("ReferencedSeriesSequence", ())),
    )


def _functional_groups(dataset: Dataset, file: Path) -> tuple[Dataset, list[Dataset]]:
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    frames = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    count = int(dataset.get("NumberOfFrames") or 1)
    if not frames or len(frames) != count:
        raise Rejected(
            f"PerFrameFunctionalGroupsSequence of {file.name} has {len(frames)} items for {count} frames: "
            "export it again."
        )
    return shared[0], frames


def _group_value(frame: Dataset, shared: Dataset, sequence: str, keyword: str) -> object:
    """An attribute of a functional group, per frame or shared (PS3.3 C.7.6.16.1.1)."""
    for groups in (frame, shared):
        for item in groups.get(sequence) or ():
            if item.get(keyword) is not None:
                return item.get(keyword)
    return None


def _numbers(file: Path, frame: Dataset, shared: Dataset, sequence: str, keyword: str, count: int) -> list[float]:
    value = _group_value(frame, shared, sequence, keyword)
    numbers = [float(part) for part in value] if isinstance(value, Sequence) and not isinstance(value, str) else []
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise Rejected(
            f"{keyword} of {file.name} is missing or is not {count} numbers: export it in patient coordinates."
        )
    return numbers


def _same_in_all(file: Path, values: Sequence[Sequence[float]], what: str) -> npt.NDArray[np.float64]:
    first = np.array(values[0])
    if not np.allclose(np.array(values), first, rtol=0, atol=COSINE_TOLERANCE):
        raise Rejected(f"The frames of {file.name} differ in {what}: export one stack of parallel slices.")
    return first


def _declared_step_mm(frame: Dataset, shared: Dataset) -> float:
    """SpacingBetweenSlices, or 0 where there is none: only SliceThickness is, and slices may overlap."""
    value = _group_value(frame, shared, "PixelMeasuresSequence", "SpacingBetweenSlices")
    return abs(float(str(value))) if value not in (None, "") else 0.0


def _step_mm(file: Path, along: npt.NDArray[np.float64], declared_mm: float) -> float:
    """The spacing of the grid of which every frame's position is a point; the positions decide, not what is declared.

    What is declared says how many slices without a frame lie between two frames. It is rounded, so it is fitted to
    the positions; where they do not follow it, the smallest step between them is taken.
    """
    offsets = np.sort(along) - along.min()
    steps = np.diff(offsets)
    apart = steps[steps > POSITION_TOLERANCE_MM]
    if not apart.size:
        return declared_mm or 1.0
    for guess_mm in (declared_mm, float(apart.min())):
        slices = np.rint(apart / guess_mm) if guess_mm > POSITION_TOLERANCE_MM else np.zeros(1)
        if slices.min() < 1:
            continue
        step_mm = float(offsets[-1] / slices.sum())
        if np.abs(offsets - np.rint(offsets / step_mm) * step_mm).max() <= POSITION_TOLERANCE_MM:
            return step_mm
    raise Rejected(f"The frames of {file.name} are unevenly spaced: export one stack of even spacing.")


def _owners(dataset: Dataset, file: Path, frames: Sequence[Dataset], shared: Dataset) -> Iterator[int]:
    if text(dataset, "SegmentationType") == "LABELMAP":
        yield from [0] * len(frames)
        return
    for frame in frames:
        number = _group_value(frame, shared, "SegmentIdentificationSequence", "ReferencedSegmentNumber")
        if number is None:
            raise Rejected(f"ReferencedSegmentNumber of a frame of {file.name} is missing: export it again.")
        yield int(str(number))


def _triple(vector: npt.NDArray[np.float64]) -> Triple:
    x, y, z = (float(value) for value in vector)
    return x, y, z


def _frames(segmentation: SegmentationFile, order: Sequence[int]) -> Iterator[tuple[int, Frame]]:
    """(index along D, pixels) of the frames, in that order; raises Rejected where a frame came twice."""
    taken = set(zip(segmentation.owners, segmentation.places, strict=True))
    if len(taken) != len(segmentation.places):
        raise Rejected(f"{segmentation.file.name} holds two frames of one segment at one place: export it again.")
    pixels = iter_pixels(segmentation.dataset, raw=True, indices=list(order))
    return zip((segmentation.places[index] for index in order), pixels, strict=True)


def _from_label_map(segmentation: SegmentationFile, label_of: Mapping[int, int]) -> LabelArray:
    """Segment numbers become labels; 0 and PixelPaddingValue are the background (PS3.3 C.8.20.2)."""
    lookup = np.full(65536, UNLISTED, np.int16)
    for number, label in label_of.items():
        lookup[number] = label
    lookup[[0, int(segmentation.dataset.get("PixelPaddingValue", 0))]] = 0
    labels = np.zeros(segmentation.geometry.shape, np.uint8)
    unlisted: set[int] = set()
    for place, frame in _frames(segmentation, range(len(segmentation.places))):
        found = lookup[frame]
        if found.min() < 0:
            unlisted.update(int(number) for number in np.unique(frame[found < 0]))
        labels[place] = found
    _check_listed(segmentation, unlisted)
    return labels


def _from_binary(segmentation: SegmentationFile, label_of: Mapping[int, int]) -> LabelArray:
    """The segments laid over one another, the lowest number first, whatever the order of the frames."""
    labels = np.zeros(segmentation.geometry.shape, np.uint8)
    order = sorted(range(len(segmentation.owners)), key=lambda index: (segmentation.owners[index], index))
    overlap = _Overlap(segmentation.geometry)
    unlisted: set[int] = set()
    for index, (place, frame) in zip(order, _frames(segmentation, order), strict=True):
        mask = frame != 0
        label = label_of.get(segmentation.owners[index], UNLISTED)
        if label == UNLISTED and mask.any():
            unlisted.add(segmentation.owners[index])
        if label > 0:
            overlap.note(place, labels[place], mask, label)
            labels[place][mask & (labels[place] == 0)] = label
    _check_listed(segmentation, unlisted)
    pair = overlap.more_than_a_rim()
    if pair is not None:
        names = [_names_of(segmentation, label_of, label) for label in pair]
        raise Rejected(
            f"Segments of {segmentation.file.name} overlap in more than a rim ({names[0]} and {names[1]}): "
            "export segments that exclude each other, or map both to one label."
        )
    return labels


def _check_listed(segmentation: SegmentationFile, unlisted: set[int]) -> None:
    if unlisted:
        names = {segment.number: segment.label for segment in segmentation.segments}
        shown = ", ".join(f"{number} '{names.get(number, '')}'" for number in sorted(unlisted)[:5])
        more = f" and {len(unlisted) - 5} more" if len(unlisted) > 5 else ""
        raise Rejected(
            f"{segmentation.file.name} holds segments that the label table does not list ({shown}{more}): add them, "
            "or set ignore_unlisted in the table."
        )


def _names_of(segmentation: SegmentationFile, label_of: Mapping[int, int], label: int) -> str:
    return "/".join(f"'{s.label}'" for s in segmentation.segments if label_of.get(s.number) == label)


class _Overlap:
    """Where segments of different labels claim the same voxel, and how much of each pair."""

    def __init__(self, geometry: Geometry) -> None:
        self._shape = geometry.shape
        self._where: npt.NDArray[np.bool_] | None = None
        self._voxels: dict[int, int] = {}
        self._shared: dict[tuple[int, int], int] = {}

    def note(self, place: int, taken: LabelArray, mask: npt.NDArray[np.bool_], label: int) -> None:
        """Take in one frame of a label, beside the labels (H, W) of the segments before it."""
        self._voxels[label] = self._voxels.get(label, 0) + int(np.count_nonzero(mask))
        claimed = mask & (taken != 0) & (taken != label)
        if not claimed.any():
            return
        if self._where is None:
            self._where = np.zeros(self._shape, np.bool_)
        self._where[place] |= claimed
        for other, count in enumerate(np.bincount(taken[claimed])):
            if count:
                self._shared[(other, label)] = self._shared.get((other, label), 0) + int(count)

    def more_than_a_rim(self) -> tuple[int, int] | None:
        """The labels that overlap most, where an overlap is three voxels thick or takes LARGEST_SHARED of a label.

        The image's faces count as overlapped, so that in a single slice its own two axes decide.
        """
        if self._where is None:
            return None
        found = ndimage.find_objects(self._where.view(np.uint8))[0]
        box = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in found)
        thick = bool(ndimage.binary_erosion(self._where[box], border_value=1).any())
        swallowed = {pair: shared / min(self._voxels[label] for label in pair) for pair, shared in self._shared.items()}
        if thick:
            return max(self._shared, key=lambda pair: self._shared[pair])
        worst = max(swallowed, key=lambda pair: swallowed[pair])
        return worst if swallowed[worst] > LARGEST_SHARED else None
